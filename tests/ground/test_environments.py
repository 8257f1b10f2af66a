"""Environments by id: what fits, what does not, and no debris."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import gymnasium
import numpy as np
import pytest
from gymnasium.spaces import Box, Dict, Discrete

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


class Spaces(gymnasium.Env):
    def __init__(self, observation_space: gymnasium.Space, action_space: gymnasium.Space) -> None:
        self.observation_space, self.action_space = observation_space, action_space


GOOD = Box(-1, 1, (2,))


@pytest.mark.parametrize(
    ("observation", "action", "message"),
    [
        (Discrete(3), GOOD, "observes Discrete"),
        (Box(0, 255, (8, 8), np.uint8), GOOD, "a vector is needed"),
        (Box(-1, 1, (0,)), GOOD, "a vector is needed"),
        (Dict({"a": GOOD}), GOOD, "observes Dict"),
        (GOOD, Discrete(3), "acts in Discrete"),
        (GOOD, Box(-1, 1, (2, 2)), "a bounded vector is needed"),
        (GOOD, Box(-1, 1, (0,)), "a bounded vector is needed"),
        (GOOD, Box(-np.inf, 1, (2,)), "a bounded vector is needed"),
        (GOOD, Box(0, 5, (2,), np.int64), "acts in int64, a policy gives real numbers"),
        (
            GOOD,
            Box(np.array([-1, -1e300]), np.array([1, 1e300]), dtype=np.float64),
            "bounds action 1 by -1e.300 and 1e",
        ),
        (GOOD, Box(np.array([0.0, 1.0]), np.array([1.0, 1.0]), dtype=np.float64), "bounds action 1 by 1.0 and 1.0"),
    ],
)
def test_spaces_that_no_policy_fits_are_refused(
    observation: gymnasium.Space, action: gymnasium.Space, message: str
) -> None:
    with pytest.raises(SpikerlError, match=message) as caught:
        environment_spec(Spaces(observation, action), "Its-v0")
    assert "'Its-v0'" in caught.value.message
    assert caught.value.hint


def test_whole_numbers_may_be_observed_and_unequal_bounds_acted_within() -> None:
    bounds = np.array([[-1, 0], [1, 2]], dtype=np.float32)
    spec = environment_spec(Spaces(Box(0, 5, (3,), np.int32), Box(*bounds)), "Its-v0")
    assert (spec.obs_dim, spec.action_low.tolist(), spec.action_high.tolist()) == (3, [-1, 0], [1, 2])


def test_a_platform_that_mujoco_does_not_know_is_an_error_of_one_line() -> None:
    code = "from spikerl_deploy.environments import make_environment; make_environment('Hopper-v5')"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, env=os.environ | {"MUJOCO_GL": "foo"}
    )
    assert done.stderr.splitlines()[-1].startswith("spikerl_deploy.errors.SpikerlError: MuJoCo cannot be imported")


class Plain(gymnasium.Env):
    """Its constructor knows no `render_mode`."""

    observation_space = action_space = GOOD

    def __init__(self, failure: Exception | None = None) -> None:
        if failure is not None:
            raise failure


def test_a_constructor_without_render_mode_is_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gymnasium, "registry", gymnasium.registry.copy())
    monkeypatch.setattr(gymnasium.envs.registration, "registry", gymnasium.registry)
    gymnasium.register("Plain-v0", Plain)
    assert isinstance(make_environment("Plain-v0").unwrapped, Plain)


@pytest.mark.parametrize("failure", [RuntimeError("no\nlicence"), KeyError("no licence"), OSError("no licence")])
def test_whatever_a_constructor_raises_is_one_line(monkeypatch: pytest.MonkeyPatch, failure: Exception) -> None:
    monkeypatch.setattr(gymnasium, "registry", gymnasium.registry.copy())
    monkeypatch.setattr(gymnasium.envs.registration, "registry", gymnasium.registry)
    gymnasium.register("Plain-v0", Plain, kwargs={"failure": failure})
    with pytest.raises(SpikerlError, match="'Plain-v0' cannot be made: .*no licence") as caught:
        make_environment("Plain-v0")
    assert "\n" not in caught.value.message and caught.value.hint
