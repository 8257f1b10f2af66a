"""Observations of a policy's own closed loop, for quantizers to calibrate and train on."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from simulators.protocol import Backend
from simulators.rollout import rollout
from spikerl_deploy.policy import Policy

PARALLEL = 10  # episodes side by side


def record_observations(backend: Backend, policy: Policy, env_id: str, steps: int, seed: int) -> NDArray[np.float64]:
    """Observations [steps, obs_dim] of episodes that a policy plays on a backend, with seeds from `seed` on.

    Raises:
        SpikerlError: the environment does not fit the policy, or the backend failed.
    """
    parts: list[NDArray[np.float64]] = []
    found = 0
    with backend.open(policy, PARALLEL) as session:
        while found < steps:
            played = rollout(session, env_id, range(seed, seed + PARALLEL), observe=steps - found)
            assert played.observations is not None
            parts.append(played.observations)
            found += len(played.observations)
            seed += PARALLEL
    return np.concatenate(parts)
