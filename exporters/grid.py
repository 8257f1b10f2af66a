"""The grid that weights are rounded to, and the integer layer that rounded weights become."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from spikerl_deploy.errors import SpikerlError
from spikerl_deploy.loihi import (
    ALWAYS_ON_THRESHOLD_MAX,
    BIAS_NEURONS_MAX,
    MANTISSA_BITS,
    STATE_LIMIT,
    STATE_SHIFT,
    WEIGHT_EXP_MAX,
    WEIGHT_MIN,
    IntegerLayer,
    bits_below_unit,
    current_decay_code,
    kept_fractions,
    state_bound,
    voltage_decay_code,
)
from spikerl_deploy.policy import SpikingLayer

MIN_BITS, MAX_BITS = 2, 8
DECAY_BITS_MAX = 12
BIAS_FINER = 4  # steps of a bias in one of a weight: biases are few, and take up what is left of rounding errors
# largest weight on the grid, as shares of the layer's largest: finely down to an eighth, then for lone outliers
CLIPPING_CANDIDATES = (*(2.0 ** (-i / 6) for i in range(19)), *(2.0**-i for i in (3.5, 4, 4.5, 5, 6)))


@dataclass(frozen=True)
class Grid:
    """Mantissas of `bits` significant bits: multiples of `step` in [-limit * step, (limit - 1) * step]."""

    bits: int

    def __post_init__(self) -> None:
        if not MIN_BITS <= self.bits <= MAX_BITS:
            raise SpikerlError(f"bits {self.bits} is outside [{MIN_BITS}, {MAX_BITS}]", "use --bits 8")

    @property
    def step(self) -> int:
        return 1 << (MANTISSA_BITS - self.bits)

    @property
    def limit(self) -> int:
        return 1 << (self.bits - 1)

    @property
    def top(self) -> int:
        """Largest mantissa."""
        return (self.limit - 1) * self.step

    @property
    def bias_step(self) -> int:
        """Biases are multiples of it: two bits finer than weights, 8 bits at the most."""
        return max(self.step // BIAS_FINER, 2)

    @property
    def bias_limit(self) -> int:
        """Largest bias that always-firing neurons can give together."""
        return BIAS_NEURONS_MAX * (-WEIGHT_MIN - self.bias_step)

    def round(self, values: NDArray[np.float64]) -> NDArray[np.int32]:
        """Weights, in mantissa units, to the nearest mantissas; those beyond are clipped."""
        return (np.clip(np.rint(values / self.step), -self.limit, self.limit - 1) * self.step).astype(np.int32)

    def round_bias(self, values: NDArray[np.float64]) -> NDArray[np.int32]:
        """Biases, in mantissa units, to the nearest mantissas that always-firing neurons can give together."""
        limit = self.bias_limit
        return np.clip(np.rint(values / self.bias_step) * self.bias_step, -limit, limit).astype(np.int32)

    def clips(self, values: NDArray[np.float64]) -> NDArray[np.bool_]:
        """Which weights, in mantissa units, are more than half a step beyond the grid."""
        return (values > self.top + self.step / 2) | (values < -(self.limit + 0.5) * self.step)


def check_decay_bits(bits: int) -> None:
    """Refuse a number of bits that decays cannot have.

    Raises:
        SpikerlError: outside [1, 12].
    """
    if not 1 <= bits <= DECAY_BITS_MAX:
        raise SpikerlError(f"decay bits {bits} is outside [1, {DECAY_BITS_MAX}]", "use --decay-bits 12")


def round_decays(layer: SpikingLayer, bits: int) -> SpikingLayer:
    """The layer with both decays rounded to multiples of 2^-bits; the chip's own grid has 12 bits."""
    check_decay_bits(bits)
    unit = 2.0**-bits
    decays = {
        name: min(round(getattr(layer, name) / unit), 2**bits - 1) * unit for name in ("current_decay", "voltage_decay")
    }
    return replace(layer, **decays)


def layers_to_try(
    index: int,
    layer: SpikingLayer,
    grid: Grid,
    time_steps: int,
    round_at: Callable[[float], tuple[NDArray[np.int32], NDArray[np.int32]]],
) -> list[IntegerLayer]:
    """The layer in integers, at one scale after the other.

    From the scale that clips no weight to finer ones; and to coarser ones if some input could make the current leave
    the chip's state at all of these.

    Args:
        round_at: weights and bias in mantissas, for the trained weight that one mantissa unit stands for.

    Raises:
        SpikerlError: threshold, weights and biases are too far apart for any scale.
    """
    units = _units(index, layer, grid, time_steps)
    found = [_place(layer, grid, *round_at(unit), unit, time_steps) for unit in units]
    unit = units[0]
    while not any(holds_current(one, time_steps) for one in found) and 2 * unit <= layer.v_threshold:
        unit *= 2
        found.append(_place(layer, grid, *round_at(unit), unit, time_steps))
    return found


def holds_current(integer: IntegerLayer, time_steps: int) -> bool:
    """Whether no input can make a current leave the chip's state, where it would wrap and change its sign."""
    return state_bound(integer, time_steps)[0] < STATE_LIMIT


def _units(index: int, layer: SpikingLayer, grid: Grid, time_steps: int) -> list[float]:
    """Trained weights of one mantissa unit, coarse to fine, each such that the threshold is an integer.

    Only the ratio of weight and threshold matters to a neuron. So the threshold carries the scale, and the exported
    weights keep a power-of-two scale at any unit (see `_place`).
    """
    largest, bias = float(np.abs(layer.weight).max()), float(np.abs(layer.bias).max())
    finest = layer.v_threshold / ALWAYS_ON_THRESHOLD_MAX  # with weight_exp 0
    least = max(finest, bias / grid.bias_limit)
    if 0 < largest < finest:
        raise SpikerlError(
            f"layer {index}: weights up to {largest:.4g} vanish beside its threshold {layer.v_threshold:.4g}",
            "such a layer never spikes; train with a lower v_threshold",
        )
    wanted = [largest / grid.top * share for share in CLIPPING_CANDIDATES] if largest else [layer.v_threshold / 256]
    units = []
    for unit in (max(unit, least) for unit in wanted):
        exponents = _exponents(layer, grid, unit, time_steps)
        if not exponents:
            raise SpikerlError(
                f"layer {index}: threshold {layer.v_threshold:.4g} is too far from its weights (up to {largest:.4g}) "
                f"and biases (up to {bias:.4g}) for one scale",
                "train with a smaller actor_lr, or with a v_threshold nearer to the weights",
            )
        threshold = layer.v_threshold * 2.0 ** exponents[0]
        units.append(threshold / int(threshold / unit))  # rounded down: not finer than asked
    return list(dict.fromkeys(units))


def _exponents(layer: SpikingLayer, grid: Grid, unit: float, time_steps: int) -> list[int]:
    """Values of `weight_exp` at which the threshold is representable, the preferred one first."""
    du, dv = current_decay_code(layer.current_decay), voltage_decay_code(layer.voltage_decay)
    zeros = grid.bias_step.bit_length() - 1  # below the lowest bit of every mantissa
    wanted = min(max(bits_below_unit(du, dv, time_steps) - STATE_SHIFT - zeros, 0), WEIGHT_EXP_MAX)
    order = (*range(wanted, -1, -1), *range(wanted + 1, WEIGHT_EXP_MAX + 1))
    ratio = layer.v_threshold / unit
    return [e for e in order if int(ratio * 2.0**e) >= 1 and round(ratio * 2.0**e) <= ALWAYS_ON_THRESHOLD_MAX]


def _place(
    layer: SpikingLayer,
    grid: Grid,
    weight: NDArray[np.int32],
    bias: NDArray[np.int32],
    unit: float,
    time_steps: int,
) -> IntegerLayer:
    """The integer layer of rounded mantissas whose unit stands for the trained weight `unit`.

    `weight_exp` leaves as many bits below the unit as decay appends in T steps, fewer if a state could then leave its
    24 bits: a current would wrap and change its sign, a voltage clip. The scale of the exported floats is the power of
    two nearest to `unit`, and the exported threshold moves along; so states are short binary fractions, and neither
    the chip nor a float32 runtime rounds.
    """
    du, dv = current_decay_code(layer.current_decay), voltage_decay_code(layer.voltage_decay)
    scale = 2.0 ** round(math.log2(unit))
    options = [
        IntegerLayer(weight, bias, e, du, dv, round(layer.v_threshold / unit * 2.0**e), scale)
        for e in _exponents(layer, grid, unit, time_steps)
    ]
    bounds = [state_bound(option, time_steps) for option in options]
    for held in ([max(u, v) < STATE_LIMIT for u, v in bounds], [u < STATE_LIMIT for u, _ in bounds]):
        if any(held):
            return options[held.index(True)]
    return min(options, key=lambda option: option.weight_exp)


def trained_unit(layer: SpikingLayer, integer: IntegerLayer) -> float:
    """The trained weight that one mantissa unit stands for."""
    return layer.v_threshold * 2.0**integer.weight_exp / integer.vth


def dequantize(layer: IntegerLayer) -> SpikingLayer:
    """The float layer that the integers stand for, at their power-of-two scale."""
    keep_u, keep_v = kept_fractions(layer.du, layer.dv)
    return SpikingLayer(
        (layer.weight * layer.scale).astype(np.float32),
        (layer.bias * layer.scale).astype(np.float32),
        keep_u,
        keep_v,
        layer.vth * layer.scale / 2.0**layer.weight_exp,
    )
