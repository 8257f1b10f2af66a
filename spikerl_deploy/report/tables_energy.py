"""The tables of a deployment's energy: figures, baselines, break-even."""

from __future__ import annotations

from typing import Any

from spikerl_deploy.report.table import Cell, Column, Table
from spikerl_deploy.report.tables import deployed

_MODELLED_NOTE = (
    "Energies are modelled from counted operations and are lower bounds. per second: power at the control rate."
)

_RATE_NOTE = "Firing rate: of the inputs of all layers, weighted by their synapses; not the rate of any one layer."


def _energy_columns(first: str) -> tuple[Column, ...]:
    return (
        Column(first, text=True),
        Column("what", text=True),
        Column("low", "µJ per inference"),
        Column("high", "µJ per inference"),
        Column("kind", text=True),
        Column("low", "µW"),
        Column("high", "µW"),
        Column("constants", text=True),
        Column("source", text=True),
        Column("note", text=True),
    )


def _energy_row(title: str, figure: dict[str, Any]) -> tuple[Cell, ...]:
    second = figure["per_second"] or {"low": None, "high": None}
    return (
        title,
        figure["what"],
        figure["low"],
        figure["high"],
        figure["kind"],
        second["low"],
        second["high"],
        ", ".join(figure["constants_kind"]),
        "; ".join(figure["sources"]),
        figure["note"],
    )


def energy_table(deployment: dict[str, Any]) -> Table:
    """Every energy figure of the deployment."""
    energy = deployed(deployment)["energy"]
    titles = {model["model"]: model["title"] for model in energy["models"]}
    rows = tuple(
        _energy_row(f"{figure['title']}: {titles.get(figure['model'], figure['model'])}", figure)
        for figure in energy["figures"]
    )
    note = f"{_MODELLED_NOTE} Constants of version {energy['constants_version']}."
    return Table("Energy of an inference", _energy_columns("figure"), rows, note)


def baselines_table(deployment: dict[str, Any]) -> Table:
    """What the same task would take without spikes, or as dense arithmetic."""
    energy = deployed(deployment)["energy"]
    titles = {model["model"]: model["title"] for model in energy["models"]}
    rows = tuple(
        _energy_row(f"{figure['title']}: {titles.get(figure['model'], figure['model'])}", figure)
        for figure in energy["baselines"]
    )
    return Table("Baselines", _energy_columns("baseline"), rows)


def break_even_table(deployment: dict[str, Any]) -> Table:
    """Where spikes would begin to pay, and where this policy stands."""
    columns = (
        Column("threshold", text=True),
        Column("what", text=True),
        Column("quantity", text=True),
        Column("from"),
        Column("to"),
        Column("this policy"),
        Column("saves", text=True),
        Column("kind", text=True),
        Column("source", text=True),
    )
    said = {True: "yes", False: "no", None: "undecided"}
    rows = tuple(
        (
            entry["title"],
            entry["what"],
            entry["quantity"],
            entry["threshold_low"],
            entry["threshold_high"],
            entry["here"],
            said[entry["saves"]],
            entry["kind"],
            entry["source"],
        )
        for entry in deployed(deployment)["energy"]["break_even"]
    )
    note = f"undecided: within the range, or the source says nothing. {_RATE_NOTE}"
    return Table("Break-even against an ANN", columns, rows, note)


def sweep_table(deployment: dict[str, Any]) -> Table | None:
    """Energy against firing rate at this structure."""
    sweep = deployed(deployment)["energy"].get("sweep")
    if not sweep:
        return None
    columns = [Column("firing rate", "spikes a synapse and time step")]
    for figure in sweep["figures"]:
        columns += [Column(f"{figure['id']}, {end}", "µJ per inference") for end in ("low", "high")]
    rows = []
    for index, rate in enumerate(sweep["rates"]):
        row: list[Cell] = [float(rate)]
        for figure in sweep["figures"]:
            row += [figure["low"][index], figure["high"][index]]
        rows.append(tuple(row))
    return Table("Energy against firing rate", tuple(columns), tuple(rows), f"Modelled. {_RATE_NOTE}")


def references_table(deployment: dict[str, Any]) -> Table | None:
    """What is published of other networks on chips; stands apart from the estimates of this one."""
    references = deployed(deployment)["energy"].get("references")
    if not references:
        return None
    columns = (
        Column("chip", text=True),
        Column("what", text=True),
        Column("value"),
        Column("spread"),
        Column("unit", text=True),
        Column("kind", text=True),
        Column("source", text=True),
        Column("note", text=True),
    )
    keys = ("title", "what", "value", "spread", "unit", "kind", "source", "note")
    rows = tuple(tuple(item[key] for key in keys) for item in references)
    return Table("Published of other networks", columns, rows, "Other networks and tasks: not to be compared directly.")
