"""The exported file in snnTorch, the first foreign runtime: the same spikes as our float core."""

from __future__ import annotations

from pathlib import Path

import nir
import numpy as np
import pytest
import torch
from snntorch.import_nir import import_from_nir
from support import quantized_policy, random_policy, random_spikes

from simulators.fixed import FixedBackend
from simulators.torch_backend import TorchBackend
from spikerl_deploy.codec import Spikes
from spikerl_deploy.policy import Policy
from spikerl_deploy.policy_file import load_policy, save_policy


def snntorch_output(path: Path, spikes: Spikes) -> np.ndarray:
    """Output raster [B, T, n_out] of snnTorch's own reader and runtime."""
    network = import_from_nir(nir.read(path))
    state, outputs = None, []
    with torch.no_grad():
        for t in range(spikes.shape[1]):
            out, state = network(torch.from_numpy(spikes[:, t]).float(), state)
            outputs.append(out.numpy() > 0)
    return np.stack(outputs, axis=1)


def our_output(policy: Policy, spikes: Spikes) -> np.ndarray:
    with TorchBackend("cpu").open(policy, len(spikes)) as session:
        rasters = session.infer(spikes, rasters=True).rasters
    assert rasters is not None
    return rasters[-1]


@pytest.mark.parametrize("seed", range(5))
def test_a_float_policy_spikes_the_same(tmp_path: Path, seed: int) -> None:
    policy = random_policy(seed, obs_dim=17, act_dim=6, hidden=(256, 256), time_steps=40)
    save_policy(policy, tmp_path / "p.nir")
    spikes = random_spikes(seed, (2, 40, 170))
    ours, theirs = our_output(policy, spikes), snntorch_output(tmp_path / "p.nir", spikes)
    assert 0.05 < ours.mean() < 0.95
    np.testing.assert_array_equal(theirs, ours)


def test_a_quantized_policy_spikes_like_the_integers(tmp_path: Path) -> None:
    policy = quantized_policy(obs_dim=17, act_dim=6, hidden=(64, 64))
    save_policy(policy, tmp_path / "p.nir")
    spikes = random_spikes(0, (50, 5, 170))
    with FixedBackend().open(policy, 50) as session:
        rasters = session.infer(spikes, rasters=True).rasters
    assert rasters is not None
    np.testing.assert_array_equal(snntorch_output(tmp_path / "p.nir", spikes), rasters[-1])


def test_the_trained_policy_spikes_like_the_integers(double_pendulum: Path) -> None:
    policy = load_policy(double_pendulum)
    spikes = random_spikes(0, (50, 5, policy.n_in), rate=0.1)
    with FixedBackend().open(policy, 50) as session:
        rasters = session.infer(spikes, rasters=True).rasters
    assert rasters is not None
    assert rasters[-1].any()
    np.testing.assert_array_equal(snntorch_output(double_pendulum, spikes), rasters[-1])
