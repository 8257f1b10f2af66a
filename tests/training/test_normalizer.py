"""Running moments against NumPy's, and the same normalisation in training and in the policy."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from spikerl_deploy.codec import normalise
from training.normalizer import EPSILON, RunningNormalizer

CPU = torch.device("cpu")


def observed(data: np.ndarray, clip: float = 3.0) -> RunningNormalizer:
    normalizer = RunningNormalizer(data.shape[1], clip, CPU)
    for row in data:
        normalizer.observe(row)
    return normalizer


@given(st.integers(0, 1000), st.integers(2, 60), st.floats(-1e5, 1e5), st.floats(0.01, 1e3))
def test_moments_equal_numpys(seed: int, count: int, centre: float, spread: float) -> None:
    data = np.random.default_rng(seed).normal(centre, spread, (count, 3))
    normalizer = observed(data)
    np.testing.assert_allclose(normalizer.mean, data.mean(axis=0), rtol=1e-10, atol=1e-10 * spread)
    np.testing.assert_allclose(normalizer.std() ** 2, data.var(axis=0) + EPSILON, rtol=1e-7)


def test_scores_are_clipped_at_the_bound_in_both_directions() -> None:
    normalizer = observed(np.array([[0.0, 10.0], [2.0, 30.0]]), clip=2.5)  # mean 1, 20; std 1, 10
    normalizer.refresh()
    scores = normalizer(torch.tensor([[2.0, 25.0], [100.0, -1e6], [-100.0, 1e6]]))
    torch.testing.assert_close(scores, torch.tensor([[1.0, 0.5], [2.5, -2.5], [-2.5, 2.5]]), rtol=1e-4, atol=0)


def test_new_observations_count_from_the_refresh_on() -> None:
    normalizer = RunningNormalizer(1, 3.0, CPU)
    assert normalizer(torch.tensor([[1.5]])).item() == 1.5
    for value in (4.0, 8.0):
        normalizer.observe(np.array([value]))
    assert normalizer(torch.tensor([[1.5]])).item() == 1.5
    normalizer.refresh()
    assert normalizer(torch.tensor([[7.0]])).item() == pytest.approx(0.5, rel=1e-4)


def test_a_dimension_that_never_moves_stays_finite() -> None:
    normalizer = observed(np.full((20, 2), 5.0))
    normalizer.refresh()
    assert normalizer(torch.tensor([[5.0, 5.001]])).tolist()[0] == pytest.approx([0, 0.1], abs=1e-3)


def test_normalising_leaves_its_input_alone() -> None:
    normalizer = RunningNormalizer(2, 1.0, CPU)
    raw = torch.tensor([[5.0, -5.0]])
    normalizer(raw)
    assert raw.tolist() == [[5, -5]]


def test_the_policy_normalises_as_training_does() -> None:
    rng = np.random.default_rng(0)
    normalizer = observed(rng.normal([0, 50, -3], [1, 20, 0.01], (200, 3)), clip=1.5)
    normalizer.refresh()
    raw = rng.normal([0, 50, -3], [2, 40, 0.02], (100, 3)).astype(np.float32)
    scores = normalizer(torch.from_numpy(raw)).numpy()
    np.testing.assert_allclose(normalise(raw, normalizer.snapshot()), scores, rtol=1e-4, atol=1e-5)
    assert np.abs(scores).max() == 1.5


def test_the_snapshot_does_not_move_with_later_observations() -> None:
    normalizer = observed(np.array([[0.0], [2.0]]))
    snapshot = normalizer.snapshot()
    normalizer.observe(np.array([100.0]))
    assert snapshot.mean.tolist() == [1.0]
    assert snapshot.std[0] == pytest.approx(1, rel=1e-3)
