"""`spikerl verify`: the same observations on every backend, spike for spike."""

from __future__ import annotations

import inspect
import shlex
import sys
from collections.abc import Callable, Iterator, Sequence
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
    complete_environment,
    print_json,
    say,
)
from spikerl_deploy.cli.verify_entrants import (
    ALL,
    AS_TRAINED,
    adjusted,
    find_entrants,
    known_names,
    parse_names,
    reference_of,
)
from spikerl_deploy.errors import CheckFailed, SpikerlError

if TYPE_CHECKING:
    from simulators.verify import Entrant, Row
    from spikerl_deploy.policy import Policy

PLAN_SCHEMA = "spikerl.verify-plan/1"


def _complete_names(incomplete: str) -> list[str]:
    before, comma, last = incomplete.rpartition(",")
    taken = before.split(",")
    names = [*known_names(), *([] if comma else [ALL])]
    return [before + comma + name for name in names if name.startswith(last) and name not in taken]


def verify(
    policy_file: PolicyArgument,
    backends: Annotated[
        str,
        typer.Option(
            help="Names with commas, or all that are installed: registered backends, and netx.",
            autocompletion=_complete_names,
        ),
    ] = ALL,
    steps: Annotated[int, typer.Option(min=1, help="Control steps to record and to feed to every backend.")] = 500,
    episodes: Annotated[int, typer.Option(min=1, help="Episodes that every backend plays, one a seed.")] = 1,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the first episode; the next ones count up.")] = 0,
    play: Annotated[bool, typer.Option("--play/--no-play", help="Close the loop on every backend, too.")] = True,
    parallel: Annotated[int, typer.Option(min=1, help="Control steps, or episodes, side by side.")] = 10,
    env: Annotated[
        str | None, typer.Option(help="Another environment than the policy's.", autocompletion=complete_environment)
    ] = None,
    max_mismatches: Annotated[
        float | None,
        typer.Option(min=0, max=1, help="Share of spikes that may differ, where it need not be none."),
    ] = None,
    max_action_error: Annotated[
        float | None,
        typer.Option(min=0, max=1, help="Largest error of an action as share of its range, likewise."),
    ] = None,
    out: Annotated[Path | None, typer.Option("-o", "--out", help="File that takes the result as JSON.")] = None,
    junit: Annotated[Path | None, typer.Option(help="File that takes the result as JUnit XML.")] = None,
    device: DeviceOption = "auto",
    no_install: NoInstallOption = False,
    wheel: WheelOption = None,
    worker_timeout: TimeoutOption = 60.0,
    force: ForceOption = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Check everything and print the plan only.")] = False,
    output: FormatOption = Format.human,
) -> None:
    """Feed the same observations to every backend and compare every spike. Exit 1 beyond the stated tolerance."""
    from simulators.registry import make_backend
    from simulators.verify import run_reference, verify_entrant
    from simulators.verify_document import junit_xml, verdict_text, verify_document
    from spikerl_deploy.files import atomic_path, check_targets, write_json

    targets = [(flag, path) for flag, path in (("-o", out), ("--junit", junit)) if path is not None]
    check_targets(targets, force, {"policy": policy_file})
    options = {"device": device, "timeout": worker_timeout, "install": not no_install, "wheel": wheel}
    names = parse_names(backends)
    _check_flags(names, options, optional=backends == ALL)
    policy, env_id = _load(policy_file, env)
    if device != "auto" and "torch" in names:  # asked for, so not skipped under `all`
        make_backend("torch", device=device).check(policy)
    options |= {"say": say}
    reference = reference_of(policy, options)
    adjust = adjusted(max_mismatches, max_action_error)
    entrants, skips = find_entrants(names, policy, options, adjust, optional=backends == ALL)
    _check_something_is_compared(reference, entrants, skips, max_mismatches, max_action_error)
    if dry_run:
        _plan(env_id, steps, reference, entrants, skips, output)
        return
    seeds = range(seed, seed + episodes) if play else range(0)
    say(f"{reference.name}: recording {steps} control steps")
    played = run_reference(reference, policy, env_id, steps, seeds, seed)
    rows = []
    for entrant in entrants:
        with _progress(entrant.name, steps, len(seeds)) as show:
            rows.append(verify_entrant(entrant, played, parallel, show))
    document = verify_document(policy_file, played, [*rows, *skips])
    try:
        if out is not None:
            write_json(out, document, force)
            say(f"verification: {out}")
        if junit is not None:
            with atomic_path(junit, force) as temporary:
                temporary.write_bytes(junit_xml(document))
            say(f"JUnit: {junit}")
    finally:  # printed last, since the reader of a pipe may be gone
        if output is Format.json:
            print_json(document)
        else:
            from spikerl_deploy.cli.verify_table import print_verification

            print_verification(document)
    bad = [row for row in document["rows"] if row["status"] in ("failed", "error")]
    if bad:
        what = "differs from" if bad[0]["status"] == "failed" else "broke off, held against"
        others = f" (and {', '.join(row['name'] for row in bad[1:])})" if bad[1:] else ""
        given: dict[str, Any] = {
            "steps": steps, "episodes": episodes, "seed": seed, "play": play, "parallel": parallel, "env": env,
            "device": device,
        }  # fmt: skip
        if bad[0]["tolerance"] is not None and not bad[0]["tolerance"]["exact"]:  # it would refuse them
            given |= {"max_mismatches": max_mismatches, "max_action_error": max_action_error}
        raise CheckFailed(
            f"{bad[0]['name']}{others} {what} {played.name}: {verdict_text(bad[0], played.name)}",
            bad[0]["hint"] or _again(policy_file, bad[0]["name"], given),
        )


def _again(policy_file: Path, row: str, given: dict[str, Any]) -> str:
    """The command that verifies one backend again, with the options that were given."""
    defaults = inspect.signature(verify).parameters
    words = ["spikerl", "verify", str(policy_file), "--backends", "torch" if row == AS_TRAINED else row]
    for option, value in given.items():
        if value != defaults[option].default:
            words += ["--no-play"] if option == "play" else [f"--{option.replace('_', '-')}", str(value)]
    return shlex.join([*words, "--format", "json"])


def _load(policy_file: Path, env: str | None) -> tuple[Policy, str]:
    """The policy, which fits its environment, and that environment's id."""
    from spikerl_deploy.environments import fitting_spec
    from spikerl_deploy.policy_file import load_policy

    policy = load_policy(policy_file)
    env_id = env if env is not None else policy.env_id
    if env_id is None:
        raise SpikerlError(
            f"'{policy_file}' names no environment to record observations in", "name one: --env HalfCheetah-v5"
        )
    fitting_spec(policy, env_id)
    return policy, env_id


def _check_flags(names: Sequence[str], options: dict[str, Any], optional: bool) -> None:
    """Refuse flags that no backend takes, or whose value one of those that take it refuses."""
    from simulators.registry import backend_names, backend_options, make_backend

    given = given_options(options)
    known: set[str] = set()
    for name in sorted({"torch", *names} & set(backend_names())):  # torch may be the reference
        try:
            taken = backend_options(name)
        except SpikerlError:
            if not optional:
                raise
            continue  # skipped, with this reason, when the entrants are found
        if taken & set(given):
            make_backend(name, **given)
        known |= taken
    refuse_untaken(given, names, known)


def _check_something_is_compared(
    reference: Entrant,
    entrants: Sequence[Entrant],
    skips: Sequence[Row],
    max_mismatches: float | None,
    max_action_error: float | None,
) -> None:
    """A verification that compares nothing must not pass."""
    judged = [entrant.tolerance for entrant in entrants if entrant.tolerance is not None]
    if not judged:
        others = [row.name for row in skips] or known_names()
        raise SpikerlError(
            f"nothing is left to hold against {reference.name}, the reference of this policy",
            next((row.hint for row in skips if row.hint), f"--backends takes {', '.join(others)}"),
        )
    if all(tolerance.exact for tolerance in judged):
        for flag, value in (("--max-mismatches", max_mismatches), ("--max-action-error", max_action_error)):
            if value is not None:
                raise SpikerlError(f"{flag} {value:g}: every backend here is held to be exact", f"leave {flag} out")


def _plan(
    env_id: str, steps: int, reference: Entrant, entrants: Sequence[Entrant], skips: Sequence[Row], output: Format
) -> None:
    from simulators.verify_document import tolerance_document
    from spikerl_deploy.cli.verify_table import print_plan

    document = {
        "schema": PLAN_SCHEMA,
        "environment": env_id,
        "control_steps": steps,
        "reference": reference.name,
        "rows": [
            {"name": one.name, "runs": one.runs, "tolerance": tolerance_document(one.tolerance)} for one in entrants
        ],
        "skipped": [{"name": row.name, "reason": row.reasons[0], "hint": row.hint} for row in skips],
    }
    if output is Format.json:
        print_json(document)
    else:
        print_plan(document)


@contextmanager
def _progress(name: str, steps: int, episodes: int) -> Iterator[Callable[[int], None]]:
    """A bar on a terminal, a line elsewhere."""
    if Verbosity.quiet or not sys.stderr.isatty():
        then = f", then {episodes} episodes" if episodes else ""
        say(f"{name}: {steps} control steps{then}")
        yield lambda _: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn

    columns = (TextColumn(name), BarColumn(), TextColumn("{task.completed}/{task.total} control steps"))
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(name, total=steps)
        yield lambda done: bar.update(task, completed=done)
