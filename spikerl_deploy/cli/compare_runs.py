"""`spikerl compare-runs`: Speedup, Greenup and Powerup between two training runs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from spikerl_deploy.cli.common import ForceOption, Format, FormatOption, console, print_json, say
from spikerl_deploy.errors import CheckFailed, SpikerlError

TITLES = {"per_step": "environment step", "to_return": "to return", "whole_run": "whole run"}


def compare_runs(
    a: Annotated[Path, typer.Argument(metavar="A", help="Run folder of the baseline.")],
    b: Annotated[Path, typer.Argument(metavar="B", help="Run folder to compare with it.")],
    wanted: Annotated[
        float | None, typer.Option("--to-return", help="Mean return to reach; the largest both reached by default.")
    ] = None,
    min_speedup: Annotated[
        float | None, typer.Option(help="Exit 1 if Speedup is below this: to --to-return, or else of a step.")
    ] = None,
    min_greenup: Annotated[float | None, typer.Option(help="The same for Greenup.")] = None,
    out: Annotated[Path | None, typer.Option("-o", "--out", help="File that takes the comparison as JSON.")] = None,
    force: ForceOption = False,
    output: FormatOption = Format.human,
) -> None:
    """Compare time and energy of two training runs (GPS-UP): of a step, to a return, and of the whole runs."""
    from spikerl_deploy.files import refuse_overwrite, write_json
    from spikerl_deploy.manifest import build_manifest
    from training.compare_runs import compare_document
    from training.run_reader import read_run

    if out is not None:
        refuse_overwrite(out, force)
    runs = {"a": read_run(a), "b": read_run(b)}
    if min_greenup is not None:
        for run in runs.values():
            if run.energy is None:
                raise SpikerlError(f"--min-greenup: the energy of '{run.folder}' is unmeasured", "leave it out")
    read = {f"{side}/{path.relative_to(run.folder)}": path for side, run in runs.items() for path in run.files}
    document = {**compare_document(runs["a"], runs["b"], wanted), "manifest": build_manifest(None, read)}
    if output is Format.json:
        print_json(document)
    else:
        _print(document)
    if out is not None:
        write_json(out, document, force)
        say(f"comparison: {out}")
    judged = "per_step" if wanted is None else "to_return"
    for name, bound in (("speedup", min_speedup), ("greenup", min_greenup)):
        if bound is not None:
            _check(document, judged, name, bound)


def _check(document: dict[str, Any], judged: str, name: str, bound: float) -> None:
    entry = document[judged]
    if "unavailable" in entry:
        raise CheckFailed(f"--min-{name} {bound:g} cannot hold: {entry['unavailable']}", "choose another --to-return")
    if not entry[name] >= bound:
        what = TITLES[judged] if judged == "per_step" else f"{TITLES[judged]} {entry['mean_return']:g}"
        raise CheckFailed(
            f"{name.capitalize()} {entry[name]:.3g} ({what}) is below --min-{name} {bound:g}",
            f"spikerl compare-runs {document['a']['run']} {document['b']['run']} --format json",
        )


def _print(document: dict[str, Any]) -> None:
    from rich.table import Table

    screen = console()
    for side in ("a", "b"):
        run = document[side]
        seeds = "1 seed" if run["seeds"] == 1 else f"{run['seeds']} seeds"
        screen.print(
            f"{side.upper()}  {run['run']}: {document['env']}, {seeds}, {run['steps']} steps in "
            f"{run['seconds']:.1f} s, stopped: {run['stopped'] or 'no result'}, energy {run['energy']['kind']}",
            soft_wrap=True,
        )
    table = Table(
        "", "time A", "time B", "Speedup", "energy A", "energy B", "Greenup", "Powerup", "energy is", box=None
    )
    for key, title in TITLES.items():
        entry = document[key]
        if "unavailable" not in entry:
            table.add_row(title, *_cells(entry))
    screen.print(table)
    for key, title in TITLES.items():
        _remark(title, document[key])
    screen.print(f"interval: {document['interval']}")
    for line in document["warnings"]:
        screen.print(f"Warning: {line}", soft_wrap=True)


def _cells(entry: dict[str, Any]) -> list[str]:
    sides = (entry["a"], entry["b"])
    times = [_quantity(side["seconds"], "s") for side in sides]
    energies = ["-" if side["joule"] is None else _quantity(side["joule"], "J") for side in sides]
    ratios = ["-" if entry[name] is None else f"{entry[name]:.2f}" for name in ("speedup", "greenup", "powerup")]
    return [*times, ratios[0], *energies, *ratios[1:], entry["energy_kind"]]


def _remark(title: str, entry: dict[str, Any]) -> None:
    """Why a comparison is missing, which return it was, and where it lies in the GPS-UP plane."""
    if "unavailable" in entry:
        text = entry["unavailable"]
    else:
        text = entry["quadrant"] or "energy unmeasured, Speedup only"
        if "mean_return" in entry:
            text += (
                f"; mean return {entry['mean_return']:g}, {entry['chosen']}, "
                f"after {entry['a']['steps']} and {entry['b']['steps']} steps of a seed"
            )
    console().print(f"{title}: {text}", soft_wrap=True)


def _quantity(value: float, unit: str) -> str:
    """A value with the prefix that leaves at least one digit before the point."""
    for prefix, factor in (("", 1.0), ("m", 1e-3)):
        if value >= factor:
            return f"{value / factor:.4g} {prefix}{unit}"
    return f"{value / 1e-6:.4g} u{unit}"
