"""Synaptic operations of each layer beside those of dense arithmetic."""

from __future__ import annotations

from typing import Any

import numpy as np

from spikerl_deploy.report.plots.plot import Plot
from spikerl_deploy.report.plots.style import HALF, PALETTE, bottom_legend, new_figure, prefixes
from spikerl_deploy.report.table import compact, number, percent, shorten
from spikerl_deploy.report.tables import counts_table, deployed, episodes_table, footprint_table, layers_table


def draw_operations(deployment: dict[str, Any]) -> Plot | None:
    """A bar a layer: what was computed, inside what dense arithmetic would compute."""
    workload = deployed(deployment)["workload"]
    layers = workload["layers"]
    if not layers:
        return None
    figure = new_figure(HALF, 1.35 + 0.5 * len(layers))
    axes = figure.subplots()
    places = np.arange(len(layers))
    dense = np.array([layer["dense"] for layer in layers], dtype=np.float64)
    adds = np.array([layer["effective_acs"] for layer in layers])
    products = np.array([layer["effective_macs"] for layer in layers])
    axes.barh(places, dense, 0.62, color=PALETTE["faint"], edgecolor=PALETTE["grey"], label="dense")
    if adds.any() or not products.any():
        axes.barh(places, adds, 0.62, color=PALETTE["blue"], label="accumulates")
    if products.any():
        axes.barh(places, products, 0.62, left=adds, color=PALETTE["orange"], label="multiply-accumulates")
    for place, layer, done in zip(places, layers, adds + products, strict=True):
        share = f", {percent(done / layer['dense'], 2)}" if layer["dense"] else ""
        text = f"{compact(done)} of {compact(layer['dense'])}{share}"
        end = max(layer["dense"], done), place
        axes.annotate(text, end, (5, 0), textcoords="offset points", va="center")
    axes.set_xlim(0, max(float(dense.max()), float((adds + products).max()), 1.0) * 1.62)  # room for the labels
    axes.set_yticks(places, [shorten(layer["name"], 18) for layer in layers])
    axes.invert_yaxis()
    axes.set_xlabel("operations per inference, counted")
    axes.xaxis.grid(True)
    prefixes(axes.xaxis)
    bottom_legend(figure, axes)
    tables = layers_table(deployment), counts_table(deployment), episodes_table(deployment), footprint_table(deployment)
    return Plot(
        f"{deployment['id']}-operations", deployment["id"], "Synaptic operations", _finding(workload), figure, tables
    )


def _finding(workload: dict[str, Any]) -> str:
    total = workload["per_inference"]
    done, dense = total["synaptic_operations"], total["dense"]
    share = f", {percent(done / dense)} of them" if dense else ""
    parts = [
        f"{layer['name']} {number(layer['effective_acs'] + layer['effective_macs'], 3)}" for layer in workload["layers"]
    ]
    return (
        f"{number(float(done))} synaptic operations an inference where dense arithmetic computes "
        f"{number(dense)}{share}: {', '.join(parts)}."
    )
