"""Whether one episode decides what a card says of retention: a fall of either policy outweighs what the others tell."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from spikerl_deploy.report.table import number, percent

WHOLE = 100.0  # from this return on decimals say nothing
DECIDES = 0.02  # of the retention: a seed without which it differs by more is named


def decisive_seed(card: Mapping[str, Any]) -> str | None:
    """A sentence on the seed without which the retention on Lava differs most, where that is much; else None."""
    evaluation = card["evaluation"]
    torch, lava = (evaluation["backends"][name]["returns"] for name in ("torch", "lava"))
    whole = _retention(torch, lava)
    if whole is None:
        return None
    others = [_retention(_without(torch, index), _without(lava, index)) for index in range(len(torch))]
    moved = {index: abs(kept - whole) for index, kept in enumerate(others) if kept is not None}
    index = max(moved, key=lambda one: moved[one], default=None)
    if index is None or moved[index] <= DECIDES:
        return None
    return (
        f"Seed {evaluation['seeds'][index]} decides the retention on Lava: the float policy returns "
        f"{_beside(torch[index], lava[index])} there, the integers {_beside(lava[index], torch[index])}. "
        f"Without that seed it is {percent(others[index], 4)}."
    )


def _beside(value: float, other: float) -> str:
    """A return to be read beside another: without decimals where either is large, or -1.774 reads as -1,774."""
    return f"{round(value):,}" if max(abs(value), abs(other)) >= WHOLE else number(value)


def _without(values: Sequence[float], index: int) -> list[float]:
    return [*values[:index], *values[index + 1 :]]


def _retention(torch: Sequence[float], lava: Sequence[float]) -> float | None:
    """None where there is no episode, or the float return is not positive."""
    return sum(lava) / sum(torch) if sum(torch) > 0 else None
