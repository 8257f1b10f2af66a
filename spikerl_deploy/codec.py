"""The host's half of a policy, in NumPy: observations to input spikes, output counts to actions."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from spikerl_deploy.errors import SpikerlError
from spikerl_deploy.policy import Float, Normalization, Policy, PopulationDecoder, PopulationEncoder

Spikes = NDArray[np.bool_]


def normalise(observation: NDArray[np.floating], normalization: Normalization) -> Float:
    """Z-score and clip observations [..., obs_dim]."""
    z = (observation.astype(np.float32) - normalization.mean) / normalization.std
    clipped: Float = np.clip(z, -normalization.clip, normalization.clip, dtype=np.float32)
    return clipped


def population_activation(observation: Float, encoder: PopulationEncoder) -> Float:
    """Activation in (0, 1] of every receptive field: [..., obs_dim] -> [..., obs_dim * P]."""
    distance = (observation[..., None] - encoder.mean) / encoder.std
    activation: Float = np.exp(np.float32(-0.5) * distance * distance)
    return activation.reshape(*observation.shape[:-1], -1)


def spikes_regular(activation: Float, time_steps: int, threshold: float) -> Spikes:
    """Deterministic coding [B, n] -> [B, T, n]: accumulate, spike above the threshold, subtract it."""
    level = np.float32(threshold)
    accumulator = np.zeros_like(activation)
    spikes = np.empty((activation.shape[0], time_steps, activation.shape[1]), dtype=bool)
    for t in range(time_steps):
        accumulator += activation
        fired = accumulator > level
        accumulator -= fired * level
        spikes[:, t] = fired
    return spikes


def spikes_poisson(activation: Float, time_steps: int, generators: Sequence[np.random.Generator]) -> Spikes:
    """Bernoulli coding [B, n] -> [B, T, n]; row b draws from its own generator, whatever runs beside it."""
    size = (time_steps, activation.shape[1])
    return np.stack([g.random(size, dtype=np.float32) < a for g, a in zip(generators, activation, strict=True)])


def encode(policy: Policy, observation: NDArray[np.floating], generators: Sequence[np.random.Generator]) -> Spikes:
    """Input spikes [B, T, n_in] of observations [B, obs_dim].

    Args:
        generators: one a row; drawn from only under `poisson` coding.

    Raises:
        SpikerlError: the policy has no encoder.
    """
    if policy.encoder is None:
        raise SpikerlError("the policy has no encoder", "it is a core alone: feed it spikes, not observations")
    state = observation.astype(np.float32)
    if policy.normalization is not None:
        state = normalise(observation, policy.normalization)
    activation = population_activation(state, policy.encoder)
    if policy.encoder.coding == "poisson":
        return spikes_poisson(activation, policy.time_steps, generators)
    return spikes_regular(activation, policy.time_steps, policy.encoder.threshold)


def decode(counts: NDArray[np.integer], time_steps: int, decoder: PopulationDecoder) -> Float:
    """Actions [B, act_dim] of output spike counts [B, n_out]; not finite where the decoder's sums overflow."""
    rates = counts.reshape(counts.shape[0], decoder.act_dim, -1).astype(np.float32) / np.float32(time_steps)
    with np.errstate(over="ignore", invalid="ignore"):  # whoever acts on it looks whether it is finite
        squashed = np.tanh((rates * decoder.weight).sum(axis=-1, dtype=np.float32) + decoder.bias)
    middle = (decoder.action_high + decoder.action_low) / 2
    half = (decoder.action_high - decoder.action_low) / 2
    action: Float = middle + half * squashed
    return action
