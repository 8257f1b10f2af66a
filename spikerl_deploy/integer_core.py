"""A core in the chip's integers, in NumPy: the reference that every other runtime is held against."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from spikerl_deploy.codec import Spikes
from spikerl_deploy.integer_lif import Watch, integrate_bounded, integrate_reference
from spikerl_deploy.interrupts import pass_on_interrupt
from spikerl_deploy.loihi import STATE_LIMIT, IntegerLayer, largest_sum, state_bound

if TYPE_CHECKING:
    from spikerl_deploy.integer_jit import CompiledLayer

FLOAT32_INTEGERS = 1 << 24  # below it, float32 sums of integers are exact in any order


class IntegerCore:
    """Layers ready to run, one after the other over all time steps, since none feeds back."""

    def __init__(self, layers: Sequence[IntegerLayer], time_steps: int) -> None:
        self.layers = [_Layer(layer, time_steps) for layer in layers]

    def compile(self) -> bool:
        """Let Numba do what it can, if it is here: the same bits several times faster, after seconds the first time.

        Returns:
            Whether any layer runs compiled from now on. Those with a state that might wrap, or with decays that are
            no short fraction, stay with NumPy.
        """
        done = [layer.compile() for layer in self.layers]
        return any(done)

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
        self.layer, self.time_steps = layer, time_steps
        self.compiled: CompiledLayer | None = None
        dtype = exact_dtype(layer)
        self.weight = np.ascontiguousarray(layer.weight.T, dtype=dtype)
        self.bias = layer.bias.astype(dtype)
        u_bound, v_bound = state_bound(layer, time_steps)
        self.bounded, self.clips = layer.weight_exp >= 0 and u_bound < STATE_LIMIT, v_bound >= STATE_LIMIT

    def compile(self) -> bool:
        try:
            from spikerl_deploy.integer_jit import CompiledLayer, can_compile

            if can_compile(self.layer, self.time_steps):
                compiled = CompiledLayer(self.layer)
                compiled(np.zeros((1, 1, self.layer.weight.shape[1]), dtype=bool))  # now, and not amid an episode
                self.compiled = compiled
        except Exception as error:  # no Numba for this Python, no compiler, no room for its cache: NumPy does it
            pass_on_interrupt(error)
            logging.getLogger("spikerl").info("layers are not compiled: %s", error)
        return self.compiled is not None

    def __call__(self, spikes: Spikes, watch: Watch | None) -> Spikes:
        if self.compiled is not None and watch is None:
            return self.compiled(spikes.swapaxes(0, 1)).swapaxes(0, 1)
        t, b, n_in = spikes.shape
        accumulated = spikes.reshape(t * b, n_in).astype(self.weight.dtype) @ self.weight
        accumulated += self.bias
        accumulated = accumulated.reshape(t, b, -1)
        if watch is not None and self.layer.weight_exp >= 0:
            return integrate_bounded(accumulated, self.layer, True, watch)
        if self.bounded:
            return integrate_bounded(accumulated, self.layer, self.clips)
        return integrate_reference(accumulated.astype(np.int64), self.layer)


def exact_dtype(layer: IntegerLayer) -> type[np.float32] | type[np.float64]:
    """The float type in which sums of the layer's mantissas are exact in any order, so that BLAS may do them."""
    return np.float32 if largest_sum(layer) < FLOAT32_INTEGERS else np.float64
