"""Post-training quantization of a float core to Loihi's integers."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from spikerl_deploy.errors import SpikerlError
from spikerl_deploy.loihi import (
    ALWAYS_ON_THRESHOLD_MAX,
    STATE_LIMIT,
    STATE_SHIFT,
    WEIGHT_EXP_MAX,
    IntegerLayer,
    current_decay_code,
    fraction_bits,
    is_lossless,
    kept_fractions,
    state_bound,
    voltage_decay_code,
)
from spikerl_deploy.policy import Policy, SpikingLayer

MIN_BITS, MAX_BITS = 2, 8
MANTISSA_BITS = 9  # a mixed-sign 8-bit weight is a signed 9-bit mantissa without its lowest bit
SCALE_CANDIDATES = 3  # the scale that clips nothing, and finer ones that clip outliers


@dataclass(frozen=True)
class LayerReport:
    """What quantization did to a layer.

    Attributes:
        layer: index from 0. scale: float weight of one mantissa unit.
        weight_exp, vth: as in `IntegerLayer`.
        clipped: share of weights and biases beyond the mantissa range.
        rms_error: root mean square change of weights and biases, relative to their root mean square.
        u_bound, v_bound: largest states that any input can cause, as shares of the chip's 2^23.
        lossless: whether the integers provably compute the same as the float core (`is_lossless`).
    """

    layer: int
    scale: float
    weight_exp: int
    vth: int
    clipped: float
    rms_error: float
    u_bound: float
    v_bound: float
    lossless: bool


def quantize(policy: Policy, bits: int) -> tuple[Policy, tuple[LayerReport, ...]]:
    """Quantize every layer's weights, bias, decays and threshold.

    Weights and bias of a layer share a power-of-two scale. It costs up to one bit of resolution and buys
    that states are short binary fractions: with enough room below the unit (`weight_exp`) neither the chip
    nor a float32 runtime ever rounds, so that all of them give the same spikes.

    Args:
        policy: a float policy, or a quantized one that carries its trained layers.
        bits: weight bits, 2 to 8.

    Returns:
        The policy with integers, whose float layers are the integers times their scale and whose `trained`
        layers are those that were quantized; and a report for each layer.

    Raises:
        SpikerlError: bits out of range, or a layer whose threshold or state cannot be represented.
    """
    if not MIN_BITS <= bits <= MAX_BITS:
        raise SpikerlError(f"bits {bits} is outside [{MIN_BITS}, {MAX_BITS}]", "use --bits 8")
    source = policy.trained if policy.trained is not None else policy.layers
    if policy.trained is None and policy.integers is not None:
        raise SpikerlError(
            "the policy is quantized and does not carry its trained weights", "export from the run or its checkpoint"
        )
    pairs = [_quantize_layer(index, layer, bits, policy.time_steps) for index, layer in enumerate(source)]
    integers = tuple(integer for integer, _ in pairs)
    quantized = replace(policy, layers=tuple(map(dequantize, integers)), integers=integers, trained=source, bits=bits)
    return quantized, tuple(report for _, report in pairs)


def dequantize(layer: IntegerLayer) -> SpikingLayer:
    """The float layer that the integers stand for."""
    keep_u, keep_v = kept_fractions(layer.du, layer.dv)
    return SpikingLayer(
        (layer.weight * layer.scale).astype(np.float32),
        (layer.bias * layer.scale).astype(np.float32),
        keep_u,
        keep_v,
        layer.vth * layer.scale / 2.0**layer.weight_exp,
    )


def _quantize_layer(index: int, layer: SpikingLayer, bits: int, time_steps: int) -> tuple[IntegerLayer, LayerReport]:
    values = np.concatenate([layer.weight, layer.bias[:, None]], axis=1).astype(np.float64)
    exponent = _best_exponent(values, bits, layer.v_threshold)
    mantissas = _mantissas(values, exponent, bits)
    if values.any() and not mantissas.any():
        raise SpikerlError(
            f"layer {index}: weights up to {np.abs(values).max():.4g} vanish "
            f"beside its threshold {layer.v_threshold:.4g}",
            "such a layer never spikes; train with a lower v_threshold",
        )
    scale = 2.0**-exponent
    integer = _place(index, layer, mantissas, scale, time_steps)
    return integer, _report(index, integer, values, bits, time_steps)


def _place(
    index: int, layer: SpikingLayer, mantissas: NDArray[np.int32], scale: float, time_steps: int
) -> IntegerLayer:
    """Choose `weight_exp`: as many bits below the unit as decay appends in T steps, fewer if the current could wrap.

    A current that wraps changes its sign; a voltage that clips at -2^23 is as silent as before, so it may.
    """
    du, dv = current_decay_code(layer.current_decay), voltage_decay_code(layer.voltage_decay)
    wanted = min(max(fraction_bits(du, dv) * (time_steps - 1) - STATE_SHIFT, 0), WEIGHT_EXP_MAX)
    options = []
    for weight_exp in (*range(wanted, -1, -1), *range(wanted + 1, WEIGHT_EXP_MAX + 1)):
        vth = round(layer.v_threshold / scale * 2**weight_exp)
        if 1 <= vth <= ALWAYS_ON_THRESHOLD_MAX:
            options.append(IntegerLayer(mantissas[:, :-1], mantissas[:, -1], weight_exp, du, dv, vth, scale))
    if not options:
        raise SpikerlError(
            f"layer {index}: threshold {layer.v_threshold:.4g} is too far from its weights (up to "
            f"{scale * np.abs(mantissas).max():.4g}) for one scale",
            "train with a smaller actor_lr, or with a v_threshold nearer to the weights",
        )
    safe = [option for option in options if state_bound(option, time_steps)[0] < STATE_LIMIT]
    return safe[0] if safe else min(options, key=lambda option: option.weight_exp)


def _mantissas(values: NDArray[np.float64], exponent: int, bits: int) -> NDArray[np.int32]:
    """Even mantissas of `bits` significant bits at scale 2^-exponent, rounded to nearest and clipped."""
    step = 1 << (MANTISSA_BITS - bits)
    limit = 1 << (bits - 1)
    codes = np.clip(np.rint(values * 2.0**exponent / step), -limit, limit - 1)
    return (codes * step).astype(np.int32)


def _best_exponent(values: NDArray[np.float64], bits: int, v_threshold: float) -> int:
    """Exponent of the scale with the least squared error, among that which clips nothing and finer ones."""
    largest = float(np.abs(values).max())
    finest = math.floor(math.log2(ALWAYS_ON_THRESHOLD_MAX / v_threshold))
    if largest == 0.0:
        return max(finest, 0)
    top = ((1 << (bits - 1)) - 1) << (MANTISSA_BITS - bits)
    covering = math.floor(math.log2(top / largest))
    candidates = [min(covering + extra, finest) for extra in range(SCALE_CANDIDATES)]
    return min(candidates, key=lambda e: float(np.square(_mantissas(values, e, bits) * 2.0**-e - values).sum()))


def _report(index: int, integer: IntegerLayer, values: NDArray[np.float64], bits: int, time_steps: int) -> LayerReport:
    restored = np.concatenate([integer.weight, integer.bias[:, None]], axis=1) * integer.scale
    step = 1 << (MANTISSA_BITS - bits)
    top, bottom = (((1 << (bits - 1)) - 0.5) * step, -((1 << (bits - 1)) + 0.5) * step)
    units = values / integer.scale
    rms = float(np.sqrt(np.square(values).mean()))
    u_bound, v_bound = state_bound(integer, time_steps)
    return LayerReport(
        layer=index,
        scale=integer.scale,
        weight_exp=integer.weight_exp,
        vth=integer.vth,
        clipped=float(((units > top) | (units < bottom)).mean()),
        rms_error=float(np.sqrt(np.square(restored - values).mean())) / rms if rms else 0.0,
        u_bound=u_bound / STATE_LIMIT,
        v_bound=v_bound / STATE_LIMIT,
        lossless=is_lossless(integer, time_steps),
    )
