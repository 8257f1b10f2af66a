"""Evaluation of the actor during training, on environments and seeds of its own."""

from __future__ import annotations

import numpy as np
import torch

from spikerl_deploy.environments import make_environment
from training.normalizer import RunningNormalizer
from training.td3 import TD3


class Evaluator:
    """Episodes side by side, without exploration, always from the same seeds; no step limit but the environment's."""

    def __init__(self, env_id: str, episodes: int, seed: int) -> None:
        self.envs = [make_environment(env_id) for _ in range(episodes)]
        self.seeds = [seed + index for index in range(episodes)]

    def __call__(self, agent: TD3, normalizer: RunningNormalizer) -> np.ndarray:
        """Undiscounted returns [episodes] of the deterministic policy with the present statistics."""
        normalizer.refresh()
        with torch.random.fork_rng():  # Poisson coding draws the same at every evaluation, and nothing from training
            torch.manual_seed(self.seeds[0])
            return self._play(agent, normalizer)

    def _play(self, agent: TD3, normalizer: RunningNormalizer) -> np.ndarray:
        observations = np.stack([env.reset(seed=seed)[0] for env, seed in zip(self.envs, self.seeds, strict=True)])
        returns = np.zeros(len(self.envs))
        running = list(range(len(self.envs)))
        while running:
            raw = torch.from_numpy(observations[running].astype(np.float32)).to(agent.device)
            actions = agent.act(normalizer(raw)).cpu().numpy()
            still = []
            for index, action in zip(running, actions, strict=True):
                observations[index], reward, terminated, truncated, _ = self.envs[index].step(action)
                returns[index] += float(reward)
                if not (terminated or truncated):
                    still.append(index)
            running = still
        return returns

    def close(self) -> None:
        for env in self.envs:
            env.close()
