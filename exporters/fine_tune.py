"""Quantization-aware training: the integers of a quantized policy learn to act like the float policy they came from.

What is trained is what runs: the forward pass is the chip's arithmetic (`integer_torch`), the gradient passes straight
through the rounding. The float policy is the teacher, so that neither critic nor reward is needed, and imported
policies can be trained as well; states that the quantized policy itself visits are added on the way, as DAgger does
(Ross et al. 2011, https://arxiv.org/abs/1011.0686).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from exporters.calibrate import Agreement, compare_recorded, input_spikes, report_recorded
from exporters.grid import Grid, trained_unit
from exporters.integer_torch import TrainableLayer
from exporters.quantize import assemble, float_source
from spikerl_deploy.errors import SpikerlError
from spikerl_deploy.float_core import run_floats
from spikerl_deploy.loihi import IntegerLayer
from spikerl_deploy.policy import Policy, SpikingLayer
from training.surrogate import make_surrogate

BATCH = 256
LEARNING_RATE = 1 / 256  # Adam's first step size, in steps of the weights' grid; falls to 0
HIDDEN_SHARE = 0.1  # weight of the hidden layers' firing rates in the loss, beside the actions
LEAN = 0.45  # latent weights start off the grid towards the trained ones, by at most so many steps
ROUNDS = 5  # times that the policy is looked at; between these, states that it visits are added

Collect = Callable[[Policy], NDArray[np.generic]]


@dataclass(frozen=True)
class FineTuning:
    """Result of quantization-aware training.

    Attributes:
        steps: gradient steps done. kept: the step whose integers were kept; 0 if none was better than the calibration.
        before, after: agreement with the float policy on the held-out control steps.
        control_steps: control steps that were trained on in the end, those that were added included.
    """

    steps: int
    kept: int
    before: Agreement
    after: Agreement
    control_steps: int


def fine_tune(
    policy: Policy,
    recorded: NDArray[np.generic],
    held_out: NDArray[np.generic],
    steps: int,
    seed: int = 0,
    collect: Collect | None = None,
    progress: Callable[[str], None] = lambda _: None,
) -> tuple[Policy, FineTuning]:
    """Train the weights and biases of a quantized policy; scales, thresholds, decays and codec stay.

    Args:
        policy: quantized, carrying its trained layers.
        recorded: control steps to train on, as in `input_spikes`.
        held_out: control steps to choose the best integers by, seen neither here nor in calibration.
        steps: gradient steps.
        collect: plays the policy as it is and returns what it saw, as `recorded`; None trains on `recorded` alone.
        progress: called with a line after each round.

    Raises:
        SpikerlError: the policy is not quantized or lacks its trained layers, or the data does not fit.
    """
    if policy.integers is None or policy.trained is None or policy.bits is None:
        raise SpikerlError("fine-tuning starts from a quantized policy that carries its trained weights")
    if steps < 1:
        raise SpikerlError(f"fine-tuning steps {steps} must be at least 1", "use --qat-steps 2000")
    trainer = _Trainer(policy, seed)
    trainer.add(recorded)
    before = best = compare_recorded(policy, held_out)
    best_policy, kept, total = policy, 0, len(recorded)
    marks = {math.ceil(steps * (i + 1) / ROUNDS) for i in range(ROUNDS)}
    for step in range(1, steps + 1):
        trainer.step(0.5 * (1 + math.cos(math.pi * (step - 1) / steps)))
        if step not in marks:
            continue
        now = trainer.policy()
        agreement = compare_recorded(now, held_out)
        progress(f"step {step} of {steps}: {_describe(agreement)}")
        if _figure(agreement) < _figure(best) and not _overflows(now, recorded):
            best, best_policy, kept = agreement, now, step
        if collect is not None and step < steps:
            seen = collect(now)
            trainer.add(seen)
            total += len(seen)
    return best_policy, FineTuning(steps, kept, before, best, total)


def _overflows(policy: Policy, recorded: NDArray[np.generic]) -> bool:
    """Whether a current leaves the chip's state on the data."""
    try:
        report_recorded(policy, recorded)
    except SpikerlError:
        return True
    return False


def _figure(agreement: Agreement) -> float:
    return agreement.spike_error if agreement.action_error is None else agreement.action_error


def _describe(agreement: Agreement) -> str:
    if agreement.action_error is None:
        return f"output spike counts differ by {agreement.spike_error:.4f}"
    return f"actions differ by {agreement.action_error:.4f} half ranges (rms)"


class _Trainer:
    """Latent weights, their optimizer, and the recorded control steps with the teacher's answers."""

    def __init__(self, policy: Policy, seed: int) -> None:
        assert policy.integers is not None and policy.bits is not None
        self.start, self.source = policy, float_source(policy)
        self.rng = np.random.default_rng(seed)
        grid = Grid(policy.bits)
        pairs = zip(self.source.layers, policy.integers, strict=True)
        self.layers = [_latent(layer, integer, grid) for layer, integer in pairs]
        # its width in v is that of the voltages between reset and threshold
        self.slopes = [make_surrogate("rectangular", layer.v_threshold) for layer in self.source.layers]
        self.rate = LEARNING_RATE * grid.step  # latent values are in mantissa units
        self.optimizer = torch.optim.Adam([p for layer in self.layers for p in layer.parameters()], lr=self.rate)
        self.inputs = np.zeros((policy.time_steps, 0, policy.n_in), bool)
        self.rates = [np.zeros((0, layer.n_out), np.float32) for layer in self.source.layers]

    def add(self, recorded: NDArray[np.generic]) -> None:
        """Add control steps, with the firing rates of the float policy's layers."""
        self.inputs = np.concatenate([self.inputs, input_spikes(self.start, recorded)], axis=1)
        rasters = run_floats(self.source.layers, input_spikes(self.source, recorded))
        new = [raster.mean(axis=0, dtype=np.float32) for raster in rasters]
        self.rates = [np.concatenate(parts) for parts in zip(self.rates, new, strict=True)]

    def step(self, share: float) -> None:
        """One gradient step at a share of the learning rate."""
        rows = self.rng.integers(0, self.inputs.shape[1], BATCH)
        spikes = torch.from_numpy(np.ascontiguousarray(self.inputs[:, rows])).float()
        loss = torch.zeros(())
        for layer, slope, rates in zip(self.layers, self.slopes, self.rates, strict=True):
            spikes = layer(spikes, slope)
            wanted, found = torch.from_numpy(rates[rows]), spikes.mean(dim=0)
            if layer is self.layers[-1]:
                loss = loss + (self._squashed(found) - self._squashed(wanted)).square().mean()
            else:
                loss = loss + HIDDEN_SHARE * (found - wanted).square().mean()
        self.optimizer.zero_grad()
        loss.backward()
        for group in self.optimizer.param_groups:
            group["lr"] = self.rate * share
        self.optimizer.step()

    def _squashed(self, rates: Tensor) -> Tensor:
        """Actions in half ranges, of the last layer's rates; the rates themselves where nothing decodes them."""
        decoder = self.source.decoder
        if decoder is None:
            return rates
        weight, bias = torch.tensor(decoder.weight), torch.tensor(decoder.bias)
        return torch.tanh((rates.unflatten(-1, weight.shape) * weight).sum(dim=-1) + bias)

    def policy(self) -> Policy:
        """The policy with the integers as they are."""
        integers = []
        for layer in self.layers:
            weight, bias = (values.detach().numpy().astype(np.int32) for values in layer.mantissas())
            integers.append(replace(layer.layer, weight=weight.T, bias=bias))
        assert self.start.bits is not None
        return assemble(self.source, tuple(integers), self.start.bits, self.start.encoder)


def _latent(layer: SpikingLayer, integer: IntegerLayer, grid: Grid) -> TrainableLayer:
    unit = trained_unit(layer, integer)
    values = []
    for trained, mantissas, step in (
        (layer.weight, integer.weight, grid.step),
        (layer.bias, integer.bias, grid.bias_step),
    ):
        offset = np.clip(trained / unit - mantissas, -LEAN * step, LEAN * step)
        values.append(torch.from_numpy(np.ascontiguousarray((mantissas + offset).T, dtype=np.float32)))
    return TrainableLayer(integer, unit, grid, values[0], values[1])
