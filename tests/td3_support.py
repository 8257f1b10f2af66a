"""Agents of TD3 with small networks, their transitions, noise and statistics, and what holds two of them equal."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from training.actor import Spaces, SpikingActor
from training.settings import Settings
from training.td3 import TD3, Statistics

CPU = torch.device("cpu")
LOW, HIGH = np.float32([-1, 0]), np.float32([3, 0.5])
SPACES = Spaces(3, LOW, HIGH)
OBS, ACT = 3, 2
BATCH = 24
F32, F64 = torch.float32, torch.float64
SMALL: dict[str, Any] = {"hidden": (16,), "critic_hidden": (12, 10), "population": 5}
PROXY: dict[str, Any] = {"target_actor": "proxy", "proxy_hidden": (13, 11), "proxy_steps": 2, "proxy_lr": 5e-3}
KINDS: list[Any] = [
    pytest.param({"surrogate": "rectangular"}, id="rectangular"),
    pytest.param({"surrogate": "arctan"}, id="arctan"),
    pytest.param({"actor": "mlp"}, id="mlp"),
    pytest.param(PROXY, id="proxy"),
    pytest.param({"readout": "membrane"}, id="membrane"),
]


def agent(seeds: tuple[int, ...] = (0,), dtype: torch.dtype = F32, compiled: bool = False, **settings: Any) -> TD3:
    """Weights wide enough for every layer to spike, targets unlike the networks; no seed depends on the others."""
    made = TD3(SPACES, Settings(**SMALL | settings), CPU, seeds, compiled)
    with torch.no_grad():
        for weight, target in zip(made.actor.weights, made.actor_target.weights, strict=False):
            weight *= 4
            if made.settings.target_actor == "copy":
                target.copy_(weight * 1.1)
        for place, seed in enumerate(seeds):
            g = torch.Generator().manual_seed(1000 + seed)
            if isinstance(made.actor, SpikingActor):
                for parameter in (made.actor.encoder.mean, made.actor.encoder.std):
                    parameter[place] *= 1 + 0.2 * torch.rand(parameter.shape[1:], generator=g)
            for parameter in made.critic_target.parameters():  # online and target must be told apart
                parameter[place] += 0.1 * torch.randn(parameter.shape[1:], generator=g)
    for module in made._modules().values():
        module.to(dtype)
    made.low, made.high = made.low.to(dtype), made.high.to(dtype)
    return made


def statistics_of(seeds: Iterable[int], dtype: torch.dtype = F32) -> Statistics:
    """Mean and inverse standard deviation, another of each seed."""
    mean = torch.stack([torch.tensor([0.2, -0.1, 0.3]) + 0.1 * seed for seed in seeds])
    inverse = torch.stack([torch.tensor([0.9, 1.2, 1.5]) + 0.05 * seed for seed in seeds])
    return mean.to(dtype), inverse.to(dtype)


def transitions(seed: int, number: int, size: int = BATCH) -> Tensor:
    """Rows [size, width] of one seed: actions between the bounds, three in ten terminated."""
    g = torch.Generator().manual_seed(10_000 * seed + number)
    o_tm1, o_t = torch.randn(2, size, OBS, generator=g)
    a_tm1 = torch.from_numpy(LOW) + torch.rand(size, ACT, generator=g) * torch.from_numpy(HIGH - LOW)
    r_t = torch.randn(size, 1, generator=g)
    terminated = (torch.rand(size, 1, generator=g) < 0.3).float()
    return torch.cat([o_tm1, a_tm1, r_t, o_t, terminated], 1)


def rows_of(seeds: Iterable[int], number: int = 0, dtype: torch.dtype = F32, batches: int = 1) -> Tensor:
    return torch.stack([transitions(seed, number, batches * BATCH) for seed in seeds]).to(dtype)


def noise_of(seeds: Iterable[int], number: int = 0, dtype: torch.dtype = F32) -> Tensor:
    draws = [torch.randn(BATCH, ACT, generator=torch.Generator().manual_seed(777 + 10_000 * s + number)) for s in seeds]
    return torch.stack(draws).to(dtype)


def parameters(made: TD3) -> dict[str, Tensor]:
    """Parameters of all four networks by name."""
    return {f"{which}.{name}": p for which, module in made._modules().items() for name, p in module.named_parameters()}


def assert_same(mine: TD3, reference: TD3) -> None:
    theirs = parameters(reference)
    for name, parameter in parameters(mine).items():
        assert torch.equal(parameter, theirs[name]), name
