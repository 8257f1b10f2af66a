"""Every random number of a run, from streams that a checkpoint can hold."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

# What a stream is for; a stream is named by seed, rank and one of these, so that none repeats another's numbers.
EXPLORATION, REPLAY, TARGET, ENVIRONMENT, EVALUATION = range(5)


def stream(seed: int, rank: int, purpose: int) -> np.random.Generator:
    """Generator of one seed's numbers for one purpose on one rank."""
    return np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(rank, purpose)))


def environment_seed(seed: int, rank: int, index: int) -> int:
    """Seed of an environment, by its place among those of its seed and rank."""
    return int(np.random.SeedSequence(seed, spawn_key=(rank, ENVIRONMENT, index)).generate_state(1)[0])


class Draws:
    """Exploration, replay indices and target noise for several seeds.

    On the CPU each seed draws from streams of its own, as it would alone. On CUDA replay indices and target noise come
    from the device's default generator, all seeds at once, without the host: what a CUDA graph can hold.
    """

    def __init__(self, seeds: Sequence[int], rank: int, device: torch.device) -> None:
        self.device = device
        self.exploration, self._replay, self._target = (
            [stream(seed, rank, purpose) for seed in seeds] for purpose in (EXPLORATION, REPLAY, TARGET)
        )
        if device.type != "cpu":
            torch.cuda.default_generators[device.index or 0].manual_seed(environment_seed(seeds[0], rank, 0))

    def uniform_actions(self, count: int, low: np.ndarray, high: np.ndarray) -> np.ndarray:
        """Actions [S, count, act_dim], uniform between the bounds [act_dim]."""
        draws = [generator.uniform(low, high, (count, len(low))) for generator in self.exploration]
        return np.stack(draws).astype(np.float32)

    def exploration_noise(self, count: int, act_dim: int) -> np.ndarray:
        """Standard normal numbers [S, count, act_dim]."""
        return np.stack([generator.standard_normal((count, act_dim), np.float32) for generator in self.exploration])

    def index(self, size: int, window: Tensor, batch_size: int) -> Tensor:
        """Indices int64 [S, batch_size], uniform below the window's length, given for the host and on the device."""
        if self.device.type != "cpu":
            draws = torch.rand(len(self._replay), batch_size, device=self.device, dtype=torch.float64)
            return (draws * window[1]).long()  # 53 bits: no index is more likely than another by 2^-33
        return torch.from_numpy(np.stack([generator.integers(size, size=batch_size) for generator in self._replay]))

    def target_noise(self, batch_size: int, act_dim: int) -> Tensor:
        """Standard normal numbers [S, batch_size, act_dim] on the device."""
        if self.device.type != "cpu":
            return torch.randn(len(self._target), batch_size, act_dim, device=self.device)
        shape = (batch_size, act_dim)
        return torch.from_numpy(np.stack([generator.standard_normal(shape, np.float32) for generator in self._target]))

    def state_dict(self) -> dict[str, Any]:
        """All streams, and torch's default generators (Poisson coding draws from them)."""
        state: dict[str, Any] = {
            "streams": json.dumps([generator.bit_generator.state for generator in self._all()]),
            "torch": torch.get_rng_state(),
        }
        if self.device.type != "cpu":
            state["cuda"] = torch.cuda.get_rng_state(self.device)
        return state

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a state."""
        for generator, value in zip(self._all(), json.loads(state["streams"]), strict=True):
            generator.bit_generator.state = value
        torch.set_rng_state(state["torch"])
        if self.device.type != "cpu":
            torch.cuda.set_rng_state(state["cuda"], self.device)

    def _all(self) -> list[np.random.Generator]:
        return [*self.exploration, *self._replay, *self._target]
