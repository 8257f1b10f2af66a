"""The sections of the page: a deployment, conformance, inference in torch, training, provenance."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Sequence
from typing import Any

from spikerl_deploy.carbon import training_energy
from spikerl_deploy.report.markup import Markup, join, tag
from spikerl_deploy.report.page_parts import bare_table, data_table, figures, headline_list
from spikerl_deploy.report.plots.plot import Plot
from spikerl_deploy.report.table import Column, Table, capitalized, joules, number
from spikerl_deploy.report.tables import deployed
from spikerl_deploy.report.tables_energy import (
    baselines_table,
    break_even_table,
    energy_table,
    references_table,
    sweep_table,
)
from spikerl_deploy.report.tables_overview import (
    conformance_table,
    inference_table,
    sections_table,
    speedup_table,
    training_table,
)


def deployment_section(
    deployment: dict[str, Any], plots: Sequence[Plot], inference: Sequence[dict[str, Any]], with_headline: bool
) -> Markup:
    """What was deployed, its headline numbers, its plots, and what the energies leave out."""
    energy = deployed(deployment)["energy"]
    shown = {table.title for plot in plots for table in plot.tables}
    more = [table for table in _without_plot(deployment) if table.title not in shown]
    metered = [item for item in inference if item["policy"]["sha256"] == deployment["policy"]["sha256"]]
    on_gpu = any(row["device"] == "cuda" and row["kind"] == "measured" for item in metered for row in item["rows"])
    return join(
        tag("p", _what(deployment), class_="what"),
        headline_list(deployment) if with_headline else None,
        figures(plots),
        *(data_table(table) for table in more),
        tag("h3", "How to read the energies"),
        tag(
            "ul",
            *(tag("li", tag("b", capitalized(model["title"])), f": {model['what']}.") for model in energy["models"]),
            _trained(deployment),
            tag("li", f"Constants of version {energy['constants_version']}. Every modelled figure is a lower bound."),
            None
            if on_gpu
            else tag(
                "li", "Energy of this policy on a GPU: not measured. ", tag("code", "spikerl measure"), " measures it."
            ),
        ),
        _sources(energy),
    )


def _without_plot(deployment: dict[str, Any]) -> list[Table]:
    """Tables of energies, whose plots are left out where there is nothing to draw on a log scale."""
    tables = energy_table, baselines_table, break_even_table, sweep_table, references_table
    return [table for make in tables if (table := make(deployment)) is not None and table.rows]


def _what(deployment: dict[str, Any]) -> str:
    policy, environment = deployment["policy"], deployment["environment"]
    bits = f"{policy['bits']}-bit weights" if policy["bits"] else "float weights"
    coding = f", {policy['coding']} coding" if policy["coding"] else ""
    perturbed, episodes = environment["perturbation"], len(environment["seeds"])
    words = f" Perturbed: {perturbed.get('words', 'yes')}." if perturbed else ""
    return (
        f"{policy['file']}: {'-'.join(map(str, policy['sizes']))} neurons, {bits}, T = {policy['time_steps']}{coding}. "
        f"{environment['id']}, {episodes} episode{'s' if episodes != 1 else ''} on {deployment['backend']}, which runs "
        f"{deployed(deployment)['runs']}.{words}"
    )


def _trained(deployment: dict[str, Any]) -> Markup | None:
    """What training took, where the policy's own provenance says so."""
    trained = training_energy(deployment["policy"]["provenance"])
    if trained is None or trained.get("joule") is None:
        return None
    carbon = ""
    if trained.get("kg_co2eq") is not None and isinstance(trained.get("intensity"), dict):
        at = trained["intensity"]
        grams = number(trained["kg_co2eq"] * 1e3, 3)
        carbon = f", {grams} g CO2eq at {number(at.get('value'), 3)} {at.get('unit')} ({at.get('source')})"
    text = f": {joules(trained['joule'] * 1e6)} ({trained.get('kind')}){carbon}."
    return tag("li", tag("b", "Training of this policy"), text)


def _sources(energy: dict[str, Any]) -> Markup:
    """Sources of all constants and thresholds, each once."""
    found = [source for part in ("figures", "baselines") for figure in energy[part] for source in figure["sources"]]
    found += [entry["source"] for entry in energy["break_even"]]
    items = (tag("li", source) for source in dict.fromkeys(found))
    return tag("details", tag("summary", "Sources of the constants"), tag("ul", *items))


def conformance_section(documents: Sequence[dict[str, Any]], plots: Sequence[Plot]) -> Markup:
    """Verdicts in words, then the matrices."""
    verdicts = []
    for item in documents:
        where = f" in {item['environment']}" if item["environment"] else ""
        verdict = "passed" if item["passed"] else "failed"
        verdicts.append(tag("li", tag("b", f"{item['title']}{where}: {verdict}")))
    missing = [item for item in documents if not item["rows"]]
    return join(
        tag("p", "Backends that ran the same observations, spike for spike against the reference."),
        tag("ul", *verdicts),
        figures(plots),
        *(data_table(conformance_table(item)) for item in missing),
    )


def inference_section(documents: Sequence[dict[str, Any]]) -> Markup:
    """Energy and speed of the policy and of a dense ANN on this machine's own processors."""
    parts: list[Markup] = []
    for item in documents:
        hardware = ", ".join(f"{name}: {value}" for name, value in item["hardware"].items() if value)
        idle = (
            f"{entry['device']} idle {number(entry['power_w'], 3)} W ({entry['kind']})" for entry in item["idle"] or ()
        )
        parts += [
            tag("p", f"{item['policy']['file']}. {hardware}. {'; '.join(idle)}.", class_="what"),
            _list(item["warnings"]),
            bare_table(inference_table(item)),
        ]
        if not any(row["device"] == "cuda" for row in item["rows"]):
            parts.append(tag("p", "GPU: not measured.", class_="note"))
    return join(*parts)


def _list(items: Iterable[str]) -> Markup:
    entries = [tag("li", item) for item in items]
    return tag("ul", *entries) if entries else Markup("")


def training_section(
    runs: Sequence[dict[str, Any]], speedups: Sequence[dict[str, Any]], plots: Sequence[Plot]
) -> Markup:
    """All runs in one table, then curves, energy and comparison; what is not measured is said."""
    shown = {table.title for plot in plots for table in plot.tables}
    more = []
    if speedups and "Speedup, Greenup and Powerup" not in shown:
        more.append(speedup_table(speedups, {run["id"]: run["title"] for run in runs}))
    sections = sections_table(runs)
    if sections.rows and sections.title not in shown:
        more.append(sections)
    untracked = [run["title"] for run in runs if not run["energy"]]
    return join(
        bare_table(training_table(runs)),
        tag("p", f"Energy not measured: {', '.join(untracked)}.", class_="note") if untracked else None,
        figures(plots),
        *(data_table(table) for table in more),
    )


def provenance_section(document: dict[str, Any]) -> Markup:
    """Commands, versions and hashes of everything that went into the page."""
    made = [("this report", document["manifest"])]
    made += [(item["title"], item["manifest"]) for item in (*document["deployments"], *document["training"])]
    made += [(item["policy"]["file"], item["manifest"]) for item in document["inference"]]
    rows = tuple(
        (name, shlex.join(map(str, manifest.get("command", []))), str(manifest.get("created", "")))
        for name, manifest in made
    )
    columns = Column("what", text=True), Column("command", text=True), Column("made", text=True)
    policies = [item["policy"] for part in ("deployments", "conformance", "inference") for item in document[part]]
    hashes = tuple(dict.fromkeys((policy["file"], policy["sha256"]) for policy in policies))
    versions = ", ".join(f"{name} {text}" for name, text in document["manifest"].get("versions", {}).items())
    return join(
        bare_table(Table("Commands", columns, rows)),
        bare_table(Table("Policies", (Column("file", text=True), Column("sha256", text=True)), hashes)),
        tag("p", f"Versions: {versions}.") if versions else None,
    )
