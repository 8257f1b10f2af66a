"""Streams of random numbers: apart by seed, rank and purpose, and going on from a state to the bit."""

from __future__ import annotations

import itertools
import json

import numpy as np
import pytest
import torch

from training.draws import (
    ENVIRONMENT,
    EVALUATION,
    EXPLORATION,
    REPLAY,
    TARGET,
    Draws,
    environment_seed,
    stream,
)

CPU = torch.device("cpu")
LOW, HIGH = np.float32([-1, 0]), np.float32([3, 0.5])
WINDOW = torch.tensor([0, 1000])


def drawn(draws: Draws) -> list[np.ndarray]:
    """Some of every kind."""
    return [
        draws.uniform_actions(3, LOW, HIGH),
        draws.exploration_noise(3, 2),
        draws.index(1000, WINDOW, 7).numpy(),
        draws.target_noise(7, 2).numpy(),
        draws.exploration_noise(2, 2),
        draws.index(1000, WINDOW, 7).numpy(),
    ]


def test_streams_differ_between_seeds_ranks_and_purposes() -> None:
    purposes = (EXPLORATION, REPLAY, TARGET, ENVIRONMENT, EVALUATION)
    names = list(itertools.product((0, 1, 2, 12345), (0, 1, 2), purposes))
    first = {stream(*name).integers(2**63) for name in names}
    assert len(first) == len(names)
    assert stream(5, 1, REPLAY).integers(2**63) == stream(5, 1, REPLAY).integers(2**63)


def test_environments_differ_in_their_seeds_and_are_seeded_as_gymnasium_takes_them() -> None:
    names = list(itertools.product((0, 1, 2**32 - 1), (0, 1, 2), range(20)))
    seeds = [environment_seed(*name) for name in names]
    assert len(set(seeds)) == len(names)
    assert all(type(seed) is int and 0 <= seed < 2**32 for seed in seeds)
    assert seeds == [environment_seed(*name) for name in names]


def test_environments_are_seeded_from_no_stream_that_something_else_draws_from() -> None:
    taken = {np.random.SeedSequence(3, spawn_key=(0, purpose)).generate_state(1)[0] for purpose in range(5)}
    assert taken.isdisjoint(environment_seed(3, 0, index) for index in range(5))


def test_a_seed_draws_beside_others_what_it_would_alone() -> None:
    together = drawn(Draws((4, 0, 9), 1, CPU))
    for place, seed in enumerate((4, 0, 9)):
        for mine, alone in zip(together, drawn(Draws((seed,), 1, CPU)), strict=True):
            np.testing.assert_array_equal(mine[place], alone[0])
    for kind in together:
        assert kind.shape[0] == 3 and not np.array_equal(kind[0], kind[1])


def test_ranks_draw_different_numbers() -> None:
    for mine, theirs in zip(drawn(Draws((4,), 0, CPU)), drawn(Draws((4,), 1, CPU)), strict=True):
        assert not np.array_equal(mine, theirs)


def test_what_one_purpose_draws_leaves_the_others_alone() -> None:
    busy, idle = Draws((4, 5), 0, CPU), Draws((4, 5), 0, CPU)
    for _ in range(3):
        busy.exploration_noise(5, 2)
        busy.index(1000, WINDOW, 3)
    np.testing.assert_array_equal(busy.target_noise(4, 2), idle.target_noise(4, 2))
    assert not torch.equal(busy.index(1000, WINDOW, 9), idle.index(1000, WINDOW, 9))


def test_the_default_generators_decide_nothing() -> None:
    results = []
    for seed in (0, 99):
        torch.manual_seed(seed)
        np.random.seed(seed)
        results.append(drawn(Draws((4,), 0, CPU)))
    for mine, theirs in zip(*results, strict=True):
        np.testing.assert_array_equal(mine, theirs)


def test_a_state_goes_on_to_the_bit_with_torchs_generator() -> None:
    first = Draws((4, 0), 1, CPU)
    drawn(first)
    torch.rand(3)
    state = first.state_dict()
    expected, expected_torch = drawn(first), torch.rand(5)
    second = Draws((7, 8), 0, CPU)
    second.load_state_dict({"streams": str(state["streams"]), "torch": state["torch"].clone()})
    got, got_torch = drawn(second), torch.rand(5)
    for mine, reference in zip(got, expected, strict=True):
        np.testing.assert_array_equal(mine, reference)
    assert torch.equal(got_torch, expected_torch)
    json.loads(state["streams"])


def test_a_state_of_another_number_of_seeds_is_refused() -> None:
    with pytest.raises(ValueError, match="argument"):
        Draws((0,), 0, CPU).load_state_dict(Draws((0, 1), 0, CPU).state_dict())


def test_uniform_actions_fill_the_box_between_each_dimensions_bounds() -> None:
    actions = Draws((0, 1), 0, CPU).uniform_actions(20_000, LOW, HIGH)
    assert actions.dtype == np.float32 and actions.shape == (2, 20_000, 2)
    assert (actions >= LOW).all() and (actions <= HIGH).all()
    np.testing.assert_allclose(actions.mean(axis=1), [[1, 0.25]] * 2, atol=0.03)
    np.testing.assert_allclose(actions.std(axis=1), [[4 / 12**0.5, 0.5 / 12**0.5]] * 2, rtol=0.02)


def test_noise_is_standard_normal_float32() -> None:
    draws = Draws((0, 1), 0, CPU)
    for noise in (draws.exploration_noise(30_000, 2), draws.target_noise(30_000, 2).numpy()):
        assert noise.dtype == np.float32 and noise.shape == (2, 30_000, 2)
        assert np.abs(noise.mean(axis=1)).max() < 0.03
        np.testing.assert_allclose(noise.std(axis=1), 1, rtol=0.02)
        assert 0.04 < (np.abs(noise) > 1.96).mean() < 0.06


@pytest.mark.parametrize("size", [1, 2, 7])
def test_indices_are_uniform_and_below_the_size(size: int) -> None:
    index = Draws((0, 1), 0, CPU).index(size, torch.tensor([3, size]), 14_000)
    assert index.dtype == torch.int64 and index.shape == (2, 14_000)
    for own in index.numpy():
        assert own.min() == 0 and own.max() == size - 1
        np.testing.assert_allclose(np.bincount(own) / 14_000, 1 / size, atol=0.015)
