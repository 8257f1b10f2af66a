"""`spikerl backends`: list the backends, and install what they need."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from spikerl_deploy.cli.common import Format, FormatOption, complete_backend, console, print_json, say
from spikerl_deploy.errors import SpikerlError

app = typer.Typer(help="List the backends, and install what they need.", no_args_is_help=True)


@app.command("list", short_help="List every backend, and whether it can run here.")
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
    from simulators.registry import availability_of, backend_class, make_backend

    try:
        cls, state = backend_class(name), availability_of(name, make_backend(name))
        about = {"summary": cls.summary, "exactness": cls.exactness}
        return {"name": name, **about, "ready": state.ready, "detail": state.detail, "hint": state.hint}
    except SpikerlError as error:
        detail, hint = error.message, error.hint
    return {"name": name, "summary": "", "exactness": "", "ready": False, "detail": detail, "hint": hint}


@app.command("install", short_help="Install what a backend needs.")
def install_backend(
    name: Annotated[str, typer.Argument(help="Backend to install.", autocompletion=complete_backend)],
    wheel: Annotated[Path | None, typer.Option(help="Lava's wheel as a file, for machines without an index.")] = None,
) -> None:
    """Install what a backend needs, pinned by version and hash; torch and all other packages stay as they are.

    Lava goes into the user's cache, the runtimes of other projects into this Python environment.
    """
    from simulators.foreign.backend import ForeignBackend
    from simulators.foreign.install import install as install_foreign
    from simulators.lava.backend import LavaBackend
    from simulators.lava.float_backend import LavaFloatBackend
    from simulators.lava.install import check_wheel, install, installed_folder
    from simulators.registry import backend_class, make_backend

    cls = backend_class(name)
    if issubclass(cls, ForeignBackend):
        if wheel is not None:
            raise SpikerlError(f"--wheel is Lava's, backend '{name}' has none", f"spikerl backends install {name}")
        if not make_backend(name).availability().ready:
            install_foreign(cls.packages, say)
        state = make_backend(name).availability()
        if not state.ready:  # another folder of sys.path hides what pip installed
            raise SpikerlError(f"backend '{name}' is installed but hidden: {state.detail}", "unset PYTHONPATH")
        say(f"{name} is ready: {state.detail}")
        return
    if not issubclass(cls, LavaBackend | LavaFloatBackend):
        raise SpikerlError(f"backend '{name}' needs no installation of its own", "spikerl backends list")
    if wheel is not None:
        check_wheel(wheel)
    folder = installed_folder()
    if folder is not None:
        say(f"lava is installed in {folder}")
        return
    say(f"lava is installed in {install(wheel, say)}")
