"""A core in float32, in NumPy: what the trained weights compute, where torch would be too much."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from spikerl_deploy.codec import Spikes
from spikerl_deploy.policy import Float, SpikingLayer


def run_floats(layers: Sequence[SpikingLayer], spikes: Spikes) -> list[Spikes]:
    """Spikes [T, B, n] of every layer for input spikes [T, B, n_in], states starting at zero."""
    rasters = []
    for layer in layers:
        spikes = run_layer(layer, spikes)
        rasters.append(spikes)
    return rasters


def run_layer(layer: SpikingLayer, spikes: Spikes, voltages: Float | None = None) -> Spikes:
    """Spikes [T, B, n] of one layer; `voltages` [T, B, n] takes the voltage of each time step before the reset."""
    t, b, n_in = spikes.shape
    current = spikes.reshape(t * b, n_in).astype(np.float32) @ layer.weight.T
    current += layer.bias
    keep_u, keep_v, threshold = (
        np.float32(value) for value in (layer.current_decay, layer.voltage_decay, layer.v_threshold)
    )
    u = np.zeros((b, layer.n_out), np.float32)
    v = np.zeros_like(u)
    out = np.empty((t, b, layer.n_out), bool)
    for step, (drive, fired) in enumerate(zip(current.reshape(t, b, -1), out, strict=True)):
        u *= keep_u
        u += drive
        v *= keep_v
        v += u
        if voltages is not None:
            voltages[step] = v
        np.greater(v, threshold, out=fired)
        v[fired] = 0.0  # read by the next step only
    return out
