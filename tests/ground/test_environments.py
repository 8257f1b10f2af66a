"""Environments by id: what fits, what does not, and no debris."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import gymnasium
import numpy as np
import pytest

from spikerl_deploy.environments import environment_spec, make_environment, mujoco_ids
from spikerl_deploy.errors import SpikerlError

TASKS = ["Ant-v5", "HalfCheetah-v5", "Hopper-v5", "InvertedDoublePendulum-v5", "InvertedPendulum-v5", "Walker2d-v5"]


def test_the_tasks_are_listed_in_their_newest_version() -> None:
    ids = mujoco_ids()
    assert set(TASKS) <= set(ids)
    assert not [name for name in ids if name.endswith("-v4") and name.replace("-v4", "-v5") in ids]


@pytest.mark.parametrize("env_id", TASKS)
def test_sizes_and_limits_are_those_of_gymnasium(env_id: str) -> None:
    env = make_environment(env_id)
    spec = environment_spec(env, env_id)
    assert (spec.obs_dim,) == env.observation_space.shape
    np.testing.assert_array_equal(spec.action_high, env.action_space.high)
    assert spec.max_episode_steps == gymnasium.spec(env_id).max_episode_steps == 1000
    assert spec.control_step == pytest.approx(env.unwrapped.dt)
    env.close()


@pytest.mark.parametrize("env_id", ["Hopper", "Hopper-v99", "no/such-v1", "Ant-v3", "json:Thing-v0", ":", ""])
def test_an_id_that_cannot_be_made_is_refused_in_one_line(env_id: str) -> None:
    with pytest.raises(SpikerlError) as caught:
        make_environment(env_id)
    assert f"'{env_id}'" in caught.value.message
    assert "\n" not in caught.value.message
    assert caught.value.hint


def test_mujoco_writes_no_log_into_the_working_directory(tmp_path: Path) -> None:
    code = "from spikerl_deploy.environments import make_environment; make_environment('HalfCheetah-v5').reset(seed=0)"
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert list(tmp_path.iterdir()) == []
    assert done.stderr == ""
