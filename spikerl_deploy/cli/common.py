"""What the verbs share: output formats, messages, completion and reading a policy from whatever is given."""

from __future__ import annotations

import json
import os
import sys
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from spikerl_deploy.errors import SpikerlError

if TYPE_CHECKING:
    from rich.console import Console

    from spikerl_deploy.policy import Policy


SOURCE_HINT = "give a run folder of spikerl train, a checkpoint (.pt) or a policy file (.nir)"
SHIPPED_HINT = "spikerl policies lists the names; else give a path: a policy file (.nir), a checkpoint or a run folder"


class Format(StrEnum):
    """How a verb prints its result."""

    human = "human"
    json = "json"


class Verbosity:
    """Set by the global flag -q; -v raises the level of the `spikerl` logger."""

    quiet = False


def say(text: str) -> None:
    """A message on stderr, unless -q was given."""
    if not Verbosity.quiet:
        print(text, file=sys.stderr, flush=True)


def print_json(document: Any) -> None:
    """The result on stdout as strict JSON."""
    print(json.dumps(document, indent=2, allow_nan=False))


def console() -> Console:
    """Rich console on stdout, 100 columns wide and plain without a terminal; paths and names are no markup to it."""
    from rich.console import Console

    width = None if sys.stdout.isatty() else 100
    return Console(highlight=False, markup=False, emoji=False, width=width)


def one_thread_for_numpy() -> None:
    """Leave the cores to torch's threads: NumPy's would take turns with them at every product, both waiting busily.

    To be called before NumPy is loaded. A user's own OPENBLAS_NUM_THREADS holds.
    """
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")


def complete_backend(incomplete: str) -> list[str]:
    """Shell completion of backend names."""
    from simulators.registry import backend_names

    return [name for name in backend_names() if name.startswith(incomplete)]


def complete_environment(incomplete: str) -> list[str]:
    """Shell completion of environment ids."""
    from spikerl_deploy.environments import mujoco_ids

    return [name for name in mujoco_ids() if name.lower().startswith(incomplete.lower())]


def complete_shipped(incomplete: str) -> list[str]:
    """Shell completion of the names of shipped policies."""
    from spikerl_deploy import zoo

    return [name for name in zoo.names() if name.startswith(incomplete.lower())]


def complete_policy(incomplete: str) -> list[str]:
    """Shipped policies, and the policy files and folders here; nothing where no name fits: the shell takes files."""
    return _complete(incomplete, (".nir",))


def complete_source(incomplete: str) -> list[str]:
    """As `complete_policy`, and checkpoints."""
    return _complete(incomplete, (".nir", ".pt"))


def _complete(incomplete: str, suffixes: tuple[str, ...]) -> list[str]:
    shipped = complete_shipped(incomplete)
    if not shipped:
        return []
    here = [path for path in sorted(Path().iterdir()) if path.name.startswith(incomplete) and path.name[0] != "."]
    files = [path.name for path in here if path.suffix in suffixes and not path.is_dir()]
    return [*shipped, *files, *(f"{path.name}/" for path in here if path.is_dir())]


def shipped_policy(context: typer.Context, given: str | None) -> Path | None:
    """What a policy argument stands for: the path that was typed, or, of a bare name at which nothing lies, the file
    of the shipped policy of that name, which was checked.

    Raises:
        SpikerlError: a bare name that nothing has, or the shipped policy is damaged.
    """
    if given is None or context.resilient_parsing or given != Path(given).name or Path(given).suffix:
        return None if given is None else Path(given)
    from spikerl_deploy import __version__, zoo

    name = zoo.find(given)
    if not _is_free(given):
        if name is not None:
            say(f"{given}: what lies here, which hides the policy of that name that ships with spikerl")
        return Path(given)
    if name is None:
        hint = zoo.near_hint(given, SHIPPED_HINT)
        raise SpikerlError(f"nothing at '{given}', and no policy of that name ships with spikerl", hint)
    path = zoo.path(name)
    say(f"{name}: the policy shipped with spikerl {__version__}")
    return path


def _is_free(given: str) -> bool:
    """Whether nothing lies at a path."""
    try:
        os.lstat(given)
    except FileNotFoundError:
        return True
    except (OSError, ValueError):
        pass  # the verb says what is wrong with it
    return False


def read_source(source: Path) -> tuple[Policy, Path]:
    """The policy in a run folder (its best checkpoint), a checkpoint or a policy file, and the file it came from.

    Raises:
        SpikerlError: nothing there, or nothing that can be read.
    """
    try:
        is_folder, exists = source.is_dir(), source.exists()
    except OSError as error:
        raise SpikerlError(f"cannot look at '{source}': {error.strerror}", SOURCE_HINT) from error
    if is_folder:
        names = [source / "checkpoints" / name for name in ("best.pt", "last.pt")]  # one interrupted early has no best
        found = [path for path in names if path.is_file()]
        seeds = sorted(source.glob("seed-*/checkpoints"))
        if not found and seeds:
            read_source(seeds[0].parent)  # what is refused in a seed as well is refused at once, with its reason
            raise SpikerlError(
                f"'{source}' holds {len(seeds)} seeds, one policy was expected", f"give {seeds[0].parent}"
            )
        if not found:
            raise SpikerlError(
                f"'{source}' is no run folder with a checkpoint (checkpoints/best.pt is missing)",
                SOURCE_HINT,
            )
        source = found[0]
    if not is_folder and not exists:
        raise SpikerlError(f"nothing at '{source}'", SOURCE_HINT)
    if source.suffix == ".pt":
        from training.checkpoint import policy_of

        return _with_training_energy(policy_of(source), source), source
    from spikerl_deploy.policy_file import load_policy

    return load_policy(source), source


def _with_training_energy(policy: Policy, checkpoint: Path) -> Policy:
    """Put the energy of the checkpoint's run into the provenance; without it the policy is as good."""
    from dataclasses import replace

    from spikerl_deploy.carbon import read_training_energy

    try:
        energy = read_training_energy(checkpoint, int(policy.provenance["settings"].get("seeds", 1)))
    except SpikerlError as error:
        say(f"no energy of training goes into the provenance: {error.message}")
        return policy
    return replace(policy, provenance=policy.provenance | {"training_energy": energy}) if energy else policy


_POLICY: dict[str, Any] = {
    "parser": str,  # as it was typed: ./NAME and NAME/ are one path, and only NAME is a name
    "callback": shipped_policy,
    "autocompletion": complete_policy,
    "show_default": False,
}
_SOURCE = _POLICY | {"autocompletion": complete_source}
_SOURCE_HELP = "Run folder, checkpoint (.pt), policy file (.nir), or name of a shipped policy."
PolicyArgument = Annotated[
    Path, typer.Argument(metavar="POLICY", help="Policy file (.nir), or name of a shipped policy.", **_POLICY)
]
SourceArgument = Annotated[Path, typer.Argument(help=_SOURCE_HELP, **_SOURCE)]
OptionalSourceArgument = Annotated[Path | None, typer.Argument(help=_SOURCE_HELP, **_SOURCE)]
GraphArgument = Annotated[
    Path,
    typer.Argument(
        metavar="GRAPH", help="NIR file: any graph, or a policy file; or name of a shipped policy.", **_POLICY
    ),
]
FormatOption = Annotated[Format, typer.Option("--format", help="How to print the result.")]
ForceOption = Annotated[bool, typer.Option("--force", help="Overwrite what exists.")]
TrainedOption = Annotated[
    bool, typer.Option("--trained/--no-trained", help="Carry the float weights along, as comparison's baseline.")
]
