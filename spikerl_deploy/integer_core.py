"""A core in the chip's integers, in NumPy: the reference that every other runtime is held against."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from spikerl_deploy.codec import Spikes
from spikerl_deploy.integer_lif import Watch, integrate_bounded, integrate_reference
from spikerl_deploy.loihi import STATE_LIMIT, IntegerLayer, state_bound

FLOAT32_INTEGERS = 1 << 24  # below it, float32 sums of integers are exact in any order


class IntegerCore:
    """Layers ready to run, one after the other over all time steps, since none feeds back."""

    def __init__(self, layers: Sequence[IntegerLayer], time_steps: int) -> None:
        self.layers = [_Layer(layer, time_steps) for layer in layers]

    def __call__(self, spikes: Spikes, watch: Watch | None = None) -> list[Spikes]:
        """Spikes [T, B, n] of every layer for input spikes [T, B, n_in], states starting at zero.

        Args:
            watch: called with current and voltage of each layer and time step, in state units. Under it a current does
                not wrap at 2^23, so that it can be seen to go there; the spikes are the chip's if none did. Layers
                with a negative weight_exp are not watched.
        """
        rasters = []
        for layer in self.layers:
            spikes = layer(spikes, watch)
            rasters.append(spikes)
        return rasters


class _Layer:
    """One matrix product over all time steps, then the neurons step by step."""

    def __init__(self, layer: IntegerLayer, time_steps: int) -> None:
        self.layer = layer
        largest = int(np.abs(layer.weight).sum(axis=1).max() + np.abs(layer.bias).max())
        dtype = np.float32 if largest < FLOAT32_INTEGERS else np.float64
        self.weight = np.ascontiguousarray(layer.weight.T, dtype=dtype)
        self.bias = layer.bias.astype(dtype)
        u_bound, v_bound = state_bound(layer, time_steps)
        self.bounded, self.clips = layer.weight_exp >= 0 and u_bound < STATE_LIMIT, v_bound >= STATE_LIMIT

    def __call__(self, spikes: Spikes, watch: Watch | None) -> Spikes:
        t, b, n_in = spikes.shape
        accumulated = spikes.reshape(t * b, n_in).astype(self.weight.dtype) @ self.weight
        accumulated += self.bias
        accumulated = accumulated.reshape(t, b, -1)
        if watch is not None and self.layer.weight_exp >= 0:
            return integrate_bounded(accumulated, self.layer, True, watch)
        if self.bounded:
            return integrate_bounded(accumulated, self.layer, self.clips)
        return integrate_reference(accumulated.astype(np.int64), self.layer)
