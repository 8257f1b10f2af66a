"""Running mean and variance of the observations, one set a seed, and their use on tensors."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from spikerl_deploy.policy import Normalization

EPSILON = 1e-4  # added to the variance: a dimension that never moves stays finite


def normalize(observation: Tensor, mean: Tensor, inverse_std: Tensor, clip: float) -> Tensor:
    """Z-scored and clipped copy of observations [S, B, obs_dim], statistics [S, obs_dim]."""
    return ((observation - mean.unsqueeze(1)) * inverse_std.unsqueeze(1)).clamp(-clip, clip)


class RunningNormalizer:
    """Moments in float64 of every observation seen.

    Observations are first collected apart (`observe`) and count once they are merged (`merge`): so several ranks can
    merge all their collections in one order and hold the same statistics to the bit.

    Attributes:
        count: observations merged, [S, 1].
        mean, sum_squares: [S, obs_dim], of what was merged; `sum_squares` is the sum of squared deviations.
        mean_tensor, inverse_std_tensor: float32 [S, obs_dim] on the device, as `refresh` left them; updated in place.
    """

    def __init__(self, seeds: int, obs_dim: int, clip: float, device: torch.device) -> None:
        self.clip = clip
        self.count, self._pending_count = np.zeros((2, seeds, 1))
        self.mean, self.sum_squares, self._pending_mean, self._pending_squares = np.zeros((4, seeds, obs_dim))
        self.mean_tensor = torch.zeros(seeds, obs_dim, device=device)
        self.inverse_std_tensor = torch.ones(seeds, obs_dim, device=device)

    def observe(self, observations: np.ndarray, chosen: np.ndarray | None = None) -> None:
        """Collect observations [S, n, obs_dim]; of them those that are chosen [S, n], by default all."""
        if chosen is None and observations.shape[1] == 1:  # the usual case, and much of the cost of a step otherwise
            count, mean, squares = np.ones_like(self.count), observations[:, 0], np.zeros_like(self.mean)
        else:
            weight = np.ones((*observations.shape[:2], 1)) if chosen is None else chosen[..., None].astype(np.float64)
            count = weight.sum(axis=1)
            observations = np.where(weight > 0, observations, 0.0)
            mean = (observations * weight).sum(axis=1) / np.maximum(count, 1.0)
            squares = (np.square(observations - mean[:, None]) * weight).sum(axis=1)
        self._pending_count, self._pending_mean, self._pending_squares = _combine(
            *(self._pending_count, self._pending_mean, self._pending_squares), count, mean, squares
        )

    def pending(self) -> np.ndarray:
        """What was collected since the last merge, flat: count, means, sums of squares."""
        return np.concatenate([self._pending_count, self._pending_mean, self._pending_squares], axis=1).ravel()

    def merge(self, collections: list[np.ndarray] | None = None) -> None:
        """Take collections, as `pending` gave them, into the statistics in this order; by default one's own."""
        seeds, obs_dim = self.mean.shape
        for flat in collections if collections is not None else [self.pending()]:
            count, mean, squares = np.split(flat.reshape(seeds, -1), [1, 1 + obs_dim], axis=1)
            self.count, self.mean, self.sum_squares = _combine(
                self.count, self.mean, self.sum_squares, count, mean, squares
            )
        self._pending_count, self._pending_mean, self._pending_squares = (
            *(np.zeros_like(self.count), np.zeros_like(self.mean), np.zeros_like(self.mean)),
        )
        self.refresh()

    def std(self) -> np.ndarray:
        """Standard deviation [S, obs_dim]; one before two observations were merged."""
        std = np.sqrt(self.sum_squares / np.maximum(self.count, 1.0) + EPSILON)
        std[self.count[:, 0] < 2] = 1.0
        return std  # type: ignore[no-any-return]

    def refresh(self) -> None:
        """Bring the tensors up to date with the statistics."""
        self.mean_tensor.copy_(torch.from_numpy(self.mean))
        self.inverse_std_tensor.copy_(torch.from_numpy(1.0 / self.std()))

    def __call__(self, observation: Tensor) -> Tensor:
        """Normalised copy of observations [S, B, obs_dim]."""
        return normalize(observation, self.mean_tensor, self.inverse_std_tensor, self.clip)

    def snapshot(self, index: int = 0) -> Normalization:
        """The statistics of one seed, by its place, as part of a policy."""
        return Normalization(self.mean[index].astype(np.float32), self.std()[index].astype(np.float32), self.clip)

    def state_dict(self) -> dict[str, Any]:
        """Everything needed to go on, as arrays; nothing may be pending."""
        assert not self._pending_count.any()
        return {"count": self.count.copy(), "mean": self.mean.copy(), "sum_squares": self.sum_squares.copy()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a state."""
        self.count, self.mean, self.sum_squares = (state[name].copy() for name in ("count", "mean", "sum_squares"))
        self.refresh()


Moments = tuple[np.ndarray, np.ndarray, np.ndarray]


def _combine(
    count_a: np.ndarray,
    mean_a: np.ndarray,
    squares_a: np.ndarray,
    count_b: np.ndarray,
    mean_b: np.ndarray,
    squares_b: np.ndarray,
) -> Moments:
    """Moments of two sets together (Chan, Golub and LeVeque 1979); counts [S, 1], the others [S, obs_dim]."""
    count = count_a + count_b
    share = count_b / np.maximum(count, 1.0)
    delta = mean_b - mean_a
    return count, mean_a + delta * share, squares_a + squares_b + np.square(delta) * (count_a * share)
