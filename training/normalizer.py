"""Running mean and variance of the observations, and their use on tensors."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from spikerl_deploy.policy import Normalization

EPSILON = 1e-4  # added to the variance: a dimension that never moves stays finite


class RunningNormalizer:
    """Welford moments in float64 of every observation seen, applied as z-score and clip."""

    def __init__(self, obs_dim: int, clip: float, device: torch.device) -> None:
        self.clip, self.device = clip, device
        self.count = 0
        self.mean = np.zeros(obs_dim)
        self.sum_squares = np.zeros(obs_dim)
        self._mean = torch.zeros(obs_dim, device=device)
        self._inverse_std = torch.ones(obs_dim, device=device)

    def observe(self, observation: np.ndarray) -> None:
        """Take one observation [obs_dim] into the moments; `refresh` makes them count."""
        self.count += 1
        delta = observation - self.mean
        self.mean += delta / self.count
        self.sum_squares += delta * (observation - self.mean)

    def std(self) -> np.ndarray:
        """Standard deviation [obs_dim]; one before two observations were seen."""
        if self.count < 2:
            return np.ones_like(self.mean)
        std: np.ndarray = np.sqrt(self.sum_squares / self.count + EPSILON)
        return std

    def refresh(self) -> None:
        """Bring the tensors that `__call__` uses up to date."""
        self._mean.copy_(torch.from_numpy(self.mean))
        self._inverse_std.copy_(torch.from_numpy(1.0 / self.std()))

    def __call__(self, observation: Tensor) -> Tensor:
        """Normalised copy of observations [..., obs_dim]."""
        return ((observation - self._mean) * self._inverse_std).clamp_(-self.clip, self.clip)

    def snapshot(self) -> Normalization:
        """The statistics as part of a policy."""
        return Normalization(self.mean.astype(np.float32), self.std().astype(np.float32), self.clip)

    def state_dict(self) -> dict[str, Tensor | int]:
        """Everything needed to go on, as tensors and plain numbers."""
        return {
            "count": self.count,
            "mean": torch.from_numpy(self.mean.copy()),
            "sum_squares": torch.from_numpy(self.sum_squares.copy()),
        }
