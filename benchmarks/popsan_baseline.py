"""The baseline of the training benchmark: PopSAN-TD3 as one would write it down first.

One module call a layer and time step, eager, float32: autograd records every elementwise operation of every step. Two
separate critics, PyTorch's default Adam (on the CPU a loop over parameters), polyak as a loop over parameters.
Equations, initialisation and defaults as in Tang et al. 2020 (https://arxiv.org/abs/2010.09635): regular coding, T 5,
P 10, current decay 0.5, voltage decay 0.75, threshold 0.5, rectangular surrogate. Written for this benchmark, from the
paper.
"""

from __future__ import annotations

import copy
import itertools
from typing import Any

import torch
from torch import Tensor, nn

CURRENT_DECAY, VOLTAGE_DECAY, V_THRESHOLD, SURROGATE_WIDTH, ENCODER_THRESHOLD = 0.5, 0.75, 0.5, 0.5, 0.999


class RectangularSpike(torch.autograd.Function):
    """Step with a rectangular surrogate gradient."""

    @staticmethod
    def forward(ctx: Any, voltage: Tensor) -> Tensor:
        ctx.save_for_backward(voltage)
        return voltage.gt(V_THRESHOLD).float()

    @staticmethod
    def backward(ctx: Any, grad_spikes: Tensor) -> Tensor:
        (voltage,) = ctx.saved_tensors
        return grad_spikes * (torch.abs(voltage - V_THRESHOLD) < SURROGATE_WIDTH).float()


class EncoderSpike(torch.autograd.Function):
    """Step of the encoder's accumulator with a straight-through gradient."""

    @staticmethod
    def forward(_ctx: Any, voltage: Tensor) -> Tensor:
        return voltage.gt(ENCODER_THRESHOLD).float()

    @staticmethod
    def backward(_ctx: Any, grad_spikes: Tensor) -> Tensor:
        return grad_spikes


class PopulationEncoder(nn.Module):
    def __init__(self, obs_dim: int, population: int, time_steps: int) -> None:
        super().__init__()
        self.time_steps = time_steps
        self.mean = nn.Parameter(torch.linspace(-3.0, 3.0, population).repeat(1, obs_dim, 1))
        self.std = nn.Parameter(torch.full((1, obs_dim, population), 0.15**0.5))

    def forward(self, observation: Tensor) -> list[Tensor]:
        activation = torch.exp(-0.5 * (observation.unsqueeze(-1) - self.mean).pow(2) / self.std.pow(2)).flatten(1)
        voltage, spikes = torch.zeros_like(activation), []
        for _ in range(self.time_steps):
            voltage = voltage + activation
            spike = EncoderSpike.apply(voltage)
            voltage = voltage - spike * ENCODER_THRESHOLD
            spikes.append(spike)
        return spikes


class SpikingLayer(nn.Module):
    """One linear layer of current-based LIF neurons, stepped once a call."""

    def __init__(self, n_in: int, n_out: int) -> None:
        super().__init__()
        self.linear = nn.Linear(n_in, n_out)

    def forward(self, inputs: Tensor, state: tuple[Tensor, Tensor, Tensor]) -> tuple[Tensor, Tensor, Tensor]:
        current, voltage, spike = state
        current = current * CURRENT_DECAY + self.linear(inputs)
        voltage = voltage * VOLTAGE_DECAY * (1.0 - spike) + current
        return current, voltage, RectangularSpike.apply(voltage)


class Actor(nn.Module):
    def __init__(self, obs_dim: int, act_dim: int, hidden: tuple[int, ...], population: int, time_steps: int) -> None:
        super().__init__()
        self.act_dim, self.population, self.time_steps = act_dim, population, time_steps
        self.encoder = PopulationEncoder(obs_dim, population, time_steps)
        sizes = (obs_dim * population, *hidden, act_dim * population)
        self.layers = nn.ModuleList(SpikingLayer(n_in, n_out) for n_in, n_out in itertools.pairwise(sizes))
        self.sizes = sizes
        self.decoder = nn.Conv1d(act_dim, act_dim, population, groups=act_dim)

    def forward(self, observation: Tensor) -> Tensor:
        batch = observation.shape[0]
        states = [tuple(observation.new_zeros(batch, n) for _ in range(3)) for n in self.sizes[1:]]
        counts = observation.new_zeros(batch, self.sizes[-1])
        for spikes in self.encoder(observation):
            x = spikes
            for index, layer in enumerate(self.layers):
                states[index] = layer(x, states[index])
                x = states[index][2]
            counts = counts + x
        rates = (counts / self.time_steps).view(batch, self.act_dim, self.population)
        return torch.tanh(self.decoder(rates).view(batch, self.act_dim))


def _critic(n_in: int, hidden: tuple[int, ...]) -> nn.Sequential:
    layers: list[nn.Module] = []
    for left, right in itertools.pairwise((n_in, *hidden)):
        layers += [nn.Linear(left, right), nn.ReLU()]
    return nn.Sequential(*layers, nn.Linear(hidden[-1], 1))


class BaselineTD3:
    """Networks, targets, optimizers and one update; actions in [-1, 1]."""

    def __init__(
        self, obs_dim: int, act_dim: int, hidden: tuple[int, ...], population: int, time_steps: int, device: str
    ) -> None:
        self.actor = Actor(obs_dim, act_dim, hidden, population, time_steps).to(device)
        self.critics = nn.ModuleList(_critic(obs_dim + act_dim, hidden) for _ in range(2)).to(device)
        self.actor_target, self.critics_target = copy.deepcopy(self.actor), copy.deepcopy(self.critics)
        self.actor_optimizer = torch.optim.Adam(self.actor.parameters(), lr=1e-4)
        self.critic_optimizer = torch.optim.Adam(self.critics.parameters(), lr=1e-3)
        self.updates = 0

    def act(self, observation: Tensor) -> Tensor:
        with torch.no_grad():
            return self.actor(observation)

    def update(self, o_tm1: Tensor, a_tm1: Tensor, r_t: Tensor, o_t: Tensor, terminated: Tensor) -> None:
        with torch.no_grad():
            a_t = self.actor_target(o_t)
            noise = (torch.randn_like(a_t) * 0.2).clamp(-0.5, 0.5)
            x_t = torch.cat([o_t, (a_t + noise).clamp(-1, 1)], dim=-1)
            q_t = torch.min(*(critic(x_t).squeeze(-1) for critic in self.critics_target))
            target = r_t + 0.99 * (1 - terminated) * q_t
        x_tm1 = torch.cat([o_tm1, a_tm1], dim=-1)
        loss = sum(((critic(x_tm1).squeeze(-1) - target) ** 2).mean() for critic in self.critics)
        self.critic_optimizer.zero_grad()
        loss.backward()
        self.critic_optimizer.step()
        self.updates += 1
        if self.updates % 2:
            return
        for parameter in self.critics.parameters():
            parameter.requires_grad = False
        actor_loss = -self.critics[0](torch.cat([o_tm1, self.actor(o_tm1)], dim=-1)).mean()
        self.actor_optimizer.zero_grad()
        actor_loss.backward()
        self.actor_optimizer.step()
        for parameter in self.critics.parameters():
            parameter.requires_grad = True
        with torch.no_grad():
            pairs = ((self.actor, self.actor_target), (self.critics, self.critics_target))
            for online, target_net in pairs:
                for p, p_target in zip(online.parameters(), target_net.parameters(), strict=True):
                    p_target.mul_(0.995)
                    p_target.add_(0.005 * p)
