"""The conformance matrix: backends by layers, a symbol and a count in each field."""

from __future__ import annotations

from typing import Any

from spikerl_deploy.report.plots.plot import Plot
from spikerl_deploy.report.plots.style import HALF, PALETTE, WIDE, new_figure
from spikerl_deploy.report.table import compact, number, shorten, words
from spikerl_deploy.report.tables_overview import SYMBOLS, conformance_table

PLACE = "conformance"
_STATUS_COLOURS = {"passed": "green", "failed": "red", "error": "red", "skipped": "muted", "informational": "blue"}


def draw_conformance(index: int, conformance: dict[str, Any]) -> Plot | None:
    """A row a backend: its status, and for each layer the spikes that differ from the reference."""
    rows, layers = conformance["rows"], len(conformance["reference"]["spikes"])
    if not rows:
        return None
    wide = layers > 4
    figure = new_figure(WIDE if wide else HALF, 0.8 + 0.34 * (len(rows) + 1))
    axes = figure.subplots()
    for place, row in enumerate(rows):
        colour = PALETTE[_STATUS_COLOURS.get(row["status"], "grey")]
        axes.text(0, place, f"{SYMBOLS.get(row['status'], '')} {row['status']}", color=colour, va="center", ha="center")
        for layer in range(layers):
            _field(axes, layer + 1, place, row["mismatches"][layer] if row["mismatches"] else None, colour)
    axes.set_xlim(-0.6, layers + 0.5)
    axes.set_ylim(len(rows) - 0.5, -0.5)
    axes.set_yticks(range(len(rows)), [shorten(row["name"], 22) for row in rows])
    names = ["status", *(f"layer {layer + 1}" for layer in range(layers))]
    axes.set_xticks(range(layers + 1), names)
    axes.xaxis.tick_top()
    axes.tick_params(length=0)
    for spine in axes.spines.values():
        spine.set_visible(False)
    finding = _finding(conformance)
    return Plot(f"{PLACE}-{index + 1}", PLACE, shorten(conformance["title"], 60), finding, figure,
                (conformance_table(conformance),), wide)  # fmt: skip


def _field(axes: Any, column: int, row: int, mismatches: int | None, differing: str) -> None:
    from matplotlib.patches import Rectangle

    edge = {None: PALETTE["rule"], 0: PALETTE["green"]}.get(mismatches, differing)
    text = "not run" if mismatches is None else "= equal"
    if mismatches:
        text = f"≠ {number(mismatches) if mismatches < 100_000 else compact(mismatches)}"
    box = Rectangle((column - 0.46, row - 0.4), 0.92, 0.8, facecolor="none", edgecolor=edge)
    box.set_linewidth(1.0 if mismatches in (None, 0) else 1.6)
    axes.add_patch(box)
    colour = PALETTE["muted"] if mismatches is None else PALETTE["ink"]
    axes.text(column, row, text, ha="center", va="center", color=colour)


def _finding(conformance: dict[str, Any]) -> str:
    equal = [row["name"] for row in conformance["rows"] if row["mismatches"] and not any(row["mismatches"])]
    differ = [
        f"{row['name']} ({number(sum(row['mismatches']))})"
        for row in conformance["rows"]
        if row["mismatches"] and any(row["mismatches"])
    ]
    verdict = "passed" if conformance["passed"] else "failed"
    text = f"Verification {verdict}. Spike for spike as {conformance['reference']['name']}: {words(equal) or 'none'}."
    return text + (f" Spikes that differ: {words(differ)}." if differ else "")
