"""The tables that go over several inputs: deployments, widths, training runs, conformance, measured inference."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from spikerl_deploy.report.table import Cell, Column, Table, number
from spikerl_deploy.report.tables import deployed, headline_figure

SYMBOLS = {"passed": "✓", "failed": "✗", "error": "!", "skipped": "○", "informational": "i"}


def summary_table(deployments: Sequence[dict[str, Any]]) -> Table:
    """One row a deployment, with the numbers that a reader wants first."""
    columns = (
        Column("deployment", text=True),
        Column("environment", text=True),
        Column("bits", "as run"),
        Column("seeds"),
        Column("mean return"),
        Column("retention"),
        Column("retention, interval", text=True),
        Column("synaptic operations", "per inference"),
        Column("energy, low", "µJ per inference"),
        Column("energy, high", "µJ per inference"),
        Column("energy is", text=True),
    )
    rows: list[tuple[Cell, ...]] = []
    for deployment in deployments:
        entry, comparison, figure = deployed(deployment), deployment["comparison"], headline_figure(deployment)
        interval = comparison["retention_interval"] if comparison else None
        rows.append(
            (
                deployment["title"],
                deployment["environment"]["id"],
                bits_run(deployment),
                len(deployment["environment"]["seeds"]),
                entry["mean_return"],
                comparison["retention"] if comparison else None,
                f"{interval[0]:.3f} to {interval[1]:.3f}" if interval else None,
                entry["workload"]["per_inference"]["synaptic_operations"],
                figure["low"] if figure else None,
                figure["high"] if figure else None,
                f"{figure['kind']}, {figure['title']}" if figure else None,
            )
        )
    how = next((d["comparison"]["interval"] for d in deployments if d["comparison"]), None)
    note = f"Interval: {how}." if how else ""
    return Table("Deployments", columns, tuple(rows), note)


def bits_run(deployment: dict[str, Any]) -> int | str:
    """Bits of the weights that the deployed backend executed, which are not always those of the file; or `float`."""
    entry = deployed(deployment)
    bits: int = entry["workload"]["footprint"]["weight_bits"]
    return bits if entry["exactness"] == "integer" else "float"


def conformance_table(conformance: dict[str, Any]) -> Table:
    """Backends by layers: how many spikes differ from the reference."""
    layers = len(conformance["reference"]["spikes"])
    columns = (
        Column("backend", text=True),
        Column("runs", text=True),
        Column("status", text=True),
        *(Column(f"layer {layer + 1}", "mismatches") for layer in range(layers)),
        *(Column(f"layer {layer + 1}", "spikes in either") for layer in range(layers)),
        Column("largest action error", "share of range"),
    )
    rows: list[tuple[Cell, ...]] = []
    for row in conformance["rows"]:
        none: list[None] = [None] * layers
        counts = tuple(row["mismatches"] or none) + tuple(row["either"] or none)
        status = f"{SYMBOLS.get(row['status'], '')} {row['status']}".strip()
        rows.append((row["name"], row["runs"], status, *counts, row["action_error"]))
    reference = conformance["reference"]
    spikes = ", ".join(f"{count:,}" for count in reference["spikes"])
    note = f"Against {reference['name']}, whose layers emit {spikes} spikes."
    return Table("Spikes that differ from the reference", columns, tuple(rows), note)


def training_table(runs: Sequence[dict[str, Any]]) -> Table:
    """One row a training run."""
    columns = (
        Column("run", text=True),
        Column("seeds"),
        Column("steps"),
        Column("time", "s"),
        Column("stopped by", text=True),
        Column("best return"),
        Column("final return"),
        Column("mean of the last ten"),
        Column("energy", "kJ"),
        Column("carbon", "g CO2eq"),
    )
    rows = []
    for run in runs:
        energy, carbon = run["energy"], run["carbon"]
        rows.append(
            (
                _with_environment(run),
                run["seeds"],
                run["steps"],
                run["seconds"],
                run["stopped"] if run["finished"] else f"{run['stopped'] or 'unknown'} (not finished)",
                run["best_return"],
                run["final_return"],
                run["last_ten_mean"],
                f"{number(energy['joule'] / 1e3)} ({energy['kind']})" if energy else "unmeasured",
                f"{number(carbon['kg_co2eq'] * 1e3)} ({carbon['kind']})" if carbon else "unknown",
            )
        )
    intensities = {
        f"{run['carbon']['intensity']['value']:g} {run['carbon']['intensity']['unit']} "
        f"({run['carbon']['intensity']['source']})"
        for run in runs
        if run["carbon"]
    }
    note = f"Carbon intensity: {'; '.join(sorted(intensities))}." if intensities else ""
    return Table("Training runs", columns, tuple(rows), note)


def _with_environment(run: dict[str, Any]) -> str:
    """The title, which names the environment as a rule."""
    title, env = str(run["title"]), run["env"]
    return f"{title}, {env}" if env and env not in title else title


def curves_table(runs: Sequence[dict[str, Any]]) -> Table:
    """Every evaluation of every run."""
    columns = (
        Column("run", text=True),
        Column("step"),
        Column("time", "s"),
        Column("mean return"),
        Column("lowest seed"),
        Column("highest seed"),
    )
    rows = tuple(
        (run["title"], point["step"], point["seconds"], point["mean_return"], point["low"], point["high"])
        for run in runs
        for point in run["curve"]
    )
    return Table("Evaluations during training", columns, rows)


def sections_table(runs: Sequence[dict[str, Any]]) -> Table:
    """Energy of training by section of the loop and by part of the machine."""
    rows: list[tuple[Cell, ...]] = []
    for run in runs:
        if not run["energy"]:
            continue
        for name, section in run["energy"]["sections"].items():
            rows.append((run["title"], name, section["seconds"], section["energy_joule"], section["kind"]))
        for name, part in run["energy"]["parts"].items():
            rows.append((run["title"], f"all of it: {name}", None, part["value"], part["kind"]))
    columns = (
        Column("run", text=True),
        Column("section or part", text=True),
        Column("time", "s"),
        Column("energy", "J"),
        Column("kind", text=True),
    )
    return Table("Energy of training", columns, tuple(rows))


def speedup_table(speedups: Sequence[dict[str, Any]], titles: dict[str, str]) -> Table:
    """GPS-UP metrics of the runs against the first."""
    columns = (
        Column("run", text=True),
        Column("baseline", text=True),
        Column("of", text=True),
        Column("Speedup"),
        Column("Greenup"),
        Column("Powerup"),
        Column("quadrant", text=True),
        Column("energy is", text=True),
    )
    rows = tuple(
        (
            titles.get(item["run"], item["run"]),
            titles.get(item["baseline"], item["baseline"]),
            item["what"],
            item["speedup"],
            item["greenup"],
            item["powerup"],
            item["quadrant"],
            item["kind"],
        )
        for item in speedups
    )
    note = "Speedup T_A / T_B, Greenup E_A / E_B, Powerup P_B / P_A with A the baseline (Abdulsalam et al. 2015)."
    return Table("Speedup, Greenup and Powerup", columns, rows, note)


def inference_table(inference: dict[str, Any]) -> Table:
    """Energy and speed of inference in torch, row by row."""
    columns = (
        Column("workload", text=True),
        Column("device", text=True),
        Column("mode", text=True),
        Column("type", text=True),
        Column("batch"),
        Column("inferences per second"),
        Column("latency of a call", "ms"),
        *(Column(f"energy, {end}", "µJ per inference") for end in ("mean", "low", "high")),
        *(Column(f"above idle, {end}", "µJ per inference") for end in ("mean", "low", "high")),
        Column("kind", text=True),
        Column("meter", text=True),
        Column("windows", text=True),
        Column("note", text=True),
    )
    unknown = {"mean": None, "low": None, "high": None}
    rows: list[tuple[Cell, ...]] = []
    for row in inference["rows"]:
        energy = row["energy_uj"] or {}
        total, above = energy.get("total") or unknown, energy.get("above_idle") or unknown
        rows.append(
            (
                row["workload"],
                row["device"],
                row["mode"],
                row["dtype"],
                row["batch"],
                row["inferences_per_second"],
                row["latency_ms"],
                *tuple(part[end] for part in (total, above) for end in ("mean", "low", "high")),
                row["kind"],
                _meter(row),
                f"{row['windows']} of {row['window_s']:g} s",
                row["note"] or "",
            )
        )
    return Table("Energy of inference in torch", columns, tuple(rows), "low and high: over windows.")


def _meter(row: dict[str, Any]) -> str:
    return ": ".join(part for part in (row.get("meter"), row.get("scope")) if part) or "none"
