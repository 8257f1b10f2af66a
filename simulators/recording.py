"""Observations of a policy's own closed loop, for quantizers to calibrate and train on."""

from __future__ import annotations

import sys

import numpy as np
from numpy.typing import NDArray

from simulators.protocol import Backend
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
