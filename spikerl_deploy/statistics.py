"""Paired comparison of returns with bootstrap intervals."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

RESAMPLES = 10_000
CONFIDENCE = 0.95
BOOTSTRAP_SEED = 0  # the interval of given returns is always the same


@dataclass(frozen=True)
class PairedComparison:
    """Returns of a backend against a baseline, episode by episode with equal seeds.

    Attributes:
        differences: backend minus baseline, one a seed.
        mean_difference, difference_interval: mean and percentile-bootstrap interval over seeds.
        retention: mean return over the baseline's; None where the baseline's mean is not positive.
        retention_interval: likewise; None as well where a resample's baseline mean is not positive.
    """

    differences: tuple[float, ...]
    mean_difference: float
    difference_interval: tuple[float, float]
    retention: float | None
    retention_interval: tuple[float, float] | None


def compare_paired(returns: Sequence[float], baseline: Sequence[float]) -> PairedComparison:
    """Compare returns [N] with a baseline's [N]; entry i of both comes from the same seed.

    The percentile bootstrap resamples seeds (Efron 1979), so both means of a resample share their seeds.
    With few seeds the interval is only as wide as the episodes seen.
    """
    if len(returns) != len(baseline) or not returns:
        raise ValueError(f"{len(returns)} returns cannot be paired with {len(baseline)}")
    x, y = np.asarray(returns, dtype=np.float64), np.asarray(baseline, dtype=np.float64)
    index = np.random.default_rng(BOOTSTRAP_SEED).integers(len(x), size=(RESAMPLES, len(x)))
    x_means, y_means = x[index].mean(axis=1), y[index].mean(axis=1)
    retention = interval = None
    if y.mean() > 0:
        retention = float(x.mean() / y.mean())
        if (y_means > 0).all():
            interval = _percentiles(x_means / y_means)
    return PairedComparison(
        tuple((x - y).tolist()), float((x - y).mean()), _percentiles(x_means - y_means), retention, interval
    )


def mean_interval(values: Sequence[float]) -> tuple[float, float]:
    """Percentile-bootstrap interval of the mean of values [N], by the resamples of `compare_paired`."""
    return compare_paired(values, [0.0] * len(values)).difference_interval


def _percentiles(values: NDArray[np.float64]) -> tuple[float, float]:
    tail = (1.0 - CONFIDENCE) / 2 * 100
    low, high = np.percentile(values, [tail, 100 - tail])
    return float(low), float(high)
