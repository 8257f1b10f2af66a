"""The trainable spiking actor, and its conversion to and from the framework-free policy."""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from spikerl_deploy.policy import (
    Coding,
    Normalization,
    Policy,
    PopulationDecoder,
    PopulationEncoder,
    SpikingLayer,
)
from training.lif import lif_sequence
from training.settings import Settings
from training.surrogate import make_surrogate

ENCODER_THRESHOLD = 0.999  # PopSAN's accumulator level of regular coding
MIN_ENCODER_STD = 1e-3  # keeps a learned receptive field from collapsing


@dataclass(frozen=True)
class Spaces:
    """What the networks must know of an environment: observation size and action bounds [act_dim]."""

    obs_dim: int
    action_low: np.ndarray
    action_high: np.ndarray

    @property
    def act_dim(self) -> int:
        return int(self.action_low.shape[0])


class PopulationEncoderModule(nn.Module):
    """Learned Gaussian receptive fields; straight-through gradient from spikes to activations."""

    def __init__(self, obs_dim: int, settings: Settings) -> None:
        super().__init__()
        self.coding, self.time_steps = settings.coding, settings.time_steps
        centres = torch.linspace(-settings.encoder_range, settings.encoder_range, settings.population)
        self.mean = nn.Parameter(centres.repeat(obs_dim, 1))
        self.std = nn.Parameter(torch.full((obs_dim, settings.population), settings.encoder_std))

    def forward(self, observation: Tensor) -> Tensor:
        """Normalised observations [B, obs_dim] to spikes [T, B, obs_dim * P]."""
        std = self.std.clamp_min(MIN_ENCODER_STD)
        activation = torch.exp(-0.5 * ((observation.unsqueeze(-1) - self.mean) / std).square()).flatten(1)
        with torch.no_grad():
            spikes = self._spikes(activation)
        if not torch.is_grad_enabled():
            return spikes
        return spikes + (activation - activation.detach())

    def _spikes(self, activation: Tensor) -> Tensor:
        if self.coding == "poisson":
            return (torch.rand(self.time_steps, *activation.shape, device=activation.device) < activation).float()
        accumulator = torch.zeros_like(activation)
        spikes = torch.empty(self.time_steps, *activation.shape, device=activation.device)
        for t in range(self.time_steps):
            accumulator += activation
            torch.gt(accumulator, ENCODER_THRESHOLD, out=spikes[t])
            accumulator.sub_(spikes[t], alpha=ENCODER_THRESHOLD)
        return spikes


class SpikingActor(nn.Module):
    """Population encoder, LIF layers run one after the other over all time steps, population decoder.

    No layer feeds back to an earlier one, so each takes one matrix product over all T steps.
    """

    def __init__(self, spaces: Spaces, settings: Settings) -> None:
        super().__init__()
        self.settings, self.spaces = settings, spaces
        self.encoder = PopulationEncoderModule(spaces.obs_dim, settings)
        sizes = [spaces.obs_dim * settings.population, *settings.hidden, spaces.act_dim * settings.population]
        self.layers = nn.ModuleList(nn.Linear(n_in, n_out) for n_in, n_out in itertools.pairwise(sizes))
        bound = 1.0 / settings.population**0.5
        self.decoder_weight = nn.Parameter(torch.empty(spaces.act_dim, settings.population).uniform_(-bound, bound))
        self.decoder_bias = nn.Parameter(torch.empty(spaces.act_dim).uniform_(-bound, bound))
        self.spike_function = make_surrogate(settings.surrogate, settings.surrogate_width)
        low, high = (torch.as_tensor(bound, dtype=torch.float32) for bound in (spaces.action_low, spaces.action_high))
        self.register_buffer("action_middle", (high + low) / 2, persistent=False)
        self.register_buffer("action_half", (high - low) / 2, persistent=False)

    def core(self, spikes: Tensor) -> list[Tensor]:
        """Spikes [T, B, n] of every layer for input spikes [T, B, n_in]."""
        s, out = self.settings, []
        for layer in self.layers:
            current = layer(spikes)
            spikes = lif_sequence(current, s.current_decay, s.voltage_decay, s.v_threshold, self.spike_function)
            out.append(spikes)
        return out

    def forward(self, observation: Tensor) -> Tensor:
        """Actions [B, act_dim] in the environment's units for normalised observations [B, obs_dim]."""
        output = self.core(self.encoder(observation))[-1]
        rates = output.mean(dim=0).unflatten(-1, self.decoder_weight.shape)
        squashed = torch.tanh((rates * self.decoder_weight).sum(dim=-1) + self.decoder_bias)
        return self.action_middle + self.action_half * squashed  # type: ignore[operator]

    def to_policy(self, normalization: Normalization, env_id: str) -> Policy:
        """Framework-free copy of the actor."""
        s = self.settings
        coding: Coding = "poisson" if s.coding == "poisson" else "regular"
        std = self.encoder.std.detach().clamp_min(MIN_ENCODER_STD)
        return Policy(
            layers=tuple(
                SpikingLayer(_numpy(layer.weight), _numpy(layer.bias), s.current_decay, s.voltage_decay, s.v_threshold)
                for layer in self.layers
            ),
            time_steps=s.time_steps,
            normalization=normalization,
            encoder=PopulationEncoder(_numpy(self.encoder.mean), _numpy(std), coding, ENCODER_THRESHOLD),
            decoder=PopulationDecoder(
                _numpy(self.decoder_weight), _numpy(self.decoder_bias), self.spaces.action_low, self.spaces.action_high
            ),
            env_id=env_id,
        )


def _numpy(tensor: Tensor | nn.Module) -> np.ndarray:
    assert isinstance(tensor, Tensor)
    return tensor.detach().float().cpu().numpy().copy()
