"""Two Q-functions as one module: their layers are stacked, so each takes one batched matrix product."""

from __future__ import annotations

import itertools

import torch
from torch import Tensor, nn

N_CRITICS = 2


class TwinCritic(nn.Module):
    """Two independent MLPs Q(observation, action) with ReLU, initialised like `nn.Linear`."""

    def __init__(self, obs_dim: int, act_dim: int, hidden: tuple[int, ...]) -> None:
        super().__init__()
        sizes = [obs_dim + act_dim, *hidden, 1]
        self.weights, self.biases = nn.ParameterList(), nn.ParameterList()
        for n_in, n_out in itertools.pairwise(sizes):
            bound = n_in**-0.5
            self.weights.append(nn.Parameter(torch.empty(N_CRITICS, n_in, n_out).uniform_(-bound, bound)))
            self.biases.append(nn.Parameter(torch.empty(N_CRITICS, 1, n_out).uniform_(-bound, bound)))

    def forward(self, observation: Tensor, action: Tensor) -> Tensor:
        """Values [2, B] of observations [B, obs_dim] and actions [B, act_dim]."""
        x = torch.cat([observation, action], dim=-1).expand(N_CRITICS, -1, -1)
        for index, (weight, bias) in enumerate(zip(self.weights, self.biases, strict=True)):
            x = torch.baddbmm(bias, x, weight)
            if index < len(self.weights) - 1:
                x = torch.relu(x)
        return x.squeeze(-1)
