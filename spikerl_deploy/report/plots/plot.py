"""A plot with what it says in words, and its files."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from spikerl_deploy.files import atomic_path, write_text
from spikerl_deploy.report.table import Table

if TYPE_CHECKING:
    from matplotlib.figure import Figure

PNG_DPI = 200
FORMATS = ("png", "svg")


@dataclass(frozen=True)
class Plot:
    """A drawn figure.

    Attributes:
        id: unique in the report, [a-z0-9-]; the name of its files.
        place: id of the deployment that it belongs to, or the page's section.
        title: its heading. finding: what it shows, in numbers; the alternative text.
        wide: takes the whole width of the page, not half of it.
        tables: the numbers behind it.
    """

    id: str
    place: str
    title: str
    finding: str
    figure: Figure
    tables: tuple[Table, ...]
    wide: bool = False


def write_plots(
    document: dict[str, Any],
    folder: Path,
    formats: Sequence[str] = ("png",),
    force: bool = False,
    plots: Sequence[Plot] | None = None,
) -> list[Path]:
    """Write each plot of the document into the folder, as PNG (200 dpi) or SVG files.

    Args:
        formats: of FORMATS. plots: those of the document, where they are drawn already.

    Raises:
        SpikerlError: a file is there and `force` is false, or the folder cannot be written.
    """
    from spikerl_deploy.report.plots import draw_plots
    from spikerl_deploy.report.plots.style import drawing
    from spikerl_deploy.report.svg import plot_svg

    written = []
    for plot in draw_plots(document) if plots is None else plots:
        for name in formats:
            path = folder / f"{plot.id}.{name}"
            if name == "svg":
                write_text(path, plot_svg(plot) + "\n", force)
            else:
                with atomic_path(path, force) as temporary, drawing():
                    plot.figure.savefig(temporary, format=name, dpi=PNG_DPI, facecolor="white")
            written.append(path)
    return written
