"""Uniform experience replay in preallocated tensors."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor


@dataclass(frozen=True)
class Batch:
    """Transitions: `o_tm1`, `o_t` [B, obs_dim] (raw), `a_tm1` [B, act_dim], `r_t` and `terminated` [B]."""

    o_tm1: Tensor
    a_tm1: Tensor
    r_t: Tensor
    o_t: Tensor
    terminated: Tensor


class ReplayBuffer:
    """Ring of the last `capacity` transitions, sampled uniformly with replacement.

    `terminated` alone ends bootstrapping; an episode that was truncated bootstraps on.
    """

    def __init__(self, obs_dim: int, act_dim: int, capacity: int, device: torch.device, seed: int) -> None:
        self.capacity, self.size, self.next = capacity, 0, 0
        self.generator = torch.Generator(device=device).manual_seed(seed)
        # torch.empty leaves pages untouched, so memory grows with what is stored
        self.observations = torch.empty(capacity, obs_dim, device=device)
        self.next_observations = torch.empty(capacity, obs_dim, device=device)
        self.actions = torch.empty(capacity, act_dim, device=device)
        self.rewards = torch.empty(capacity, device=device)
        self.terminated = torch.empty(capacity, device=device)

    def store(
        self, observation: np.ndarray, action: np.ndarray, reward: float, next_observation: np.ndarray, terminated: bool
    ) -> None:
        """Append one transition, overwriting the oldest when full."""
        i = self.next
        self.observations[i] = torch.from_numpy(observation)
        self.actions[i] = torch.from_numpy(action)
        self.rewards[i] = reward
        self.next_observations[i] = torch.from_numpy(next_observation)
        self.terminated[i] = float(terminated)
        self.next = (i + 1) % self.capacity
        self.size = min(self.size + 1, self.capacity)

    def sample(self, batch_size: int) -> Batch:
        """Draw `batch_size` transitions."""
        device = self.rewards.device
        index = torch.randint(self.size, (batch_size,), generator=self.generator, device=device)
        return Batch(
            self.observations[index],
            self.actions[index],
            self.rewards[index],
            self.next_observations[index],
            self.terminated[index],
        )
