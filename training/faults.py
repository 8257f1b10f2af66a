"""Environments that fail, and numbers that are not finite: named, and the run ended before they are saved."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch

from spikerl_deploy.environments import environment_error
from spikerl_deploy.errors import SpikerlError
from training.distributed import Group
from training.td3 import TD3


class Faults:
    """Watches what the environments give and what the updates leave; the last state saved is from before a fault."""

    def __init__(self, out: Path, env_id: str, agent: TD3, group: Group) -> None:
        self._folder = out if len(agent.seeds) == 1 else out / "seed-*"
        self._out, self._env_id, self._agent, self._group = out, env_id, agent, group

    @contextmanager
    def of_environments(self, step: int) -> Iterator[None]:
        """Around what environments do at a step.

        Raises:
            SpikerlError: for whatever one of them raises.
        """
        try:
            yield
        except SpikerlError:
            raise
        except Exception as error:
            failed = environment_error(self._env_id, f"failed at step {step} (rank {self._group.rank})", error)
            if self._saved:
                failed.hint = f"mend it, then go on with: spikerl train --resume {self._out}"
            raise failed from error

    def check_environment(self, step: int, observations: np.ndarray, rewards: np.ndarray | None = None) -> None:
        """Check observations [n, obs_dim] and rewards [n].

        Raises:
            SpikerlError: one is not finite.
        """
        if not np.isfinite(observations).all():
            env, place = np.argwhere(~np.isfinite(observations))[0]
            what = f"observation[{place}] = {observations[env, place]}"
        elif rewards is not None and not np.isfinite(rewards).all():
            env = int(np.flatnonzero(~np.isfinite(rewards))[0])
            what = f"reward = {rewards[env]}"
        else:
            return
        raise self._error(f"'{self._env_id}' gave {what} at step {step} (environment {env}, rank {self._group.rank})")

    def check(self, step: int) -> None:
        """Check every gradient and loss since the last check.

        A fault is noted by the update in which it arose, so that it may be looked for seldom. A gradient whose squares
        overflow counts as not finite.

        Raises:
            SpikerlError: one was not finite.
        """
        fault = self._agent.watch.fault()
        if fault is not None:
            update, name = fault
            what = f"the gradient of {name}" if "." in name else name
            raise self._error(f"{what} is not finite at update {update}, found at step {step}")

    def check_parameters(self, step: int) -> None:
        """Check what is about to be saved; a step size can overflow a parameter by a gradient that is finite.

        Raises:
            SpikerlError: a parameter is not finite.
        """
        for which, module in self._agent.learners.items():
            for name, value in module.named_parameters():
                if not torch.isfinite(value).all():
                    raise self._error(f"{which}.{name} is not finite at step {step}")

    def _error(self, what: str) -> SpikerlError:
        kept = f"the last good checkpoint is {self._folder / 'checkpoints' / 'last.pt'}; " if self._saved else ""
        return SpikerlError(
            f"{what}; the run is stopped", f"{kept}for a new run try --set actor_lr=1e-4 --set critic_lr=1e-4"
        )

    @property
    def _saved(self) -> bool:
        return (self._out / "resume" / "latest.json").is_file()
