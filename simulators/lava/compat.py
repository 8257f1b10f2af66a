"""Lets the unmodified lava-nc 0.10.0 wheel import on CPython 3.11 to 3.13.

Lava has dataclass fields whose default is an instance of one of its own dataclasses. Those define __eq__ and
hence no __hash__, and since 3.11 `dataclasses` refuses unhashable defaults. Giving just those classes
`object.__hash__` back is all that is needed.
"""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path
from typing import Any

LAVA_MODULES = "lava."


def apply_compatibility() -> None:
    """Hook `dataclasses` for Lava's classes only. (Lava sets the `fork` start method it needs by itself.)"""
    original = dataclasses._get_field  # type: ignore[attr-defined]

    def get_field(cls: type, name: str, *args: Any, **kwargs: Any) -> Any:
        default_class = type(getattr(cls, name, None))
        if default_class.__module__.startswith(LAVA_MODULES) and default_class.__hash__ is None:
            default_class.__hash__ = object.__hash__
        return original(cls, name, *args, **kwargs)

    dataclasses._get_field = get_field  # type: ignore[attr-defined]


def make_importable(lava_folder: Path) -> None:
    """Apply the hook and put the private Lava folder last on `sys.path`, so that it shadows nothing."""
    apply_compatibility()
    sys.path.append(str(lava_folder))
