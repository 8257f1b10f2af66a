"""Actors and agents whose synaptic input is normalised, and what they learn from."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from training.actor import Spaces, SpikingActor
from training.settings import Settings
from training.stacked import generators_of
from training.td3 import TD3, Statistics

CPU = torch.device("cpu")
F32, F64 = torch.float32, torch.float64
OBS, ACT, BATCH = 3, 2, 40
SPACES = Spaces(OBS, np.float32([-1, 0]), np.float32([3, 0.5]))
SMALL: dict[str, Any] = {
    "hidden": (14, 12), "critic_hidden": (10,), "population": 5, "synaptic_norm": "batch", "norm_momentum": 0.2,
}  # fmt: skip
SEEDS = [(0,), (4, 0, 7)]


def normal(*shape: int, seed: int = 0, dtype: torch.dtype = F64) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)).to(dtype)


def stir(actor: SpikingActor, seed: int = 0) -> None:
    """Another gamma and other running statistics for each neuron, as training would leave them."""
    g = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for norm in actor.norms:
            norm.gamma *= 0.6 + torch.rand(norm.gamma.shape, generator=g)
            norm.running_mean += 0.2 * torch.randn(norm.gamma.shape, generator=g)
            norm.running_var *= 0.3 + torch.rand(norm.gamma.shape, generator=g)


def actor(seeds: tuple[int, ...] = (0,), **settings: Any) -> SpikingActor:
    made = SpikingActor(SPACES, Settings(**SMALL | settings), generators_of(seeds))
    stir(made)
    return made


def agent(seeds: tuple[int, ...] = (0,), dtype: torch.dtype = F64, compiled: bool = False, **settings: Any) -> TD3:
    made = TD3(SPACES, Settings(**SMALL | settings), CPU, seeds, compiled)
    stir(made.actor, 1)
    if isinstance(made.actor_target, SpikingActor):
        stir(made.actor_target, 2)
    for module in made._modules().values():
        module.to(dtype)
    made.low, made.high = made.low.to(dtype), made.high.to(dtype)
    return made


def rows_of(seeds: Iterable[int], number: int = 0, dtype: torch.dtype = F64) -> Tensor:
    """Transitions [S, BATCH, width], none terminated."""
    rows = torch.stack([normal(BATCH, 2 * OBS + ACT + 2, seed=100 * seed + number) for seed in seeds])
    rows[..., -1] = 0
    return rows.to(dtype)


def arguments_of(
    seeds: tuple[int, ...], number: int = 0, dtype: torch.dtype = F64
) -> tuple[Tensor, Tensor, Statistics]:
    mean, inverse = torch.full((2, len(seeds), OBS), 0.1, dtype=dtype)
    return rows_of(seeds, number, dtype), normal(len(seeds), BATCH, ACT, seed=number, dtype=dtype), (mean, 9 * inverse)
