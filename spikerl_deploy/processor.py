"""What this machine's processor is, and what it can do."""

from __future__ import annotations

import platform
from pathlib import Path

CPUINFO = Path("/proc/cpuinfo")  # Linux
BF16_FLAGS = frozenset({"avx512_bf16", "amx_bf16", "bf16"})  # the last is ARM's


def processor() -> str:
    """Model of this machine's processor, in its maker's words where the system tells them."""
    return next(iter(_values("model name")), platform.processor() or platform.machine())


def has_bf16() -> bool | None:
    """Whether the processor multiplies BF16 in hardware; None where the system does not tell."""
    flags = {flag for value in _values("flags", "Features") for flag in value.split()}
    return bool(flags & BF16_FLAGS) if flags else None


def _values(*names: str) -> list[str]:
    """The values of these names in the system's description of the processor, one for each core."""
    try:
        lines = CPUINFO.read_text(encoding="utf-8").splitlines()
    except OSError:
        return []
    return [value.strip() for key, _, value in (line.partition(":") for line in lines) if key.strip() in names]
