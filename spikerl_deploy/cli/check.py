"""`spikerl check`: bounds on a report, for CI; exit 1 if one does not hold."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from spikerl_deploy.cli.common import Format, FormatOption, print_json
from spikerl_deploy.errors import CheckFailed, SpikerlError

if TYPE_CHECKING:
    from spikerl_deploy.report.check import Line

SCHEMA = "spikerl.check/1"


def check(
    source: Annotated[Path, typer.Argument(metavar="REPORT", help="report.json, or the folder that holds it.")],
    min_retention: Annotated[float | None, typer.Option(help="Mean return / baseline's mean return.")] = None,
    min_return: Annotated[float | None, typer.Option(help="Mean return.")] = None,
    max_synops: Annotated[float | None, typer.Option(help="Synaptic operations per inference.")] = None,
    max_energy_uj: Annotated[
        float | None, typer.Option(help="Energy per inference in uJ: the high end of the headline's range.")
    ] = None,
    chip: Annotated[str | None, typer.Option(help="Chip whose energy is bounded, for the headline's.")] = None,
    energy_model: Annotated[str | None, typer.Option(help="Model of the energy, for the headline's.")] = None,
    max_spikes: Annotated[float | None, typer.Option(help="Spikes of all layers per inference.")] = None,
    require_conformance: Annotated[
        bool, typer.Option("--require-conformance", help="This policy was verified on this backend, and passed.")
    ] = False,
    deployment: Annotated[str | None, typer.Option(help="Id of the deployment to judge, for all of them.")] = None,
    output: FormatOption = Format.human,
) -> None:
    """Hold a report against bounds: a line each; exit 1 if one fails, 2 if one cannot be judged."""
    from spikerl_deploy.report.check import Bounds, check_bounds, check_report
    from spikerl_deploy.report.document import read_report

    bounds = Bounds(
        min_retention=min_retention,
        min_return=min_return,
        max_synops=max_synops,
        max_spikes=max_spikes,
        max_energy_uj=max_energy_uj,
        chip=chip,
        energy_model=energy_model,
        require_conformance=require_conformance,
    )
    check_bounds(bounds)
    lines = check_report(read_report(source), bounds, deployment)
    try:
        _print(lines, output)
    finally:
        _judge(lines, source)


def _judge(lines: list[Line], source: Path) -> None:
    """Raise what the exit code says; what cannot be judged comes before what failed."""
    for line in lines:
        if line.status == "unknown":
            raise SpikerlError(f"{line.quantity} of {line.deployment} cannot be judged: {line.reason}", line.hint)
    failed = [line for line in lines if line.status == "FAILED"]
    if failed:
        told = "; ".join(f"{line.deployment}: {line.quantity} {_value(line)} is not {line.bound}" for line in failed)
        raise CheckFailed(told, f"spikerl report {source} --format markdown")


def _value(line: Line) -> str:
    return f"{line.value:,.6g}" if isinstance(line.value, float | int) else line.value or "unknown"


def _print(lines: list[Line], output: Format) -> None:
    if output is Format.json:
        passed = all(line.status == "ok" for line in lines)
        print_json({"schema": SCHEMA, "passed": passed, "checks": [asdict(line) for line in lines]})
        return
    cells = [(line.status, line.deployment, line.quantity, _value(line), line.bound) for line in lines]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    for row, line in zip(cells, lines, strict=True):
        padded = "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        kind = f", {line.kind}" if line.kind else ""
        print(f"{padded}  {line.unit}{kind}".rstrip())
