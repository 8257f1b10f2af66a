"""Retention, synaptic operations and energy by the bits of the weights, where one network ran at several widths."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from spikerl_deploy.report.plots.plot import Plot
from spikerl_deploy.report.plots.style import PALETTE, WIDE, new_figure, plain_numbers, prefixes
from spikerl_deploy.report.table import Table, joule_span, number
from spikerl_deploy.report.tables import deployed, headline_figure
from spikerl_deploy.report.tables_overview import bits_run, summary_table

PLACE = "quantization"


def width_groups(deployments: Sequence[dict[str, Any]]) -> list[list[dict[str, Any]]]:
    """Deployments of one network that ran at different bits, all else equal; widest first.

    The bits are those that the backend executed: one that runs floats runs the same ones of every file. Of several with
    the same bits the first stands.
    """
    groups: dict[str, dict[int, dict[str, Any]]] = {}
    for deployment in deployments:
        bits = deployed(deployment)["workload"]["footprint"]["weight_bits"]
        groups.setdefault(_all_but_bits(deployment), {}).setdefault(bits, deployment)
    return [
        [group[bits] for bits in sorted(group, reverse=True)] for group in groups.values() if len(group) > 1
    ]  # fmt: skip


def _all_but_bits(deployment: dict[str, Any]) -> str:
    """What deployments must share for a curve over bits to be one over bits alone."""
    policy, environment, comparison = deployment["policy"], deployment["environment"], deployment["comparison"]
    network = policy["sizes"], policy["time_steps"], policy["coding"], _trained_file(policy)
    task = environment["id"], environment["seeds"], environment["perturbation"]
    return repr((network, task, deployment["backend"], comparison and comparison["baseline"]))


def _trained_file(policy: dict[str, Any]) -> Any:
    """Hash of the innermost file that a policy was made from, the trained network; its own where none is told."""
    found, provenance = policy["sha256"], policy["provenance"]
    while isinstance(provenance, dict):
        made_from = provenance.get("made_from")
        source = made_from.get("source") if isinstance(made_from, dict) else None
        found = source.get("sha256", found) if isinstance(source, dict) else found
        provenance = provenance.get("origin")
    return found


def draw_quantization(deployments: Sequence[dict[str, Any]]) -> list[Plot]:
    """A plot a group of widths."""
    return [_draw(index, group) for index, group in enumerate(width_groups(deployments))]


def _draw(index: int, group: Sequence[dict[str, Any]]) -> Plot:
    names = [str(bits_run(item)) for item in group]
    places = range(len(group))
    figure = new_figure(WIDE, 2.7)
    left, middle, right = figure.subplots(1, 3)
    retained = all(item["comparison"] and item["comparison"]["retention"] is not None for item in group)
    for place, item in zip(places, group, strict=True):
        entry = deployed(item)
        value = item["comparison"]["retention"] if retained else entry["mean_return"]
        interval = item["comparison"]["retention_interval"] if retained else entry["return_interval"]
        if interval:
            left.plot([place] * 2, interval, color=PALETTE["blue"], linewidth=2.2)
        left.plot(place, value, "o", color=PALETTE["blue"], markersize=6)
        energy = headline_figure(item)
        if energy and energy["high"]:
            ends = [energy["low"], energy["high"]]
            right.plot([place] * 2, ends, color=PALETTE["blue"], linewidth=6, solid_capstyle="butt")
            right.plot([place] * 2, ends, "_", color=PALETTE["blue"], markersize=9)  # seen where both ends are one
    counts = [deployed(item)["workload"]["per_inference"]["synaptic_operations"] for item in group]
    middle.bar(places, counts, 0.55, color=PALETTE["blue"])
    if retained:
        left.axhline(1, color=PALETTE["grey"], linewidth=1, linestyle="--")
    left.set_title("retention of the return" if retained else "mean return")
    middle.set_title("SynOps per inference")
    right.set_title(f"µJ per inference, {_kind(group)}")
    right.set_ylim(0, right.get_ylim()[1])
    for axes in (left, middle, right):
        axes.set_xticks(places, names)
        axes.set_xlim(-0.6, len(group) - 0.4)
        axes.set_xlabel("bits of the weights")
        axes.yaxis.grid(True)
    prefixes(middle.yaxis)
    for axes in (left, right):
        plain_numbers(axes.yaxis)
    environment = group[0]["environment"]["id"]
    title = f"By bits: {environment} on {group[0]['backend']}"
    tables: tuple[Table, ...] = (replace(summary_table(group), title="By bits"),)
    return Plot(f"{PLACE}-{index + 1}", PLACE, title, _finding(group, names), figure, tables, wide=True)


def _kind(group: Sequence[dict[str, Any]]) -> str:
    return "/".join(dict.fromkeys(figure["kind"] for item in group if (figure := headline_figure(item))))


def _finding(group: Sequence[dict[str, Any]], names: Sequence[str]) -> str:
    parts = []
    for item, name in zip(group, names, strict=True):
        comparison, energy, entry = item["comparison"], headline_figure(item), deployed(item)
        kept = f"mean return {number(entry['mean_return'])}"
        if comparison and comparison["retention"] is not None:
            kept = f"retention {comparison['retention']:.3f}"
        spent = f", {joule_span(energy['low'], energy['high'])} ({energy['kind']})" if energy else ""
        counted = number(float(entry["workload"]["per_inference"]["synaptic_operations"]))
        parts.append(f"{name if name == 'float' else name + ' bits'}: {kept}, {counted} SynOps{spent}")
    seeds = len(group[0]["environment"]["seeds"])
    return f"Over {seeds} seed{'s' if seeds != 1 else ''}: {'; '.join(parts)}."
