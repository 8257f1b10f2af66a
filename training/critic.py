"""Twin Q-functions of every seed in one module: all layers are stacked, so each takes one batched matrix product."""

from __future__ import annotations

import itertools

import torch
from torch import Tensor, nn

from training.stacked import Generators, linear, uniform

N_CRITICS = 2


class TwinCritic(nn.Module):
    """Two independent MLPs Q(observation, action) a seed, with ReLU, initialised like `nn.Linear`.

    Weights are [S, 2, n_in, n_out], biases [S, 2, n_out].
    """

    def __init__(self, obs_dim: int, act_dim: int, hidden: tuple[int, ...], generators: Generators) -> None:
        super().__init__()
        sizes = [obs_dim + act_dim, *hidden, 1]
        self.weights, self.biases = nn.ParameterList(), nn.ParameterList()
        for n_in, n_out in itertools.pairwise(sizes):
            self.weights.append(uniform(generators, (N_CRITICS, n_in, n_out), n_in**-0.5))
            self.biases.append(uniform(generators, (N_CRITICS, n_out), n_in**-0.5))

    def forward(self, observation: Tensor, action: Tensor, critics: int = N_CRITICS) -> Tensor:
        """Values [S, critics, B] of observations [S, B, obs_dim] and actions [S, B, act_dim]."""
        x = torch.cat([observation, action], dim=-1)
        seeds, batch, width = x.shape
        x = x.unsqueeze(1).expand(seeds, critics, batch, width).reshape(seeds * critics, batch, width)
        last = len(self.weights) - 1
        for index, (weight, bias) in enumerate(zip(self.weights, self.biases, strict=True)):
            x = linear(x, weight[:, :critics].flatten(0, 1), bias[:, :critics].flatten(0, 1))
            if index < last:
                x = torch.relu(x)
        return x.reshape(seeds, critics, batch)
