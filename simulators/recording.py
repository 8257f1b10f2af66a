"""Observations of a closed loop: for quantizers to calibrate and train on, and to hold backends against."""

from __future__ import annotations

import sys
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from simulators.protocol import Backend, Session
from simulators.rollout import rollout
from spikerl_deploy.policy import Policy

PARALLEL = 10  # episodes side by side


def record_observations(backend: Backend, policy: Policy, env_id: str, steps: int, seed: int) -> NDArray[np.float64]:
    """Observations [steps, obs_dim] of whole episodes that a policy plays on a backend, with seeds from `seed` on.

    At least ten episodes are played; of more control steps than asked for, evenly spaced ones are taken.

    Raises:
        SpikerlError: the environment does not fit the policy, or the backend failed.
    """
    parts: list[NDArray[np.float64]] = []
    with backend.open(policy, PARALLEL) as session:
        while sum(map(len, parts)) < steps:
            played = rollout(session, env_id, range(seed, seed + PARALLEL), observe=sys.maxsize)
            assert played.observations is not None
            parts.append(played.observations)
            seed += PARALLEL
    rows = np.concatenate(parts)
    spaced: NDArray[np.float64] = rows[np.linspace(0, len(rows) - 1, steps).astype(int)]
    return spaced


@dataclass(frozen=True, eq=False)
class Recording:
    """What a closed loop observed, one episode after the other.

    Attributes:
        observations: [N, obs_dim], of N control steps in order.
        episodes: (seed, control steps of it in `observations`), in order.
        returns: by seed, of the episodes that are in `observations` to their end; the last one counts as cut off.
    """

    observations: NDArray[np.float64]
    episodes: tuple[tuple[int, int], ...]
    returns: dict[int, float]

    def locate(self, control_step: int) -> tuple[int, int]:
        """Seed of the episode that a control step belongs to, and the control step within it."""
        for seed, length in self.episodes:
            if control_step < length:
                return seed, control_step
            control_step -= length
        raise IndexError(f"control step is {control_step} beyond the recording")


def record_in_order(session: Session, env_id: str, steps: int, seed: int) -> Recording:
    """The first `steps` control steps of the episodes that a session plays with seeds from `seed` on, one by one.

    Raises:
        SpikerlError: the environment does not fit the policy, or the backend failed.
    """
    parts: list[NDArray[np.float64]] = []
    episodes: list[tuple[int, int]] = []
    returns: dict[int, float] = {}
    missing = steps
    while missing > 0:
        played = rollout(session, env_id, [seed], observe=missing, limit=missing)  # an episode may have no end
        assert played.observations is not None
        parts.append(played.observations)
        episodes.append((seed, len(played.observations)))
        missing -= len(played.observations)
        if missing:
            returns[seed] = played.returns[0]
        seed += 1
    return Recording(np.concatenate(parts), tuple(episodes), returns)
