"""Returns of each seed, deployed backend against baseline."""

from __future__ import annotations

from typing import Any

import numpy as np

from spikerl_deploy.report.plots.plot import Plot
from spikerl_deploy.report.plots.style import (
    HALF,
    PALETTE,
    SERIES,
    bottom_legend,
    new_figure,
    plain_numbers,
    seed_ticks,
)
from spikerl_deploy.report.table import number, shorten, span
from spikerl_deploy.report.tables import backends_table, returns_table

_MARKERS = ("o", "s", "^", "D")


def draw_returns(deployment: dict[str, Any]) -> Plot:
    """A mark a seed and backend, pairs joined; beside them each mean with its interval.

    The baseline's marks are larger and hollow: where backends earn the same, the deployment's are seen inside.
    """
    seeds = deployment["environment"]["seeds"]
    figure = new_figure(HALF, 3.3)
    points, means = figure.subplots(1, 2, sharey=True, width_ratios=(min(max(len(seeds), 6), 12), 2.2))
    entries = list(deployment["backends"].items())
    for index, (name, entry) in enumerate(entries):
        colour = PALETTE[SERIES[index % len(SERIES)]]
        marker = _MARKERS[index % len(_MARKERS)]
        hollow = name != deployment["backend"]
        fill, size = ("none", 9) if hollow else (colour, 5)
        points.plot(range(len(seeds)), entry["returns"], marker, color=colour, markersize=size, markerfacecolor=fill,
                    label=shorten(name, 30))  # fmt: skip
        means.plot(index, entry["mean_return"], marker, color=colour, markersize=9 if hollow else 7,
                   markerfacecolor=fill)  # fmt: skip
        if entry["return_interval"]:
            means.plot([index] * 2, entry["return_interval"], color=colour, linewidth=2.2)
    everything = np.array([entry["returns"] for _, entry in entries])
    if len(entries) > 1:
        points.vlines(
            range(len(seeds)), everything.min(axis=0), everything.max(axis=0), PALETTE["rule"], linewidth=1, zorder=0
        )
    _limits(points, everything)
    seed_ticks(points, seeds)
    points.set(title="return of each episode", xlabel="seed")
    means.set(title="mean", xlim=(-0.7, len(entries) - 0.3))
    means.set_xticks([])
    for axes in (points, means):
        axes.yaxis.grid(True)
        plain_numbers(axes.yaxis)
    means.tick_params(axis="y", length=0)
    bottom_legend(figure, points)
    tables = returns_table(deployment), backends_table(deployment)
    return Plot(f"{deployment['id']}-returns", deployment["id"], "Returns", _finding(deployment), figure, tables)


def _limits(axes: Any, values: np.ndarray) -> None:
    """From zero where all returns are nearly the same, so that the axis makes no mountain of it."""
    centre, spread = float(np.abs(values).max()), float(np.ptp(values))
    if spread < 0.02 * centre:
        axes.set_ylim(*sorted((0.0, float(np.sign(values.flat[0])) * centre * 1.12)))


def _finding(deployment: dict[str, Any]) -> str:
    count = len(deployment["environment"]["seeds"])
    parts = []
    for name, entry in deployment["backends"].items():
        interval = entry["return_interval"]
        within = f" (interval {span(interval[0], interval[1], 4)})" if interval else ""
        parts.append(f"{number(entry['mean_return'])}{within} on {name}")
    text = f"Mean return over {count} seed{'s' if count != 1 else ''}: {', '.join(parts)}."
    comparison = deployment["comparison"]
    if comparison and comparison["retention"] is not None:
        interval = comparison["retention_interval"]
        within = f", interval {interval[0]:.3f} to {interval[1]:.3f}" if interval else ""
        text += f" Retention of the return: {comparison['retention']:.3f}{within}."
    elif comparison:
        text += f" Mean difference: {number(comparison['mean_difference'])}."
    return text
