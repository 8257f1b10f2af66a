"""Pictures of a report, as PNG files. matplotlib and snnTorch are imported when one is drawn."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from simulators.rollout import Rollout
from spikerl_deploy.files import atomic_path

if TYPE_CHECKING:
    from matplotlib.axes import Axes

RASTER_STEPS = 20  # control steps that the raster shows
_COLOURS = ("#0b6e99", "#c2571a", "#5b7f2b", "#7a4fa3")
_OFFSET_LIMIT = 0.02  # below this relative spread the return axis would read as an offset


def draw_summary(document: dict[str, Any], deployed: Rollout, path: Path, force: bool) -> None:
    """Returns by seed, synaptic operations by layer, and the spikes of the first control steps.

    Args:
        document: the report. deployed: the rollout of its backend, with recorded rasters.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 6), layout="constrained", dpi=130)
    FigureCanvasAgg(figure)
    parts: Any = figure.subfigures(1, 2, width_ratios=(1, 1.5))
    left, right = parts
    returns, operations = left.subplots(2, 1)
    _returns(returns, document)
    _operations(operations, document)
    _rasters(right, document, deployed)
    environment, policy = document["environment"], document["policy"]
    sizes = "-".join(map(str, policy["sizes"]))
    bits = f", {policy['bits']}-bit" if policy["bits"] else ""
    figure.suptitle(f"{environment['id']}: {sizes}{bits} on {document['backend']}")
    with atomic_path(path, force) as temporary:
        figure.savefig(temporary, format="png")


def _returns(axes: Axes, document: dict[str, Any]) -> None:
    seeds = np.array(document["environment"]["seeds"])
    entries = list(document["backends"].items())
    everything = np.concatenate([entry["returns"] for _, entry in entries])
    for index, (name, entry) in enumerate(entries):
        offset = (index - (len(entries) - 1) / 2) * 0.2
        axes.plot(seeds + offset, entry["returns"], "os"[index % 2], color=_COLOURS[index], label=name)
    centre, spread = float(np.abs(everything).max()), float(np.ptp(everything))
    if spread < _OFFSET_LIMIT * centre:
        axes.set_ylim(0, centre * 1.1)
    axes.set_xticks(seeds if len(seeds) <= 20 else seeds[:: len(seeds) // 10])
    axes.set(title="return of each seed", xlabel="seed", ylabel="return")
    axes.legend(loc="lower right")


def _operations(axes: Axes, document: dict[str, Any]) -> None:
    from matplotlib.ticker import EngFormatter

    entries = list(document["backends"].items())
    width = 0.8 / (len(entries) + 1)
    step = entries[0][1]["per_control_step"]
    layers = np.arange(1, len(step["spikes"]) + 1)
    for index, (name, entry) in enumerate(entries):
        values = entry["per_control_step"]["synaptic_operations"]
        axes.bar(layers + index * width, values, width, color=_COLOURS[index], label=f"{name}: synaptic operations")
    dense = step["dense_multiply_accumulates"]
    axes.bar(layers + len(entries) * width, dense, width, color="#bbbbbb", label="dense: multiply-accumulates")
    axes.set_xticks(layers + width * len(entries) / 2, [f"layer {layer}" for layer in layers])
    axes.set(title="operations a control step (counted)", ylabel="operations")
    axes.set_ylim(0, max(dense) * 1.45)  # room for the legend above the bars
    axes.yaxis.set_major_formatter(EngFormatter())
    axes.legend(loc="upper right", fontsize="small")


def _rasters(figure: Any, document: dict[str, Any], deployed: Rollout) -> None:
    """Episode 1 only: the first slot of the batch."""
    import torch
    from snntorch import spikeplot

    assert deployed.inputs is not None
    assert deployed.rasters is not None
    rows = [deployed.inputs, *deployed.rasters]
    heights = [max(row.shape[-1], 60) for row in rows]
    panels = figure.subplots(len(rows), 1, sharex=True, height_ratios=heights)
    time_steps = document["policy"]["time_steps"]
    for index, (axes, row) in enumerate(zip(panels, rows, strict=True)):
        shown = row[:RASTER_STEPS, 0].reshape(-1, row.shape[-1])
        spikeplot.raster(torch.from_numpy(shown.astype(np.float32)), axes, s=1.5, c=_COLOURS[0])
        axes.set_ylabel("input" if index == 0 else f"layer {index}")
        axes.set_ylim(-0.5, row.shape[-1] - 0.5)
        for boundary in range(time_steps, len(shown), time_steps):
            axes.axvline(boundary - 0.5, color="#dddddd", linewidth=0.6, zorder=0)
    panels[0].set_title(f"spikes of the first {min(RASTER_STEPS, len(rows[0]))} control steps (neuron by time step)")
    panels[-1].set_xlabel(f"time step; a line every control step of T = {time_steps}")
