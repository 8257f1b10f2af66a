"""The table of what quantization did to each layer, for the verbs that quantize."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from spikerl_deploy.cli.common import console

Row = dict[str, Any]

BY_WEIGHTS: dict[str, Callable[[Row], str]] = {
    "one mantissa unit": lambda row: f"{row['scale']:.3g}",
    "threshold, in units": lambda row: f"{row['vth'] / 2 ** row['weight_exp']:g}",
    "bias neurons": lambda row: str(row["bias_neurons"]),
    "weights clipped": lambda row: f"{row['clipped']:.2%}",
    "rms change": lambda row: f"{row['rms_error']:.2%}",
    "largest |u|, any input": lambda row: f"{row['u_bound']:.0%}",
    "largest |v|, any input": lambda row: f"{row['v_bound']:.0%}",
    "floats spike alike": lambda row: "proven" if row["lossless"] else "not proven",
}
BY_DATA: dict[str, Callable[[Row], str]] = {
    "largest |u|, seen": lambda row: f"{max(map(abs, row['observed']['u'])):.0%}",
    "largest |v|, seen": lambda row: f"{max(map(abs, row['observed']['v'])):.0%}",
    "margin to overflow, seen": lambda row: f"{row['observed']['margin']:.0%}",
    "spikes that differ, seen": lambda row: _share(row["observed"]["spike_error"], row["observed"]["spikes"]),
}


def print_layers(rows: list[Row]) -> None:
    """Print layer reports, given as dictionaries: one column a layer; what was seen on data if there was data."""
    from rich.table import Table

    out = console()
    observed = all(row["observed"] for row in rows)
    figures = BY_WEIGHTS | (BY_DATA if observed else {})
    table = Table("", *(f"layer {row['layer'] + 1}" for row in rows))
    for name, text in figures.items():
        table.add_row(name, *(text(row) for row in rows))
    out.print(table)
    legend = "|u|, |v|: share of the chip's 24-bit state within a control step"
    legend += "; spikes that differ: from the float policy's counts" if observed else ""
    out.print(legend, style="dim", soft_wrap=True)


def _share(part: float, whole: float) -> str:
    return f"{part / whole:.2%}" if whole else "none fired"
