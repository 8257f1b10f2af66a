"""Spike-for-spike comparison of two backends on the same input."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np

from simulators.protocol import Session
from spikerl_deploy.codec import Spikes
from spikerl_deploy.errors import SpikerlError


class Divergence(NamedTuple):
    """Where one of two runs spiked and the other did not; all counted from 0."""

    layer: int
    control_step: int
    time_step: int
    neuron: int


@dataclass(frozen=True)
class Conformance:
    """Agreement of two runs.

    Attributes:
        control_steps: compared control steps. spikes: spikes that the first run gave, over all layers.
        either: for each layer, spikes that at least one of the runs gave.
        mismatches: for each layer, how many of these only one of them gave.
        first: the first mismatch by control step, then layer, time step and neuron, or None.
    """

    control_steps: int
    spikes: int
    either: tuple[int, ...]
    mismatches: tuple[int, ...]
    first: Divergence | None

    @property
    def exact(self) -> bool:
        return self.first is None

    @property
    def mismatch_share(self) -> float:
        """Mismatching spikes as a share of those that at least one run gave, over all layers; 0 to 1."""
        return sum(self.mismatches) / max(sum(self.either), 1)


def run_steps(session: Session, inputs: Spikes, progress: Callable[[int], None] = lambda _: None) -> tuple[Spikes, ...]:
    """Spikes [N, T, n] of every layer for the inputs [N, T, n_in] of N control steps, as many at once as fit.

    Args:
        progress: called with the control steps done so far.

    Raises:
        SpikerlError: the backend failed, or gave rasters of another shape or type than its policy has.
    """
    sizes = [layer.n_out for layer in session.policy.layers]
    layers = [np.empty((*inputs.shape[:2], size), dtype=bool) for size in sizes]
    batch = np.zeros(session.input_shape, dtype=bool)
    for start in range(0, len(inputs), session.batch):
        block = inputs[start : start + session.batch]
        batch[: len(block)] = block  # what else is in it is not read
        rasters = session.infer(batch, rasters=True).rasters
        shapes = None if rasters is None else [raster.shape for raster in rasters]
        expected = [(*session.input_shape[:2], size) for size in sizes]
        if rasters is None or shapes != expected or any(raster.dtype != np.bool_ for raster in rasters):
            raise SpikerlError(f"the backend gave spikes {shapes}, bool {expected} was expected")
        for layer, raster in zip(layers, rasters, strict=True):
            layer[start : start + len(block)] = raster[: len(block)]
        progress(start + len(block))
    return tuple(layers)


def compare_rasters(first: Sequence[Spikes], second: Sequence[Spikes]) -> Conformance:
    """Compare every spike of every layer, each [N, T, n]."""
    different = [a != b for a, b in zip(first, second, strict=True)]
    firsts = [Divergence(layer, *map(int, np.argwhere(d)[0])) for layer, d in enumerate(different) if d.any()]
    return Conformance(
        len(first[0]),
        sum(int(a.sum()) for a in first),
        tuple(int((a | b).sum()) for a, b in zip(first, second, strict=True)),
        tuple(int(d.sum()) for d in different),
        min(firsts, key=lambda found: (found.control_step, found.layer), default=None),
    )


def compare_sessions(first: Session, second: Session, inputs: Spikes) -> Conformance:
    """Feed the same spikes to two sessions of the same policy and compare every spike of every layer.

    Args:
        inputs: [N, B, T, n_in], N control steps of B episodes; the result counts these N, whatever B is.
    """
    flat = inputs.reshape(-1, *inputs.shape[2:])
    found = compare_rasters(run_steps(first, flat), run_steps(second, flat))
    divergence = found.first
    if divergence is not None:
        divergence = divergence._replace(control_step=divergence.control_step // inputs.shape[1])
    return replace(found, control_steps=len(inputs), first=divergence)
