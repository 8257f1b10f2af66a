"""A new card beside a shipped one: what training again from nothing gives."""

from __future__ import annotations

from typing import Any

from spikerl_deploy.errors import CheckFailed, SpikerlError
from spikerl_deploy.model_card_tables import retention_text, settings_words
from spikerl_deploy.report.table import Column, Table, cell_text, number

HASHES = {
    "checkpoint": ("training", "checkpoint", "sha256"),
    "deployed policy": ("policy", "content_sha256"),
    "file": ("policy", "sha256"),
}


def comparison_table(shipped: dict[str, Any], new: dict[str, Any]) -> Table:
    """The numbers of both, and whether the hashes agree."""
    columns = (Column("", text=True), Column("shipped"), Column("new"))
    rows = [(what, *(value(card) for card in (shipped, new))) for what, value in _ROWS.items()]
    for what, path in HASHES.items():
        one, other = (_at(card, path) for card in (shipped, new))
        agree = "the same" if one == other else "differs"
        rows.append((f"sha256, {what}", f"{one[:16]}...", f"{other[:16]}... {agree}"))
    note = "The file's hash holds when it was made, and so differs where its policy is the same."
    return Table(f"{new['name']}: shipped and new", columns, tuple(rows), note)


_ROWS = {
    "seed": lambda card: str(card["training"]["seed"]),
    "settings beyond the recipe": lambda card: settings_words(card["training"]["beyond_recipe"]),
    "environment steps": lambda card: f"{card['training']['steps_done']:,} of {card['training']['steps_asked']:,}",
    "step of the checkpoint": lambda card: f"{card['training']['checkpoint']['step']:,}",
    "best evaluation": lambda card: number(card["training"]["selection"]["mean_return"]),
    "episodes": lambda card: str(len(card["evaluation"]["seeds"])),
    "float return": lambda card: number(card["evaluation"]["backends"]["torch"]["mean_return"]),
    "return on fixed": lambda card: number(card["evaluation"]["backends"]["fixed"]["mean_return"]),
    "return on lava": lambda card: number(card["evaluation"]["backends"]["lava"]["mean_return"]),
    "retention on lava": lambda card: retention_text(card["evaluation"]["comparisons"]["lava"]),
    "synaptic operations": lambda card: f"{card['workload']['per_inference']['synaptic_operations']:,.0f}",
    "spikes": lambda card: f"{card['workload']['per_inference']['spikes']:,.0f}",
    "seconds of training": lambda card: f"{card['training']['seconds']:,.0f}",
}


def _at(card: dict[str, Any], path: tuple[str, ...]) -> str:
    value: Any = card
    for key in path:
        value = value[key]
    return str(value)


def check_comparable(shipped: dict[str, Any], env_id: str, fraction: float | None, episodes: int) -> None:
    """Refuse, before anything long, what cannot be compared.

    Raises:
        SpikerlError: another environment, or a bound without meaning: over other episodes, or of no positive return.
    """
    if shipped["environment"]["id"] != env_id:
        raise SpikerlError(f"'{shipped['name']}' is for {shipped['environment']['id']}, this run for {env_id}",
                           "compare with the card of the same environment")  # fmt: skip
    base = shipped["evaluation"]["backends"]["torch"]["mean_return"]
    if fraction is not None and base <= 0:
        raise SpikerlError(f"the shipped float return {base:g} is not positive: no fraction of it can be required",
                           "leave --require-return out")  # fmt: skip
    played = len(shipped["evaluation"]["seeds"])
    if fraction is not None and played != episodes:
        raise SpikerlError(f"--episodes {episodes}: a share of the shipped return over {played} episodes is required",
                           f"--episodes {played}, or leave --require-return out")  # fmt: skip


def check_return(shipped: dict[str, Any], new: dict[str, Any], fraction: float) -> None:
    """Require a share of the shipped float return.

    Raises:
        CheckFailed: the new one is lower.
    """
    base, found = (card["evaluation"]["backends"]["torch"]["mean_return"] for card in (shipped, new))
    if found < fraction * base:
        raise CheckFailed(f"float return {found:.1f} is below {fraction:g} times the shipped {base:.1f}",
                          "runs differ by their seed and machine; train with other seeds")  # fmt: skip


def print_table(table: Table) -> None:
    """A table on stdout, columns aligned."""
    rows = [[column.heading for column in table.columns], *([cell_text(cell) for cell in row] for row in table.rows)]
    widths = [max(len(row[index]) for row in rows) for index in range(len(table.columns))]
    print(table.title)
    for row in rows:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
    if table.note:
        print(table.note)
