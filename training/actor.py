"""The trainable spiking actor, and its conversion to and from the framework-free policy."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
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
from training.stacked import Generators, linear, repeat, uniform
from training.surrogate import make_surrogate
from training.synaptic_norm import SynapticNorm

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

    def __init__(self, obs_dim: int, settings: Settings, seeds: int = 1) -> None:
        super().__init__()
        self.coding, self.time_steps = settings.coding, settings.time_steps
        centres = torch.linspace(-settings.encoder_range, settings.encoder_range, settings.population)
        self.mean = repeat(centres.repeat(obs_dim, 1), seeds)
        self.std = repeat(torch.full((obs_dim, settings.population), settings.encoder_std), seeds)

    def forward(self, observation: Tensor) -> Tensor:
        """Normalised observations [S, B, obs_dim] to spikes [S, T, B, obs_dim * P]."""
        mean, std = self.mean.unsqueeze(1), self.std.clamp_min(MIN_ENCODER_STD).unsqueeze(1)
        activation = torch.exp(-0.5 * ((observation.unsqueeze(-1) - mean) / std).square()).flatten(2)
        with torch.no_grad():
            spikes = self._spikes(activation)
        if not torch.is_grad_enabled():
            return spikes
        return spikes + (activation - activation.detach()).unsqueeze(1)

    def _spikes(self, activation: Tensor) -> Tensor:
        if self.coding == "poisson":
            seeds, *rest = activation.shape
            draws = torch.rand(seeds, self.time_steps, *rest, device=activation.device)
            return (draws < activation.unsqueeze(1)).to(activation.dtype)
        accumulator, out = torch.zeros_like(activation), []
        for _ in range(self.time_steps):
            accumulator = accumulator + activation
            spikes = (accumulator > ENCODER_THRESHOLD).to(activation.dtype)
            accumulator = accumulator - ENCODER_THRESHOLD * spikes
            out.append(spikes)
        return torch.stack(out, dim=1)


class SpikingActor(nn.Module):
    """Population encoder, LIF layers run one after the other over all time steps, population decoder; S seeds at once.

    No layer feeds back to an earlier one, so each takes one matrix product over all T steps. Every parameter has a
    leading axis of seeds; what a seed's actor computes does not depend on the others.
    """

    def __init__(self, spaces: Spaces, settings: Settings, generators: Generators) -> None:
        super().__init__()
        self.settings, self.spaces = settings, spaces
        self.encoder = PopulationEncoderModule(spaces.obs_dim, settings, len(generators))
        sizes = [spaces.obs_dim * settings.population, *settings.hidden, spaces.act_dim * settings.population]
        self.weights, self.biases = nn.ParameterList(), nn.ParameterList()
        for n_in, n_out in itertools.pairwise(sizes):
            self.weights.append(uniform(generators, (n_in, n_out), n_in**-0.5))
            self.biases.append(uniform(generators, (n_out,), n_in**-0.5))
        normed = sizes[1:] if settings.synaptic_norm == "batch" else []
        norms = [SynapticNorm(len(generators), n_out, settings.v_threshold) for n_out in normed]
        self.norms: Sequence[SynapticNorm] = nn.ModuleList(norms)  # type: ignore[assignment]  # one a layer, or none
        bound = settings.population**-0.5
        self.decoder_weight = uniform(generators, (spaces.act_dim, settings.population), bound)
        self.decoder_bias = uniform(generators, (spaces.act_dim,), bound)
        self.slope = make_surrogate(settings.surrogate, settings.surrogate_width)
        low, high = (torch.as_tensor(bound, dtype=torch.float32) for bound in (spaces.action_low, spaces.action_high))
        self.register_buffer("action_middle", (high + low) / 2, persistent=False)
        self.register_buffer("action_half", (high - low) / 2, persistent=False)

    def core(self, spikes: Tensor, moments: list[Tensor] | None = None) -> list[Tensor]:
        """Spikes [S, T, B, n] of every layer for input spikes [S, T, B, n_in]; `moments` as in `forward`."""
        s, out = self.settings, []
        for index, (weight, bias) in enumerate(zip(self.weights, self.biases, strict=True)):
            rows = spikes.flatten(1, 2)
            if self.norms:
                current = self.norms[index](torch.bmm(rows, weight), bias, moments)
            else:
                current = linear(rows, weight, bias)
            current = current.unflatten(1, spikes.shape[1:3])
            spikes = lif_sequence(current, s.current_decay, s.voltage_decay, s.v_threshold, self.slope)
            out.append(spikes)
        return out

    def forward(self, observation: Tensor, moments: list[Tensor] | None = None) -> Tensor:
        """Actions [S, B, act_dim] in the environment's units for normalised observations [S, B, obs_dim].

        With `synaptic_norm`, layers are normalised with their running statistics; if a list `moments` is given, with
        those of the batch, which are put into it in the order of `statistics`.
        """
        output = self.core(self.encoder(observation), moments)[-1]
        rates = output.mean(dim=1).unflatten(-1, self.decoder_weight.shape[1:])
        weighted = (rates * self.decoder_weight.unsqueeze(1)).sum(dim=-1)
        squashed = torch.tanh(weighted + self.decoder_bias.unsqueeze(1))
        return self.action_middle + self.action_half * squashed  # type: ignore[operator]

    def statistics(self) -> list[Tensor]:
        """Running statistics [S, n] of all layers' synaptic input where they lie; none without `synaptic_norm`."""
        return [buffer for norm in self.norms for buffer in norm.statistics()]

    def _folded(self, index: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Weight [n_out, n_in] and bias [n_out] of every layer of one seed, normalisation folded in."""
        for place, (weight, bias) in enumerate(zip(self.weights, self.biases, strict=True)):
            own, shift = weight[index], bias
            if self.norms:
                scale, shift = self.norms[place].affine(bias)
                own = own * scale[index]
            yield _numpy(own.T), _numpy(shift[index])

    def to_policy(self, normalization: Normalization, env_id: str, index: int = 0) -> Policy:
        """Framework-free copy of the actor of one seed, given by its place."""
        s = self.settings
        coding: Coding = "poisson" if s.coding == "poisson" else "regular"
        std = self.encoder.std.detach().clamp_min(MIN_ENCODER_STD)
        return Policy(
            layers=tuple(
                SpikingLayer(weight, bias, s.current_decay, s.voltage_decay, s.v_threshold)
                for weight, bias in self._folded(index)
            ),
            time_steps=s.time_steps,
            normalization=normalization,
            encoder=PopulationEncoder(_numpy(self.encoder.mean[index]), _numpy(std[index]), coding, ENCODER_THRESHOLD),
            decoder=PopulationDecoder(
                *(_numpy(self.decoder_weight[index]), _numpy(self.decoder_bias[index])),
                *(self.spaces.action_low, self.spaces.action_high),
            ),
            env_id=env_id,
        )


def _numpy(tensor: Tensor) -> np.ndarray:
    return np.array(tensor.detach().float().cpu().numpy(), order="C")
