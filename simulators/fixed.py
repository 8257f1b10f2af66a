"""The `fixed` backend: a batched NumPy executor of Loihi's integer arithmetic, the reference of conformance."""

from __future__ import annotations

import numpy as np

from simulators.integer_lif import integrate_bounded, integrate_reference
from simulators.protocol import Availability, IntegerBackend, Session, SpikeRecord, counts_of
from spikerl_deploy.codec import Spikes
from spikerl_deploy.loihi import STATE_LIMIT, IntegerLayer, state_bound
from spikerl_deploy.policy import Policy

FLOAT32_INTEGERS = 1 << 24  # below it, float32 sums of integers are exact in any order


class _Layer:
    """A layer ready to run: one matrix product over all time steps, then the neurons step by step."""

    def __init__(self, layer: IntegerLayer, time_steps: int) -> None:
        self.layer = layer
        largest = int(np.abs(layer.weight).sum(axis=1).max() + np.abs(layer.bias).max())
        dtype = np.float32 if largest < FLOAT32_INTEGERS else np.float64
        self.weight = np.ascontiguousarray(layer.weight.T, dtype=dtype)
        self.bias = layer.bias.astype(dtype)
        u_bound, v_bound = state_bound(layer, time_steps)
        self.bounded, self.clips = layer.weight_exp >= 0 and u_bound < STATE_LIMIT, v_bound >= STATE_LIMIT

    def __call__(self, spikes: Spikes) -> Spikes:
        """Spikes [T, B, n_out] for input spikes [T, B, n_in]."""
        t, b, n_in = spikes.shape
        accumulated = spikes.reshape(t * b, n_in).astype(self.weight.dtype) @ self.weight
        accumulated += self.bias
        accumulated = accumulated.reshape(t, b, -1)
        if self.bounded:
            return integrate_bounded(accumulated, self.layer, self.clips)
        return integrate_reference(accumulated.astype(np.int64), self.layer)


class FixedSession(Session):
    """Layers run one after the other over all time steps, since none feeds back."""

    def __init__(self, policy: Policy, layers: tuple[IntegerLayer, ...], batch: int) -> None:
        super().__init__(policy, batch)
        self.layers = [_Layer(layer, policy.time_steps) for layer in layers]

    def _infer(self, spikes: Spikes, rasters: bool) -> SpikeRecord:
        current, outputs = spikes.swapaxes(0, 1), []
        for layer in self.layers:
            current = layer(current)
            outputs.append(current.swapaxes(0, 1))
        return counts_of(tuple(outputs), rasters)


class FixedBackend(IntegerBackend):
    """Integers in NumPy; agrees with `lava` on every spike."""

    name = "fixed"
    summary = "Loihi's integer arithmetic in NumPy, batched; bit-exact with lava"

    def availability(self) -> Availability:
        return Availability(True, f"numpy {np.__version__}")

    def open(self, policy: Policy, batch: int = 1) -> FixedSession:
        return FixedSession(policy, self.integers(policy), batch)
