"""Energy of additions, multiplications and memory accesses of a technology (45 nm CMOS)."""

from __future__ import annotations

import itertools
from dataclasses import dataclass

from spikerl_deploy.energy_constants import EnergyChip

Bounds = tuple[float, float]  # pJ, under the low and the high set of constants
FLOAT_BITS = 32


@dataclass(frozen=True)
class Numbers:
    """Arithmetic of one number format.

    Attributes:
        add, multiply: pJ, low and high.
        weight_bits, activation_bits: of the operands, for the size of their memories.
        constants: names of those it is made from.
    """

    add: Bounds
    multiply: Bounds
    weight_bits: int
    activation_bits: int
    constants: tuple[str, ...]

    @property
    def multiply_accumulate(self) -> Bounds:
        return self.add[0] + self.multiply[0], self.add[1] + self.multiply[1]


def floats(chip: EnergyChip, bits: int) -> Numbers:
    """FP32 or FP16."""
    names = f"fp{bits}_add", f"fp{bits}_multiply"
    add, multiply = (_bounds(chip, name, name) for name in names)
    return Numbers(add, multiply, bits, bits, names)


def quantized(chip: EnergyChip, activation_bits: int) -> Numbers:
    """8-bit weights with activations of b bits, the accumulator 8 bits wide (low) or 32 (high).

    Derived: an array multiplier has a row of adders for each bit of an operand, so one of 8 by b bits takes b / 8
    of the energy of one of 8 by 8.
    """
    low, high = _bounds(chip, "int8_multiply", "int8_multiply")
    share = activation_bits / 8
    names = "int8_add", "int32_add", "int8_multiply"
    return Numbers(_bounds(chip, "int8_add", "int32_add"), (low * share, high * share), 8, activation_bits, names)


def integers_of(chip: EnergyChip, weight_bits: int) -> Numbers:
    """What a spiking layer with weights of so many bits adds with: FP32, or integers of 8 (low) or 32 bits (high)."""
    if weight_bits == FLOAT_BITS:
        return floats(chip, FLOAT_BITS)
    if weight_bits <= 8:
        return quantized(chip, 8)
    return wide(chip)


def wide(chip: EnergyChip) -> Numbers:
    """32-bit integers: neuron states, addresses."""
    names = "int32_add", "int32_multiply"
    add, multiply = (_bounds(chip, name, name) for name in names)
    return Numbers(add, multiply, 32, 32, names)


def access_energy(chip: EnergyChip, size: float) -> float:
    """Energy of one access of a memory of `size` bytes, in pJ.

    Between the published sizes, from nothing at 0 bytes, and on along the last line above the largest.
    """
    points = [(0.0, 0.0), *((float(place), value.value) for place, value in chip.memory)]
    lines = list(itertools.pairwise(points))
    (size_0, energy_0), (size_1, energy_1) = next((line for line in lines if size <= line[1][0]), lines[-1])
    return energy_0 + (size - size_0) * (energy_1 - energy_0) / (size_1 - size_0)


def _bounds(chip: EnergyChip, low: str, high: str) -> Bounds:
    return chip.constants[low].low.value, chip.constants[high].high.value
