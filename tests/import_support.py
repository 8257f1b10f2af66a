"""Foreign checkpoints for the tests of the importers, and PopSAN's forward pass written from its equations."""

from __future__ import annotations

import itertools
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import torch

HALF_CHEETAH, PENDULUM = (17, 6), (4, 1)


def popsan_state(
    obs_dim: int,
    act_dim: int,
    hidden: tuple[int, ...] = (64, 48),
    populations: tuple[int, int] = (10, 7),
    seed: int = 0,
) -> dict[str, torch.Tensor]:
    """A state dict as PopSAN's actor has it, with weights wide enough that every layer spikes."""
    rng = np.random.default_rng(seed)

    def normal(scale: float, *shape: int) -> torch.Tensor:
        return torch.from_numpy(rng.normal(0, scale, shape).astype(np.float32))

    p_in, p_out = populations
    state = {
        "encoder.mean": torch.linspace(-3, 3, p_in).repeat(1, obs_dim, 1) + normal(0.1, 1, obs_dim, p_in),
        "encoder.std": 0.39 + normal(0.02, 1, obs_dim, p_in),
    }
    sizes = (obs_dim * p_in, *hidden, act_dim * p_out)
    names = [f"snn.hidden_layers.{i}" for i in range(len(hidden))] + ["snn.out_pop_layer"]
    for name, (n_in, n_out) in zip(names, itertools.pairwise(sizes), strict=True):
        state |= {f"{name}.weight": normal(1.5 / np.sqrt(n_in), n_out, n_in), f"{name}.bias": normal(0.1, n_out)}
    return state | {
        "decoder.decoder.weight": normal(0.5, act_dim, 1, p_out),
        "decoder.decoder.bias": normal(0.1, act_dim),
    }


def popsan_stats(obs_dim: int, seed: int = 0) -> list[np.ndarray]:
    rng = np.random.default_rng(seed)
    return [rng.normal(0, 1, obs_dim).astype(np.float32), rng.uniform(0.01, 4, obs_dim).astype(np.float32)]


def write_popsan(folder: Path, sizes: tuple[int, int], state: Any = None, stats: Any = None) -> tuple[Path, Path]:
    """The two files that PopSAN's training writes."""
    torch.save(popsan_state(*sizes) if state is None else state, folder / "model.pt")
    (folder / "mean_var.p").write_bytes(pickle.dumps(popsan_stats(sizes[0]) if stats is None else stats))
    return folder / "model.pt", folder / "mean_var.p"


def popsan_actions(
    state: dict[str, torch.Tensor], stats: list[np.ndarray], observations: np.ndarray, limit: float, steps: int = 5
) -> np.ndarray:
    """Actions [B, act_dim] by the equations of Tang et al. 2020 (eq. 1 to 8), one neuron population after another."""
    mean, variance = (torch.from_numpy(np.asarray(part)) for part in stats)
    o = ((torch.from_numpy(observations) - mean) / torch.sqrt(variance + torch.finfo(torch.float32).eps)).clamp(-3, 3)
    stimulation = torch.exp(-0.5 * ((o[:, :, None] - state["encoder.mean"]) / state["encoder.std"]) ** 2).flatten(1)
    layers = [*sorted({key.rsplit(".", 1)[0] for key in state if "hidden" in key}), "snn.out_pop_layer"]
    batch = len(observations)
    encoder_v = torch.zeros_like(stimulation)
    zeros = [torch.zeros(batch, len(state[f"{name}.bias"])) for name in layers]
    current, voltage, spike = list(zeros), list(zeros), list(zeros)
    counts = torch.zeros_like(zeros[-1])
    for _ in range(steps):
        encoder_v = encoder_v + stimulation
        s = (encoder_v > 0.999).float()
        encoder_v = encoder_v - 0.999 * s
        for k, name in enumerate(layers):
            current[k] = current[k] / 2 + s @ state[f"{name}.weight"].T + state[f"{name}.bias"]
            voltage[k] = 0.75 * voltage[k] * (1 - spike[k]) + current[k]
            spike[k] = s = (voltage[k] > 0.5).float()
        counts += s
    decoder = state["decoder.decoder.weight"]
    act_dim, _, population = decoder.shape
    rates = (counts / steps).view(batch, act_dim, population)
    raw = torch.nn.functional.conv1d(rates, decoder, state["decoder.decoder.bias"], groups=act_dim)
    return limit * torch.tanh(raw[:, :, 0]).numpy()
