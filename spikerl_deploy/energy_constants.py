"""Energy constants of chips and of arithmetic: data/energy.toml, and the same section of a user's chip file.

docs/energy.md has the schema and the table of all constants.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

from spikerl_deploy.chip_tables import (
    HINT,
    Source,
    any_table,
    built_in_text,
    cited,
    fixed_table,
    integer,
    one_of,
    positive,
    read_sources,
    read_toml,
    text,
    within,
)
from spikerl_deploy.errors import SpikerlError, unknown

KINDS = ("measured", "simulated", "fitted", "derived", "datasheet")
UNITS = {"pJ": 1.0, "nJ": 1e3, "uJ": 1e6, "uW": 1e-6, "mW": 1e-3, "W": 1.0}  # to pJ, to W
MOST = {
    "pJ": 1e12,
    "W": 1e6,
}  # a joule an operation, a megawatt a chip: beyond is a slip, and overflows
BYTES_MAX = 1 << 60  # of a memory
REFERENCE_UNITS = ("uJ per inference", "pJ per synaptic operation", "uW")
CHIP_NAMES = ("synaptic_operation", "neuron_update", "neuron_update_active", "spike")
ARITHMETIC_NAMES = tuple(f"{width}_{op}" for width in ("fp32", "fp16", "int32", "int8") for op in ("add", "multiply"))
POWER = "static_power"
PROCESSOR = "multiply_accumulate"
CONSTANT_NAMES = (*CHIP_NAMES, POWER, PROCESSOR, *ARITHMETIC_NAMES)
MEMORY = "memory_access"
HELD_BACK = ("note", "licence", "license", "references", MEMORY)


@dataclass(frozen=True)
class Value:
    """A published number: pJ, or W for `static_power`; `source` is a citation, `kind` one of KINDS."""

    value: float
    unit: str
    kind: str
    source: str
    note: str = ""


@dataclass(frozen=True)
class Constant:
    """One constant under the chip's low and its high set of assumptions; the same where one is published.

    A set belongs together: single constants of the high set may lie below those of the low one.
    """

    low: Value
    high: Value


@dataclass(frozen=True)
class Reference:
    """What is published of another network as a whole; `spread` is a standard deviation."""

    what: str
    value: float
    spread: float | None
    unit: str
    kind: str
    source: str
    note: str


@dataclass(frozen=True)
class EnergyChip:
    """What is published of the energy of a chip or an arithmetic; a constant that is absent is unknown.

    Attributes:
        memory: size of a memory in bytes and energy of one access, sizes rising.
        licence: of the constants, for those of a user.
    """

    name: str
    title: str
    note: str
    licence: str | None
    constants: Mapping[str, Constant]
    memory: tuple[tuple[int, Value], ...]
    references: tuple[Reference, ...]

    def values(self, *names: str) -> Iterator[Value]:
        """Low and high values of those of the named constants that are published, and of the memory if named."""
        for name in names:
            if name in self.constants:
                yield self.constants[name].low
                yield self.constants[name].high
            elif name == MEMORY:
                yield from (value for _, value in self.memory)

    def states(self, *names: str) -> bool:
        """Whether all of the named constants are published."""
        return all(name in self.constants or (name == MEMORY and bool(self.memory)) for name in names)


@dataclass(frozen=True)
class EnergyChips:
    """Version of the built-in constants, and every chip by name."""

    version: str
    chips: Mapping[str, EnergyChip]


@cache
def built_in_energy() -> EnergyChips:
    """The constants of data/energy.toml."""
    file = "data/energy.toml"
    document = read_toml(file, built_in_text("energy.toml"))
    version = text(file, "version", document.pop("version", None))
    return EnergyChips(version, {name: _chip(file, name, entry) for name, entry in document.items()})


def _chip(file: str, name: str, entry: Any) -> EnergyChip:
    table = fixed_table(file, name, entry, required=("title", "sources", "energy"))
    sources = read_sources(file, f"{name}.sources", table["sources"])
    return read_energy(file, name, text(file, f"{name}.title", table["title"]), table["energy"], sources)


def read_energy(file: str, name: str, title: str, entry: Any, sources: Mapping[str, Source]) -> EnergyChip:
    """The table `energy` of a chip.

    Raises:
        SpikerlError: it breaks the schema; names file, key and value.
    """
    key, table = f"{name}.energy", any_table(file, f"{name}.energy", entry)
    known = [f"{key}.{constant}" for constant in (*CONSTANT_NAMES, *HELD_BACK)]
    for found in table:
        if f"{key}.{found}" not in known:
            raise within(file, unknown("energy constant", f"{key}.{found}", known, HINT))
    if "licence" in table and "license" in table:
        raise SpikerlError(f"'{file}': {key} has both licence and license", HINT)
    licence = table.get("licence", table.get("license"))
    chip = EnergyChip(
        name=name,
        title=title,
        note=text(file, f"{key}.note", table["note"]) if "note" in table else "",
        licence=None if licence is None else text(file, f"{key}.licence", licence),
        constants={
            constant: _constant(file, f"{key}.{constant}", constant, table[constant], sources)
            for constant in CONSTANT_NAMES
            if constant in table
        },
        memory=_memory(file, f"{key}.{MEMORY}", table.get(MEMORY, []), sources),
        references=_references(file, f"{key}.references", table.get("references", []), sources),
    )
    _check_together(file, key, chip)
    return chip


def _check_together(file: str, key: str, chip: EnergyChip) -> None:
    """Constants that are of no use, or would mislead, without others."""
    if not chip.constants and not chip.references:
        raise SpikerlError(f"'{file}': {key} states no constant", HINT)
    for constant in (*CHIP_NAMES[1:], POWER):
        if constant in chip.constants and "synaptic_operation" not in chip.constants:
            raise SpikerlError(f"'{file}': {key} has {constant}, and synaptic_operation is missing", HINT)
    if "neuron_update_active" in chip.constants and "neuron_update" not in chip.constants:
        raise SpikerlError(f"'{file}': {key} has neuron_update_active, and neuron_update is missing", HINT)
    arithmetic = (*ARITHMETIC_NAMES, MEMORY)
    missing = [name for name in arithmetic if not chip.states(name)]
    if missing and len(missing) < len(arithmetic):
        raise SpikerlError(f"'{file}': {key} states arithmetic, and {', '.join(missing)} is missing", HINT)
    if not missing and "synaptic_operation" in chip.constants:
        raise SpikerlError(f"'{file}': {key} states a chip's synaptic_operation and arithmetic: make two of it", HINT)


def _constant(file: str, key: str, name: str, entry: Any, sources: Mapping[str, Source]) -> Constant:
    table = any_table(file, key, entry)
    if "low" not in table and "high" not in table:
        value = _value(file, key, name, table, sources)
        return Constant(value, value)
    fixed_table(file, key, table, required=("low", "high"))
    return Constant(*(_value(file, f"{key}.{end}", name, table[end], sources) for end in ("low", "high")))


def _value(
    file: str, key: str, name: str, entry: Any, sources: Mapping[str, Source], extra: tuple[str, ...] = ()
) -> Value:
    table = fixed_table(file, key, entry, ("value", "unit", "kind", "source", *extra), optional=("where", "note"))
    units = ("uW", "mW", "W") if name == POWER else ("pJ", "nJ", "uJ")
    unit = one_of(file, f"{key}.unit", table["unit"], units)
    base = "W" if name == POWER else "pJ"
    value = positive(file, f"{key}.value", table["value"]) * UNITS[unit]
    if value > MOST[base]:
        raise SpikerlError(f"'{file}': {key} = {table['value']:g} {unit} is above {MOST[base]:g} {base}", HINT)
    return Value(
        value=value,
        unit=base,
        kind=one_of(file, f"{key}.kind", table["kind"], KINDS),
        source=_citation(file, key, table, sources),
        note=text(file, f"{key}.note", table["note"]) if "note" in table else "",
    )


def _citation(file: str, key: str, table: Mapping[str, Any], sources: Mapping[str, Source]) -> str:
    name = cited(file, key, table["source"], sources).name
    return f"{name}, {text(file, f'{key}.where', table['where'])}" if "where" in table else name


def _memory(file: str, key: str, entries: Any, sources: Mapping[str, Source]) -> tuple[tuple[int, Value], ...]:
    points = tuple(
        (
            integer(file, f"{key}[{index}].bytes", any_table(file, f"{key}[{index}]", entry).get("bytes")),
            _value(file, f"{key}[{index}]", MEMORY, entry, sources, extra=("bytes",)),
        )
        for index, entry in enumerate(_list(file, key, entries))
    )
    for index, (size, _) in enumerate(points):
        if size > BYTES_MAX:
            raise SpikerlError(f"'{file}': {key}[{index}].bytes is above {BYTES_MAX}", HINT)
    for (smaller, _), (larger, _) in itertools.pairwise(points):
        if larger <= smaller:
            raise SpikerlError(f"'{file}': {key}: bytes {larger} after {smaller} must rise", HINT)
    return points


def _references(file: str, key: str, entries: Any, sources: Mapping[str, Source]) -> tuple[Reference, ...]:
    found = []
    for index, entry in enumerate(_list(file, key, entries)):
        place = f"{key}[{index}]"
        required, optional = ("what", "value", "unit", "kind", "source"), ("spread", "where", "note")
        table = fixed_table(file, place, entry, required, optional)
        found.append(
            Reference(
                what=text(file, f"{place}.what", table["what"]),
                value=positive(file, f"{place}.value", table["value"]),
                spread=positive(file, f"{place}.spread", table["spread"]) if "spread" in table else None,
                unit=one_of(file, f"{place}.unit", table["unit"], REFERENCE_UNITS),
                kind=one_of(file, f"{place}.kind", table["kind"], KINDS),
                source=_citation(file, place, table, sources),
                note=text(file, f"{place}.note", table["note"]) if "note" in table else "",
            )
        )
    return tuple(found)


def _list(file: str, key: str, value: Any) -> list[Any]:
    if not isinstance(value, list):
        raise SpikerlError(f"'{file}': {key} = {value!r} is no list", HINT)
    return value
