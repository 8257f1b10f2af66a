"""What an actor is to TD3; the trainable spiking one, and its conversion to the framework-free policy."""

from __future__ import annotations

import abc
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
from training.lif import last_voltage, lif_sequence
from training.settings import Settings
from training.stacked import Generators, repeat, uniform
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


class Actor(nn.Module, abc.ABC):
    """Deterministic actions of S seeds at once: all that TD3, acting and checkpoints know of an actor."""

    action_middle: Tensor
    action_half: Tensor

    def __init__(self, spaces: Spaces) -> None:
        super().__init__()
        self.spaces = spaces
        low, high = (torch.as_tensor(bound, dtype=torch.float32) for bound in (spaces.action_low, spaces.action_high))
        self.register_buffer("action_middle", (high + low) / 2, persistent=False)
        self.register_buffer("action_half", (high - low) / 2, persistent=False)

    @abc.abstractmethod
    def forward(self, observation: Tensor, moments: list[Tensor] | None = None) -> Tensor:
        """Actions [S, B, act_dim] in the environment's units for normalised observations [S, B, obs_dim].

        If a list `moments` is given, whatever the actor normalises inside is normalised with the batch's statistics,
        which are put into it in the order of `statistics`; otherwise with the running ones.
        """

    def squash(self, drive: Tensor) -> Tensor:
        """Actions between the bounds for any real numbers, both [S, B, act_dim]."""
        return self.action_middle + self.action_half * torch.tanh(drive)

    def statistics(self) -> list[Tensor]:
        """Running statistics [S, n] of what is normalised inside, where they lie; none by default."""
        return []


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
        spikes, through = self.parts(observation)
        return spikes if through is None else spikes + through.unsqueeze(1)

    def parts(self, observation: Tensor) -> tuple[Tensor, Tensor | None]:
        """Spikes and their gradient apart, since the gradient is the same at every time step.

        Returns:
            Spikes [S, T, B, obs_dim * P] without gradient; zeros [S, B, obs_dim * P] with the activation's gradient, to
            be added to each time step, or None where no gradient is wanted.
        """
        mean, std = self.mean.unsqueeze(1), self.std.clamp_min(MIN_ENCODER_STD).unsqueeze(1)
        activation = torch.exp(-0.5 * ((observation.unsqueeze(-1) - mean) / std).square()).flatten(2)
        with torch.no_grad():
            spikes = self._spikes(activation)
        if not torch.is_grad_enabled():
            return spikes, None
        return spikes, activation - activation.detach()

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


class SpikingActor(Actor):
    """Population encoder, LIF layers run one after the other over all time steps, population decoder; S seeds at once.

    No layer feeds back to an earlier one, so each takes one matrix product over all T steps. Every parameter has a
    leading axis of seeds; what a seed's actor computes does not depend on the others.

    With `readout` "membrane" the last layer neither spikes nor resets, and its voltages at the last time step are
    decoded: after ILC-SAN (Chen et al. 2024, https://arxiv.org/abs/2401.05444), which reads the voltage of non-spiking
    neurons; the last one is the default of its authors' code, which also has the mean and the maximum. Here every time
    step has a share in it, and the gradient no kink. ILC-SAN differs in that its population spikes, with connections
    inside the layer, and one neuron without leak an action sums these spikes up.
    """

    def __init__(self, spaces: Spaces, settings: Settings, generators: Generators) -> None:
        super().__init__(spaces)
        self.settings = settings
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

    def core(self, spikes: Tensor, moments: list[Tensor] | None = None, through: Tensor | None = None) -> list[Tensor]:
        """Spikes [S, T, B, n] of every layer for input spikes [S, T, B, n_in]; `moments` as in `forward`.

        `through` [S, B, n_in] is added to the input spikes of each time step: zeros that take the encoder its gradient,
        by a product of B rows instead of T B.
        Of a last layer whose membrane is read out, its voltages [S, 1, B, n] at the last time step.
        """
        s, out = self.settings, []
        last = len(self.weights) - 1 if s.readout == "membrane" else None
        for index, (weight, bias) in enumerate(zip(self.weights, self.biases, strict=True)):
            current = torch.bmm(spikes.flatten(1, 2), weight)
            if through is not None:
                current, through = current + torch.bmm(through, weight.detach()).repeat(1, spikes.shape[1], 1), None
            current = self.norms[index](current, bias, moments) if self.norms else current + bias.unsqueeze(1)
            current = current.unflatten(1, spikes.shape[1:3])
            if index == last:
                spikes = last_voltage(current, s.current_decay, s.voltage_decay).unsqueeze(1)
            else:
                spikes = lif_sequence(current, s.current_decay, s.voltage_decay, s.v_threshold, self.slope)
            out.append(spikes)
        return out

    def forward(self, observation: Tensor, moments: list[Tensor] | None = None) -> Tensor:
        """As `Actor.forward`; it is each layer's synaptic input that `synaptic_norm` normalises."""
        spikes, through = self.encoder.parts(observation)
        output = self.core(spikes, moments, through)[-1]
        read = output.mean(dim=1).unflatten(-1, self.decoder_weight.shape[1:])  # rates, or voltages
        weighted = (read * self.decoder_weight.unsqueeze(1)).sum(dim=-1)
        return self.squash(weighted + self.decoder_bias.unsqueeze(1))

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
        assert s.undeployable is None
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
