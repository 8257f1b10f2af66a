"""`spikerl backends`: list the backends, and install what they need."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from spikerl_deploy.cli.common import Format, FormatOption, complete_backend, console, print_json, say
from spikerl_deploy.errors import SpikerlError

app = typer.Typer(help="List the backends, and install what they need.", no_args_is_help=True)
INSTALLABLE = ("lava",)


@app.command("list")
def list_backends(output: FormatOption = Format.human) -> None:
    """List every backend, whether it can run here, and how to mend it if not."""
    from simulators.registry import backend_names

    rows = [_row(name) for name in backend_names()]
    if output is Format.json:
        print_json({"schema": "spikerl.backends/1", "backends": rows})
        return
    from rich.table import Table

    table = Table("backend", "ready", "what it is", "here", box=None)
    for row in rows:
        here = f"{row['detail']}; {row['hint']}" if row["hint"] else row["detail"]
        table.add_row(
            str(row["name"]), "yes" if row["ready"] else "no", f"{row['summary']} ({row['exactness']})", str(here)
        )
    console().print(table)


def _row(name: str) -> dict[str, Any]:
    """What there is to say of a backend; one that cannot be loaded does not hide the others."""
    from simulators.registry import backend_class, make_backend

    try:
        cls, state = backend_class(name), make_backend(name).availability()
    except SpikerlError as error:
        return {
            "name": name,
            "summary": "",
            "exactness": "",
            "ready": False,
            "detail": error.message,
            "hint": error.hint,
        }
    return {
        "name": name,
        "summary": cls.summary,
        "exactness": cls.exactness,
        "ready": state.ready,
        "detail": state.detail,
        "hint": state.hint,
    }


@app.command("install")
def install_backend(
    name: Annotated[str, typer.Argument(help="Backend to install.", autocompletion=complete_backend)],
    wheel: Annotated[Path | None, typer.Option(help="Lava's wheel as a file, for machines without an index.")] = None,
) -> None:
    """Install what a backend needs into the user's cache, pinned by hash; other packages stay as they are."""
    from simulators.registry import backend_class

    backend_class(name)
    if name not in INSTALLABLE:
        raise SpikerlError(f"backend '{name}' needs no installation of its own", "spikerl backends list")
    from simulators.lava.install import check_wheel, install, installed_folder

    if wheel is not None:
        check_wheel(wheel)
    folder = installed_folder()
    if folder is not None:
        say(f"lava is installed in {folder}")
        return
    say(f"lava is installed in {install(wheel, say)}")
