"""Evaluation plays what would be saved, from its own seeds, and leaves training's numbers alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from training_support import HOPPER, deployed_return, tiny

from training.trainer import Trainer


def trainer_of(folder: Path, name: str = "run", **settings: Any) -> Trainer:
    """A trainer that has not run, its policies strong enough to act on what they see."""
    trainer = Trainer(tiny(**settings), folder / name, quiet=True)
    with torch.no_grad():
        for weight in trainer.agent.actor.weights:
            weight *= 5
    seeds, obs_dim = trainer.settings.seeds, trainer.spaces.obs_dim
    trainer.normalizer.observe(np.random.default_rng(0).normal(5, 2, (seeds, 40, obs_dim)))
    trainer.normalizer.merge()
    return trainer


@pytest.mark.parametrize("seeds", [1, 3])
def test_an_evaluation_is_that_of_each_policy_as_it_would_be_saved_on_one_seed_after_the_other(
    tmp_path: Path, seeds: int
) -> None:
    trainer = trainer_of(tmp_path, env="Echo-v0", eval_episodes=3, eval_seed=50, seeds=seeds)
    returns = trainer.evaluator(trainer.actions)
    assert returns.shape == (seeds, 3)
    for place in range(seeds):
        policy = trainer.agent.actor.to_policy(trainer.normalizer.snapshot(place), "Echo-v0", place)
        expected = [deployed_return(policy, gymnasium.make("Echo-v0"), seed) for seed in (50, 51, 52)]
        np.testing.assert_allclose(returns[place], expected, atol=1e-3)
    assert len(set(returns.ravel().round(2))) == 3 * seeds
    np.testing.assert_array_equal(trainer.evaluator(trainer.actions), returns)


def test_episodes_that_end_early_do_not_disturb_the_others(tmp_path: Path) -> None:
    # Clock's episodes pay 10, 28, 28, 10, ... in each of its environments, whatever is done
    trainer = trainer_of(tmp_path, env="Clock-v0", eval_episodes=2, seeds=2)
    seen = [trainer.evaluator(trainer.actions).tolist() for _ in range(4)]
    assert seen == [[[value] * 2] * 2 for value in (10, 28, 28, 10)]


def test_episodes_of_different_lengths_are_each_played_to_their_end(tmp_path: Path) -> None:
    trainer = trainer_of(tmp_path, env=HOPPER, eval_episodes=4)
    together = trainer.evaluator(trainer.actions)[0]
    for index in range(4):
        alone = trainer_of(tmp_path, str(index), env=HOPPER, eval_episodes=1, eval_seed=10_000 + index)
        assert alone.evaluator(alone.actions)[0, 0] == pytest.approx(together[index], rel=1e-6)
    assert len(set(together)) == 4


def test_poisson_coding_draws_the_same_at_every_evaluation_and_nothing_from_training(tmp_path: Path) -> None:
    trainer = trainer_of(tmp_path, env="Echo-v0", eval_episodes=2, coding="poisson")
    before, streams = torch.get_rng_state(), trainer.draws.state_dict()["streams"]
    first = trainer.evaluator(trainer.actions)
    np.testing.assert_array_equal(trainer.evaluator(trainer.actions), first)
    assert torch.equal(torch.get_rng_state(), before)
    assert trainer.draws.state_dict()["streams"] == streams
    trainer.draws.exploration[0].random(100)
    torch.rand(5)
    np.testing.assert_array_equal(trainer.evaluator(trainer.actions), first)


def test_an_evaluation_changes_neither_statistics_nor_networks(tmp_path: Path) -> None:
    trainer = trainer_of(tmp_path, env="Echo-v0")
    mean = trainer.normalizer.mean.copy()
    parameters = [parameter.clone() for parameter in trainer.agent.actor.parameters()]
    trainer.evaluator(trainer.actions)
    trainer.normalizer.merge()
    np.testing.assert_array_equal(trainer.normalizer.mean, mean)
    assert all(torch.equal(a, b) for a, b in zip(trainer.agent.actor.parameters(), parameters, strict=True))
