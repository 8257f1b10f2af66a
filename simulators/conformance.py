"""Spike-for-spike comparison of two backends on the same input."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from simulators.protocol import Session
from spikerl_deploy.codec import Spikes


@dataclass(frozen=True)
class Conformance:
    """Agreement of two sessions.

    Attributes:
        control_steps: compared control steps. spikes: spikes that the first session gave, over all layers.
        mismatches: for each layer, (control step, time step, neuron) where one spiked and the other did not.
        first: (layer, control step, time step, neuron) of the first mismatch in the order of computation, or None.
    """

    control_steps: int
    spikes: int
    mismatches: tuple[int, ...]
    first: tuple[int, int, int, int] | None

    @property
    def exact(self) -> bool:
        return self.first is None


def compare_sessions(first: Session, second: Session, inputs: Spikes) -> Conformance:
    """Feed the same spikes to two sessions of the same policy and compare every spike of every layer.

    Args:
        inputs: [N, B, T, n_in], N control steps of B episodes.
    """
    layers = len(first.policy.layers)
    mismatches, spikes, divergence = [0] * layers, 0, None
    for step, block in enumerate(inputs):
        a, b = first.infer(block, rasters=True).rasters, second.infer(block, rasters=True).rasters
        assert a is not None and b is not None
        for layer in range(layers):
            different = a[layer] != b[layer]
            mismatches[layer] += int(different.sum())
            spikes += int(a[layer].sum())
            if divergence is None and different.any():
                _, t, neuron = np.argwhere(different)[0]
                divergence = (layer, step, int(t), int(neuron))
    return Conformance(len(inputs), spikes, tuple(mismatches), divergence)
