"""Limits of chips as data: those of data/chips.toml, and of a user's TOML file of the same schema (docs/fit.md)."""

from __future__ import annotations

import math
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

from spikerl_deploy.errors import SpikerlError, unknown

KINDS = ("datasheet", "paper", "documentation", "source code", "secondary")
NEURON_MODELS = ("cuba-lif", "cuba-lif-subtract", "lif")
HINT = "docs/fit.md has the schema of a chip file"


@dataclass(frozen=True)
class Source:
    """Where a figure is from; `kind` is one of KINDS."""

    name: str
    kind: str
    url: str | None = None


@dataclass(frozen=True)
class Limit:
    """A published limit: a number, a neuron model, or one number for each core."""

    value: int | str | tuple[int, ...]
    source: Source


@dataclass(frozen=True)
class SynapseMemory:
    """How a core stores the synapses of an axon.

    Attributes:
        word_bits: a block fills whole words. header_bits: of a block. block_synapses: most synapses of a block.
        weight_widths: widths in bits that a weight may take.
    """

    word_bits: int
    header_bits: int
    block_synapses: int
    weight_widths: tuple[int, ...]
    source: Source

    def axon_bits(self, synapses: int, weight_bits: int) -> int:
        """Memory of one axon's synapses, in bits; a weight takes the narrowest width that holds it."""
        width = min((w for w in self.weight_widths if w >= weight_bits), default=max(self.weight_widths))
        full, rest = divmod(synapses, self.block_synapses)
        return full * self._block_bits(self.block_synapses * width) + (self._block_bits(rest * width) if rest else 0)

    def _block_bits(self, weight_bits: int) -> int:
        return math.ceil((weight_bits + self.header_bits) / self.word_bits) * self.word_bits


@dataclass(frozen=True)
class Chip:
    """What is published of a chip; a limit that is absent is unknown."""

    name: str
    title: str
    limits: Mapping[str, Limit]
    synapse_memory: SynapseMemory | None = None

    def number(self, limit: str) -> int | None:
        """A limit that is one number, or None where none is published."""
        found = self.limits.get(limit)
        return found.value if found is not None and isinstance(found.value, int) else None


_NUMBERS = (
    "weight_bits", "threshold_max", "inputs", "hidden_neurons", "output_neurons", "neurons", "synapses", "fan_in",
    "fan_out", "layer_neurons", "cores", "core_neurons", "core_in_axons", "core_out_axons", "core_synapse_bits",
    "core_thresholds", "core_decays", "core_bytes",
)  # fmt: skip
_SIGNED = ("weight_min", "weight_max", "weight_exp_min", "weight_exp_max")
LIMIT_NAMES = ("neuron_model", *_NUMBERS, *_SIGNED, "layer_kernels")


def load_chips(extra: Path | None = None) -> dict[str, Chip]:
    """Chips by name.

    Args:
        extra: a user's file; its chips come beside the built-in ones.

    Raises:
        SpikerlError: the file cannot be read, or breaks the schema; names file, key and value.
    """
    built_in = files("spikerl_deploy").joinpath("data/chips.toml").read_text(encoding="utf-8")
    chips = _parse("data/chips.toml", built_in)
    if extra is None:
        return chips
    try:
        text = extra.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise SpikerlError(f"cannot read chip file '{extra}': {error}", HINT) from error
    added = _parse(str(extra), text)
    for name in added:
        if name in chips:
            raise SpikerlError(f"'{extra}': chip '{name}' is built in already", "give it another name")
    return chips | added


def _parse(file: str, text: str) -> dict[str, Chip]:
    try:
        document = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise SpikerlError(f"'{file}' is not TOML: {error}", HINT) from error
    if not document:
        raise SpikerlError(f"'{file}' holds no chip", HINT)
    return {name: _chip(file, name, entry) for name, entry in document.items()}


def _chip(file: str, name: str, entry: Any) -> Chip:
    table = _table(file, name, entry, required=("title", "sources", "limits"), optional=("synapse_memory",))
    sources = {
        key: _source(file, f"{name}.sources.{key}", value)
        for key, value in _any_table(file, f"{name}.sources", table["sources"]).items()
    }
    limits = {
        key: _limit(file, f"{name}.limits.{key}", key, value, sources)
        for key, value in _any_table(file, f"{name}.limits", table["limits"]).items()
    }
    if not limits:
        raise SpikerlError(f"'{file}': {name}.limits is empty: nothing to check", HINT)
    memory = table.get("synapse_memory")
    if ("core_synapse_bits" in limits) != (memory is not None):
        raise SpikerlError(f"'{file}': {name} needs core_synapse_bits and synapse_memory together or neither", HINT)
    if any(key.startswith("core_") or key == "layer_kernels" for key in limits) and "cores" not in limits:
        raise SpikerlError(f"'{file}': {name}.limits has limits of a core, and cores is missing", HINT)
    title = _text(file, f"{name}.title", table["title"])
    return Chip(name, title, limits, None if memory is None else _memory(file, name, memory, sources))


def _source(file: str, key: str, entry: Any) -> Source:
    table = _table(file, key, entry, required=("name", "kind"), optional=("url",))
    kind = _text(file, f"{key}.kind", table["kind"])
    if kind not in KINDS:
        raise _within(file, unknown(f"{key}.kind", kind, KINDS, HINT))
    url = table.get("url")
    return Source(
        _text(file, f"{key}.name", table["name"]), kind, None if url is None else _text(file, f"{key}.url", url)
    )


def _limit(file: str, key: str, name: str, entry: Any, sources: Mapping[str, Source]) -> Limit:
    if name not in LIMIT_NAMES:
        raise _within(file, unknown("limit", key, [f"{key.rpartition('.')[0]}.{known}" for known in LIMIT_NAMES], HINT))
    table = _table(file, key, entry, required=("value", "source"))
    return Limit(_value(file, f"{key}.value", name, table["value"]), _cited(file, key, table["source"], sources))


def _value(file: str, key: str, name: str, value: Any) -> int | str | tuple[int, ...]:
    if name == "neuron_model":
        if _text(file, key, value) not in NEURON_MODELS:
            raise _within(file, unknown(key, value, NEURON_MODELS, HINT))
        return str(value)
    if name == "layer_kernels":
        return _positive_list(file, key, value)
    return _integer(file, key, value, signed=name in _SIGNED)


def _memory(file: str, name: str, entry: Any, sources: Mapping[str, Source]) -> SynapseMemory:
    key, numbers = f"{name}.synapse_memory", ("word_bits", "header_bits", "block_synapses")
    table = _table(file, key, entry, required=(*numbers, "weight_widths", "source"))
    word, header, block = (_integer(file, f"{key}.{number}", table[number]) for number in numbers)
    widths = _positive_list(file, f"{key}.weight_widths", table["weight_widths"])
    return SynapseMemory(word, header, block, widths, _cited(file, key, table["source"], sources))


def _cited(file: str, key: str, value: Any, sources: Mapping[str, Source]) -> Source:
    name = _text(file, f"{key}.source", value)
    if name not in sources:
        raise _within(file, unknown(f"{key}.source", name, sources, HINT))
    return sources[name]


def _any_table(file: str, key: str, value: Any) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise SpikerlError(f"'{file}': {key} = {value!r} is no table", HINT)
    return value


def _table(file: str, key: str, value: Any, required: Iterable[str], optional: Iterable[str] = ()) -> dict[str, Any]:
    """A table with all required keys and no key beyond the optional ones."""
    table, known = _any_table(file, key, value), [*required, *optional]
    for found in table:
        if found not in known:
            raise _within(file, unknown("key", f"{key}.{found}", [f"{key}.{name}" for name in known], HINT))
    for name in required:
        if name not in table:
            raise SpikerlError(f"'{file}': {key}.{name} is missing", HINT)
    return table


def _text(file: str, key: str, value: Any) -> str:
    if not isinstance(value, str) or not value.strip():
        raise SpikerlError(f"'{file}': {key} = {value!r} is no text", HINT)
    return value


def _integer(file: str, key: str, value: Any, signed: bool = False) -> int:
    if not isinstance(value, int) or isinstance(value, bool):
        raise SpikerlError(f"'{file}': {key} = {value!r} is no integer", HINT)
    if value <= 0 and not signed:
        raise SpikerlError(f"'{file}': {key} = {value} must be positive", HINT)
    return value


def _positive_list(file: str, key: str, value: Any) -> tuple[int, ...]:
    if not isinstance(value, list) or not value:
        raise SpikerlError(f"'{file}': {key} = {value!r} is no list of integers", HINT)
    return tuple(_integer(file, f"{key}[{index}]", item) for index, item in enumerate(value))


def _within(file: str, error: SpikerlError) -> SpikerlError:
    """The same error with the file that it is in."""
    return SpikerlError(f"'{file}': {error.message}", error.hint or HINT)
