"""The files of a report folder: looked at before anything runs, written after everything has run."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from spikerl_deploy.errors import CannotWrite, SpikerlError
from spikerl_deploy.report.document import look_at, validate

REPORT, PAGE, PLOTS = "report.json", "report.html", "plots"


def report_targets(folder: Path) -> list[tuple[str, Path]]:
    """Flag and path of the files whose names are known before."""
    return [("-o", folder / name) for name in (REPORT, PAGE)]


def check_report_folder(folder: Path, force: bool) -> None:
    """Find out what of a report folder would be refused; its files by name are for `files.check_targets`.

    Raises:
        SpikerlError: it is a file, or it holds plots and `force` is false.
    """
    plots = folder / PLOTS
    for path in (folder, plots):
        if look_at(path) == "file":
            raise SpikerlError(f"'{path}' is a file, a folder for the report was expected", "choose another -o")
    if not force and look_at(plots) == "folder" and any(plots.iterdir()):
        raise SpikerlError(f"'{plots}' exists and is not overwritten", "add --force, or choose another -o")


def write_report(document: dict[str, Any], folder: Path, force: bool, svg: bool = False) -> None:
    """Write report.json first, then the page and the plots that are made of it; each file atomically.

    Pictures of the report that was there before go, where `force` replaces it.

    Args:
        svg: each plot as SVG too, beside its PNG.

    Raises:
        SpikerlError: the document is not valid, or a file cannot be written.
    """
    from spikerl_deploy.files import write_json
    from spikerl_deploy.report.page import write_page
    from spikerl_deploy.report.plots import draw_plots, write_plots

    validate(document, "the report")
    write_json(folder / REPORT, document, force)
    plots = draw_plots(document)
    write_page(document, folder / PAGE, force, plots)
    written = write_plots(document, folder / PLOTS, ("png", "svg") if svg else ("png",), force, plots)
    if force:
        _remove({*(folder / PLOTS).glob("*.png"), *(folder / PLOTS).glob("*.svg")} - {*written})


def _remove(paths: Iterable[Path]) -> None:
    for path in paths:
        try:
            path.unlink()
        except OSError as error:
            raise CannotWrite(
                f"cannot remove '{path}': {error.strerror}", "remove it: it is of another report"
            ) from error
