"""Running moments of each seed against NumPy's, and the same normalisation in training and in the policy."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from spikerl_deploy.codec import normalise
from training.normalizer import EPSILON, RunningNormalizer, normalize

CPU = torch.device("cpu")


def observed(data: np.ndarray, clip: float = 3.0) -> RunningNormalizer:
    """Statistics of rows [n, obs_dim] of one seed, seen one by one."""
    normalizer = RunningNormalizer(1, data.shape[1], clip, CPU)
    for row in data:
        normalizer.observe(row[None, None])
        normalizer.merge()
    return normalizer


@settings(deadline=None)
@given(st.integers(0, 1000), st.integers(2, 60), st.floats(-1e5, 1e5), st.floats(0.01, 1e3))
def test_moments_equal_numpys(seed: int, count: int, centre: float, spread: float) -> None:
    data = np.random.default_rng(seed).normal(centre, spread, (count, 3))
    normalizer = observed(data)
    np.testing.assert_allclose(normalizer.mean[0], data.mean(axis=0), rtol=1e-10, atol=1e-10 * spread)
    np.testing.assert_allclose(normalizer.std()[0] ** 2, data.var(axis=0) + EPSILON, rtol=1e-7)


@settings(max_examples=50, deadline=None)
@given(
    seed=st.integers(0, 1000),
    seeds=st.integers(1, 3),
    turns=st.lists(st.tuples(st.integers(1, 5), st.booleans(), st.booleans()), min_size=1, max_size=12),
)
def test_each_seed_has_the_moments_of_what_was_chosen_of_its_own(
    seed: int, seeds: int, turns: list[tuple[int, bool, bool]]
) -> None:
    rng = np.random.default_rng(seed)
    normalizer = RunningNormalizer(seeds, 2, 3.0, CPU)
    pooled: list[list[np.ndarray]] = [[] for _ in range(seeds)]
    for n, masked, merged in turns:
        data = rng.normal(np.arange(seeds)[:, None, None] * 10, [1, 4], (seeds, n, 2))
        chosen = rng.random((seeds, n)) < 0.4 if masked else None
        normalizer.observe(data, chosen)
        for i in range(seeds):
            pooled[i].extend(data[i] if chosen is None else data[i][chosen[i]])
        if merged:
            normalizer.merge()
    normalizer.merge()
    for i, own in enumerate(pooled):
        assert normalizer.count[i, 0] == len(own)
        if own:
            np.testing.assert_allclose(normalizer.mean[i], np.mean(own, axis=0), rtol=1e-9, atol=1e-9)
        variance = np.var(own, axis=0) + EPSILON if len(own) > 1 else np.ones(2)
        np.testing.assert_allclose(normalizer.std()[i] ** 2, variance, rtol=1e-7)
    np.testing.assert_array_equal(normalizer.mean_tensor.numpy(), normalizer.mean.astype(np.float32))
    np.testing.assert_array_equal(normalizer.inverse_std_tensor.numpy(), (1 / normalizer.std()).astype(np.float32))


def test_collections_of_several_ranks_make_the_moments_of_all_their_data() -> None:
    rng = np.random.default_rng(0)
    ranks = [RunningNormalizer(2, 3, 3.0, CPU) for _ in range(3)]
    pooled: list[np.ndarray] = []
    for _ in range(4):
        for rank, normalizer in enumerate(ranks):
            for _ in range(rank + 1):
                data = rng.normal(rank * 5.0, 1.0 + rank, (2, 4, 3))
                normalizer.observe(data)
                pooled.append(data)
        collections = [normalizer.pending() for normalizer in ranks]
        for normalizer in ranks:
            normalizer.merge(collections)
    everything = np.concatenate(pooled, axis=1)
    for normalizer in ranks:
        assert (normalizer.count == everything.shape[1]).all()
        np.testing.assert_allclose(normalizer.mean, everything.mean(axis=1), rtol=1e-12)
        np.testing.assert_allclose(normalizer.std() ** 2, everything.var(axis=1) + EPSILON, rtol=1e-12)
        for name in ("mean", "sum_squares", "count"):  # the ranks must agree to the bit
            np.testing.assert_array_equal(getattr(normalizer, name), getattr(ranks[0], name))
        assert torch.equal(normalizer.inverse_std_tensor, ranks[0].inverse_std_tensor)


def test_collections_are_merged_in_the_order_given() -> None:
    collections = []
    for data in np.random.default_rng(4).normal(3, 7, (3, 1, 5, 2)):
        normalizer = RunningNormalizer(1, 2, 3.0, CPU)
        normalizer.observe(data)
        collections.append(normalizer.pending())
    found = set()
    for order in itertools.permutations(collections):
        together, one_by_one = RunningNormalizer(1, 2, 3.0, CPU), RunningNormalizer(1, 2, 3.0, CPU)
        together.merge(list(order))
        for collection in order:
            one_by_one.merge([collection])
        np.testing.assert_array_equal(together.mean, one_by_one.mean)
        np.testing.assert_array_equal(together.sum_squares, one_by_one.sum_squares)
        found.add((*together.mean.ravel(), *together.sum_squares.ravel()))
    assert len(found) > 1, "rounding shows no order"


def test_a_rank_that_merges_alone_does_as_one_that_is_given_its_own_collection() -> None:
    first, second = RunningNormalizer(1, 2, 3.0, CPU), RunningNormalizer(1, 2, 3.0, CPU)
    for data in np.random.default_rng(1).normal(size=(5, 1, 3, 2)):
        first.observe(data)
        second.observe(data)
        first.merge()
        second.merge([second.pending()])
    np.testing.assert_array_equal(first.mean, second.mean)
    np.testing.assert_array_equal(first.sum_squares, second.sum_squares)


def test_what_was_merged_is_pending_no_longer() -> None:
    normalizer = RunningNormalizer(1, 2, 3.0, CPU)
    normalizer.observe(np.ones((1, 3, 2)))
    assert normalizer.pending()[0] == 3
    normalizer.merge()
    assert not normalizer.pending().any()
    normalizer.merge()
    assert normalizer.count.tolist() == [[3]]


def test_one_observation_is_the_same_by_either_way_of_collecting() -> None:
    quick, masked = RunningNormalizer(2, 3, 3.0, CPU), RunningNormalizer(2, 3, 3.0, CPU)
    for data in np.random.default_rng(2).normal(5, 2, (20, 2, 1, 3)):
        quick.observe(data)
        masked.observe(data, np.ones((2, 1), bool))
        for normalizer in (quick, masked):
            normalizer.merge()
    np.testing.assert_array_equal(quick.mean, masked.mean)
    np.testing.assert_array_equal(quick.sum_squares, masked.sum_squares)


def test_collected_arrays_may_be_written_over() -> None:
    normalizer, data = RunningNormalizer(1, 2, 3.0, CPU), np.ones((1, 1, 2))
    normalizer.observe(data)
    data[:] = 99
    normalizer.merge()
    assert normalizer.mean.tolist() == [[1, 1]]


def test_a_state_goes_on_to_the_bit_and_does_not_move() -> None:
    rng = np.random.default_rng(3)
    first = RunningNormalizer(2, 3, 3.0, CPU)
    for data in rng.normal(2, 5, (10, 2, 4, 3)):
        first.observe(data)
        first.merge()
    state = first.state_dict()
    kept = {name: value.copy() for name, value in state.items()}
    second = RunningNormalizer(2, 3, 3.0, CPU)
    second.load_state_dict(state)
    assert torch.equal(first.mean_tensor, second.mean_tensor)
    assert torch.equal(first.inverse_std_tensor, second.inverse_std_tensor)
    for data in rng.normal(-2, 1, (10, 2, 4, 3)):
        for normalizer in (first, second):
            normalizer.observe(data)
            normalizer.merge()
    for name in ("count", "mean", "sum_squares"):
        np.testing.assert_array_equal(getattr(first, name), getattr(second, name))
        np.testing.assert_array_equal(state[name], kept[name])


def test_the_tensors_are_updated_where_they_lie() -> None:
    normalizer = RunningNormalizer(1, 2, 3.0, CPU)
    mean, inverse_std = normalizer.mean_tensor, normalizer.inverse_std_tensor
    normalizer.observe(np.array([[[0.0, 4.0], [2.0, 8.0]]]))
    normalizer.merge()
    assert mean.tolist() == [[1, 6]]
    assert inverse_std[0].tolist() == pytest.approx([1, 0.5], rel=1e-3)
    assert mean.dtype == inverse_std.dtype == torch.float32
    normalizer.load_state_dict(RunningNormalizer(1, 2, 3.0, CPU).state_dict())
    assert mean.tolist() == [[0, 0]] and inverse_std.tolist() == [[1, 1]]


def test_scores_are_clipped_at_the_bound_in_both_directions() -> None:
    normalizer = observed(np.array([[0.0, 10.0], [2.0, 30.0]]), clip=2.5)  # mean 1, 20; std 1, 10
    scores = normalizer(torch.tensor([[[2.0, 25.0], [100.0, -1e6], [-100.0, 1e6]]]))
    torch.testing.assert_close(scores, torch.tensor([[[1.0, 0.5], [2.5, -2.5], [-2.5, 2.5]]]), rtol=1e-4, atol=0)


def test_each_seed_is_normalised_by_its_own_statistics() -> None:
    observation = torch.tensor([[[1.0], [3.0]], [[1.0], [3.0]]])
    scores = normalize(observation, torch.tensor([[0.0], [2.0]]), torch.tensor([[1.0], [0.5]]), 10.0)
    assert scores.tolist() == [[[1], [3]], [[-0.5], [0.5]]]


def test_new_observations_count_from_the_merge_on() -> None:
    normalizer = RunningNormalizer(1, 1, 3.0, CPU)
    assert normalizer(torch.tensor([[[1.5]]])).item() == 1.5
    for value in (4.0, 8.0):
        normalizer.observe(np.array([[[value]]]))
    assert normalizer(torch.tensor([[[1.5]]])).item() == 1.5
    assert normalizer.snapshot().mean.tolist() == [0.0]
    normalizer.merge()
    assert normalizer(torch.tensor([[[7.0]]])).item() == pytest.approx(0.5, rel=1e-4)


def test_before_two_observations_the_scale_is_one() -> None:
    normalizer = observed(np.array([[5.0]]))
    assert normalizer.std().tolist() == [[1.0]]
    assert normalizer(torch.tensor([[[6.5]]])).item() == 1.5


def test_a_dimension_that_never_moves_stays_finite() -> None:
    normalizer = observed(np.full((20, 2), 5.0))
    assert normalizer(torch.tensor([[[5.0, 5.001]]])).flatten().tolist() == pytest.approx([0, 0.1], abs=1e-3)


def test_normalising_leaves_its_input_alone() -> None:
    normalizer = RunningNormalizer(1, 2, 1.0, CPU)
    raw = torch.tensor([[[5.0, -5.0]]])
    normalizer(raw)
    assert raw.tolist() == [[[5, -5]]]


def test_the_policy_of_each_seed_normalises_as_training_does() -> None:
    rng = np.random.default_rng(0)
    normalizer = RunningNormalizer(2, 3, 1.5, CPU)
    centres = np.array([[[0, 50, -3]], [[4, -50, 0]]])
    normalizer.observe(rng.normal(centres, [1, 20, 0.01], (2, 200, 3)))
    normalizer.merge()
    raw = rng.normal(centres, [2, 40, 0.02], (2, 100, 3)).astype(np.float32)
    scores = normalizer(torch.from_numpy(raw)).numpy()
    for i in range(2):
        np.testing.assert_allclose(normalise(raw[i], normalizer.snapshot(i)), scores[i], rtol=1e-4, atol=1e-5)
    assert np.abs(scores).max() == 1.5


def test_the_snapshot_does_not_move_with_later_observations() -> None:
    normalizer = observed(np.array([[0.0], [2.0]]))
    snapshot = normalizer.snapshot()
    normalizer.observe(np.array([[[100.0]]]))
    normalizer.merge()
    assert snapshot.mean.tolist() == [1.0]
    assert snapshot.std[0] == pytest.approx(1, rel=1e-3)
