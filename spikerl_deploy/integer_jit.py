"""The layer of `integer_core` compiled by Numba: the same bits, several times faster, without a matrix product.

Spikes are few, so the weights of the inputs that spiked are added row by row, in 16 bits where no sum of them can
leave those. Importing this module imports Numba.
"""

from __future__ import annotations

from typing import Any

import numba
import numpy as np
from numpy.typing import NDArray

from spikerl_deploy.codec import Spikes
from spikerl_deploy.loihi import (
    DECAY_BITS,
    DECAY_UNITY,
    STATE_LIMIT,
    STATE_SHIFT,
    IntegerLayer,
    largest_sum,
    state_bound,
)

NUMERATOR_MAX = 255  # of a decay as a reduced fraction: times a state of 24 bits it stays in 32
_LOWEST, _HIGHEST = np.int32(1 - STATE_LIMIT), np.int32(STATE_LIMIT - 1)


def can_compile(layer: IntegerLayer, time_steps: int) -> bool:
    """Whether 32 bits are enough for every intermediate, and the current provably cannot wrap."""
    numerators = (_fraction(DECAY_UNITY - layer.du - 1)[0], _fraction(DECAY_UNITY - layer.dv)[0])
    return (
        layer.weight_exp >= 0
        and max(numerators) <= NUMERATOR_MAX
        and state_bound(layer, time_steps)[0] < STATE_LIMIT
        and layer.weight.size > 0
    )


def _compile(function: Any) -> Any:
    """Numba's function, kept on disk for the next process where a folder for it can be written."""
    try:
        return numba.njit(cache=True, nogil=True)(function)
    except RuntimeError:  # "no locator available"
        return numba.njit(nogil=True)(function)


class CompiledLayer:
    """A layer for which `can_compile` holds."""

    def __init__(self, layer: IntegerLayer) -> None:
        narrow = largest_sum(layer) < 1 << 15
        self.weight = np.ascontiguousarray(layer.weight.T, dtype=np.int16)
        self.bias = layer.bias.astype(np.int16 if narrow else np.int32)
        u, v = _fraction(DECAY_UNITY - layer.du - 1), _fraction(DECAY_UNITY - layer.dv)
        scalars = (layer.weight_exp + STATE_SHIFT, *u, *v, layer.vth << STATE_SHIFT)
        self.scalars = tuple(np.int32(value) for value in scalars)

    def __call__(self, spikes: Spikes) -> Spikes:
        """Spikes [B, T, n] for input spikes [B, T, n_in], states starting at zero."""
        batch, time_steps, _ = spikes.shape
        out = np.empty((batch, time_steps, self.bias.size), dtype=np.uint8)
        _compiled_layer(np.ascontiguousarray(spikes).view(np.uint8), self.weight, self.bias, *self.scalars, out)
        return out.view(np.bool_)


def _fraction(kept: int) -> tuple[int, int]:
    """kept / 4096 as numerator / 2^bits in lowest terms; truncation towards zero gives the same of both."""
    bits = DECAY_BITS
    while bits and kept % 2 == 0:
        kept, bits = kept // 2, bits - 1
    return kept, bits


def _run_layer(
    spikes: NDArray[np.uint8],
    weight: NDArray[np.int16],
    bias: NDArray[Any],
    shift: np.int32,
    u_numerator: np.int32,
    u_bits: np.int32,
    v_numerator: np.int32,
    v_bits: np.int32,
    threshold: np.int32,
    out: NDArray[np.uint8],
) -> None:
    """Every intermediate is cast back to 32 bits, which Numba would widen and vector units be half as fast on."""
    batch, time_steps, n_in = spikes.shape
    n_out = bias.size
    u, v = np.empty(n_out, np.int32), np.empty(n_out, np.int32)
    total, fired = np.empty_like(bias), np.empty(n_in, np.int32)
    u_round, v_round = np.int32((1 << u_bits) - 1), np.int32((1 << v_bits) - 1)  # make a right shift round to zero
    for b in range(batch):
        u[:] = 0
        v[:] = 0
        for t in range(time_steps):
            count = 0
            for i in range(n_in):
                fired[count] = i
                count += 1 if spikes[b, t, i] else 0
            total[:] = bias
            done = 0
            while done + 4 <= count:  # four rows at a time: the sums are read and written a quarter as often
                first, second = weight[fired[done]], weight[fired[done + 1]]
                third, fourth = weight[fired[done + 2]], weight[fired[done + 3]]
                for j in range(n_out):
                    total[j] += first[j] + second[j] + third[j] + fourth[j]
                done += 4
            for rest in range(done, count):
                row = weight[fired[rest]]
                for j in range(n_out):
                    total[j] += row[j]
            row_out = out[b, t]
            for j in range(n_out):
                current = np.int32(u[j] * u_numerator)
                current = np.int32(current + (np.int32(current >> 31) & u_round))
                current = np.int32(np.int32(current >> u_bits) + np.int32(np.int32(total[j]) << shift))
                voltage = np.int32(v[j] * v_numerator)
                voltage = np.int32(voltage + (np.int32(voltage >> 31) & v_round))
                voltage = np.int32(np.int32(voltage >> v_bits) + current)
                voltage = min(max(voltage, _LOWEST), _HIGHEST)
                spike = voltage > threshold
                u[j] = current
                v[j] = np.int32(0) if spike else voltage
                row_out[j] = spike


_compiled_layer = _compile(_run_layer)
