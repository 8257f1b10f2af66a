"""Paired comparison against hand-computed values and the exact bootstrap distribution."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from spikerl_deploy.statistics import compare_paired, mean_interval


def test_values_by_hand() -> None:
    result = compare_paired([90.0, 110.0], [100.0, 100.0])
    assert result.differences == (-10.0, 10.0)
    assert result.mean_difference == 0.0
    assert result.retention == 1.0


def test_equal_returns_have_no_spread() -> None:
    result = compare_paired([5.0, 7.0, 9.0], [5.0, 7.0, 9.0])
    assert result.difference_interval == (0.0, 0.0)
    assert result.retention_interval == (1.0, 1.0)


def test_the_interval_is_that_of_all_resamples() -> None:
    x, y = np.array([3.0, 8.0, 4.0, 9.0]), np.array([2.0, 9.0, 5.0, 5.0])
    result = compare_paired(x.tolist(), y.tolist())
    index = np.array(list(itertools.product(range(4), repeat=4)))  # every resample of four seeds
    differences = (x[index] - y[index]).mean(axis=1)
    ratios = x[index].mean(axis=1) / y[index].mean(axis=1)
    np.testing.assert_allclose(result.difference_interval, np.percentile(differences, [2.5, 97.5]), atol=0.26)
    assert result.retention_interval is not None
    np.testing.assert_allclose(result.retention_interval, np.percentile(ratios, [2.5, 97.5]), atol=0.05)


def test_the_interval_of_a_mean_is_that_of_all_resamples() -> None:
    values = np.array([3.0, 8.0, 4.0, 9.0])
    index = np.array(list(itertools.product(range(4), repeat=4)))
    expected = np.percentile(values[index].mean(axis=1), [2.5, 97.5])
    np.testing.assert_allclose(mean_interval(values.tolist()), expected, atol=0.26)
    assert mean_interval([7.0, 7.0]) == (7.0, 7.0)


def test_retention_of_a_baseline_that_is_not_positive_is_undefined() -> None:
    result = compare_paired([1.0, 2.0], [-1.0, -2.0])
    assert result.retention is None
    assert result.retention_interval is None
    assert compare_paired([1.0, 9.0], [-1.0, 9.0]).retention_interval is None


def test_unpaired_returns_are_refused() -> None:
    with pytest.raises(ValueError, match="cannot be paired"):
        compare_paired([1.0], [1.0, 2.0])
