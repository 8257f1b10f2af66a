"""Environments side by side, in this process or in worker processes, with a state that a checkpoint can hold."""

from __future__ import annotations

import functools
import json
import os
import signal
import warnings
import weakref
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import gymnasium
import numpy as np
from gymnasium.vector import AsyncVectorEnv, AutoresetMode, SyncVectorEnv
from gymnasium.wrappers import TimeLimit

from spikerl_deploy.environments import make_environment
from spikerl_deploy.errors import SpikerlError

State = dict[str, Any]
"""State of one environment: plain numbers, texts and NumPy arrays."""


class Resumable(gymnasium.Wrapper[Any, Any, Any, Any]):
    """Adds a state that is complete for Gymnasium's MuJoCo environments."""

    def capture(self) -> State | None:
        """The state, or None where the environment is not MuJoCo's and keeps what nobody can know.

        Holds MuJoCo's integration state (the physics state alone lacks the solver's warm start), every array that
        MuJoCo derived from it at the last step (environments read some of them before the next one), the generator and
        the steps of the episode.
        """
        mujoco, base = _mujoco(self), self.env.unwrapped
        if mujoco is None:
            return None
        model, data = base.model, base.data  # type: ignore[attr-defined]
        signature = mujoco.mjtState.mjSTATE_INTEGRATION
        integration = np.empty(mujoco.mj_stateSize(model, signature))
        mujoco.mj_getState(model, data, integration, signature)
        return {
            "integration": integration,
            "derived": {name: value.copy() for name, value in _arrays(data).items()},
            "generator": json.dumps(base.np_random.bit_generator.state),
            "elapsed": self._elapsed(),
        }

    def restore(self, state: State) -> None:
        """Go on from a state that `capture` gave for an environment of the same id."""
        mujoco, base = _mujoco(self), self.env.unwrapped
        assert mujoco is not None
        self.env.reset()  # satisfies the wrappers that want one first
        model, data = base.model, base.data  # type: ignore[attr-defined]
        mujoco.mj_setState(model, data, np.asarray(state["integration"]), mujoco.mjtState.mjSTATE_INTEGRATION)
        for name, value in _arrays(data).items():
            stored = state["derived"].get(name)
            if (
                stored is not None and stored.shape == value.shape
            ):  # those of constraints change in size, and are made anew
                value[...] = stored
        base.np_random.bit_generator.state = json.loads(state["generator"])
        self._elapsed(int(state["elapsed"]))

    def restore_own(self, states: Sequence[State]) -> None:
        """Restore from the states of all environments; workers are all sent the same call."""
        self.restore(states[self.place])

    place = 0

    def _elapsed(self, value: int | None = None) -> int:
        """Steps of the episode as the time limit counts them; set where a value is given."""
        env: gymnasium.Env[Any, Any] = self.env
        while isinstance(env, gymnasium.Wrapper):
            if isinstance(env, TimeLimit):
                if value is not None:
                    env._elapsed_steps = value  # type: ignore[assignment]
                return int(env._elapsed_steps or 0)
            env = env.env
        return 0


def _mujoco(env: gymnasium.Env[Any, Any]) -> Any:
    """The mujoco module for an environment of Gymnasium's MuJoCo base, else None."""
    from gymnasium.envs.mujoco import MujocoEnv

    if not isinstance(env.unwrapped, MujocoEnv):
        return None
    import mujoco

    return mujoco


def _arrays(data: Any) -> dict[str, np.ndarray]:
    """MuJoCo's arrays of numbers, by name, as views."""
    found = {}
    for name in dir(data):
        value = None if name.startswith("_") else getattr(data, name, None)
        if isinstance(value, np.ndarray) and value.dtype == np.float64 and value.size:
            found[name] = value
    return found


def _make(env_id: str, place: int, trainer: int) -> Resumable:
    """An environment, made by the process `trainer` or by a worker of it; Gymnasium makes one in each."""
    if os.getpid() != trainer:
        # both may reach the whole group: the trainer decides what ends; a worker whose trainer is gone ends by itself
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    env = Resumable(make_environment(env_id))
    env.place = place
    return env


def _kill(processes: Sequence[Any]) -> None:
    for process in processes:
        process.kill()


class Environments:
    """`count` environments of one id, stepped together; an episode that ends is reset at once.

    Between `send` and `receive` the environments of worker processes step, and a GPU updates.
    """

    def __init__(self, env_id: str, count: int, workers: bool) -> None:
        makers: list[Callable[[], Resumable]] = [
            functools.partial(_make, env_id, place, os.getpid()) for place in range(count)
        ]
        self.env_id, self.count = env_id, count
        self._envs: Any
        if workers:
            # not fork: a copy of a process that runs torch's threads may hang
            context = "forkserver"
            self._envs = AsyncVectorEnv(makers, copy=False, context=context, autoreset_mode=AutoresetMode.DISABLED)
        else:
            self._envs = SyncVectorEnv(makers, copy=False, autoreset_mode=AutoresetMode.DISABLED)
        self._workers = workers
        if workers:  # they ignore SIGTERM, by which multiprocessing would end those that nobody closed, and wait
            weakref.finalize(self, _kill, self._envs.processes)

    def reset(self, seeds: Sequence[int] | None = None) -> np.ndarray:
        """First observations float64 [count, obs_dim]; without seeds the generators go on as they are."""
        with self._worker_errors():
            observations, _ = self._envs.reset(seed=None if seeds is None else list(seeds))
        return np.array(observations, np.float64)

    def send(self, actions: np.ndarray) -> None:
        """Start a step with actions [count, act_dim]."""
        if self._workers:
            with self._worker_errors():
                self._envs.step_async(actions)
        else:
            self._actions = actions

    def receive(self) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """End a step: observations [count, obs_dim], rewards, `terminated` and `truncated` [count].

        The observations are those that the actions led to, also where they end an episode: a truncated one bootstraps
        from them.
        """
        if self._workers:
            with self._worker_errors():
                observations, rewards, terminated, truncated, _ = self._envs.step_wait()
        else:
            observations, rewards, terminated, truncated, _ = self._envs.step(self._actions)
        return np.array(observations, np.float64), rewards, terminated, truncated

    def reset_done(self, observations: np.ndarray, done: np.ndarray) -> np.ndarray:
        """Observations with those of ended episodes [count] replaced by their next ones' first."""
        if not done.any():
            return observations
        with self._worker_errors():
            fresh, _ = self._envs.reset(options={"reset_mask": done})
        return np.where(done[:, None], fresh, observations)

    def state_dict(self) -> list[State] | None:
        """States of all environments, or None where they have none that could be kept."""
        with self._worker_errors():
            states = self._envs.call("capture")
        return None if any(state is None for state in states) else list(states)

    def load_state_dict(self, states: Sequence[State]) -> None:
        """Go on from states."""
        if len(states) != self.count:
            raise SpikerlError(
                f"the checkpoint holds {len(states)} environments, not {self.count}", "resume as it was run"
            )
        with self._worker_errors():
            self._envs.call("restore_own", states)

    @contextmanager
    def _worker_errors(self) -> Iterator[None]:
        """Turn the loss of a worker process into one line, and leave it at that for what an environment there raised.

        Gymnasium warns of the latter with the whole traceback, which SPIKERL_DEBUG=1 shows.
        """
        try:
            with warnings.catch_warnings():
                if os.environ.get("SPIKERL_DEBUG") != "1":
                    warnings.filterwarnings("ignore", ".*ERROR: ", module="gymnasium")
                yield
        except (EOFError, ConnectionError) as error:
            raise SpikerlError(
                f"a worker process of '{self.env_id}' has ended",
                "go on with --resume, or without --set env_workers=true",
            ) from error

    def close(self) -> None:
        """End the environments, and their processes if they have any."""
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # that a step was under way, where a run failed in it
                self._envs.close()
        except (EOFError, ConnectionError):  # a worker is gone already
            _kill(self._envs.processes)
            self._envs.closed = True  # or it is closed once more when it is collected
