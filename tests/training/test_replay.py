"""The replay ring against a deque."""

from __future__ import annotations

from collections import deque

import numpy as np
import torch

from training.replay import Batch, ReplayBuffer

CPU = torch.device("cpu")


def store(replay: ReplayBuffer, k: int) -> None:
    """Transition k, recognisable in every field."""
    replay.store(np.float32([k, -k]), np.float32([k / 8]), 10.0 * k, np.float32([k + 1, -k - 1]), k % 3 == 0)


def keys(batch: Batch) -> list[int]:
    """The transitions of a batch, after checking that each one's fields belong together."""
    k = batch.o_tm1[:, 0]
    torch.testing.assert_close(batch.o_tm1, torch.stack([k, -k], 1))
    torch.testing.assert_close(batch.a_tm1, k[:, None] / 8)
    torch.testing.assert_close(batch.r_t, 10 * k)
    torch.testing.assert_close(batch.o_t, torch.stack([k + 1, -k - 1], 1))
    torch.testing.assert_close(batch.terminated, (k % 3 == 0).float())
    return [int(value) for value in k]


def test_the_ring_keeps_the_last_transitions_and_samples_no_other() -> None:
    replay, model = ReplayBuffer(2, 1, 7, CPU, seed=0), deque(maxlen=7)
    for k in range(1, 25):
        store(replay, k)
        model.append(k)
        assert replay.size == len(model)
        assert set(keys(replay.sample(300))) == set(model)


def test_sampling_is_uniform_and_with_replacement() -> None:
    replay = ReplayBuffer(2, 1, 5, CPU, seed=3)
    for k in range(1, 6):
        store(replay, k)
    counts = np.bincount(keys(replay.sample(20_000)), minlength=6)[1:]
    np.testing.assert_allclose(counts / 20_000, 0.2, atol=0.015)


def test_the_seed_decides_the_samples_and_the_global_generator_does_not() -> None:
    def draw(seed: int, global_seed: int) -> list[int]:
        torch.manual_seed(global_seed)
        replay = ReplayBuffer(2, 1, 50, CPU, seed)
        for k in range(1, 51):
            store(replay, k)
        return keys(replay.sample(20)) + keys(replay.sample(20))

    assert draw(1, 0) == draw(1, 99)
    assert draw(1, 0) != draw(2, 0)


def test_what_is_stored_is_a_copy() -> None:
    replay = ReplayBuffer(2, 1, 3, CPU, seed=0)
    observation = np.float32([1, 2])
    replay.store(observation, np.float32([0]), 0.0, observation, False)
    observation[:] = 9
    assert replay.sample(1).o_tm1.tolist() == [[1, 2]]
