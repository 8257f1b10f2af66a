"""The tables of a deployment: what it earned and what was counted in it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from spikerl_deploy.report.table import Cell, Column, Table

COUNT_NAMES = {
    "synaptic_operations": "synaptic operations",
    "effective_acs": "effective accumulates",
    "effective_macs": "effective multiply-accumulates",
    "dense": "dense multiply-accumulates",
    "spikes": "spikes of the layers",
    "input_spikes": "spikes of the input",
    "updates_active": "neuron updates, active",
    "updates_inactive": "neuron updates, inactive",
    "overhead_updates": "neuron updates of overhead steps",
}

VERDICTS = {True: "saves", False: "does not save", None: "undecided"}  # of `saves` in a break-even


def deployed(deployment: Mapping[str, Any]) -> dict[str, Any]:
    """The entry of the backend that the deployment is about."""
    entry: dict[str, Any] = deployment["backends"][deployment["backend"]]
    return entry


def headline_figure(deployment: dict[str, Any]) -> dict[str, Any] | None:
    """The energy figure that is quoted first; None where the document's headline names none."""
    energy = deployed(deployment)["energy"]
    wanted = energy["headline"]["id"]
    return next((figure for figure in energy["figures"] if figure["id"] == wanted), None)


def returns_table(deployment: dict[str, Any]) -> Table:
    """Return and length of every episode on every backend."""
    backends = deployment["backends"]
    columns = [Column("seed")]
    for name in backends:
        columns += [Column(f"return on {name}"), Column(f"length on {name}", "control steps")]
    comparison = deployment["comparison"]
    if comparison:
        columns.append(Column("difference"))
    rows: list[tuple[Cell, ...]] = []
    for index, seed in enumerate(deployment["environment"]["seeds"]):
        row: list[Cell] = [str(seed)]
        for entry in backends.values():
            row += [entry["returns"][index], entry["lengths"][index]]
        if comparison:
            row.append(comparison["differences"][index])
        rows.append(tuple(row))
    return Table("Return of each seed", tuple(columns), tuple(rows))


def backends_table(deployment: dict[str, Any]) -> Table:
    """Mean returns with intervals, and the time that each backend took."""
    rows: list[tuple[Cell, ...]] = []
    for name, entry in deployment["backends"].items():
        low, high = entry["return_interval"] or (None, None)
        wall = entry["wall_time"]
        rows.append(
            (
                name,
                entry["runs"],
                entry["exactness"],
                entry["mean_return"],
                entry["std_return"],
                low,
                high,
                entry["control_steps"],
                wall["median"],
                wall["p99"],
                wall["episodes_side_by_side"],
                wall["kind"],
            )
        )
    wall = deployed(deployment)["wall_time"]
    columns = (
        Column("backend", text=True),
        Column("runs", text=True),
        Column("arithmetic", text=True),
        Column("mean return"),
        Column("std"),
        Column("interval, low"),
        Column("interval, high"),
        Column("control steps"),
        Column("time, median", wall["unit"]),
        Column("time, 99th percentile", wall["unit"]),
        Column("episodes side by side"),
        Column("time is", text=True),
    )
    return Table(
        "Backends", columns, tuple(rows), f"time: {wall['what']}. A simulator's time says nothing of a chip's."
    )


def layers_table(deployment: dict[str, Any]) -> Table:
    """Counted workload of each layer."""
    workload = deployed(deployment)["workload"]
    keys = {
        "n_in": "inputs",
        "neurons": "neurons",
        "synapses": "synapses",
        "input_events": "input events",
        "effective_acs": "effective accumulates",
        "effective_macs": "effective multiply-accumulates",
        "dense": "dense multiply-accumulates",
        "spikes": "spikes",
        "updates_active": "updates, active",
        "updates_inactive": "updates, inactive",
        "firing_rate": "firing rate",
        "activation_sparsity": "activation sparsity",
        "connection_sparsity": "connection sparsity",
    }
    columns = (Column("layer", text=True), *(Column(name) for name in keys.values()))
    rows = tuple((layer["name"], *(layer[key] for key in keys)) for layer in workload["layers"])
    given = workload["input"]
    note = (
        f"Counted, {workload['unit']}. Firing rate: spikes a neuron and time step. The input: {given['neurons']} "
        f"neurons, sparsity {given['activation_sparsity']:.3g}. Overhead steps: {workload['overhead_steps']}."
    )
    return Table("Workload of each layer", columns, rows, note)


def counts_table(deployment: dict[str, Any]) -> Table:
    """Sums over layers: per inference, per second at the control rate, per episode."""
    workload = deployed(deployment)["workload"]
    second = workload["per_second"] or {}
    episode = workload["per_episode"]["mean"]
    rows = tuple(
        (name, workload["per_inference"][key], second.get(key), episode[key]) for key, name in COUNT_NAMES.items()
    )
    columns = (Column("count", text=True), *(Column(f"per {what}") for what in ("inference", "second", "episode")))
    step = workload["control_step_s"]
    rate = "unknown control rate" if step is None else f"one inference every {step:g} s"
    note = f"Means over {workload['control_steps']:,} control steps; {rate}; T = {workload['time_steps']} time steps."
    return Table("Counts of the whole network", columns, rows, note)


def episodes_table(deployment: dict[str, Any]) -> Table:
    """Counts of each episode."""
    counts = deployed(deployment)["workload"]["per_episode"]
    keys = ("synaptic_operations", "spikes", "input_spikes")
    columns = (Column("seed"), *(Column(COUNT_NAMES[key]) for key in keys))
    seeds = deployment["environment"]["seeds"]
    rows = tuple((str(seed), *(counts[key][index] for key in keys)) for index, seed in enumerate(seeds))
    return Table("Counts of each episode", columns, rows)


def footprint_table(deployment: dict[str, Any]) -> Table:
    """Memory that the network takes."""
    footprint = deployed(deployment)["workload"]["footprint"]
    parts = {"weights": "weights", "biases": "biases", "neuron_states": "neuron state", "total": "total"}
    columns = Column("part", text=True), Column("size", footprint["unit"])
    note = f"Weights of {footprint['weight_bits']} bits. {footprint['note']}"
    return Table("Memory footprint", columns, tuple((name, footprint[key]) for key, name in parts.items()), note)


def spikes_table(deployment: dict[str, Any]) -> Table | None:
    """What the raster shows, as numbers."""
    spikes = deployment["spikes"]
    if not spikes:
        return None
    steps = spikes["control_steps"] * spikes["time_steps"]
    rows: list[tuple[Cell, ...]] = []
    for layer in spikes["layers"]:
        count = len(layer["time"])
        active = len(set(layer["neuron"]))
        rows.append((layer["name"], layer["neurons"], count, count / steps if steps else None, active))
    columns = (
        Column("layer", text=True),
        Column("neurons"),
        Column("spikes"),
        Column("spikes per time step"),
        Column("neurons that spiked"),
    )
    note = f"First {spikes['control_steps']} control steps of seed {spikes['seed']}; report.json lists every spike."
    return Table("Spikes of the first control steps", columns, tuple(rows), note)


def rates_table(deployment: dict[str, Any]) -> Table | None:
    """Firing rates of a layer's neurons, summed up."""
    layers = [layer for layer in deployment["firing_rates"] if layer["rates"]]
    if not layers:
        return None
    rows: list[tuple[Cell, ...]] = []
    for layer in layers:
        rates = sorted(layer["rates"])
        count = len(rates)
        median = (rates[(count - 1) // 2] + rates[count // 2]) / 2
        silent = sum(rate == 0 for rate in rates)
        rows.append((layer["name"], count, sum(rates) / count, float(median), float(rates[-1]), silent))
    names = ("neurons", "mean rate", "median rate", "highest rate", "silent neurons")
    columns = (Column("layer", text=True), *(Column(name) for name in names))
    return Table("Firing rates", columns, tuple(rows), "Rate: spikes per time step, over all episodes.")


def membranes_table(deployment: dict[str, Any]) -> Table | None:
    """What the membrane traces show, as numbers."""
    membranes = deployment["membranes"]
    if not membranes:
        return None
    rows: list[tuple[Cell, ...]] = [
        (
            layer["name"],
            str(trace["neuron"]),
            threshold,
            min(trace["voltage"]),
            max(trace["voltage"]),
            len(trace["spikes"]),
        )
        for layer in membranes["layers"]
        for threshold, trace in zip(layer["threshold"], layer["traces"], strict=True)
        if trace["voltage"]
    ]
    columns = (
        Column("layer", text=True),
        Column("neuron"),
        Column("threshold"),
        Column("lowest voltage"),
        Column("highest voltage"),
        Column("spikes"),
    )
    note = f"{membranes['what']}. Unit: {membranes['unit']}. report.json lists every value."
    return Table("Membrane traces", columns, tuple(rows), note)
