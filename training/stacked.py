"""Parameters of several networks stacked along a leading axis, so that one batched matrix product serves them all."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

Generators = Sequence[torch.Generator]
"""One generator a network: each network starts as it would alone."""


def generators_of(seeds: Sequence[int]) -> Generators:
    """Generators on the CPU, one a seed."""
    return [torch.Generator().manual_seed(seed) for seed in seeds]


def uniform(generators: Generators, shape: tuple[int, ...], bound: float) -> nn.Parameter:
    """Parameter [S, *shape], each slice uniform in [-bound, bound] from its own generator."""
    draws = [torch.empty(shape).uniform_(-bound, bound, generator=generator) for generator in generators]
    return nn.Parameter(torch.stack(draws))


def repeat(value: Tensor, count: int) -> nn.Parameter:
    """Parameter [count, ...] of equal slices."""
    return nn.Parameter(value.repeat(count, *(1,) * value.ndim))


def linear(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """Each network's own affine map: x [S, N, n_in], weight [S, n_in, n_out], bias [S, n_out] to [S, N, n_out]."""
    return torch.bmm(x, weight) + bias.unsqueeze(1)
