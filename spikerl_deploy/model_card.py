"""The card of a shipped policy: read against its schema, and rendered for people from that one document."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

from spikerl_deploy.errors import SpikerlError
from spikerl_deploy.model_card_checks import disagreements
from spikerl_deploy.model_card_decisive import decisive_seed
from spikerl_deploy.model_card_energy import (
    baselines_table,
    break_even_table,
    counts_table,
    energy_table,
    layers_table,
    verdict_text,
)
from spikerl_deploy.model_card_tables import (
    backends_table,
    identity_table,
    interval_text,
    overview_table,
    quantization_text,
    retention_table,
    seeds_table,
    settings_text,
    training_table,
)
from spikerl_deploy.report.markdown import folded, plain_text, table_lines
from spikerl_deploy.report.table import Table, number, percent

SCHEMA = "spikerl.card/1"
TITLE = "# Shipped policies"  # first line of the overview
FORMAT_HINT = "docs/policies.md says what a card holds and how one is made"
KEPT = 0.99  # share of the float return that a shipped policy is expected to keep
FEW_SEEDS = 10


@dataclass(frozen=True)
class Section:
    """A part of a card as it is shown; `aside`: a page folds its tables away."""

    title: str
    paragraphs: tuple[str, ...] = ()
    tables: tuple[Table, ...] = ()
    aside: tuple[Table, ...] = ()
    items: tuple[str, ...] = ()
    commands: tuple[str, ...] = ()


@cache
def card_schema() -> dict[str, Any]:
    """The published JSON schema, draft 2020-12."""
    text = files("spikerl_deploy").joinpath("data/card.schema.json").read_text(encoding="utf-8")
    schema: dict[str, Any] = json.loads(text)
    return schema


def read_card(path: Path) -> dict[str, Any]:
    """Read a card.

    Raises:
        SpikerlError: no such file, or no card that is whole; names the place and the value.
    """
    from spikerl_deploy.report.document import read_json

    try:
        document = read_json(path)
    except SpikerlError as error:
        raise SpikerlError(error.message, FORMAT_HINT) from error
    validate_card(document, str(path))
    return document


def validate_card(document: dict[str, Any], name: str) -> None:
    """Hold a card against the schema, and against what a schema cannot say.

    Raises:
        SpikerlError: names the place, and the value.
    """
    from spikerl_deploy.report.document import misfit

    problem = misfit(document, card_schema()) or next(disagreements(document), None)
    if problem is not None:
        raise SpikerlError(f"'{name}' is no valid {SCHEMA}: {problem}", FORMAT_HINT)


def remarks(card: dict[str, Any]) -> list[str]:
    """What a reader must know before anything else."""
    training, evaluation = card["training"], card["evaluation"]
    found = []
    if not training["finished"]:
        found.append(
            f"Unfinished: the run was asked for {training['steps_asked']:,} environment steps and had done "
            f"{training['steps_done']:,} when this policy was taken from it."
        )
    if training["selection"]["of_seeds"] > 1:
        found.append(
            f"Chosen among {training['selection']['of_seeds']} seeds of the recipe: another seed is expected to "
            "return less."
        )
    backends, lava = evaluation["backends"], evaluation["comparisons"]["lava"]
    if backends["lava"]["returns"] != backends["fixed"]["returns"]:
        found.append("fixed and lava, which run the same integers, did not give the same returns.")
    if lava["retention"] is not None and lava["retention"] < KEPT:
        found.append(f"On Lava it keeps {percent(lava['retention'])} of the float return, less than {percent(KEPT)}.")
    if (decisive := decisive_seed(card)) is not None:
        found.append(decisive)
    if len(evaluation["seeds"]) < FEW_SEEDS:
        found.append(f"{len(evaluation['seeds'])} episodes only: intervals are only as wide as those episodes.")
    if evaluation["float_policy"] == "in the checkpoint":
        found.append(
            "The file carries no float weights. Returns of torch and retention on this card are against the float "
            "policy of the checkpoint; spikerl simulate --compare torch can only compare with the integers in "
            "floating point, and says so."
        )
    return found


def summary(card: dict[str, Any]) -> str:
    """The policy and its numbers in two or three sentences."""
    policy, evaluation = card["policy"], card["evaluation"]
    lava, comparison = evaluation["backends"]["lava"], evaluation["comparisons"]["lava"]
    interval = interval_text(lava["return_interval"])
    within = f" [{interval}]" if interval else ""
    kept = "Retention is undefined, since the float return is not positive."
    if comparison["retention"] is not None:
        kept = f"It keeps {percent(comparison['retention'], 4)} of the float return{_within(comparison)}."
    return (
        f"A spiking policy for {card['environment']['id']}: {'-'.join(map(str, policy['sizes']))} neurons, "
        f"T {policy['time_steps']}, {policy['bits']}-bit integer weights. In closed loop on Lava it returns "
        f"{number(lava['mean_return'])}{within}, the float policy "
        f"{number(evaluation['backends']['torch']['mean_return'])}: means of {len(evaluation['seeds'])} paired "
        f"episodes. {kept} An inference takes {card['workload']['per_inference']['synaptic_operations']:,.0f} "
        "synaptic operations."
    )


def _within(comparison: dict[str, Any]) -> str:
    interval = comparison["retention_interval"]
    return f" [{percent(interval[0], 4)} to {percent(interval[1], 4)}]" if interval else ""


def sections(card: dict[str, Any]) -> list[Section]:
    """The card in the order in which it is shown."""
    evaluation, energy = card["evaluation"], card["energy"]
    seeds = evaluation["seeds"]
    played = f"seeds {seeds[0]} to {seeds[-1]}" if len(seeds) > 1 else f"seed {seeds[0]}"
    return [
        Section(
            "Returns",
            (
                f"Undiscounted returns of whole episodes, {played}, which had no part in choosing the checkpoint or "
                f"the quantization. Intervals: {evaluation['interval']}.",
            ),
            (backends_table(card), retention_table(card)),
            (seeds_table(card),),
        ),
        Section("Training", (), (training_table(card),), (), settings_text(card)),
        Section("Quantization", quantization_text(card)),
        Section(
            "What an inference costs",
            (
                f"Counted on {card['workload']['backend']}, means over {card['workload']['control_steps']:,} control "
                "steps. Energies are modelled from these counts with published constants, and are no measurement of "
                f"a chip; they leave out: {'; '.join(energy['exclusions'])}.",
                *verdict_text(card),
            ),
            (counts_table(card), energy_table(card)),
            (layers_table(card), baselines_table(card), break_even_table(card)),
        ),
        Section("Use and limits", (card["use"]["intended"],), items=tuple(card["use"]["limits"])),
        Section("Make it again", commands=tuple(card["reproduce"])),
        Section("Identity", tables=(identity_table(card),)),
    ]


def card_markdown(card: dict[str, Any]) -> str:
    """The card as Markdown, for people who read the repository; its text is escaped."""
    lines = [f"# {plain_text(card['name'])}", ""]
    for line in remarks(card):
        lines += [f"> **{plain_text(line)}**", ""]
    lines += [plain_text(summary(card)), ""]
    for section in sections(card):
        lines += [f"## {section.title}", ""]
        for paragraph in section.paragraphs:
            lines += [plain_text(paragraph), ""]
        for table in section.tables:
            lines += table_lines(table)
        for table in section.aside:
            lines += folded(table.title, table)
        lines += [f"- {plain_text(item)}" for item in section.items] + [""] * bool(section.items)
        lines += [f"    {' '.join(command.split())}" for command in section.commands] + [""] * bool(section.commands)
    return "\n".join(lines).rstrip() + "\n"


def overview_markdown(cards: Sequence[dict[str, Any]]) -> str:
    """README.md of the folder of policies; made from the cards."""
    lines = [
        TITLE,
        "",
        "Trained spiking policies that come with spikerl. Each is one file, `NAME.nir`, beside its card, `NAME.json`;",
        "`NAME.md` is the card for people. They run by name, right after installation:",
        "",
        "    spikerl policies",
        "    spikerl simulate NAME --backend lava",
        "",
        "[docs/policies.md](../docs/policies.md) says what a card holds and how a policy is added. This file and the",
        "cards are written by `python -m benchmarks.publish`.",
        "",
    ]
    return "\n".join([*lines, policies_table(cards)])


def policies_table(cards: Sequence[dict[str, Any]], folder: str = "") -> str:
    """Markdown of a row a policy, whose names link to their pages in a folder."""
    if not cards:
        return "There is none yet.\n"
    table = table_lines(overview_table(cards))
    for card in cards:
        link = f"| [{card['name']}]({folder}{card['name']}.md) |"
        table = [line.replace(f"| {card['name']} |", link) for line in table]
    for card in cards:
        if (decisive := decisive_seed(card)) is not None:
            table += [plain_text(f"{card['name']}: {decisive}"), ""]
    return "\n".join(table).rstrip() + "\n"
