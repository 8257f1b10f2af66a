"""The actor's forward pass in NumPy, for few observations at a time, where torch's dispatch is most of the cost."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

from training.actor import ENCODER_THRESHOLD, MIN_ENCODER_STD, Actor, SpikingActor
from training.graphs import GraphedForward
from training.lif import voltage_weights
from training.mlp_actor import MLPActor
from training.normalizer import RunningNormalizer
from training.synaptic_norm import EPS

NumpyForward = Callable[[np.ndarray, Sequence[np.random.Generator]], np.ndarray]
"""Actions float32 [S, M, act_dim] for normalised observations float32 [S, M, obs_dim] and one generator a seed."""


class NumpyActor:
    """Reads the parameters of a spiking actor on the CPU where they lie, so it is never out of date.

    The same operations in the same order and precision as `SpikingActor` in float32; matrix products round differently
    in NumPy's and in torch's library, so a current may differ in its last bits.
    """

    def __init__(self, actor: SpikingActor) -> None:
        s = self._settings = actor.settings
        self._mean, self._std = actor.encoder.mean.detach().numpy(), actor.encoder.std.detach().numpy()
        self._weights = [weight.detach().numpy() for weight in actor.weights]
        self._biases = [bias.detach().numpy()[:, None] for bias in actor.biases]
        # gamma, running mean and running variance of each layer, [S, 1, n], where synaptic input is normalised
        self._norms = [
            [tensor.detach().numpy()[:, None] for tensor in (norm.gamma, *norm.statistics())] for norm in actor.norms
        ]
        self._decoder_weight, self._decoder_bias = (
            actor.decoder_weight.detach().numpy(),
            actor.decoder_bias.detach().numpy(),
        )
        self._middle, self._half = (getattr(actor, name).numpy() for name in ("action_middle", "action_half"))
        constants = (s.current_decay, s.voltage_decay, s.v_threshold, ENCODER_THRESHOLD)
        self._keep_u, self._keep_v, self._threshold, self._level = (np.float32(value) for value in constants)
        # of each time step in the voltage that is read out, [T, 1]; none where spikes are
        read = voltage_weights(s.time_steps, s.current_decay, s.voltage_decay) if s.readout == "membrane" else []
        self._read = np.array(read, np.float32)[:, None]
        self._eps = np.array(EPS, np.float32)  # which a ufunc takes more quickly than a scalar

    def __call__(self, observation: np.ndarray, generators: Sequence[np.random.Generator]) -> np.ndarray:
        """Actions float32 [S, M, act_dim] for normalised observations float32 [S, M, obs_dim].

        `generators`, one a seed, serve Poisson coding.
        """
        spikes = self._encode(observation, generators)
        steps, seeds, count = spikes.shape[:3]
        for layer, (weight, bias) in enumerate(zip(self._weights, self._biases, strict=True)):
            n_in, n_out = weight.shape[1:]
            if seeds == 1:
                current = spikes.reshape(-1, n_in) @ weight[0]
            else:
                by_seed = spikes.swapaxes(0, 1).reshape(seeds, steps * count, n_in)
                current = (by_seed @ weight).reshape(seeds, steps, count, n_out).swapaxes(0, 1)
            current = current.reshape(steps, seeds, count, n_out)
            if self._norms:
                gamma, mean, variance = self._norms[layer]
                scale = np.add(variance, self._eps)
                np.divide(gamma, np.sqrt(scale, scale), scale)
                np.multiply(current, scale, current)
                bias = np.subtract(bias, np.multiply(mean, scale, scale), scale)
            np.add(current, bias, current)
            if len(self._read) and layer == len(self._weights) - 1:
                break
            spikes = self._integrate(current.reshape(steps, -1)).reshape(current.shape)
        if len(self._read):
            read = np.add.reduce(np.multiply(current.reshape(steps, -1), self._read), axis=0)
        else:
            read = np.add.reduce(spikes, axis=0) / np.float32(steps)
        weighted = read.reshape(seeds, count, *self._decoder_weight.shape[1:]) * self._decoder_weight[:, None]
        drive = np.add.reduce(weighted, axis=-1) + self._decoder_bias[:, None]
        action: np.ndarray = self._middle + self._half * np.tanh(drive)
        return action

    def _encode(self, observation: np.ndarray, generators: Sequence[np.random.Generator]) -> np.ndarray:
        """Spikes float32 [T, S, M, obs_dim * P]."""
        std = np.maximum(self._std, np.float32(MIN_ENCODER_STD))[:, None]
        distance = observation[..., None] - self._mean[:, None]
        distance /= std
        activation = np.exp(np.float32(-0.5) * np.square(distance)).reshape(*observation.shape[:2], -1)
        steps = self._settings.time_steps
        if self._settings.coding == "poisson":
            draws = [generator.random((steps, *activation.shape[1:]), np.float32) for generator in generators]
            drawn: np.ndarray = (np.stack(draws, axis=1) < activation).astype(np.float32)
            return drawn
        drive, level = activation.ravel(), np.zeros(activation.size, np.float32)
        spikes = np.empty((steps, activation.size), bool)
        for spike in spikes:
            np.add(level, drive, level)
            np.greater(level, self._level, spike)
            np.subtract(level, np.multiply(self._level, spike), level)
        out: np.ndarray = spikes.astype(np.float32).reshape(steps, *activation.shape)
        return out

    def _integrate(self, current: np.ndarray) -> np.ndarray:
        """Spikes float32 of LIF neurons for synaptic input [T, n]; rows of one axis, in place: each call counts."""
        multiply, add, greater, keep_u, keep_v = np.multiply, np.add, np.greater, self._keep_u, self._keep_v
        spikes = np.empty(current.shape, bool)
        u, v = current[0], current[0].copy()
        before = greater(v, self._threshold, spikes[0])
        for t in range(1, len(current)):
            multiply(u, keep_u, u)
            add(u, current[t], u)
            np.putmask(v, before, 0.0)
            multiply(v, keep_v, v)
            add(v, u, v)
            before = greater(v, self._threshold, spikes[t])
        return spikes.astype(np.float32)


class NumpyMLP:
    """The same for a dense actor."""

    def __init__(self, actor: MLPActor) -> None:
        self._weights = [weight.detach().numpy() for weight in actor.weights]
        self._biases = [bias.detach().numpy()[:, None] for bias in actor.biases]
        self._middle, self._half = actor.action_middle.numpy(), actor.action_half.numpy()

    def __call__(self, observation: np.ndarray, generators: Sequence[np.random.Generator]) -> np.ndarray:
        """As `NumpyActor`; nothing is drawn."""
        x, last = observation, len(self._weights) - 1
        for layer, (weight, bias) in enumerate(zip(self._weights, self._biases, strict=True)):
            x = np.matmul(x, weight)
            np.add(x, bias, x)
            if layer < last:
                np.maximum(x, np.float32(0), x)
        action: np.ndarray = self._middle + self._half * np.tanh(x, x)
        return action


def in_numpy(actor: Actor) -> NumpyForward:
    """The forward pass of an actor on the CPU."""
    if isinstance(actor, SpikingActor):
        return NumpyActor(actor)
    assert isinstance(actor, MLPActor)
    return NumpyMLP(actor)


class Actions:
    """Deterministic actions for raw observations: NumPy on the CPU, the torch actor elsewhere.

    `graphed`, for CUDA, replays the actor as a CUDA graph; then all calls must be of one shape.
    """

    def __init__(self, actor: Actor, normalizer: RunningNormalizer, graphed: bool = False) -> None:
        self._normalizer = normalizer
        self._numpy = in_numpy(actor) if normalizer.mean_tensor.device.type == "cpu" else None
        self._torch: Callable[[Tensor], Tensor] = lambda raw: actor(normalizer(raw))
        if graphed:
            self._torch = GraphedForward(self._torch)

    def __call__(self, observation: np.ndarray, generators: Sequence[np.random.Generator]) -> np.ndarray:
        """Actions [S, M, act_dim] for observations [S, M, obs_dim] as the environment gives them."""
        raw = observation.astype(np.float32)
        n = self._normalizer
        if self._numpy is not None:
            raw -= n.mean_tensor.numpy()[:, None]
            raw *= n.inverse_std_tensor.numpy()[:, None]
            return self._numpy(np.minimum(np.maximum(raw, -n.clip), n.clip), generators)
        with torch.no_grad():
            action: np.ndarray = self._torch(torch.from_numpy(raw).to(n.mean_tensor.device)).cpu().numpy()
            return action
