"""The host's encoder and decoder against literal values and scalar loops."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support import random_policy

from spikerl_deploy.codec import decode, encode, normalise, population_activation, spikes_poisson, spikes_regular
from spikerl_deploy.errors import SpikerlError
from spikerl_deploy.policy import Normalization, Policy, PopulationDecoder, PopulationEncoder, SpikingLayer


def test_normalise_scores_and_clips() -> None:
    normalization = Normalization(np.array([1.0, -2.0]), np.array([2.0, 0.5]), clip=3.0)
    z = normalise(np.array([[2.0, -1.5], [100.0, -100.0]]), normalization)
    np.testing.assert_array_equal(z, np.array([[0.5, 1.0], [3.0, -3.0]], dtype=np.float32))


def test_activation_is_the_gaussian_receptive_field() -> None:
    encoder = PopulationEncoder(np.array([[-1.0, 0.0, 1.0], [0.0, 2.0, 4.0]]), np.array([[0.5] * 3, [1.0] * 3]))
    activation = population_activation(np.array([[0.5, 3.0]], dtype=np.float32), encoder)
    expected = [math.exp(-((0.5 - m) ** 2) / (2 * 0.25)) for m in (-1, 0, 1)]
    expected += [math.exp(-((3 - m) ** 2) / 2) for m in (0, 2, 4)]
    np.testing.assert_allclose(activation[0], expected, rtol=1e-6)


@given(st.lists(st.floats(0, 1, width=32), min_size=1, max_size=5), st.integers(1, 12))
def test_regular_coding_equals_a_scalar_accumulator(activations: list[float], time_steps: int) -> None:
    spikes = spikes_regular(np.array([activations], dtype=np.float32), time_steps, 0.999)
    for n, a in enumerate(activations):
        level, value = np.float32(0.999), np.float32(0)
        for t in range(time_steps):
            value = np.float32(value + np.float32(a))
            fires = value > level
            assert spikes[0, t, n] == fires
            if fires:
                value = np.float32(value - level)


def test_regular_coding_of_half_fires_every_other_step() -> None:
    spikes = spikes_regular(np.array([[1.0, 0.5, 0.3]], dtype=np.float32), 6, 0.999)
    np.testing.assert_array_equal(spikes[0].T.astype(int), [[1] * 6, [0, 1, 0, 1, 0, 1], [0, 0, 0, 1, 0, 0]])


def test_poisson_coding_fires_at_its_activation_and_depends_on_its_own_generator_only() -> None:
    activation = np.array([[0.1, 0.5, 0.9], [0.9, 0.1, 0.5]], dtype=np.float32)
    seeds = ([7, 1], [8, 1])
    both = spikes_poisson(activation, 20_000, [np.random.default_rng(seed) for seed in seeds])
    np.testing.assert_allclose(both.mean(axis=1), activation, atol=0.015)
    alone = spikes_poisson(activation[1:], 20_000, [np.random.default_rng(seeds[1])])
    np.testing.assert_array_equal(both[1], alone[0])


def test_decode_is_the_squashed_weighted_rate_in_each_dimensions_own_range() -> None:
    decoder = PopulationDecoder(
        np.array([[1.0, -1.0], [0.5, 0.5]]), np.array([0.1, -0.2]), np.array([-1.0, 0.0]), np.array([1.0, 10.0])
    )
    action = decode(np.array([[5, 0, 2, 4]]), 5, decoder)
    first = math.tanh(1.0 + 0.1)
    second = 5 + 5 * math.tanh(0.5 * 0.4 + 0.5 * 0.8 - 0.2)
    np.testing.assert_allclose(action[0], [first, second], rtol=1e-6)


def test_encode_goes_through_all_stages() -> None:
    policy = random_policy(seed=3)
    assert policy.encoder is not None
    assert policy.normalization is not None
    observation = np.random.default_rng(0).normal(0, 1, (3, 4))
    spikes = encode(policy, observation, [])
    activation = population_activation(normalise(observation, policy.normalization), policy.encoder)
    np.testing.assert_array_equal(spikes, spikes_regular(activation, 5, policy.encoder.threshold))
    assert spikes.shape == (3, 5, 40)
    assert 0.02 < spikes.mean() < 0.9


def test_a_core_alone_cannot_encode() -> None:
    core = Policy(layers=(SpikingLayer(np.ones((2, 3)), np.zeros(2)),))
    with pytest.raises(SpikerlError, match="no encoder"):
        encode(core, np.zeros((1, 3)), [])
