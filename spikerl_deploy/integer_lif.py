"""Loihi's integer LIF over a sequence of time steps, bit by bit as Lava's fixed-point models compute it.

Two forms: `integrate_reference` follows the width of every intermediate, overflow included;
`integrate_bounded` gives the same spikes several times faster where the current provably cannot wrap.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from spikerl_deploy.codec import Spikes
from spikerl_deploy.loihi import DECAY_BITS, DECAY_UNITY, STATE_LIMIT, STATE_SHIFT, IntegerLayer, kept_fractions

Watch = Callable[[NDArray[np.float64], NDArray[np.float64]], None]


def integrate_reference(
    accumulated: NDArray[np.int64], layer: IntegerLayer, voltages: NDArray[np.int32] | None = None
) -> Spikes:
    """Spikes [T, B, n] of accumulated mantissas W s + b [T, B, n], states starting at zero.

    The current wraps once at 2^23 (`> 2^23` down, `<= -2^23` up), the voltage clips at 2^23 - 1; the
    synaptic input passes through 32 bits, as between Lava's processes.

    Args:
        voltages: [T, B, n], takes the voltage of each time step before the reset, in state units.
    """
    activation = np.left_shift(shifted(accumulated, layer.weight_exp), STATE_SHIFT)
    u = np.zeros(accumulated.shape[1:], dtype=np.int32)
    v = np.zeros_like(u)
    spikes = np.empty(accumulated.shape, dtype=bool)
    for t in range(accumulated.shape[0]):
        u = wrapped(kept(u, layer.du + 1) + activation[t])
        v = np.clip(kept(v, layer.dv) + u, 1 - STATE_LIMIT, STATE_LIMIT - 1).astype(np.int32)
        if voltages is not None:
            voltages[t] = v
        spikes[t] = v > (layer.vth << STATE_SHIFT)
        v[spikes[t]] = 0
    return spikes


def shifted(total: NDArray[np.int64], exponent: int) -> NDArray[np.int32]:
    """Accumulated mantissas times 2^exponent, rounded down, in the 32 bits that pass between Lava's processes."""
    moved = np.left_shift(total, exponent) if exponent > 0 else np.right_shift(total, -exponent)
    return moved.astype(np.int32)


def kept(state: NDArray[np.int32], decay: int | NDArray[np.int64]) -> NDArray[np.int32]:
    """What a decay in [0, 4096], one or one a neuron, leaves of a state, truncated towards zero."""
    product = state.astype(np.int64) * (DECAY_UNITY - decay)
    left: NDArray[np.int32] = (np.sign(product) * (np.abs(product) >> DECAY_BITS)).astype(np.int32)
    return left


def wrapped(u: NDArray[np.int32]) -> NDArray[np.int32]:
    """The current in 24 bits."""
    down = np.where(u > STATE_LIMIT, u - 2 * STATE_LIMIT, u)
    return np.where(down <= -STATE_LIMIT, u + 2 * STATE_LIMIT, down).astype(np.int32)


def integrate_bounded(
    accumulated: NDArray[np.float32], layer: IntegerLayer, clips: bool = False, watch: Watch | None = None
) -> Spikes:
    """As `integrate_reference`, for a layer whose current cannot reach 2^23 and whose weight_exp is not negative.

    A state of 24 bits times a 12-bit decay fits float64's 53 bits, so product, truncation towards zero and
    sum are exact, and take one operation each.

    Args:
        clips: whether the voltage can reach 2^23, where it clips.
        watch: called at each time step with current and voltage before it clips, [B, n] in state units.
    """
    keep_u, keep_v = kept_fractions(layer.du, layer.dv)
    threshold = float(layer.vth << STATE_SHIFT)
    activation = accumulated.astype(np.float64) * 2.0 ** (layer.weight_exp + STATE_SHIFT)
    u = np.zeros(accumulated.shape[1:])
    v = np.zeros_like(u)
    spikes = np.empty(accumulated.shape, dtype=bool)
    for t in range(accumulated.shape[0]):
        u *= keep_u
        np.trunc(u, out=u)
        u += activation[t]
        v *= keep_v
        np.trunc(v, out=v)
        v += u
        if watch is not None:
            watch(u, v)
        if clips:
            np.clip(v, 1 - STATE_LIMIT, STATE_LIMIT - 1, out=v)
        np.greater(v, threshold, out=spikes[t])
        v[spikes[t]] = 0.0
    return spikes
