"""Spike rasters and firing-rate histograms, a panel a layer."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from spikerl_deploy.report.plots.plot import Plot
from spikerl_deploy.report.plots.style import HALF, PALETTE, WIDE, control_step_lines, new_figure
from spikerl_deploy.report.table import number, percent, shorten
from spikerl_deploy.report.tables import rates_table, spikes_table

RASTER_SPIKES = 30_000  # in all rasters of a page, which are most of its size; more show fewer control steps
_BINS = 25


def draw_raster(deployment: dict[str, Any], limit: int = RASTER_SPIKES) -> Plot | None:
    """The spikes of the first control steps, as many as hold at most `limit` spikes; one path a layer."""
    spikes, table = deployment["spikes"], spikes_table(deployment)
    if not spikes or not table or not spikes["layers"]:
        return None
    layers, time_steps = spikes["layers"], spikes["time_steps"]
    shown = _control_steps_that_fit(spikes, limit)
    heights = [min(max(layer["neurons"], 24), 256) ** 0.6 for layer in layers]
    figure = new_figure(WIDE, 1.0 + 1.25 * len(layers))
    panels = figure.subplots(len(layers), 1, sharex=True, height_ratios=heights, squeeze=False)[:, 0]
    for index, (axes, layer) in enumerate(zip(panels, layers, strict=True)):
        time, neuron = np.array(layer["time"], dtype=np.int64), np.array(layer["neuron"], dtype=np.int64)
        seen = time < shown * time_steps
        thickness = 72 * heights[index] / sum(heights) * 1.2 * len(layers) / layer["neurons"]
        _dashes(axes, time[seen], neuron[seen], min(max(thickness * 0.8, 0.5), 3.0))
        axes.set_xlim(-0.6, shown * time_steps - 0.4)
        axes.set_ylim(-1, layer["neurons"])
        axes.set_yticks([0, layer["neurons"] - 1] if layer["neurons"] > 1 else [0])
        axes.set_title(f"{shorten(layer['name'], 40)}, {layer['neurons']} neurons", color=PALETTE["muted"])
        control_step_lines(axes, time_steps, shown * time_steps)
    panels[-1].xaxis.get_major_locator().set_params(integer=True, min_n_ticks=1)
    panels[-1].set_xlabel(f"time step; a line every control step of T = {time_steps}")
    return Plot(
        f"{deployment['id']}-raster",
        deployment["id"],
        f"Spikes of the first {_control_steps(shown)}",
        _raster_finding(spikes, shown),
        figure,
        (table,),
        wide=True,
    )


def _control_steps_that_fit(spikes: dict[str, Any], limit: int) -> int:
    """The most control steps whose spikes are few enough to draw."""
    counts = np.zeros(spikes["control_steps"], dtype=np.int64)
    for layer in spikes["layers"]:
        step = np.array(layer["time"], dtype=np.int64) // spikes["time_steps"]
        counts += np.bincount(step, minlength=len(counts))[: len(counts)]
    return max(int(np.count_nonzero(np.cumsum(counts) <= limit)), 1)


def _dashes(axes: Any, time: NDArray[np.int64], neuron: NDArray[np.int64], thickness: float) -> None:
    """A dash a spike, all of them in one path: a marker each would make the page large."""
    from matplotlib.patches import PathPatch
    from matplotlib.path import Path

    corners = np.empty((2 * len(time), 2))
    corners[0::2] = np.column_stack([time - 0.32, neuron])
    corners[1::2] = np.column_stack([time + 0.32, neuron])
    codes = np.tile(np.array([Path.MOVETO, Path.LINETO], dtype=Path.code_type), len(time))
    path = Path(corners, codes)
    path.should_simplify = False
    axes.add_patch(PathPatch(path, fill=False, edgecolor=PALETTE["blue"], linewidth=thickness, capstyle="butt"))


def _raster_finding(spikes: dict[str, Any], shown: int) -> str:
    steps = spikes["control_steps"] * spikes["time_steps"]
    parts = [
        f"{layer['name']} {percent(len(layer['time']) / (layer['neurons'] * steps))}"
        for layer in spikes["layers"]
        if steps
    ]
    return (
        f"Share of neurons that spike in a time step, over {spikes['control_steps']} control steps of seed "
        f"{spikes['seed']}: {', '.join(parts)}. Drawn: the first {_control_steps(shown)}."
    )


def _control_steps(count: int) -> str:
    return "control step" if count == 1 else f"{count} control steps"


def draw_rates(deployment: dict[str, Any]) -> Plot | None:
    """A histogram a layer over one axis of rates."""
    table = rates_table(deployment)
    layers = [layer for layer in deployment["firing_rates"] if layer["rates"]]
    if table is None:
        return None
    figure = new_figure(HALF, 0.7 + 0.85 * len(layers))
    panels = figure.subplots(len(layers), 1, sharex=True, squeeze=False)[:, 0]
    highest = max(max(layer["rates"]) for layer in layers)
    edges = np.linspace(0, max(highest, 0.05), _BINS + 1)
    for axes, layer in zip(panels, layers, strict=True):
        counts, _ = np.histogram(layer["rates"], edges)
        mean = float(np.mean(layer["rates"]))
        axes.stairs(counts, edges, fill=True, color=PALETTE["blue"])
        axes.axvline(mean, color=PALETTE["orange"], linewidth=1.4, linestyle="--")
        axes.set_title(
            f"{shorten(layer['name'], 30)}: mean {number(mean, 2)}, {_silent(layer)} of {len(layer['rates'])} silent",
            color=PALETTE["muted"],
        )
        axes.set_ylim(0, max(counts.max() * 1.08, 1))
        axes.yaxis.get_major_locator().set_params(nbins=3, integer=True)
    panels[-1].set_xlabel("firing rate (spikes per time step); dashed: mean")
    figure.supylabel("neurons", fontsize=9, color=PALETTE["muted"])
    parts = [
        f"{layer['name']} {number(float(np.mean(layer['rates'])), 3)}, {_silent(layer)} silent" for layer in layers
    ]
    finding = f"Mean firing rate in spikes per time step, and neurons that never spiked: {'; '.join(parts)}."
    return Plot(f"{deployment['id']}-rates", deployment["id"], "Firing rates", finding, figure, (table,))


def _silent(layer: dict[str, Any]) -> int:
    return sum(rate == 0 for rate in layer["rates"])
