"""Loihi's integers: widths, the layer as the chip gets it, and bounds of its state.

Source of the arithmetic: the bit-accurate process models of lava-nc 0.10.0 (`PyLifResetModelBitAcc`,
`PyDenseModelBitAcc`), whose state layout is that of Loihi 1 (Davies et al. 2018).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from spikerl_deploy.errors import SpikerlError

STATE_BITS = 24
STATE_LIMIT = 1 << (STATE_BITS - 1)  # |u|, |v| stay below 2^23
STATE_SHIFT = 6  # synaptic input and threshold are aligned 6 bits up
DECAY_BITS = 12
DECAY_UNITY = 1 << DECAY_BITS
WEIGHT_MIN, WEIGHT_MAX = -256, 254  # even mantissas of a mixed-sign 8-bit weight
MANTISSA_BITS = 9  # such a mantissa of b significant bits is a multiple of 2^(9 - b)
WEIGHT_EXP_MIN, WEIGHT_EXP_MAX = -8, 7
THRESHOLD_MAX = (1 << 17) - 1
BIAS_MANT_MAX, BIAS_EXP_MAX = 4095, 7
BIAS_NEURONS_MAX = 16  # always-firing neurons that may share a layer's bias; our bound, not the chip's
# A neuron driven by the largest bias fires every step only below this threshold; such a neuron feeds
# the next layer's bias (see simulators/lava), so thresholds stay below it.
ALWAYS_ON_THRESHOLD_MAX = (BIAS_MANT_MAX << BIAS_EXP_MAX >> STATE_SHIFT) - 1

Int = NDArray[np.int32]


@dataclass(frozen=True, eq=False)
class IntegerLayer:
    """A layer in Loihi's integers.

    Attributes:
        weight: [n_out, n_in], even mantissas in [-256, 254].
        bias: [n_out], even; beyond the range of one synapse it is shared by several (`bias_columns`).
        weight_exp: the accumulated input is shifted left by it (right where negative).
        du, dv: 12-bit decays; the state keeps (4096 - (du + 1)) / 4096 and (4096 - dv) / 4096 a time step.
        vth: threshold mantissa, 17 bits; a neuron spikes where v > vth * 64.
        scale: float weight of one mantissa unit.
    """

    weight: Int
    bias: Int
    weight_exp: int
    du: int
    dv: int
    vth: int
    scale: float

    def __post_init__(self) -> None:
        for name, ndim in (("weight", 2), ("bias", 1)):
            array = np.array(getattr(self, name), dtype=np.int32, order="C")
            if array.ndim != ndim:
                raise SpikerlError(f"integer {name} has {array.ndim} dimensions, expected {ndim}")
            synapses = BIAS_NEURONS_MAX if name == "bias" else 1
            low, high = synapses * WEIGHT_MIN, synapses * WEIGHT_MAX
            if array.size and (array.min() < low or array.max() > high or (array & 1).any()):
                raise SpikerlError(f"integer {name} holds a mantissa that is odd or outside [{low}, {high}]")
            array.flags.writeable = False
            object.__setattr__(self, name, array)
        if self.bias.shape[0] != self.weight.shape[0]:
            raise SpikerlError(f"integer bias has {self.bias.shape[0]} values for {self.weight.shape[0]} neurons")
        _within("weight_exp", self.weight_exp, WEIGHT_EXP_MIN, WEIGHT_EXP_MAX)
        _within("du", self.du, 0, DECAY_UNITY - 1)
        _within("dv", self.dv, 0, DECAY_UNITY - 1)
        _within("vth", self.vth, 1, THRESHOLD_MAX)
        if not self.scale > 0:
            raise SpikerlError(f"integer layer: scale {self.scale} must be positive")


def _within(name: str, value: int, low: int, high: int) -> None:
    if not low <= value <= high:
        raise SpikerlError(f"integer layer: {name} {value} is outside [{low}, {high}]")


def bias_columns(layer: IntegerLayer) -> Int:
    """The bias as synapses of K >= 1 always-firing neurons: [n_out, K] even mantissas in [-256, 254] that sum to it.

    Columns keep the zero bits that all biases end with, so that they need no more bits than the biases' own grid.
    """
    used = int(np.bitwise_or.reduce(layer.bias, initial=0))
    step = min(1 << _trailing_zeros(used), 32) if used else 2
    columns = _split(layer.bias, step)
    return columns if columns.shape[1] <= BIAS_NEURONS_MAX else _split(layer.bias, 2)


def _split(bias: Int, step: int) -> Int:
    columns: list[Int] = []
    while not columns or bias.any():
        columns.append(np.clip(bias, WEIGHT_MIN, -WEIGHT_MIN - step))
        bias = bias - columns[-1]
    return np.stack(columns, axis=1)


def current_decay_code(decay: float) -> int:
    """`du` for the fraction of the current kept each time step (0.5 -> 2047)."""
    return min(max(round(DECAY_UNITY * (1.0 - decay)) - 1, 0), DECAY_UNITY - 1)


def voltage_decay_code(decay: float) -> int:
    """`dv` for the fraction of the voltage kept each time step (0.75 -> 1024)."""
    return min(max(round(DECAY_UNITY * (1.0 - decay)), 1), DECAY_UNITY - 1)


def kept_fractions(du: int, dv: int) -> tuple[float, float]:
    """Fractions of current and voltage that the codes keep each time step."""
    return (DECAY_UNITY - du - 1) / DECAY_UNITY, (DECAY_UNITY - dv) / DECAY_UNITY


def state_bound(layer: IntegerLayer, time_steps: int) -> tuple[int, int]:
    """Largest |u| and |v|, in state units, that any input spikes can cause within one control step.

    A neuron's input of one step lies between its negative weights alone and its positive weights alone.
    Downwards, current and voltage accumulate over all steps. Upwards a voltage cannot: what stays above the
    threshold spikes and is reset, so a step adds the current to at most the kept threshold.
    """
    unit = 2.0 ** (layer.weight_exp + STATE_SHIFT)
    floored = 1 << STATE_SHIFT if layer.weight_exp < 0 else 0  # a right shift of the input rounds down
    highest = float((np.where(layer.weight > 0, layer.weight, 0).sum(axis=1) + layer.bias).max()) * unit
    lowest = float((np.where(layer.weight < 0, layer.weight, 0).sum(axis=1) + layer.bias).min()) * unit - floored
    keep_u, keep_v = kept_fractions(layer.du, layer.dv)
    u_up = u_down = v_down = v_down_max = 0.0
    for _ in range(time_steps):
        u_up = max(u_up * keep_u + highest, 0.0)
        u_down = min(u_down * keep_u + lowest, 0.0)
        v_down = v_down * keep_v + u_down
        v_down_max = max(v_down_max, -v_down)
    v_up = keep_v * (layer.vth << STATE_SHIFT) + u_up
    return int(np.ceil(max(u_up, -u_down))), int(np.ceil(max(v_up, v_down_max)))


def largest_sum(layer: IntegerLayer) -> int:
    """No sum of a neuron's mantissas, of some or all of its inputs and with its bias or without, exceeds it."""
    return int((np.abs(layer.weight).sum(axis=1) + np.abs(layer.bias)).max(initial=0))


def is_lossless(layer: IntegerLayer, time_steps: int) -> bool:
    """Whether the chip's arithmetic loses no bit within one control step, whatever the input.

    A decay n / 2^p appends at most p fractional bits to a state each time step. If they fit below the unit
    (6 + weight_exp bits, and those that are zero in every mantissa) and the state cannot overflow, truncation never
    happens: the integers compute the same real numbers as the float core, and, since these fit float32's 24 bits, so
    does every float runtime.
    """
    if layer.weight_exp < 0:
        return False
    needed = bits_below_unit(layer.du, layer.dv, time_steps)
    used = int(np.bitwise_or.reduce(np.append(layer.weight, layer.bias), initial=0))  # two's complement: zeros stay
    fits = needed <= STATE_SHIFT + layer.weight_exp + (_trailing_zeros(used) if used else needed)
    u_max, v_max = state_bound(layer, time_steps)
    return fits and max(u_max, v_max) < STATE_LIMIT


def bits_below_unit(du: int, dv: int, time_steps: int) -> int:
    """Bits after the binary point that decay can append to a state within one control step."""
    return fraction_bits(du, dv) * (time_steps - 1)


def fraction_bits(du: int, dv: int) -> int:
    """Bits after the binary point that one time step of decay can append to a state."""
    return max(_bits_below_one(DECAY_UNITY - du - 1), _bits_below_one(DECAY_UNITY - dv))


def _bits_below_one(numerator: int) -> int:
    """Bits after the binary point of numerator / 4096."""
    if numerator == 0:
        return 0
    return DECAY_BITS - min(DECAY_BITS, _trailing_zeros(numerator))


def _trailing_zeros(value: int) -> int:
    """Zero bits below the lowest one of a number that is not zero."""
    return (value & -value).bit_length() - 1
