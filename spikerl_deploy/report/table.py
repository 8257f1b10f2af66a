"""A table of a report, which the page and the Markdown summary both show, and how its numbers are written."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

MISSING = "\N{EN DASH}"
Cell = str | float | int | bool | None
_UNPRINTABLE = re.compile("[^\t\n\x20-\x7e\xa0-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")  # also what XML cannot hold


@dataclass(frozen=True)
class Column:
    """Name and unit of a column. `text`: its cells are words, set to the left."""

    name: str
    unit: str = ""
    text: bool = False

    @property
    def heading(self) -> str:
        return f"{self.name} ({self.unit})" if self.unit else self.name


@dataclass(frozen=True)
class Table:
    """Rows of cells, one a column; None is a value that is not known."""

    title: str
    columns: tuple[Column, ...]
    rows: tuple[tuple[Cell, ...], ...]
    note: str = ""

    def __post_init__(self) -> None:
        assert all(len(row) == len(self.columns) for row in self.rows), self.title


def printable(value: Any) -> Any:
    """A document whose texts hold only characters that HTML and XML can hold; others become U+FFFD."""
    if isinstance(value, str):
        return _UNPRINTABLE.sub("\N{REPLACEMENT CHARACTER}", value)
    if isinstance(value, dict):
        return {printable(key): printable(item) for key, item in value.items()}
    if isinstance(value, list):
        if value and isinstance(value[0], (int, float)):  # a column of numbers, which may be long
            return value
        return [printable(item) for item in value]
    return value


def number(value: float | int | None, digits: int = 4) -> str:
    """A number for people: integers in full, others to some significant digits, thousands apart."""
    if value is None:
        return MISSING
    if isinstance(value, int):
        return f"{value:,}"
    if value == 0:
        return "0"
    size = abs(value)
    if size >= 1e12 or size < 1e-4:
        return f"{value:.{digits - 1}e}"
    if size >= 10 ** (digits - 1):
        return f"{value:,.0f}"
    return f"{value:#.{digits}g}".rstrip(".")


def span(low: float, high: float, digits: int = 3) -> str:
    """A range, or one number where both ends are written alike."""
    ends = number(low, digits), number(high, digits)
    return ends[0] if ends[0] == ends[1] else f"{ends[0]} to {ends[1]}"


def percent(share: float | None, digits: int = 3) -> str:
    """A share as a percentage."""
    return MISSING if share is None else f"{number(float(share) * 100, digits)} %"


def joules(microjoules: float, digits: int = 3) -> str:
    """An energy, given in microjoules, with the prefix that fits its size."""
    for factor, unit in ((1e12, "MJ"), (1e9, "kJ"), (1e6, "J"), (1e3, "mJ"), (1.0, "µJ"), (1e-3, "nJ")):
        if abs(microjoules) >= factor:
            return f"{number(microjoules / factor, digits)} {unit}"
    return f"{number(microjoules * 1e6, digits)} pJ" if microjoules else "0 µJ"


def joule_span(low: float | None, high: float | None) -> str:
    """A range of energies, given in microjoules."""
    if low is None or high is None:
        return MISSING
    ends = joules(low), joules(high)
    if ends[0] == ends[1]:
        return ends[0]
    (first, unit), other = ends[0].rsplit(" ", 1), ends[1].rsplit(" ", 1)[1]
    return f"{first} to {ends[1]}" if unit == other else f"{ends[0]} to {ends[1]}"


def cell_text(cell: Cell) -> str:
    """A cell as it is shown."""
    if cell is None:
        return MISSING
    if isinstance(cell, bool):
        return "yes" if cell else "no"
    return cell if isinstance(cell, str) else number(cell)


def compact(value: float) -> str:
    """A count with the prefix that fits its size, where there is little room."""
    for factor, unit in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= factor:
            return f"{number(value / factor, 3)}{unit}"
    return number(value if isinstance(value, int) else float(value), 3)


def shorten(text: str, limit: int) -> str:
    """A text in one line of at most `limit` characters."""
    line = " ".join(text.split())
    return line if len(line) <= limit else line[: limit - 1] + "…"


def capitalized(text: str) -> str:
    """A text with a capital at its beginning; the rest stays."""
    return text[:1].upper() + text[1:]


def words(items: Sequence[str]) -> str:
    """A list as in a sentence."""
    return ", ".join(items[:-1]) + " and " + items[-1] if len(items) > 1 else "".join(items)
