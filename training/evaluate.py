"""Evaluation of the actors during training, on environments and seeds of its own."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import gymnasium
import numpy as np
import torch

from spikerl_deploy.environments import environment_error, make_environment
from spikerl_deploy.errors import SpikerlError
from training.acting import Actions
from training.distributed import Group
from training.draws import EVALUATION, stream


class Evaluator:
    """Episodes side by side, without exploration, always from the same seeds; no step limit but the environment's.

    Ranks share the episodes; all play the same policy, which is the one that is saved.
    """

    def __init__(self, env_id: str, policies: int, episodes: int, seed: int, group: Group) -> None:
        self._env_id, self._group, self._episodes = env_id, group, episodes
        self._seeds = [seed + index for index in range(episodes)][group.rank :: group.size]
        self._envs = [[make_environment(env_id) for _ in self._seeds] for _ in range(policies)]

    def __call__(self, actions: Actions) -> np.ndarray:
        """Undiscounted returns [S, episodes] of the deterministic policies with the present statistics.

        Raises:
            SpikerlError: an environment failed, or gave what is not finite.
        """
        # Poisson coding draws the same at every evaluation, and nothing from training
        generators = [stream(self._seeds[0] if self._seeds else 0, self._group.rank, EVALUATION) for _ in self._envs]
        with torch.random.fork_rng(devices=[torch.cuda.current_device()] if torch.cuda.is_available() else []):
            torch.manual_seed(generators[0].integers(2**32))
            mine = self._play(actions, generators) if self._seeds else np.zeros((len(self._envs), 0))
        returns = np.empty((len(self._envs), self._episodes))
        padded = np.zeros((len(self._envs), -(-self._episodes // self._group.size)))
        padded[:, : mine.shape[1]] = mine
        for rank, theirs in enumerate(self._group.exchange(padded.ravel())):
            share = returns[:, rank :: self._group.size]
            share[:] = theirs.reshape(padded.shape)[:, : share.shape[1]]
        return returns

    def _play(self, actions: Actions, generators: Sequence[np.random.Generator]) -> np.ndarray:
        first = [[self._reset(env, seed) for env, seed in zip(envs, self._seeds, strict=True)] for envs in self._envs]
        observations = np.array(first, np.float64)
        returns, running = np.zeros(observations.shape[:2]), np.ones(observations.shape[:2], bool)
        while running.any():
            columns = np.flatnonzero(running.any(axis=0))
            chosen = actions(observations[:, columns], generators)
            for policy, column in zip(*np.nonzero(running[:, columns]), strict=True):
                env, place = self._envs[policy][columns[column]], (policy, columns[column])
                try:
                    observations[place], reward, terminated, truncated, _ = env.step(chosen[policy, column])
                    returns[place] += float(reward)
                except Exception as error:
                    raise self._failed(self._seeds[columns[column]], error) from error
                if not math.isfinite(returns[place] + observations[place].sum()):
                    raise SpikerlError(
                        f"'{self._env_id}' gave an observation or a reward that is not finite in the evaluation's "
                        f"episode of seed {self._seeds[columns[column]]}",
                        "see the environment: its physics came apart, or it divides by zero",
                    )
                running[place] = not (terminated or truncated)
        return returns

    def _reset(self, env: gymnasium.Env[Any, Any], seed: int) -> Any:
        try:
            return env.reset(seed=seed)[0]
        except Exception as error:
            raise self._failed(seed, error) from error

    def _failed(self, seed: int, error: Exception) -> SpikerlError:
        return environment_error(self._env_id, f"failed in the evaluation's episode of seed {seed}", error)

    def close(self) -> None:
        for env in (env for envs in self._envs for env in envs):
            env.close()
