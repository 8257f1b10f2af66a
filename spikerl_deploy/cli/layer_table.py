"""The table of what quantization did to each layer, for the verbs that quantize."""

from __future__ import annotations

from typing import Any

from spikerl_deploy.cli.common import console


def print_layers(rows: list[dict[str, Any]]) -> None:
    """Print layer reports, given as dictionaries; what was observed on data only if there was data."""
    from rich.table import Table

    out = console()
    observed = any(row["observed"] for row in rows)
    columns = [
        "layer",
        "weight unit",
        "threshold",
        "bias",
        "clipped",
        "rms error",
        "|u| bound",
        "|v| bound",
        "lossless",
    ]
    table = Table(*columns, *(["|u| seen", "|v| seen", "spikes differ"] if observed else []))
    for row in rows:
        cells = [
            str(row["layer"] + 1), f"{row['scale']:.3g}", f"{row['vth']} x 2^-{row['weight_exp']}",
            f"{row['bias_neurons']} x 8 bits", f"{row['clipped']:.2%}", f"{row['rms_error']:.2%}",
            f"{row['u_bound']:.0%}", f"{row['v_bound']:.0%}", "proven" if row["lossless"] else "not proven",
        ]  # fmt: skip
        if row["observed"]:
            seen = row["observed"]
            share = seen["spike_error"] / seen["spikes"] if seen["spikes"] else 0.0
            cells += [f"{max(map(abs, seen[name])):.0%}" for name in ("u", "v")] + [f"{share:.2%}"]
        table.add_row(*cells)
    out.print(table)
    out.print(
        "[dim]weight unit: trained weight of one mantissa; threshold in mantissas; bias: always-firing synapses a "
        "neuron; bounds: share of the chip's 24-bit state that any input could fill within a control step; lossless: "
        "integers and float runtimes provably spike alike[/dim]",
        soft_wrap=True,
    )
    if observed:
        out.print(
            "[dim]seen: the same on the recorded data; spikes differ: spike counts against the float policy's[/dim]"
        )
