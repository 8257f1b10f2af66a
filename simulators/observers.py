"""What may watch a closed loop: the control step as an observer sees it, and the observers that keep the first ones."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from spikerl_deploy.codec import Spikes
from spikerl_deploy.policy import Float


@dataclass(frozen=True, eq=False)
class ControlStep:
    """One call of the backend and what came of it, for the A episodes that were running; arrays are lent, not given.

    Attributes:
        episodes: [A] indices into the seeds. slots: [A] their rows in the batch.
        clean: [A, obs_dim] as the environment gave them. observations: as the policy saw them.
        inputs: [B, T, n_in] as they reached the core. rasters: for each layer [B, T, n], if an observer wanted them.
        actions: [A, act_dim] as decided. applied: as the environment got them.
        rewards, terminated, truncated: [A].
    """

    episodes: list[int]
    slots: list[int]
    clean: NDArray[np.floating]
    observations: NDArray[np.floating]
    inputs: Spikes
    rasters: tuple[Spikes, ...] | None
    actions: Float
    applied: list[Float]
    rewards: list[float]
    terminated: list[bool]
    truncated: list[bool]


class Observer(Protocol):
    """Watches a rollout; it changes nothing."""

    def wants_rasters(self, episodes: Sequence[int]) -> bool:
        """Whether the coming call of the backend, for these episodes, is to return rasters."""

    def observe(self, step: ControlStep) -> None:
        """Called after every control step, before an episode that ended gives way to the next."""


class FirstSpikes:
    """Keeps the spikes of the first calls of the backend."""

    def __init__(self, count: int) -> None:
        self.count = count
        self.kept: list[tuple[Spikes, ...]] = []

    def wants_rasters(self, episodes: Sequence[int]) -> bool:
        return len(self.kept) < self.count

    def observe(self, step: ControlStep) -> None:
        if len(self.kept) < self.count and step.rasters is not None:
            self.kept.append((step.inputs.copy(), *step.rasters))

    def stacked(self) -> tuple[Spikes | None, tuple[Spikes, ...] | None]:
        if not self.kept:
            return None, None
        inputs, *layers = (np.stack(parts) for parts in zip(*self.kept, strict=True))
        return inputs, tuple(layers)


class FirstObservations:
    """Keeps the observations of the first control steps."""

    def __init__(self, count: int) -> None:
        self.count = count
        self.kept: list[NDArray[np.float64]] = []

    def wants_rasters(self, episodes: Sequence[int]) -> bool:
        return False

    def observe(self, step: ControlStep) -> None:
        if len(self.kept) < self.count:
            self.kept.extend(step.clean.astype(np.float64))

    def stacked(self) -> NDArray[np.float64] | None:
        return np.stack(self.kept[: self.count]) if self.kept else None
