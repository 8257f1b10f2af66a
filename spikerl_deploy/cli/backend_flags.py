"""Flags that are options of backends, for the verbs that run one: simulate, run, verify."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any

import typer

from spikerl_deploy.errors import SpikerlError

# option of a backend's constructor -> flag and its default
BACKEND_FLAGS: dict[str, tuple[str, Any]] = {
    "device": ("--device", "auto"),
    "bf16": ("--bf16", False),
    "rounding": ("--round", False),
    "timeout": ("--worker-timeout", 60.0),
    "install": ("--no-install", True),
    "wheel": ("--wheel", None),
}

DeviceOption = Annotated[str, typer.Option(help="Device of the torch backend: auto, cpu or cuda.")]
NoInstallOption = Annotated[bool, typer.Option("--no-install", help="Do not install Lava on first use.")]
WheelOption = Annotated[Path | None, typer.Option(help="Lava's wheel as a file, for machines without an index.")]
TimeoutOption = Annotated[float, typer.Option(help="Seconds that Lava's worker may take to answer.")]


def given_options(options: dict[str, Any]) -> dict[str, Any]:
    """Those of the options that differ from their defaults."""
    return {option: value for option, value in options.items() if value != BACKEND_FLAGS[option][1]}


def refuse_untaken(options: Iterable[str], names: Iterable[str], taken: set[str]) -> None:
    """A flag that no chosen backend takes is refused, not ignored.

    Args:
        options: that were given. names: of the backends. taken: the options that these take.

    Raises:
        SpikerlError: names the first such flag.
    """
    for option in options:
        if option not in taken:
            flag = BACKEND_FLAGS[option][0]
            raise SpikerlError(f"{flag} concerns none of the backends {', '.join(names)}", f"leave {flag} out")
