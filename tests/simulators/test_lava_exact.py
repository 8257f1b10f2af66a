"""`fixed` against Lava's bit-accurate models over drawn networks.

Extreme weights, states that wrap and clip, every exponent and threshold. First the arithmetic of Lava's model alone,
many times; then whole networks on Lava's runtime.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from simulators.lava.backend import LavaBackend, LavaStockBackend, integer_layers
from simulators.lava.client import WorkerClient
from simulators.lava.compat import make_importable
from simulators.lava.session import LavaSession
from spikerl_deploy.integer_core import IntegerCore
from spikerl_deploy.integer_lif import integrate_reference
from spikerl_deploy.loihi import ALWAYS_ON_THRESHOLD_MAX, THRESHOLD_MAX, IntegerLayer
from spikerl_deploy.policy import Policy, SpikingLayer

FUZZ = int(os.environ.get("SPIKERL_FUZZ", "1"))  # times as many examples


def bits(low: int, high: int) -> st.SearchStrategy[int]:
    """Integers whose magnitudes, and not only values, are spread: limits and powers of two come up often."""
    powers = sorted({min(max(sign * 2**k + d, low), high) for k in range(18) for sign in (1, -1) for d in (-1, 0, 1)})
    return st.one_of(st.integers(low, high), st.sampled_from(powers))


@pytest.fixture(scope="module")
def lif_model(lava_folder: Path) -> type[Any]:
    """Lava's own bit-accurate LIF model, which does not need its runtime to compute."""
    make_importable(lava_folder)
    from lava.proc.lif.models import PyLifModelBitAcc

    return PyLifModelBitAcc


def lava_neurons(model: type[Any], activation: np.ndarray, layer: IntegerLayer) -> np.ndarray:
    """Spikes [T, n] of Lava's model for what a connection gives it, [T, n] int32."""
    neurons = model.__new__(model)
    neurons.ds_offset, neurons.dm_offset = 1, 0
    neurons.max_uv_val, neurons.decay_shift, neurons.decay_unity = 2**23, 12, 4096
    neurons.vth_shift = neurons.act_shift = 6
    neurons.u, neurons.v = np.zeros((2, activation.shape[1]), dtype=np.int32)
    neurons.du, neurons.dv, neurons.vth, neurons.effective_bias = layer.du, layer.dv, layer.vth, 0
    neurons.scale_threshold()
    spikes = []
    for drive in activation:
        neurons.subthr_dynamics(drive.copy())
        spikes.append(neurons.spiking_activation())
        neurons.reset_voltage(spikes[-1])
    return np.array(spikes)


neuron = {
    "du": bits(0, 4095),
    "dv": bits(0, 4095),
    "vth": bits(1, THRESHOLD_MAX),
    "weight_exp": st.integers(-8, 7),
}


@settings(max_examples=300 * FUZZ, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(fields=st.fixed_dictionaries(neuron), seed=st.integers(0, 2**32 - 1), width=st.integers(1, 24))
def test_the_neuron_is_lavas(lif_model: type[Any], fields: dict[str, int], seed: int, width: int) -> None:
    layer = IntegerLayer(np.zeros((16, 1)), np.zeros(16), scale=1.0, **fields)
    sums = np.random.default_rng(seed).integers(-(2**width), 2**width, (12, 16))
    shifted = np.left_shift(sums, layer.weight_exp) if layer.weight_exp > 0 else np.right_shift(sums, -layer.weight_exp)
    wanted = lava_neurons(lif_model, shifted.astype(np.int32), layer)
    np.testing.assert_array_equal(integrate_reference(sums[:, None], layer)[:, 0], wanted)


@st.composite
def cores(draw: st.DrawFn, vth_max: int) -> tuple[list[IntegerLayer], int, int, int]:
    """Layers, time steps, episodes side by side, and a seed for the input."""
    sizes = draw(st.lists(st.integers(1, 30), min_size=2, max_size=4))
    sizes[0] = draw(st.sampled_from([1, 5, 60, 600]))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    layers = []
    for n_in, n_out in itertools.pairwise(sizes):
        widest = draw(st.sampled_from([2, 16, 128]))
        shift = draw(st.integers(-widest // 2, widest // 2))  # mostly excitatory or inhibitory layers wrap and clip
        weight = np.clip(2 * (rng.integers(-widest, widest, (n_out, n_in)) + shift), -256, 254)
        bias = 2 * rng.integers(-8 * widest, 8 * widest, n_out)
        fields = draw(st.fixed_dictionaries(neuron | {"vth": bits(1, vth_max)}))
        layers.append(IntegerLayer(weight, bias, scale=1.0, **fields))
    return layers, draw(st.integers(1, 7)), draw(st.integers(1, 4)), draw(st.integers(0, 2**32 - 1))


@pytest.fixture(scope="module")
def worker(lava_folder: Path) -> Iterator[WorkerClient]:
    """One worker that opens one network after another: to start one takes longer than all else."""
    client = WorkerClient(lava_folder)
    yield client
    client.close()


def check(client: WorkerClient, stock: bool, case: tuple[list[IntegerLayer], int, int, int]) -> int:
    """Compare three control steps of every layer; returns the spikes that there were."""
    layers, time_steps, batch, seed = case
    floats = tuple(SpikingLayer(np.zeros(layer.weight.shape), np.zeros(layer.weight.shape[0])) for layer in layers)
    policy = Policy(layers=floats, time_steps=time_steps, integers=tuple(layers), bits=8)
    backend = (LavaStockBackend if stock else LavaBackend)()
    backend.check(policy)
    session = LavaSession(policy, batch, integer_layers(backend.network, tuple(layers)), lambda: client)
    rng, core, spikes = np.random.default_rng(seed), IntegerCore(layers, time_steps), 0
    for rate in (0.05, 0.5, 1.0):
        inputs = rng.random((batch, time_steps, policy.n_in)) < rate
        rasters = session.infer(inputs, rasters=True).rasters
        assert rasters is not None
        for ours, lavas in zip(core(inputs.swapaxes(0, 1)), rasters, strict=True):
            np.testing.assert_array_equal(ours.swapaxes(0, 1), lavas)
            spikes += int(lavas.sum())
    return spikes


@settings(max_examples=30 * FUZZ, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(case=cores(THRESHOLD_MAX))
def test_drawn_cores_agree_on_lava(worker: WorkerClient, case: tuple[list[IntegerLayer], int, int, int]) -> None:
    check(worker, False, case)


@settings(max_examples=10 * FUZZ, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(case=cores(ALWAYS_ON_THRESHOLD_MAX))
def test_drawn_cores_agree_on_stock_lava(worker: WorkerClient, case: tuple[list[IntegerLayer], int, int, int]) -> None:
    check(worker, True, case)


def test_cores_are_drawn_that_wrap_clip_and_spike(worker: WorkerClient) -> None:
    """What the property is for does come up: here without luck."""
    rng = np.random.default_rng(0)
    wide = {"du": 100, "dv": 50, "vth": THRESHOLD_MAX, "weight_exp": 7, "scale": 1.0}
    layers = [
        IntegerLayer(np.clip(2 * rng.integers(-40, 128, (20, 600)), -256, 254), np.zeros(20), **wide),
        IntegerLayer(2 * rng.integers(-128, 128, (9, 20)), 2 * rng.integers(-900, 900, 9), **(wide | {"vth": 40})),
    ]
    assert check(worker, False, (layers, 7, 3, 1)) > 0
