"""Perturbations: what they do is as stated, drawn from the seed alone, and the same for every backend."""

from __future__ import annotations

from collections import deque
from dataclasses import replace

import gymnasium
import numpy as np
import pytest
from support import quantized_policy

from simulators.episodes import Recorder
from simulators.fixed import FixedBackend
from simulators.perturb import Perturbation, parse_perturbation
from simulators.rollout import Rollout, rollout
from simulators.torch_backend import TorchBackend
from spikerl_deploy.codec import decode, encode
from spikerl_deploy.errors import SpikerlError
from spikerl_deploy.policy import Policy, PopulationDecoder

ENV = "InvertedPendulum-v5"
ALL = Perturbation(noise=0.1, delay=2, drop=0.2)


def play(policy: Policy, seeds: range, perturbation: Perturbation | None, batch: int = 1) -> Rollout:
    with FixedBackend().open(policy, batch) as session:
        return rollout(session, ENV, seeds, perturbation=perturbation)


def off_centre(policy: Policy) -> Policy:
    """The same policy with actions about another middle than zero; it fits no environment."""
    assert policy.decoder is not None
    weight, bias = policy.decoder.weight, policy.decoder.bias
    return replace(policy, decoder=PopulationDecoder(weight, bias, np.array([1.0]), np.array([2.0])))


@pytest.mark.parametrize(
    ("texts", "expected"),
    [
        ([], None),
        (["noise=0.05"], Perturbation(noise=0.05)),
        (["noise=0.05,delay=2", "drop=1"], Perturbation(0.05, 2, 1.0)),
        ([" drop=0.5 , delay=0 "], Perturbation(drop=0.5)),
    ],
)
def test_settings_come_one_by_one_or_with_commas(texts: list[str], expected: Perturbation | None) -> None:
    assert parse_perturbation(texts) == expected


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("nois=1", "unknown perturbation 'nois'; there is: delay, drop, noise"),
        ("noise", "'noise' is no KEY=VALUE"),
        ("", "'' is no KEY=VALUE"),
        ("noise=0.1,", "'' is no KEY=VALUE"),
        ("noise=x", "noise='x' is no number"),
        ("delay=1.5", "delay='1.5' is no whole number"),
        ("delay=" + "9" * 5000, "is no whole number"),
        ("delay=-1", r"delay=-1 is outside \[0, 1000\]"),
        ("delay=1001", r"delay=1001 is outside"),
        ("drop=1.01", r"drop=1.01 is outside \[0, 1\]"),
        ("noise=nan", "noise=nan is outside"),
        ("noise=inf", "noise=inf is outside"),
        ("drop=0.1,drop=0.1", "drop is given twice"),
    ],
)
def test_what_is_no_perturbation_is_refused(text: str, message: str) -> None:
    with pytest.raises(SpikerlError, match=message) as caught:
        parse_perturbation([text])
    assert caught.value.hint


@pytest.mark.parametrize("coding", ["regular", "poisson"])
def test_a_perturbed_episode_is_what_a_plain_loop_gives(coding: str) -> None:
    policy, seed = quantized_policy(coding=coding), 5
    assert policy.decoder is not None
    assert policy.normalization is not None
    played = play(policy, range(seed, seed + 1), ALL)
    env = gymnasium.make(ENV)
    observation, _ = env.reset(seed=seed)
    coder, noise, lost = (np.random.default_rng([seed, stream]) for stream in (1, 2, 3))
    late, total, length, arrived, done = deque([np.zeros(1, np.float32)] * 2), 0.0, 0, 0, False
    with FixedBackend().open(policy) as session:
        while not done:
            seen = observation + 0.1 * policy.normalization.std * noise.standard_normal(4)
            spikes = encode(policy, seen[None], [coder])
            spikes &= lost.random(spikes[0].shape) >= 0.2
            arrived += int(spikes.sum())
            late.append(decode(session.infer(spikes).output_counts, policy.time_steps, policy.decoder)[0])
            observation, reward, terminated, truncated, _ = env.step(late.popleft())
            total, length, done = total + float(reward), length + 1, terminated or truncated
    assert (played.returns, played.lengths) == ((total,), (length,))
    assert played.spike_totals[0].sum() == arrived


def test_perturbed_episodes_do_not_depend_on_how_many_run_side_by_side() -> None:
    policy = quantized_policy(coding="poisson")
    alone = play(policy, range(6), ALL)
    for batch in (2, 6):
        beside = play(policy, range(6), ALL, batch)
        assert (beside.returns, beside.lengths) == (alone.returns, alone.lengths)
    assert alone.lengths != play(policy, range(6), None).lengths


@pytest.mark.parametrize("coding", ["regular", "poisson"])
def test_a_perturbation_of_nothing_changes_nothing(coding: str) -> None:
    policy = quantized_policy(coding=coding)
    clean, zero = play(policy, range(3), None), play(policy, range(3), Perturbation())
    assert (zero.returns, zero.lengths) == (clean.returns, clean.lengths)
    for x, y in zip(zero.spike_totals, clean.spike_totals, strict=True):
        np.testing.assert_array_equal(x, y)


def test_every_backend_meets_the_same_noise() -> None:
    policy, noises = quantized_policy(), []
    for backend in (FixedBackend(), TorchBackend("cpu")):
        recorder = Recorder(policy)
        with backend.open(policy, 2) as session:
            rollout(session, ENV, range(3), perturbation=ALL, observers=[recorder])
        recorded = recorder.episodes(range(3))
        added = recorded.columns["observations"] - recorded.columns["clean_observations"]
        noises.append([added[rows] for rows in recorded.by_episode()])
    for fixed, torch in zip(*noises, strict=True):
        both = min(len(fixed), len(torch))
        np.testing.assert_allclose(fixed[:both], torch[:both], atol=1e-12)
        assert np.abs(fixed).min() > 0
    assert not np.allclose(noises[0][0][0], noises[0][1][0])  # another seed, another noise


def test_noise_is_in_units_of_the_observation_std_or_raw() -> None:
    policy = quantized_policy()
    assert policy.normalization is not None
    observation = np.arange(4.0)
    for source, unit in ((policy, policy.normalization.std), (replace(policy, normalization=None), np.ones(4))):
        disturbance = Perturbation(noise=0.5).begin(source, 0)
        drawn = np.array([disturbance.sense(observation) for _ in range(20_000)])
        np.testing.assert_allclose(drawn.mean(axis=0), observation, atol=0.02 * unit.max())
        np.testing.assert_allclose(drawn.std(axis=0), 0.5 * unit, rtol=0.03)


def test_twice_the_noise_is_the_same_noise_twice() -> None:
    policy, zero = quantized_policy(), np.zeros(4)
    small, large = (Perturbation(noise=level, drop=drop).begin(policy, 1) for level, drop in ((0.1, 0.0), (0.2, 0.9)))
    for _ in range(3):
        large.lose(np.ones((5, 40), dtype=bool))  # draws from another stream
        np.testing.assert_allclose(2 * small.sense(zero), large.sense(zero))


def test_lost_spikes_are_the_stated_share_and_more_loss_loses_the_same_and_others() -> None:
    policy, kept = quantized_policy(), []
    for drop in (0.1, 0.4, 1.0):
        disturbance = Perturbation(drop=drop).begin(policy, 3)
        spikes = np.ones((500, 40), dtype=bool)
        spikes[:, ::2] = False
        disturbance.lose(spikes)
        assert not spikes[:, ::2].any()
        assert spikes[:, 1::2].mean() == pytest.approx(1 - drop, abs=0.02)
        kept.append(spikes)
    assert (kept[1] <= kept[0]).all()
    assert not kept[2].any()


def test_late_actions_come_in_order_after_the_middle_of_the_range() -> None:
    disturbance = Perturbation(delay=3).begin(off_centre(quantized_policy()), 0)
    given = [disturbance.delay(np.array([float(step)])).item() for step in range(6)]
    assert given == [1.5, 1.5, 1.5, 0.0, 1.0, 2.0]
