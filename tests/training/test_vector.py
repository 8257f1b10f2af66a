"""Environments side by side: true last observations, resets of those that ended, states that go on to the bit."""

from __future__ import annotations

import copy
import os
import signal
import time
from collections.abc import Iterator

import gymnasium
import numpy as np
import psutil
import pytest

from spikerl_deploy.environments import mujoco_ids
from spikerl_deploy.errors import SpikerlError
from training.vector import Environments, State

Step = tuple[np.ndarray, ...]


@pytest.fixture
def made() -> Iterator[list[Environments]]:
    """Environments to close at the end."""
    opened: list[Environments] = []
    yield opened
    for envs in opened:
        envs.close()


def make(made: list[Environments], env_id: str, count: int = 2, workers: bool = False) -> Environments:
    made.append(Environments(env_id, count, workers))
    return made[-1]


def actions(env_id: str, seed: int, steps: int, count: int = 2) -> np.ndarray:
    """Uniform between the bounds, [steps, count, act_dim]."""
    env = gymnasium.make(env_id)
    low, high = env.action_space.low, env.action_space.high  # type: ignore[attr-defined]
    env.close()
    return np.random.default_rng(seed).uniform(low, high, (steps, count, len(low))).astype(np.float32)


def play(envs: Environments, observation: np.ndarray, chosen: np.ndarray) -> tuple[list[Step], np.ndarray]:
    """Every number that the steps gave, resets included, and the observation at the end."""
    out = []
    for action in chosen:
        envs.send(action)
        following, rewards, terminated, truncated = envs.receive()
        observation = envs.reset_done(following, terminated | truncated)
        out.append((following, rewards.copy(), terminated.copy(), truncated.copy(), observation))
    return out, observation


def assert_same_steps(mine: list[Step], reference: list[Step]) -> None:
    for number, (a, b) in enumerate(zip(mine, reference, strict=True)):
        for name, x, y in zip(("following", "reward", "terminated", "truncated", "observation"), a, b, strict=True):
            np.testing.assert_array_equal(x, y, err_msg=f"{name} at step {number}")


def limit(env_id: str) -> int:
    steps = gymnasium.spec(env_id).max_episode_steps
    assert steps is not None
    return steps


def ended(steps: list[Step], which: int) -> int:
    return int(sum(step[which].sum() for step in steps))


@pytest.mark.parametrize("env_id", mujoco_ids())
@pytest.mark.parametrize("moment", ["after the reset", "in an episode", "before and after a truncation"])
def test_a_restored_environment_goes_on_to_the_bit(made: list[Environments], env_id: str, moment: str) -> None:
    """Also over the ends of episodes, whose resets draw from the generator."""
    envs = make(made, env_id)
    observation = envs.reset([3, 4])
    captures: list[tuple[list[State], np.ndarray]] = []

    def capture() -> None:
        states = envs.state_dict()
        assert states is not None
        captures.append((copy.deepcopy(states), observation.copy()))

    if moment != "after the reset":
        _, observation = play(envs, observation, actions(env_id, 0, 37))
    if moment == "before and after a truncation":
        states = envs.state_dict()
        assert states is not None
        states[0]["elapsed"] = limit(env_id) - 8
        envs.load_state_dict(states)
        capture()
        truncating, observation = play(envs, observation, actions(env_id, 1, 12))
        assert ended(truncating, 3) + ended(truncating, 2) >= 1
        assert truncating[7][3][0] or ended(truncating[:8], 2)
    capture()
    chosen = actions(env_id, 2, 100)
    for number, (states, its_observation) in enumerate(captures):
        fresh = make(made, env_id)
        fresh.load_state_dict(states)
        if number == len(captures) - 1:
            expected, _ = play(envs, observation, chosen)
        else:
            rerun = make(made, env_id)
            rerun.load_state_dict(copy.deepcopy(states))
            expected, _ = play(rerun, its_observation, chosen)
        got, _ = play(fresh, its_observation, chosen)
        assert_same_steps(got, expected)


@pytest.mark.parametrize("env_id", mujoco_ids())
def test_capturing_changes_nothing(made: list[Environments], env_id: str) -> None:
    looked_at, left = make(made, env_id), make(made, env_id)
    chosen = actions(env_id, 5, 30)
    steps: list[list[Step]] = []
    for envs in (looked_at, left):
        observation = envs.reset([1, 2])
        out: list[Step] = []
        for action in chosen:
            if envs is looked_at:
                envs.state_dict()
            part, observation = play(envs, observation, action[None])
            out += part
        steps.append(out)
    assert_same_steps(*steps)


def test_a_state_is_a_copy_that_later_steps_leave_alone(made: list[Environments]) -> None:
    envs = make(made, "Ant-v5", 1)
    observation = envs.reset([0])
    _, observation = play(envs, observation, actions("Ant-v5", 0, 20, 1))
    states = envs.state_dict()
    assert states is not None
    kept = copy.deepcopy(states)
    play(envs, observation, actions("Ant-v5", 1, 5, 1))
    np.testing.assert_array_equal(states[0]["integration"], kept[0]["integration"])
    assert states[0]["generator"] == kept[0]["generator"] and states[0]["elapsed"] == kept[0]["elapsed"] == 20
    for name, value in kept[0]["derived"].items():
        np.testing.assert_array_equal(states[0]["derived"][name], value)


def test_the_states_of_environments_belong_to_their_places(made: list[Environments]) -> None:
    envs, fresh = make(made, "Hopper-v5", 3), make(made, "Hopper-v5", 3)
    observation = envs.reset([1, 2, 3])
    _, observation = play(envs, observation, actions("Hopper-v5", 0, 9, 3))
    states = envs.state_dict()
    assert states is not None
    fresh.load_state_dict([states[2], states[0], states[1]])
    got, _ = play(fresh, observation[[2, 0, 1]], actions("Hopper-v5", 1, 1, 3)[:, [2, 0, 1]])
    expected, _ = play(envs, observation, actions("Hopper-v5", 1, 1, 3))
    np.testing.assert_array_equal(got[0][0], expected[0][0][[2, 0, 1]])


def test_states_of_another_number_of_environments_are_refused(made: list[Environments]) -> None:
    envs = make(made, "InvertedPendulum-v5", 2)
    envs.reset([0, 1])
    states = envs.state_dict()
    assert states is not None
    with pytest.raises(SpikerlError, match="1 environments, not 2"):
        envs.load_state_dict(states[:1])


@pytest.mark.parametrize("workers", [False, True])
def test_an_environment_that_is_not_mujocos_has_no_state(made: list[Environments], workers: bool) -> None:
    envs = make(made, "Pendulum-v1", 2, workers)
    observation = envs.reset([0, 1])
    play(envs, observation, actions("Pendulum-v1", 0, 3))
    assert envs.state_dict() is None


@pytest.mark.parametrize("workers", [False, True])
def test_what_an_environment_raises_comes_without_warnings_and_it_can_be_closed(
    made: list[Environments], recwarn: pytest.WarningsRecorder, workers: bool
) -> None:
    envs = make(made, "Hopper-v5", 2, workers)
    envs.reset([0, 1])
    with pytest.raises(ValueError, match="Action dimension mismatch"):
        play(envs, np.zeros((2, 11)), np.zeros((1, 2, 5), np.float32))
    envs.close()
    assert [str(warning.message) for warning in recwarn if "ERROR" in str(warning.message)] == []


@pytest.mark.parametrize("env_id", ["InvertedPendulum-v5", "Hopper-v5", "Reacher-v5"])
def test_steps_and_resets_are_those_of_lone_environments(made: list[Environments], env_id: str) -> None:
    """The observation that ends an episode is the true one; resets touch only what ended, and are not seeded anew."""
    envs, chosen = make(made, env_id, 3), actions(env_id, 6, 130, 3)
    got, _ = play(envs, envs.reset([5, 11, 7]), chosen)
    assert ended(got, 2) + ended(got, 3) >= 3
    for place in range(3):
        lone = gymnasium.make(env_id)
        lone.reset(seed=[5, 11, 7][place])
        for (following, rewards, terminated, truncated, observation), action in zip(got, chosen, strict=True):
            its_following, reward, ends, cut, _ = lone.step(action[place])
            np.testing.assert_array_equal(following[place], its_following)
            assert (rewards[place], terminated[place], truncated[place]) == (reward, ends, cut)
            if ends or cut:
                its_following, _ = lone.reset()
                assert not np.array_equal(following[place], its_following)
            np.testing.assert_array_equal(observation[place], its_following)
        lone.close()


def test_a_reset_replaces_the_rows_of_ended_episodes_alone(made: list[Environments]) -> None:
    envs = make(made, "InvertedPendulum-v5", 3)
    envs.reset([0, 1, 2])
    given = np.full((3, 4), 7.0)
    assert envs.reset_done(given, np.zeros(3, bool)).tolist() == [[7.0] * 4] * 3
    fresh = envs.reset_done(given, np.array([False, True, False]))
    assert (fresh[[0, 2]] == 7).all() and (np.abs(fresh[1]) <= 0.01).all() and (given == 7).all()


def test_a_truncation_is_told_apart_from_a_termination(made: list[Environments]) -> None:
    envs = make(made, "Reacher-v5", 1)
    steps, _ = play(envs, envs.reset([0]), actions("Reacher-v5", 0, 101, 1))
    assert [number for number, step in enumerate(steps, 1) if step[3][0]] == [50, 100]
    assert ended(steps, 2) == 0
    pendulum = make(made, "InvertedPendulum-v5", 1)
    steps, _ = play(pendulum, pendulum.reset([0]), actions("InvertedPendulum-v5", 0, 60, 1))
    assert ended(steps, 2) > 1 and ended(steps, 3) == 0


def test_what_was_received_is_a_copy_in_float64(made: list[Environments]) -> None:
    envs = make(made, "InvertedPendulum-v5", 2)
    first = envs.reset([0, 1])
    kept = first.copy()
    steps, _ = play(envs, first, actions("InvertedPendulum-v5", 0, 2))
    following = steps[0][0].copy()
    play(envs, first, actions("InvertedPendulum-v5", 1, 3))
    np.testing.assert_array_equal(first, kept)
    np.testing.assert_array_equal(steps[0][0], following)
    assert first.dtype == following.dtype == np.float64


def descendants() -> set[int]:
    return {process.pid for process in psutil.Process().children(recursive=True)}


def workers_of(before: set[int]) -> list[psutil.Process]:
    """Processes begun since that step environments; multiprocessing's own two stay for the next."""
    found = [process for process in psutil.Process().children(recursive=True) if process.pid not in before]
    return [process for process in found if process.ppid() != os.getpid()]


@pytest.mark.parametrize("env_id", ["InvertedPendulum-v5", "Hopper-v5"])
def test_worker_processes_give_the_same_to_the_bit_and_end_when_closed(made: list[Environments], env_id: str) -> None:
    before = descendants()
    here, there = make(made, env_id), Environments(env_id, 2, workers=True)
    try:
        observations = [envs.reset([8, 9]) for envs in (here, there)]
        np.testing.assert_array_equal(*observations)
        assert len(workers_of(before)) == 2
        for process in workers_of(before):
            process.send_signal(signal.SIGINT)  # Ctrl-C in a terminal reaches them too; the run must save first
        chosen = actions(env_id, 0, 150)
        (expected, observation), (got, _) = (
            play(envs, start, chosen) for envs, start in zip((here, there), observations, strict=True)
        )
        assert_same_steps(got, expected)
        assert ended(got, 2) > 1
        states = [envs.state_dict() for envs in (here, there)]
        assert states[0] is not None and states[1] is not None
        assert [state["generator"] for state in states[0]] == [state["generator"] for state in states[1]]
        expected, _ = play(here, observation, actions(env_id, 1, 60))
        there.load_state_dict(states[0])  # a run may be resumed with workers that began without
        got, _ = play(there, observation, actions(env_id, 1, 60))
        assert_same_steps(got, expected)
    finally:
        there.close()
    deadline = time.monotonic() + 10
    while workers_of(before) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert workers_of(before) == []


@pytest.mark.parametrize("workers", [False, True])
def test_the_trainer_itself_goes_on_hearing_signals(made: list[Environments], workers: bool) -> None:
    numbers = (signal.SIGINT, signal.SIGTERM)
    before = [signal.signal(number, signal.default_int_handler) for number in numbers]
    try:
        make(made, "InvertedPendulum-v5", workers=workers)
        assert [signal.getsignal(number) for number in numbers] == [signal.default_int_handler] * 2
    finally:
        for number, handler in zip(numbers, before, strict=True):
            signal.signal(number, handler)
