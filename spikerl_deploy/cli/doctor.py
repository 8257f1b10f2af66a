"""`spikerl doctor`: what is here, and how to mend what is not."""

from __future__ import annotations

import os
import platform
import sys
from typing import Annotated, Any

import typer

from spikerl_deploy.cli.common import Format, FormatOption, console, print_json
from spikerl_deploy.errors import SpikerlError
from spikerl_deploy.interrupts import interrupt_held, pass_on_interrupt


def doctor(
    environments: Annotated[bool, typer.Option("--environments", help="List the MuJoCo environments.")] = False,
    output: FormatOption = Format.human,
) -> None:
    """Say what is installed and works: Python, torch, CUDA, BF16, MuJoCo, rendering, every backend."""
    if environments:
        from spikerl_deploy.environments import mujoco_ids

        names = mujoco_ids()
        if output is Format.json:
            print_json({"schema": "spikerl.environments/1", "environments": names})
        else:
            typer.echo("\n".join(names))
        return
    checks = [_python(), *_torch(), _mujoco(), _rendering(), *_backends()]
    if output is Format.json:
        print_json({"schema": "spikerl.doctor/1", "checks": checks})
        return
    from rich.table import Table

    table = Table("", "", "", "", box=None, show_header=False)
    for check in checks:
        table.add_row("ok" if check["ok"] else "no", check["name"], check["detail"], check["hint"] or "")
    console().print(table)


def _check(name: str, ok: bool, detail: str, hint: str | None = None) -> dict[str, Any]:
    return {"name": name, "ok": ok, "detail": detail, "hint": None if ok else hint}


def _python() -> dict[str, Any]:
    fits = (3, 11) <= sys.version_info[:2] <= (3, 13)
    return _check("python", fits, platform.python_version(), "use Python 3.11 to 3.13")


def _torch() -> list[dict[str, Any]]:
    try:
        import torch
    except ImportError as error:
        pass_on_interrupt(error)
        return [_check("torch", False, str(error), "pip install torch==2.13.0")]
    from training.device import bf16_in_hardware

    cuda = torch.cuda.is_available()
    found = torch.cuda.get_device_name() if cuda else "no CUDA device"
    bf16 = bf16_in_hardware(torch.device("cuda" if cuda else "cpu"))
    kind = {True: "in hardware", False: "emulated", None: "not known"}[bf16]
    hint = None if bf16 is None else "--no-bf16 for recipes that have it: float32 is quicker"
    return [
        _check("torch", True, torch.__version__),
        _check("cuda", cuda, found, "training runs on the CPU; a GPU needs a CUDA build of torch"),
        _check("bf16", bool(bf16), kind, hint),
    ]


def _mujoco() -> dict[str, Any]:
    try:
        with interrupt_held():
            import gymnasium
            import mujoco
    except ImportError as error:
        return _check("mujoco", False, str(error), "pip install 'gymnasium[mujoco]'")
    except RuntimeError as error:  # MuJoCo refuses a value of MUJOCO_GL that it does not know
        return _check("mujoco", False, " ".join(str(error).split()), "unset MUJOCO_GL")
    return _check("mujoco", True, f"mujoco {mujoco.__version__}, gymnasium {gymnasium.__version__}")


def _rendering() -> dict[str, Any]:
    """Off-screen rendering as `simulate --video` finds it."""
    from simulators.rendering import working_platform

    chosen = os.environ.get("MUJOCO_GL")
    try:
        platform = working_platform()
    except SpikerlError as error:
        return _check("rendering", False, error.message, error.hint)
    return _check("rendering", True, f"MUJOCO_GL {platform}" + ("" if chosen else ", chosen since it is not set"))


def _backends() -> list[dict[str, Any]]:
    from simulators.registry import availability_of, backend_names, make_backend

    checks = []
    for name in backend_names():
        try:
            state = availability_of(name, make_backend(name))
        except SpikerlError as error:
            checks.append(_check(f"backend {name}", False, error.message, error.hint))
        else:
            checks.append(_check(f"backend {name}", state.ready, state.detail, state.hint))
    return checks
