"""What both the results and the cards take from a run folder: which files decide it, and the settings that differ."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import asdict
from typing import Any

from training.settings import Settings

RECORDS = ("config.toml", "manifest.json", "manifest-resumed.json", "result.json", "emissions.json")


def changed(settings: Settings, others: Settings, without: Collection[str] = ()) -> dict[str, Any]:
    """Settings that differ from others, by name, in their order and as JSON has them."""
    mine, theirs = asdict(settings), asdict(others)
    names = [name for name in mine if name not in without and mine[name] != theirs[name]]
    return {name: list(mine[name]) if isinstance(mine[name], tuple) else mine[name] for name in names}
