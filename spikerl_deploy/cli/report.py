"""`spikerl report`: one page of reports, training runs, verifications and measurements."""

from __future__ import annotations

import math
from dataclasses import replace
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from spikerl_deploy.cli.common import ForceOption, print_json, say
from spikerl_deploy.errors import SpikerlError

if TYPE_CHECKING:
    from spikerl_deploy.report.merge import Source
    from training.run_reader import Run


class ReportFormat(StrEnum):
    """What comes of the report: a page in a folder, or text on stdout."""

    html = "html"
    markdown = "markdown"
    json = "json"


def report(
    sources: Annotated[
        list[Path],
        typer.Argument(metavar="DIR|FILE...", help="Folders of simulate and train, JSON of verify and measure."),
    ],
    out: Annotated[
        Path | None, typer.Option("-o", "--out", help="Folder that takes report.json, report.html and the plots.")
    ] = None,
    output: Annotated[
        ReportFormat, typer.Option("--format", help="A page, or a summary for a CI job or JSON on stdout.")
    ] = ReportFormat.html,
    svg: Annotated[bool, typer.Option("--svg", help="Write each plot as SVG too.")] = False,
    title: Annotated[str | None, typer.Option(help="Title of the report.")] = None,
    carbon_intensity: Annotated[
        float | None, typer.Option(help="g CO2eq/kWh: state the carbon of training at this intensity.")
    ] = None,
    force: ForceOption = False,
) -> None:
    """Make one report of deployments, training runs, verifications and energy measurements, found by content."""
    from spikerl_deploy.files import check_targets
    from spikerl_deploy.manifest import build_manifest
    from spikerl_deploy.report.files import check_report_folder, report_targets, write_report
    from spikerl_deploy.report.merge import find_sources, merge_reports

    if carbon_intensity is not None and not (math.isfinite(carbon_intensity) and carbon_intensity >= 0):
        raise SpikerlError(f"--carbon-intensity {carbon_intensity:g} is no intensity, 0 or more was expected",
                           "--carbon-intensity 300")  # fmt: skip
    if out is None and (output is ReportFormat.html or svg):
        raise SpikerlError("no folder was given for the page and the plots", "add -o report, or --format markdown")
    found = find_sources(sources, out)
    parts, read = _training(found)
    if out is not None:
        check_report_folder(out, force)
        check_targets(report_targets(out), force, {f"input '{name}'": path for name, path in read.items()})
    document = merge_reports(found, parts, build_manifest(None, read), title, carbon_intensity)
    try:
        if out is not None:
            write_report(document, out, force, svg)
    finally:  # printed last, since the reader of a pipe may be gone
        _print(document, output)
    if out is not None:
        say(f"report: {out / 'report.html'}")


def _training(found: list[Source]) -> tuple[dict[str, list[Any]], dict[str, Path]]:
    """The parts of the run folders among the sources, and every file that was read, by a name of its own."""
    from training.run_document import training_parts
    from training.run_reader import read_run

    runs: list[Run] = []
    read: dict[str, Path] = {}
    for number, source in enumerate(found, start=1):
        if source.parts is not None:
            read[f"{number}/{source.path.name}"] = source.path
            continue
        run = read_run(source.path)
        if not any(replace(run, folder=other.folder, files=other.files) == other for other in runs):  # no copy of it
            runs.append(run)
        read |= {f"{number}/{path.relative_to(source.path)}": path for path in run.files}
    return training_parts(runs), read


def _print(document: dict[str, Any], output: ReportFormat) -> None:
    if output is ReportFormat.json:
        print_json(document)
    elif output is ReportFormat.markdown:
        from spikerl_deploy.report.markdown import markdown

        print(markdown(document))
    else:
        from spikerl_deploy.cli.report_table import print_report

        print_report(document)
