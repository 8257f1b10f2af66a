"""The energy constants as Markdown tables, for docs/energy.md and for reading."""

from __future__ import annotations

from collections.abc import Iterable

from spikerl_deploy.energy_constants import MEMORY, EnergyChips, Value


def constants_table(chips: EnergyChips) -> str:
    """Every constant, a row for each source of it."""
    rows = ["| target | constant | value | kind | source | note |", "| --- | --- | --- | --- | --- | --- |"]
    for chip in chips.chips.values():
        for name, constant in chip.constants.items():
            ends = [("", constant.low)]
            if constant.low != constant.high:
                ends = [(", low", constant.low), (", high", constant.high)]
            rows += [_row(chip.title, name.replace("_", " ") + end, _words(value), value) for end, value in ends]
        rows += [
            _row(chip.title, f"{MEMORY.replace('_', ' ')}, {size // 1024} kB", _words(value), value)
            for size, value in chip.memory
        ]
    return "\n".join(rows)


def references_table(chips: EnergyChips) -> str:
    """What is published of other networks as a whole."""
    rows = ["| target | what | value | kind | source | note |", "| --- | --- | --- | --- | --- | --- |"]
    for chip in chips.chips.values():
        for each in chip.references:
            spread = "" if each.spread is None else f" ± {each.spread:g}"
            value = f"{each.value:g}{spread} {each.unit}"
            rows.append(_line((chip.title, each.what, value, each.kind, each.source, each.note)))
    return "\n".join(rows)


def _words(value: Value) -> str:
    return f"{value.value * 1e3:g} mW" if value.unit == "W" else f"{value.value:g} pJ"


def _row(title: str, name: str, words: str, value: Value) -> str:
    return _line((title, name, words, value.kind, value.source, value.note))


def _line(cells: Iterable[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"
