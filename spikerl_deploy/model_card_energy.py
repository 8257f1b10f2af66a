"""The tables and texts of a policy's card on what an inference costs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from spikerl_deploy.model_card_tables import facts_table
from spikerl_deploy.report.headline import FAIREST
from spikerl_deploy.report.table import Column, Table, joule_span, percent
from spikerl_deploy.report.tables import COUNT_NAMES, VERDICTS


def counts_table(card: Mapping[str, Any]) -> Table:
    """Operations and spikes of an inference."""
    workload = card["workload"]
    rows = [(COUNT_NAMES[key], f"{value:,.1f}") for key, value in workload["per_inference"].items()]
    rows.append(("firing rate, spikes a neuron and time step", percent(workload["firing_rate"])))
    return facts_table("Per inference", rows)


def layers_table(card: Mapping[str, Any]) -> Table:
    """Spikes and operations layer by layer."""
    columns = (
        Column("layer", text=True),
        Column("neurons"),
        Column("synapses"),
        Column("spikes"),
        Column("firing rate"),
        Column("synaptic operations"),
    )
    rows = tuple(
        (
            *(one["name"], one["neurons"], one["synapses"], f"{one['spikes']:,.1f}", percent(one["firing_rate"])),
            f"{one['synaptic_operations']:,.0f}",
        )
        for one in card["workload"]["layers"]
    )
    return Table("Layers, per inference", columns, rows)


def energy_table(card: Mapping[str, Any]) -> Table:
    """Energy on every chip there are constants of."""
    headline = card["energy"]["headline"]
    return _energies(card, "figures", "Energy of an inference", f"* quoted by default ({headline}).")


def baselines_table(card: Mapping[str, Any]) -> Table:
    """Energy of other ways to do the task."""
    return _energies(card, "baselines", "Energy of an inference without spikes", "")


def _energies(card: Mapping[str, Any], part: str, title: str, note: str) -> Table:
    energy = card["energy"]
    models = {model["model"]: model["title"] for model in energy["models"]}
    columns = (
        Column("on", text=True),
        Column("counted", text=True),
        Column("energy"),
        Column("kind", text=True),
        Column("constants", text=True),
        Column("source", text=True),
        Column("note", text=True),
    )
    rows = tuple(
        (
            f"{one['title']}{'*' * (one['id'] == energy['headline'])}",
            models.get(one["model"], one["model"]),
            joule_span(one["low"], one["high"]),
            one["kind"],
            ", ".join(one["constants_kind"]),
            "; ".join(one["sources"]),
            one["note"],
        )
        for one in energy[part]
    )
    return Table(title, columns, rows, note)


def verdict_text(card: Mapping[str, Any]) -> tuple[str, ...]:
    """Whether spikes save energy, by the fairest of the comparisons: the same silicon, memory counted."""
    line = next((one for one in card["energy"]["break_even"] if one["id"] == FAIREST), None)
    if line is None or line["here"] is None:
        return ()
    low, high = line["threshold_low"], line["threshold_high"]
    below = "no firing rate would save" if high is None else f"break-even at {percent(low or 0.0)} to {percent(high)}"
    return (
        "Energy against a quantized dense network of the same task on the same silicon, memory counted "
        f"({line['kind']}): {VERDICTS[line['saves']]}. The firing rate is {percent(line['here'])}, weighted by "
        f"synapses; {below}.",
    )


def break_even_table(card: Mapping[str, Any]) -> Table:
    """Whether spikes save energy against a dense network, and at which rate they would begin to."""
    columns = (
        Column("on", text=True),
        Column("what", text=True),
        Column("from"),
        Column("to"),
        Column("here"),
        Column("verdict", text=True),
        Column("kind", text=True),
        Column("source", text=True),
    )
    rows = tuple(
        (
            *(one["title"], f"{one['what']} ({one['quantity']})", one["threshold_low"], one["threshold_high"]),
            *(one["here"], VERDICTS[one["saves"]], one["kind"], one["source"]),
        )
        for one in card["energy"]["break_even"]
    )
    return Table("Break-even against a dense network", columns, rows)
