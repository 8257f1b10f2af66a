"""A whole policy, observation to action, and the dense network of the same task, as torch functions of one batch."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import torch
from torch import Tensor

from simulators.torch_backend import core_function
from spikerl_deploy.policy import Normalization, Policy, PopulationDecoder

Function = Callable[[Tensor], Tensor]
SEED = 0
ANN_NOTE = (
    "dense ANN of the same task: the policy's normalisation, ReLU layers of its core's hidden sizes, tanh; "
    "random weights, since the work of dense arithmetic does not depend on them"
)


def policy_function(policy: Policy, device: torch.device, bf16: bool) -> Function:
    """The policy as its float graph: raw observations float32 [B, obs_dim] to actions float32 [B, act_dim].

    The same arithmetic as `spikerl_deploy.codec` around the torch backend's core; Poisson spikes are drawn from torch's
    default generator of the device.

    Raises:
        SpikerlError: the policy has no encoder or decoder.
    """
    encoder, decoder = policy.codec()
    core = core_function(policy, device, bf16)
    normalise, scale = _normaliser(policy.normalization, device), _scaler(decoder, device)
    mean, std, weight, bias = (
        torch.tensor(values, device=device) for values in (encoder.mean, encoder.std, decoder.weight, decoder.bias)
    )
    time_steps, level, poisson = policy.time_steps, encoder.threshold, encoder.coding == "poisson"

    def encode(observation: Tensor) -> Tensor:
        distance = (normalise(observation).unsqueeze(-1) - mean) / std
        activation = torch.exp(-0.5 * distance * distance).flatten(1)
        if poisson:
            return (torch.rand(time_steps, *activation.shape, device=device) < activation).float()
        accumulator, spikes = torch.zeros_like(activation), []
        for _ in range(time_steps):
            accumulator = accumulator + activation
            fired = (accumulator > level).float()
            accumulator = accumulator - fired * level
            spikes.append(fired)
        return torch.stack(spikes)

    def act(observation: Tensor) -> Tensor:
        counts = core(encode(observation))[-1].sum(dim=0)
        rates = counts.unflatten(1, weight.shape) / time_steps
        return scale(torch.tanh((rates * weight).sum(dim=-1) + bias))

    return act


def ann_function(policy: Policy, device: torch.device, bf16: bool) -> Function:
    """The dense network of the same task, with random weights: raw observations [B, obs_dim] to actions [B, act_dim].

    Raises:
        SpikerlError: the policy has no encoder or decoder.
    """
    _, decoder = policy.codec()
    normalise, scale = _normaliser(policy.normalization, device), _scaler(decoder, device)
    generator, dtype = torch.Generator().manual_seed(SEED), torch.bfloat16 if bf16 else torch.float32

    def uniform(n_in: int, *shape: int) -> Tensor:
        value: Tensor = (2 * torch.rand(shape, generator=generator) - 1) * n_in**-0.5
        return value.to(device, dtype)

    layers = [
        (uniform(n_in, n_out, n_in), uniform(n_in, n_out)) for n_in, n_out in itertools.pairwise(policy.ann_sizes())
    ]

    def act(observation: Tensor) -> Tensor:
        value = normalise(observation).to(dtype)
        for weight, bias in layers[:-1]:
            value = torch.relu(torch.nn.functional.linear(value, weight, bias))
        drive: Tensor = torch.nn.functional.linear(value, *layers[-1])
        return scale(torch.tanh(drive.float()))

    return act


def observations(policy: Policy, batch: int, device: torch.device) -> Tensor:
    """Random raw observations float32 [B, obs_dim], of the mean and spread that the policy was trained with."""
    normalization, (encoder, _) = policy.normalization, policy.codec()
    values = torch.randn(batch, encoder.obs_dim, generator=torch.Generator().manual_seed(SEED))
    if normalization is not None:
        values = values * torch.tensor(normalization.std) + torch.tensor(normalization.mean)
    return values.to(device)


def _normaliser(normalization: Normalization | None, device: torch.device) -> Function:
    if normalization is None:
        return lambda observation: observation
    mean, std = (torch.tensor(values, device=device) for values in (normalization.mean, normalization.std))
    clip = normalization.clip
    return lambda observation: ((observation - mean) / std).clamp(-clip, clip)


def _scaler(decoder: PopulationDecoder, device: torch.device) -> Function:
    low, high = (torch.tensor(values, device=device) for values in (decoder.action_low, decoder.action_high))
    middle, half = (high + low) / 2, (high - low) / 2
    return lambda squashed: middle + half * squashed
