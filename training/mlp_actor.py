"""The dense actor of TD3: the baseline without spikes, and the proxy of a spiking actor's target."""

from __future__ import annotations

import itertools

import torch
from torch import Tensor, nn

from training.actor import Actor, Spaces
from training.stacked import Generators, linear, uniform


class MLPActor(Actor):
    """Hidden layers with ReLU and tanh at the end, as Fujimoto et al. 2018, initialised like `nn.Linear`; S seeds.

    Weights are [S, n_in, n_out], biases [S, n_out].
    """

    def __init__(self, spaces: Spaces, hidden: tuple[int, ...], generators: Generators) -> None:
        super().__init__(spaces)
        self.weights, self.biases = nn.ParameterList(), nn.ParameterList()
        for n_in, n_out in itertools.pairwise([spaces.obs_dim, *hidden, spaces.act_dim]):
            self.weights.append(uniform(generators, (n_in, n_out), n_in**-0.5))
            self.biases.append(uniform(generators, (n_out,), n_in**-0.5))

    def forward(self, observation: Tensor, moments: list[Tensor] | None = None) -> Tensor:
        """As `Actor.forward`; nothing inside is normalised."""
        x, last = observation, len(self.weights) - 1
        for index, (weight, bias) in enumerate(zip(self.weights, self.biases, strict=True)):
            x = linear(x, weight, bias)
            if index < last:
                x = torch.relu(x)
        return self.squash(x)
