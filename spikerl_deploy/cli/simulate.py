"""`spikerl simulate`: run a policy in closed loop on a backend, and compare it with another."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from spikerl_deploy.cli.backend_flags import (
    DeviceOption,
    NoInstallOption,
    TimeoutOption,
    WheelOption,
    given_options,
    refuse_untaken,
)
from spikerl_deploy.cli.common import (
    ForceOption,
    Format,
    FormatOption,
    PolicyArgument,
    Verbosity,
    complete_backend,
    complete_environment,
    console,
    print_json,
    say,
)
from spikerl_deploy.cli.simulate_files import SimulateFiles
from spikerl_deploy.errors import CheckFailed, SpikerlError

if TYPE_CHECKING:
    from simulators.protocol import Backend
    from simulators.rollout import Rollout
    from spikerl_deploy.policy import Policy


def simulate(
    policy_file: PolicyArgument,
    backend: Annotated[str, typer.Option(help="Where to run it.", autocompletion=complete_backend)] = "lava",
    compare: Annotated[
        str | None, typer.Option(help="Also run it here, as the baseline.", autocompletion=complete_backend)
    ] = None,
    episodes: Annotated[int, typer.Option(min=1, help="Episodes, one a seed.")] = 5,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the first episode; the next ones count up.")] = 0,
    parallel: Annotated[int, typer.Option(min=1, help="Episodes side by side.")] = 1,
    env: Annotated[
        str | None, typer.Option(help="Another environment than the policy's.", autocompletion=complete_environment)
    ] = None,
    out: Annotated[
        Path | None, typer.Option("-o", "--out", help="Folder that takes report.json, report.html and the plots.")
    ] = None,
    record: Annotated[
        Path | None, typer.Option(help="File (.npz) that takes all observations, spikes, actions and rewards.")
    ] = None,
    video: Annotated[
        Path | None, typer.Option(help="File (.mp4, .gif) that shows the first episode beside its spikes.")
    ] = None,
    perturb: Annotated[
        list[str] | None,
        typer.Option(metavar="KEY=VALUE", help="Sensor noise=STD, action delay=STEPS, lost input spikes drop=SHARE."),
    ] = None,
    clean_baseline: Annotated[bool, typer.Option("--clean-baseline", help="Do not perturb the baseline.")] = False,
    min_retention: Annotated[
        float | None, typer.Option(help="Exit 1 if mean return / baseline's mean return is below this.")
    ] = None,
    chip_file: Annotated[Path | None, typer.Option(help="TOML file with energy constants of your own chips.")] = None,
    device: DeviceOption = "auto",
    bf16: Annotated[bool, typer.Option("--bf16", help="Run the torch backend in BF16.")] = False,
    no_install: NoInstallOption = False,
    wheel: WheelOption = None,
    worker_timeout: TimeoutOption = 60.0,
    force: ForceOption = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Check everything and print the plan only.")] = False,
    output: FormatOption = Format.human,
) -> None:
    """Run a policy in closed loop on a backend, with the same seeds on a baseline."""
    from simulators.compare import report_document
    from simulators.perturb import parse_perturbation
    from simulators.rollout import rollout
    from simulators.traces import TRACE_STEPS
    from spikerl_deploy.energy import load_energy_chips

    if compare == backend:
        raise SpikerlError(f"--compare {compare} is the backend itself", "compare with torch, the policy as trained")
    if min_retention is not None and compare is None:
        raise SpikerlError("--min-retention needs a baseline", "add --compare torch")
    if min_retention is not None and not math.isfinite(min_retention):
        raise SpikerlError(f"--min-retention {min_retention:g} is no number to compare with", "--min-retention 0.9")
    perturbation = parse_perturbation(perturb or [])
    if clean_baseline and (compare is None or perturbation is None):
        raise SpikerlError(
            "--clean-baseline needs a baseline and a perturbation", "add --compare torch --perturb noise=0.05"
        )
    options = {
        "device": device, "bf16": bf16, "timeout": worker_timeout, "install": not no_install, "wheel": wheel,
    }  # fmt: skip
    backends = _make_backends([name for name in (backend, compare) if name is not None], options)
    chips = load_energy_chips(chip_file)
    policy, env_id, control_step = _load(policy_file, env)
    for one in backends:
        one.check(policy)
    files = SimulateFiles(out, record, video, force)
    files.check(env_id, policy_file)
    seeds, parallel = range(seed, seed + episodes), min(parallel, episodes)
    perturbed = backends[:1] if clean_baseline else backends
    stated = perturbation.document(policy, [one.name for one in perturbed]) if perturbation is not None else None
    if dry_run:
        _plan(policy, env_id, backends, seeds, parallel, files, stated, output)
        return
    recorder = files.recorder(policy)
    runs: list[tuple[Backend, Rollout]] = []
    for one in backends:
        applied = perturbation if one in perturbed else None
        observers = [recorder] if recorder is not None and one is backends[0] else []
        with one.open(policy, parallel) as session, _progress(one.name, episodes) as show:
            runs.append((one, rollout(session, env_id, seeds, show, TRACE_STEPS, 0, applied, observers)))
    document = report_document(policy, policy_file, env_id, control_step, runs, chips, stated)
    try:
        files.write(document, runs[0][1], recorder)
    finally:  # printed last, since the reader of a pipe may be gone
        if output is Format.json:
            print_json(document)
        else:
            from spikerl_deploy.cli.report_table import print_report

            print_report(document)
    _check_retention(document, min_retention)


def _make_backends(names: list[str], options: dict[str, Any]) -> list[Backend]:
    """The backends, with the options that each takes; one that was given and that none takes is refused."""
    from simulators.registry import backend_options, make_backend

    refuse_untaken(given_options(options), names, set().union(*(backend_options(name) for name in names)))
    return [make_backend(name, **options, say=say) for name in names]


def _load(policy_file: Path, env: str | None) -> tuple[Policy, str, float | None]:
    """The policy, its environment and that environment's control step, with everything that must fit checked."""
    from spikerl_deploy.environments import fitting_spec
    from spikerl_deploy.policy_file import load_policy
    from spikerl_deploy.report.document import validate_provenance

    policy = load_policy(policy_file)
    validate_provenance(policy.provenance, str(policy_file))  # the report holds it, and is made after the episodes
    env_id = env if env is not None else policy.env_id
    if env_id is None:
        raise SpikerlError(f"'{policy_file}' names no environment and carries no encoder: it is a core alone",
                           "export it from a training run: spikerl export RUN --to nir")  # fmt: skip
    return policy, env_id, fitting_spec(policy, env_id).control_step


def _plan(
    policy: Policy,
    env_id: str,
    backends: list[Backend],
    seeds: range,
    parallel: int,
    files: SimulateFiles,
    perturbation: dict[str, Any] | None,
    output: Format,
) -> None:
    from simulators.registry import availability_of

    states = {one.name: availability_of(one.name, one) for one in backends}
    document: dict[str, Any] = {
        "schema": "spikerl.simulate-plan/1",
        "env": env_id,
        "seeds": list(seeds),
        "parallel": parallel,
        **files.document(),
        "perturbation": perturbation,
        "backends": {
            one.name: {"runs": one.runs(policy), "ready": states[one.name].ready, "detail": states[one.name].detail}
            for one in backends
        },
    }
    if output is Format.json:
        print_json(document)
        return
    out = console()
    out.print(f"would run {len(seeds)} episodes of {env_id} (seeds {seeds[0]} to {seeds[-1]}), {parallel} side by side")
    for name, entry in document["backends"].items():
        out.print(f"  {name}: {entry['runs']}; {entry['detail']}", soft_wrap=True)
    if perturbation is not None:
        out.print(f"  perturbed on {' and '.join(perturbation['backends'])}: {perturbation['words']}", soft_wrap=True)
    for name, flag in (("report", "-o"), ("record", "--record"), ("video", "--video")):
        out.print(f"  {name}: {document[name] or f'not written (no {flag})'}", soft_wrap=True)


def _check_retention(document: dict[str, Any], minimum: float | None) -> None:
    if minimum is None:
        return
    retention = document["deployments"][0]["comparison"]["retention"]
    if retention is None:
        raise CheckFailed("retention is undefined: the baseline's mean return is not positive", "compare differences")
    if retention < minimum:
        raise CheckFailed(f"retention {retention:.4f} is below {minimum:g}", "export with more bits, or train longer")


@contextmanager
def _progress(name: str, episodes: int) -> Iterator[Callable[[int, int], None] | None]:
    """A progress line of a rollout: a bar on a terminal, nothing elsewhere."""
    if Verbosity.quiet or not sys.stderr.isatty():
        say(f"{name}: running {episodes} episodes")
        yield None
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn

    columns = (
        TextColumn(name),
        BarColumn(),
        TextColumn("{task.completed}/{task.total} episodes, {task.fields[steps]} steps"),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(name, total=episodes, steps=0)
        yield lambda steps, finished: bar.update(task, completed=finished, steps=steps)
