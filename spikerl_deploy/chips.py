"""Limits of chips as data: those of data/chips.toml, and of a user's TOML file of the same schema (docs/fit.md)."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from spikerl_deploy.chip_tables import (
    HINT,
    Source,
    any_table,
    built_in_text,
    cited,
    file_text,
    fixed_table,
    integer,
    one_of,
    positive_list,
    read_sources,
    read_toml,
    text,
    within,
)
from spikerl_deploy.chip_tables import SOURCE_KINDS as KINDS
from spikerl_deploy.energy_constants import EnergyChip, read_energy
from spikerl_deploy.errors import SpikerlError, unknown

__all__ = ["KINDS", "LIMIT_NAMES", "Chip", "Limit", "Source", "SynapseMemory", "load_chip_file", "load_chips"]
NEURON_MODELS = ("cuba-lif", "cuba-lif-subtract", "lif")


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
    """Chips by name; one of a user's file that states energy alone has no limits.

    Args:
        extra: a user's file; its chips come beside the built-in ones.

    Raises:
        SpikerlError: the file cannot be read, or breaks the schema; names file, key and value.
    """
    chips, _ = _parse("data/chips.toml", built_in_text("chips.toml"))
    if extra is None:
        return chips
    added, _ = load_chip_file(extra)
    for name in added:
        if name in chips:
            raise SpikerlError(f"'{extra}': chip '{name}' is built in already", "give it another name")
    return chips | added


def load_chip_file(path: Path) -> tuple[dict[str, Chip], dict[str, EnergyChip]]:
    """A user's file: limits of its chips, and energy of those that state it.

    Raises:
        SpikerlError: as of `load_chips`.
    """
    return _parse(str(path), file_text(path))


def _parse(file: str, document: str) -> tuple[dict[str, Chip], dict[str, EnergyChip]]:
    entries = {name: _entry(file, name, entry) for name, entry in read_toml(file, document).items()}
    return (
        {name: chip for name, (chip, _) in entries.items()},
        {name: energy for name, (_, energy) in entries.items() if energy is not None},
    )


def _entry(file: str, name: str, entry: Any) -> tuple[Chip, EnergyChip | None]:
    table = fixed_table(
        file, name, entry, required=("title", "sources"), optional=("limits", "synapse_memory", "energy")
    )
    title = text(file, f"{name}.title", table["title"])
    sources = read_sources(file, f"{name}.sources", table["sources"])
    if "limits" not in table and "energy" not in table:
        raise SpikerlError(f"'{file}': {name} states neither limits nor energy", HINT)
    limits = {
        key: _limit(file, f"{name}.limits.{key}", key, value, sources)
        for key, value in any_table(file, f"{name}.limits", table.get("limits", {})).items()
    }
    if "limits" in table and not limits:
        raise SpikerlError(f"'{file}': {name}.limits is empty: nothing to check", HINT)
    memory = table.get("synapse_memory")
    if ("core_synapse_bits" in limits) != (memory is not None):
        raise SpikerlError(f"'{file}': {name} needs core_synapse_bits and synapse_memory together or neither", HINT)
    if any(key.startswith("core_") or key == "layer_kernels" for key in limits) and "cores" not in limits:
        raise SpikerlError(f"'{file}': {name}.limits has limits of a core, and cores is missing", HINT)
    chip = Chip(name, title, limits, None if memory is None else _memory(file, name, memory, sources))
    energy = table.get("energy")
    return chip, None if energy is None else read_energy(file, name, title, energy, sources)


def _limit(file: str, key: str, name: str, entry: Any, sources: Mapping[str, Source]) -> Limit:
    if name not in LIMIT_NAMES:
        raise within(file, unknown("limit", key, [f"{key.rpartition('.')[0]}.{known}" for known in LIMIT_NAMES], HINT))
    table = fixed_table(file, key, entry, required=("value", "source"))
    return Limit(_value(file, f"{key}.value", name, table["value"]), cited(file, key, table["source"], sources))


def _value(file: str, key: str, name: str, value: Any) -> int | str | tuple[int, ...]:
    if name == "neuron_model":
        return one_of(file, key, value, NEURON_MODELS)
    if name == "layer_kernels":
        return positive_list(file, key, value)
    return integer(file, key, value, signed=name in _SIGNED)


def _memory(file: str, name: str, entry: Any, sources: Mapping[str, Source]) -> SynapseMemory:
    key, numbers = f"{name}.synapse_memory", ("word_bits", "header_bits", "block_synapses")
    table = fixed_table(file, key, entry, required=(*numbers, "weight_widths", "source"))
    word, header, block = (integer(file, f"{key}.{number}", table[number]) for number in numbers)
    widths = positive_list(file, f"{key}.weight_widths", table["weight_widths"])
    return SynapseMemory(word, header, block, widths, cited(file, key, table["source"], sources))
