"""How every plot looks: one palette that the page exchanges for its own, one font, no chart junk."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Colours on paper. The page's style sheet has the same names, with another set for dark screens; no two are equal.
PALETTE = {
    "ink": "#1b242f",
    "muted": "#566270",
    "rule": "#c9d0d8",
    "faint": "#e6eaee",
    "blue": "#0b6e99",
    "orange": "#b8501a",
    "green": "#4d7724",
    "purple": "#7a4fa3",
    "grey": "#7d8894",
    "red": "#b3261e",
}
SERIES = ("blue", "orange", "green", "purple")
HALF, WIDE = 5.2, 9.2  # inches: a plot beside another one, a plot across the page
POINT = 9.0  # size of the text
KIND_COLOURS = {"measured": "green", "modelled": "blue", "datasheet": "purple"}


@contextmanager
def drawing() -> Iterator[None]:
    """The settings under which figures are made and saved; texts are never read as mathematics."""
    import matplotlib as mpl

    settings: dict[str, Any] = {
        "font.family": "DejaVu Sans",
        "font.size": POINT,
        "text.color": PALETTE["ink"],
        "text.parse_math": False,
        "axes.edgecolor": PALETTE["rule"],
        "axes.labelcolor": PALETTE["muted"],
        "axes.labelsize": POINT,
        "axes.titlesize": POINT,
        "axes.titlelocation": "left",
        "axes.titlepad": 7.0,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.axisbelow": True,
        "axes.facecolor": "none",
        "axes.formatter.useoffset": False,
        "axes.xmargin": 0.02,
        "grid.color": PALETTE["faint"],
        "grid.linewidth": 0.7,
        "xtick.color": PALETTE["rule"],
        "ytick.color": PALETTE["rule"],
        "xtick.labelcolor": PALETTE["muted"],
        "ytick.labelcolor": PALETTE["muted"],
        "xtick.labelsize": POINT - 0.5,
        "ytick.labelsize": POINT - 0.5,
        "xtick.minor.visible": False,
        "legend.frameon": False,
        "legend.fontsize": POINT - 0.5,
        "figure.facecolor": "none",
        "savefig.facecolor": "none",
        "lines.linewidth": 1.6,
        "svg.fonttype": "none",
        "svg.hashsalt": "spikerl",
        "path.simplify": False,
    }
    with mpl.rc_context(settings), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing from", category=UserWarning)
        yield


def new_figure(width: float, height: float) -> Figure:
    """An empty figure of that many inches."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    figure = Figure(figsize=(width, height), layout=ConstrainedLayoutEngine(w_pad=0.06, h_pad=0.06))
    FigureCanvasAgg(figure)
    return figure


def prefixes(axis: Any) -> None:
    """Ticks with k, M, µ and the like; large numbers stay short."""
    from matplotlib.ticker import EngFormatter

    axis.set_major_formatter(EngFormatter(sep=""))


def plain_numbers(axis: Any) -> None:
    """Ticks in full, thousands apart."""
    axis.set_major_formatter(lambda value, _: f"{value:,.10g}".replace("-", "\N{MINUS SIGN}"))


def seed_ticks(axes: Axes, seeds: Sequence[int]) -> None:
    """Ticks at positions 0, 1, ... that are labelled with seeds; at most some twelve of them."""
    step = -(-len(seeds) // 12)
    axes.set_xticks(range(0, len(seeds), step), [str(seed) for seed in seeds[::step]])
    axes.set_xlim(-0.6, len(seeds) - 0.4)


def control_step_lines(axes: Axes, time_steps: int, total: int) -> None:
    """A faint line between control steps, all of them in one path."""
    places = [boundary - 0.5 for boundary in range(time_steps, total, time_steps)]
    x = [value for place in places for value in (place, place, float("nan"))]
    y = [0.0, 1.0, float("nan")] * len(places)
    axes.plot(x, y, color=PALETTE["faint"], linewidth=0.7, zorder=0, transform=axes.get_xaxis_transform())


def bottom_legend(figure: Figure, axes: Axes, columns: int = 3) -> None:
    """The legend below the plot, where it hides nothing."""
    handles, labels = axes.get_legend_handles_labels()
    if handles:
        fitting = max(1, min(columns, 60 // max(map(len, labels))))
        figure.legend(handles, labels, loc="outside lower left", ncols=fitting)
