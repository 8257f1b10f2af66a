"""Whether a policy fits a chip: what it needs beside what the chip has, for every published limit."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from spikerl_deploy.chips import Chip, Source, load_chips
from spikerl_deploy.cores import RESOURCES, Core, LayerLoad, Packing, pack
from spikerl_deploy.errors import SpikerlError
from spikerl_deploy.loihi import MANTISSA_BITS, bias_columns
from spikerl_deploy.policy import Policy

__all__ = ["Check", "FitReport", "check_fit", "load_chips"]

FLOAT_BITS = 32  # a float policy's weights
ASSUMED_BITS = 8  # width at which a float policy is counted where the chip states none
NOT_PUBLISHED = "not checked: no published limit"
NEURON_MODEL = "cuba-lif"  # current-based leaky integrate-and-fire that resets to zero
# Unit of each limit, and what it is called.
REQUIREMENTS = {
    "neuron_model": ("neuron model", ""),
    "weight_bits": ("weight bits", "bits"),
    "weight_min": ("smallest weight (int8)", ""),
    "weight_max": ("largest weight (int8)", ""),
    "weight_exp_min": ("smallest weight exponent", ""),
    "weight_exp_max": ("largest weight exponent", ""),
    "threshold_max": ("threshold mantissa", ""),
    "inputs": ("input channels", "axons"),
    "hidden_neurons": ("hidden neurons", "neurons"),
    "output_neurons": ("output neurons", "neurons"),
    "neurons": ("neurons", "neurons"),
    "synapses": ("synapses", "synapses"),
    "fan_in": ("fan-in of a neuron", "synapses"),
    "fan_out": ("fan-out of a neuron", "synapses"),
    "layer_neurons": ("inputs or neurons of a layer", "neurons"),
    "layer_kernels": ("kernel memory of a layer", "words"),
    "cores": ("cores", "cores"),
    "core_neurons": ("neurons of the fullest core", "neurons"),
    "core_in_axons": ("in-axons of the fullest core", "axons"),
    "core_out_axons": ("out-axons of the fullest core", "axons"),
    "core_synapse_bits": ("synapse memory of the fullest core", "bits"),
    "core_thresholds": ("thresholds of the fullest core", "configurations"),
    "core_decays": ("decays of the fullest core", "configurations"),
    "core_bytes": ("weights over all cores", "bytes"),
}


@dataclass(frozen=True)
class Check:
    """One requirement.

    Attributes:
        name: of the limit, as in the chip file. requirement: the same in words.
        needed: what the policy needs, None where a float policy has no such figure.
        limit: what the chip has, None where nothing is published.
        fits: None where it was not checked. margin: what is left, negative where it is exceeded.
        note: how the figure was counted, or why it was not checked.
    """

    name: str
    requirement: str
    needed: int | str | None
    limit: int | str | None
    unit: str
    fits: bool | None
    margin: int | None
    source: Source | None
    note: str = ""

    @property
    def excess(self) -> float:
        """By which share a failed check exceeds its limit; infinite for what is no number; 0 where it fits."""
        if self.fits is not False:
            return 0.0
        if self.margin is None or not isinstance(self.limit, int):
            return math.inf
        return -self.margin / max(abs(self.limit), 1)


@dataclass(frozen=True)
class FitReport:
    """All checks of a policy against a chip, and the layout over cores that was counted.

    Attributes:
        quantized: whether the policy has integers; a float one is counted at the chip's weight width.
        cores: empty for a chip without limits of a core. synapse_bits: of all cores together.
    """

    chip: Chip
    quantized: bool
    checks: tuple[Check, ...]
    cores: tuple[Core, ...]
    synapse_bits: int

    @property
    def fits(self) -> bool:
        """Whether no published limit is exceeded."""
        return all(check.fits is not False for check in self.checks)

    @property
    def worst(self) -> Check | None:
        """The failed check that is farthest beyond its limit, or None."""
        failed = [check for check in self.checks if check.fits is False]
        return max(failed, key=lambda check: check.excess) if failed else None


Array = NDArray[Any]


@dataclass(frozen=True)
class _Need:
    """What is needed (None: no such figure yet), how it was counted, and the limit where the chip has several."""

    value: int | str | None
    note: str = ""
    limit: int | None = None


def check_fit(policy: Policy, chip: Chip) -> FitReport:
    """Check a policy against all limits of a chip.

    Always-firing neurons of the biases (`loihi.bias_columns`) count as neurons, axons and synapses on every chip;
    those of the first layer are input channels. A float policy fails `weight bits`, and counts one for each layer.

    Raises:
        SpikerlError: a layer without neurons or inputs.
    """
    if 0 in policy.sizes:
        raise SpikerlError(f"a layer of the policy is empty: {'-'.join(map(str, policy.sizes))}")
    weights, biases = _synapses(policy)
    loads = _loads(policy, chip, weights, biases)
    packed = pack(loads, chip) if any(name in chip.limits for name in RESOURCES) else None
    needs = _needs_of_weights(policy, weights, biases) | _needs_of_network(loads, weights, biases)
    if "layer_kernels" in chip.limits:
        needs |= _needs_of_kernels(chip, weights)
    needs |= _needs_of_cores(chip, packed, sum(array.size for array in weights + biases))
    checks = tuple(_check(name, chip, needs.get(name, _Need(None, "not counted"))) for name in REQUIREMENTS)
    cores = () if packed is None else packed.cores
    return FitReport(chip, policy.integers is not None, checks, cores, 0 if packed is None else packed.synapse_bits)


def _synapses(policy: Policy) -> tuple[list[Array], list[Array]]:
    """Weights [n_out, n_in] and bias synapses [n_out, K] of each layer."""
    if policy.integers is not None:
        return [layer.weight for layer in policy.integers], [bias_columns(layer) for layer in policy.integers]
    return [layer.weight for layer in policy.layers], [layer.bias[:, None] for layer in policy.layers]


def _mantissa_bits(mantissas: Array) -> int:
    """Significant bits that a weight needs so that these even mantissas are multiples of its unit."""
    low = int(np.bitwise_or.reduce(mantissas.astype(np.int64), axis=None)) if mantissas.size else 0
    return 1 if low == 0 else max(MANTISSA_BITS - ((low & -low).bit_length() - 1), 1)


def _loads(policy: Policy, chip: Chip, weights: Sequence[Array], biases: Sequence[Array]) -> list[LayerLoad]:
    loads = []
    for index, (weight, bias) in enumerate(zip(weights, biases, strict=True)):
        layer = policy.layers[index]
        threshold, decays = layer.v_threshold, (layer.current_decay, layer.voltage_decay)
        width = bias_width = chip.number("weight_bits") or ASSUMED_BITS
        if policy.integers is not None and policy.bits is not None:
            integer = policy.integers[index]
            threshold, decays = float(integer.vth), (float(integer.du), float(integer.dv))
            width, bias_width = max(policy.bits, _mantissa_bits(weight)), _mantissa_bits(bias)
        always_on = biases[index + 1].shape[1] if index + 1 < len(biases) else 0
        axons = ((weight.shape[1], width), (bias.shape[1], bias_width))
        loads.append(
            LayerLoad(weight.shape[0], weight.shape[1] + bias.shape[1], always_on, axons, threshold, decays)
        )  # fmt: skip
    return loads


def _needs_of_weights(policy: Policy, weights: Sequence[Array], biases: Sequence[Array]) -> dict[str, _Need]:
    """Needs of the integers themselves."""
    needs = {"neuron_model": _Need(NEURON_MODEL)}
    if policy.integers is None or policy.bits is None:
        names = ("weight_min", "weight_max", "weight_exp_min", "weight_exp_max", "threshold_max")
        needs |= {name: _Need(None, "a float policy has none yet") for name in names}
        return needs | {"weight_bits": _Need(FLOAT_BITS, "a float policy must be quantized")}
    exponents = [layer.weight_exp for layer in policy.integers]
    every = [*weights, *biases]
    return needs | {
        "weight_bits": _Need(max(policy.bits, *(_mantissa_bits(array) for array in every))),
        "weight_min": _Need(min(int(array.min()) for array in every) // 2),
        "weight_max": _Need(max(int(array.max()) for array in every) // 2),
        "weight_exp_min": _Need(min(exponents)),
        "weight_exp_max": _Need(max(exponents)),
        "threshold_max": _Need(max(layer.vth for layer in policy.integers)),
    }


def _needs_of_network(
    loads: Sequence[LayerLoad], weights: Sequence[Array], biases: Sequence[Array]
) -> dict[str, _Need]:
    """Neurons and synapses; a weight of zero is no synapse here."""
    always_on = sum(load.always_on for load in loads)
    hidden = sum(load.neurons for load in loads[:-1]) + always_on
    synapses = [np.concatenate(pair, axis=1) != 0 for pair in zip(weights, biases, strict=True)]
    note = f"{always_on} always-firing, for biases, included" if always_on else ""
    return {
        "inputs": _Need(loads[0].sources, f"{biases[0].shape[1]} constant, for the bias, included"),
        "hidden_neurons": _Need(hidden, note),
        "output_neurons": _Need(loads[-1].neurons),
        "neurons": _Need(hidden + loads[-1].neurons, note),
        "synapses": _Need(sum(int(layer.sum()) for layer in synapses), "weights of 0 left out"),
        "fan_in": _Need(max(int(layer.sum(axis=1).max()) for layer in synapses), "weights of 0 left out"),
        "fan_out": _Need(
            max((int(layer.sum(axis=0).max()) for layer in synapses[1:]), default=0),
            "of a hidden neuron; weights of 0 left out",
        ),
        "layer_neurons": _Need(max(max(load.sources, load.neurons + load.always_on) for load in loads)),
    }


def _needs_of_kernels(chip: Chip, weights: Sequence[Array]) -> dict[str, _Need]:
    """Each layer takes one core: the layer with the most words that with the largest memory, and so on."""
    memories = chip.limits["layer_kernels"].value
    assert isinstance(memories, tuple)
    words = sorted((w.shape[1] << (w.shape[0] - 1).bit_length() for w in weights), reverse=True)
    pairs = list(zip(words, sorted(memories, reverse=True), strict=False))
    needed, memory = max(pairs, key=lambda pair: pair[0] / pair[1])
    return {
        "layer_kernels": _Need(needed, "n_in * n_out, n_out rounded up to a power of two", memory),
        "cores": _Need(len(words), "one layer a core"),
    }


def _needs_of_cores(chip: Chip, packed: Packing | None, weights: int) -> dict[str, _Need]:
    needs = {"core_bytes": _Need(weights, "weights alone, a byte each: a lower bound", _all_cores(chip))}
    each = chip.number("core_bytes")
    if packed is None:
        return needs | ({} if each is None else {"cores": _Need(-(-weights // each), "at least: weights alone")})
    needs |= {name: _Need(packed.largest[name]) for name in RESOURCES}
    if packed.unplaced is not None:
        needs["cores"] = _Need(None, f"no core holds a neuron of layer {packed.unplaced + 1}")
        return needs
    return needs | {
        "cores": _Need(len(packed.cores), f"first fit; no layout takes fewer than {packed.at_least}"),
        "core_thresholds": _Need(max(core.thresholds for core in packed.cores)),
        "core_decays": _Need(max(core.decays for core in packed.cores)),
    }


def _all_cores(chip: Chip) -> int | None:
    each, cores = chip.number("core_bytes"), chip.number("cores")
    return None if each is None or cores is None else each * cores


def _check(name: str, chip: Chip, need: _Need) -> Check:
    requirement, unit = REQUIREMENTS[name]
    published = chip.limits.get(name)
    limit: int | str | None = need.limit
    if published is not None and limit is None and not isinstance(published.value, tuple):
        limit = published.value
    fits, margin, note = None, None, need.note
    if limit is None or published is None:
        note = NOT_PUBLISHED
    elif isinstance(need.value, str):
        fits = need.value == limit
    elif need.value is not None and isinstance(limit, int):
        margin = need.value - limit if name.endswith("_min") else limit - need.value
        fits = margin >= 0
    source = None if published is None else published.source
    return Check(name, requirement, need.value, limit, unit, fits, margin, source, note)
