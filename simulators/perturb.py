"""Perturbations of a closed loop, drawn from the episode's seed: sensor noise, late actions, lost input spikes."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from spikerl_deploy.codec import Spikes
from spikerl_deploy.errors import SpikerlError, unknown
from spikerl_deploy.policy import Float, Policy

HINT = "--perturb noise=0.05,delay=2,drop=0.1"
MAX_NOISE = 1000.0  # standard deviations; far beyond it float32 overflows
MAX_DELAY = 1000  # control steps, a whole episode of Gymnasium's MuJoCo tasks
# Streams of an episode, beside the environment's own, which its seed starts, and Poisson coding, which is [seed, 1].
NOISE_STREAM, DROP_STREAM = 2, 3


@dataclass(frozen=True)
class Perturbation:
    """What is wrong with the robot.

    Attributes:
        noise: standard deviation of Gaussian noise on every observed value, in units of the policy's observation std,
            or of the observation itself where the policy does not normalise.
        delay: control steps by which actions are applied late; before the first one, the middle of the action range.
        drop: probability that an input spike is lost on its way to the core.

    Raises:
        SpikerlError: a value out of range.
    """

    noise: float = 0.0
    delay: int = 0
    drop: float = 0.0

    def __post_init__(self) -> None:
        for key, most in (("noise", MAX_NOISE), ("delay", MAX_DELAY), ("drop", 1)):
            value = getattr(self, key)
            if not 0 <= value <= most:
                raise SpikerlError(f"perturbation {key}={value} is outside [0, {most:g}]", HINT)

    def begin(self, policy: Policy, seed: int) -> Disturbance:
        """What it does to the episode of a seed, from its first step on."""
        assert policy.decoder is not None
        unit = policy.normalization.std if policy.normalization is not None else np.ones(1, dtype=np.float32)
        middle: Float = (policy.decoder.action_high + policy.decoder.action_low) / np.float32(2)
        return Disturbance(self, seed, unit, middle)

    def document(self, policy: Policy, backends: Sequence[str]) -> dict[str, Any]:
        """As a report states it; `backends` are those that were perturbed."""
        unit = "raw observation" if policy.normalization is None else "standard deviation of the observation"
        units = {"noise_unit": unit, "delay_unit": "control steps", "drop_unit": "share of the input spikes"}
        return {**asdict(self), **units, "words": str(self), "backends": list(backends)}

    def __str__(self) -> str:
        return f"noise {self.noise:g}, delay {self.delay}, drop {self.drop:g}"


class Disturbance:
    """A perturbation of one episode. Every step draws the same numbers, whatever backend plays and runs beside it."""

    def __init__(self, perturbation: Perturbation, seed: int, unit: Float, middle: Float) -> None:
        self._settings, self._unit = perturbation, unit
        self._noise = np.random.default_rng([seed, NOISE_STREAM])
        self._drop = np.random.default_rng([seed, DROP_STREAM])
        self._late = deque([middle] * perturbation.delay)

    def sense(self, observation: NDArray[np.floating]) -> NDArray[np.floating]:
        """Observation [obs_dim] with noise; without any, the observation itself."""
        if not self._settings.noise:
            return observation
        return observation + self._settings.noise * self._unit * self._noise.standard_normal(observation.shape)

    def lose(self, spikes: Spikes) -> None:
        """Take lost spikes out of [T, n_in], in place. A higher probability loses the same ones and more."""
        if self._settings.drop:
            spikes &= self._drop.random(spikes.shape) >= self._settings.drop

    def delay(self, action: Float) -> Float:
        """The action [act_dim] that is applied when this one has been decided."""
        self._late.append(action)
        return self._late.popleft()


def parse_perturbation(texts: Sequence[str]) -> Perturbation | None:
    """Perturbation of `KEY=VALUE` texts, each one or several with commas between; None of none.

    Raises:
        SpikerlError: no `KEY=VALUE`, an unknown key, one given twice, or a value that is no number or out of range.
    """
    kinds: dict[str, type[int] | type[float]] = {"noise": float, "delay": int, "drop": float}
    given: dict[str, Any] = {}
    for text in (part.strip() for whole in texts for part in whole.split(",")):
        key, separator, value = text.partition("=")
        if not separator:
            raise SpikerlError(f"perturbation '{text}' is no KEY=VALUE", HINT)
        if key not in kinds:
            raise unknown("perturbation", key, kinds, HINT)
        if key in given:
            raise SpikerlError(f"perturbation {key} is given twice", HINT)
        try:
            given[key] = kinds[key](value)
        except ValueError as error:
            what = "whole number" if kinds[key] is int else "number"
            raise SpikerlError(f"perturbation {key}='{value}' is no {what}", HINT) from error
    return Perturbation(**given) if given else None
