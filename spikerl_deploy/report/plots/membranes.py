"""Membrane voltages of chosen neurons, with threshold and spikes."""

from __future__ import annotations

from typing import Any

from spikerl_deploy.report.plots.plot import Plot
from spikerl_deploy.report.plots.style import PALETTE, WIDE, control_step_lines, new_figure, prefixes
from spikerl_deploy.report.table import shorten
from spikerl_deploy.report.tables import membranes_table


def draw_membranes(deployment: dict[str, Any]) -> Plot | None:
    """A row a layer, a panel a neuron."""
    membranes, table = deployment["membranes"], membranes_table(deployment)
    if not membranes or not table or not table.rows:
        return None
    layers = membranes["layers"]
    across = max(len(layer["traces"]) for layer in layers)
    figure = new_figure(WIDE, 0.9 + 1.25 * len(layers))
    grid = figure.subplots(len(layers), across, sharex=True, sharey="row", squeeze=False)
    for row, layer in zip(grid, layers, strict=True):
        for axes in row[len(layer["traces"]) :]:
            axes.set_visible(False)
        for axes, trace, threshold in zip(row, layer["traces"], layer["threshold"], strict=False):
            _trace(axes, trace, threshold, membranes["time_steps"])
            axes.set_title(f"{shorten(layer['name'], 20)}, neuron {trace['neuron']}", color=PALETTE["muted"])
    for axes in grid[-1]:
        axes.xaxis.get_major_locator().set_params(integer=True, min_n_ticks=1)
        axes.set_xlabel("time step")
    figure.supylabel("membrane voltage", fontsize=9, color=PALETTE["muted"])
    parts = [
        f"{layer['name']} neuron {trace['neuron']}: {len(trace['spikes'])}"
        for layer in layers
        for trace in layer["traces"]
    ]
    finding = (
        f"Voltage, threshold (dashed) and spikes (marks on top) over {membranes['control_steps']} control steps, from "
        f"{membranes['backend']}: {membranes['what']}. Unit: {membranes['unit']}. Spikes: {'; '.join(parts)}."
    )
    return Plot(
        f"{deployment['id']}-membranes", deployment["id"], "Membrane voltages", finding, figure, (table,), wide=True
    )


def _trace(axes: Any, trace: dict[str, Any], threshold: float, time_steps: int) -> None:
    steps = len(trace["voltage"])
    control_step_lines(axes, time_steps, steps)
    axes.plot(range(steps), trace["voltage"], color=PALETTE["blue"], linewidth=1)
    axes.axhline(threshold, color=PALETTE["orange"], linewidth=1, linestyle="--")
    marks = axes.get_xaxis_transform()
    axes.plot(trace["spikes"], [0.97] * len(trace["spikes"]), "|", color=PALETTE["ink"], markersize=5, transform=marks)
    axes.set_xlim(-0.6, steps - 0.4)
    axes.margins(y=0.22)
    axes.yaxis.get_major_locator().set_params(nbins=4)
    prefixes(axes.yaxis)
