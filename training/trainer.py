"""The training run: environment, replay, updates, evaluation and artefacts in a run folder."""

from __future__ import annotations

import math
import os
import shutil
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from spikerl_deploy.environments import environment_spec, make_environment
from spikerl_deploy.errors import SpikerlError
from spikerl_deploy.files import write_json, write_text
from spikerl_deploy.manifest import build_manifest
from training.actor import Spaces
from training.carbon import CarbonTracker
from training.checkpoint import Progress, save_checkpoint
from training.device import choose_device
from training.evaluate import Evaluator
from training.normalizer import RunningNormalizer
from training.replay import Batch, ReplayBuffer
from training.runlog import RunLog
from training.settings import Settings
from training.td3 import TD3

LOG_EVERY = 1_000  # environment steps between records of the losses


@dataclass(frozen=True)
class Result:
    """Outcome of a run. `stopped` says why: `steps`, `stop_return`, `pruned` or `interrupted`."""

    steps: int
    seconds: float
    best_return: float
    final_return: float
    stopped: str

    def document(self) -> dict[str, Any]:
        """The result for JSON, which knows no NaN: what is not finite becomes null."""
        return {
            name: None if isinstance(value, float) and not math.isfinite(value) else value
            for name, value in vars(self).items()
        }


def check_run_folder(out: Path, force: bool) -> None:
    """Check that a run may be written to a folder, and that it can be; an earlier run in it is left as it is.

    Raises:
        SpikerlError: it holds something and `force` is false, holds something that is no run, or cannot be written.
    """
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        if not force:
            raise SpikerlError(f"'{out}' exists and is not overwritten", "add --force, or choose another --out")
        if not ((out / "config.toml").is_file() and (out / "checkpoints").is_dir()):
            raise SpikerlError(f"'{out}' is no run folder, --force does not delete it", "choose another --out")
    there = next(folder for folder in (out, *out.absolute().parents) if folder.exists())
    if not there.is_dir() or not os.access(there, os.W_OK):
        raise SpikerlError(f"cannot write run folder '{out}': '{there}' is not writable", "choose another --out")


def _clear_run_folder(out: Path) -> None:
    """Make the folder, or empty that of an earlier run."""
    try:
        out.mkdir(parents=True, exist_ok=True)
        for path in out.iterdir():
            if path.is_dir():
                shutil.rmtree(path)
            else:
                path.unlink()
        (out / "checkpoints").mkdir()
    except OSError as error:
        raise SpikerlError(f"cannot write run folder '{out}': {error.strerror}", "choose another --out") from error


@contextmanager
def _memory_errors(settings: Settings) -> Iterator[None]:
    """Turn a failed allocation, which torch reports as a RuntimeError, into an error of ours."""
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if isinstance(error, RuntimeError) and "alloc" not in str(error) and "out of memory" not in str(error):
            raise
        raise SpikerlError(
            f"not enough memory for hidden {list(settings.hidden)}, batch_size {settings.batch_size}, "
            f"buffer_size {settings.buffer_size}",
            "set smaller ones with --set",
        ) from error


@contextmanager
def _interrupts() -> Iterator[list[int]]:
    """Collect SIGINT and SIGTERM instead of dying, so that the run can save; a second one dies."""
    seen: list[int] = []

    def note(number: int, _frame: object) -> None:
        if seen:
            raise KeyboardInterrupt
        seen.append(number)

    previous = {number: signal.signal(number, note) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield seen
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


class Trainer:
    """One run of TD3 from its settings to its folder."""

    def __init__(
        self,
        settings: Settings,
        out: Path,
        force: bool = False,
        quiet: bool = False,
        on_evaluation: Callable[[int, float], bool] | None = None,
    ) -> None:
        """Args: `on_evaluation` gets step and mean return of each evaluation and answers whether to stop (`pruned`)."""
        self.settings, self.out, self.quiet, self.on_evaluation = settings, out, quiet, on_evaluation
        check_run_folder(out, force)
        self.device = choose_device(settings.device)
        self.env = make_environment(settings.env)
        spec = environment_spec(self.env, settings.env)
        self.spaces = Spaces(spec.obs_dim, spec.action_low, spec.action_high)
        torch.set_num_threads(settings.threads)
        torch.manual_seed(settings.seed)
        self.noise = np.random.default_rng(settings.seed)
        with _memory_errors(settings):
            self.agent = TD3(self.spaces, settings, self.device)
            capacity = min(settings.buffer_size, settings.steps)
            self.replay = ReplayBuffer(spec.obs_dim, self.spaces.act_dim, capacity, self.device, settings.seed)
        self.normalizer = RunningNormalizer(spec.obs_dim, settings.observation_clip, self.device)
        self.evaluator = Evaluator(settings.env, settings.eval_episodes, settings.eval_seed)
        self.best_return, self.last_return = -math.inf, None  # type: float, float | None

    def run(self) -> Result:
        """Train until the steps are done, the asked return is reached, or a signal comes; write all artefacts."""
        s = self.settings
        carbon = CarbonTracker(s.carbon, s.country)
        _clear_run_folder(self.out)
        write_text(self.out / "config.toml", s.to_toml())
        write_json(self.out / "manifest.json", build_manifest(s.seed))
        started = time.monotonic()
        try:
            with RunLog(self.out, s.steps, s.tensorboard, self.quiet) as log, _interrupts() as signals:
                with _memory_errors(s):
                    step, stopped = self._loop(log, signals)
        finally:
            write_json(self.out / "emissions.json", carbon.stop())  # a run that fails has spent its energy too
            self.env.close()
            self.evaluator.close()
        final = math.nan if self.last_return is None else self.last_return
        result = Result(step, time.monotonic() - started, self.best_return, final, stopped)
        write_json(self.out / "result.json", result.document())
        return result

    def _loop(self, log: RunLog, signals: list[int]) -> tuple[int, str]:
        s = self.settings
        observation, _ = self.env.reset(seed=s.seed)
        self._check_finite(0, observation, 0.0)
        self.env.action_space.seed(s.seed)
        self.normalizer.observe(observation)
        self.normalizer.refresh()
        episode_return, losses = 0.0, {}  # type: float, dict[str, Tensor]
        for step in range(1, s.steps + 1):
            action = self._explore(observation) if step > s.start_steps else self.env.action_space.sample()
            following, reward, terminated, truncated, _ = self.env.step(action)
            self._check_finite(step, following, reward)
            self.replay.store(
                observation.astype(np.float32), action, float(reward), following.astype(np.float32), bool(terminated)
            )
            self.normalizer.observe(following)
            episode_return += float(reward)
            observation = following
            if terminated or truncated:
                log.scalars(step, "episode", {"return": episode_return})
                observation, _ = self.env.reset()
                self._check_finite(step, observation, 0.0)
                self.normalizer.observe(observation)
                episode_return = 0.0
            self.normalizer.refresh()
            if step >= s.update_after and step % s.update_every == 0:
                for _ in range(s.update_every):
                    losses |= self.agent.update(self._batch())
            if step % LOG_EVERY == 0 and losses:
                self._log_losses(log, step, losses)
            if step % s.eval_every == 0 or step == s.steps or signals:
                self._evaluate(log, step)
                if signals:
                    log.say(f"interrupted at step {step}; {self.out}/checkpoints/last.pt can be exported as it is")
                    return step, "interrupted"
                if s.stop_return is not None and self.last_return is not None and self.last_return >= s.stop_return:
                    return step, "stop_return"
                if self.on_evaluation is not None and self.last_return is not None:
                    if self.on_evaluation(step, self.last_return):
                        return step, "pruned"
            if step % 100 == 0 or step == s.steps:
                log.progress(step, self.last_return)
        return s.steps, "steps"

    def _explore(self, observation: np.ndarray) -> np.ndarray:
        raw = torch.from_numpy(observation.astype(np.float32)).to(self.device)
        action = self.agent.act(self.normalizer(raw).unsqueeze(0))[0].cpu().numpy()
        half_range = (self.spaces.action_high - self.spaces.action_low) / 2
        action = action + self.noise.normal(0.0, self.settings.explore_noise, action.shape) * half_range
        clipped: np.ndarray = np.clip(action, self.spaces.action_low, self.spaces.action_high).astype(np.float32)
        return clipped

    def _batch(self) -> Batch:
        batch = self.replay.sample(self.settings.batch_size)
        return replace(batch, o_tm1=self.normalizer(batch.o_tm1), o_t=self.normalizer(batch.o_t))

    def _evaluate(self, log: RunLog, step: int) -> None:
        returns = self.evaluator(self.agent, self.normalizer)
        self._check_parameters(step)
        self.last_return = float(returns.mean())
        log.scalars(step, "eval", {"return_mean": self.last_return, "return_std": float(returns.std())})
        log.progress(step, self.last_return)
        progress = Progress(step, self.agent.updates, self.last_return)
        names = ["last"]
        if self.last_return > self.best_return:
            self.best_return = self.last_return
            names.append("best")
        for name in names:
            path = self.out / "checkpoints" / f"{name}.pt"
            save_checkpoint(path, self.agent, self.normalizer, self.spaces, self.settings, progress)

    def _log_losses(self, log: RunLog, step: int, losses: dict[str, Tensor]) -> None:
        values = {name: float(value) for name, value in losses.items()}
        for name, value in values.items():
            if not math.isfinite(value):
                raise self._fault(f"{name} is {value} at step {step}")
        log.scalars(step, "train", values)

    def _check_parameters(self, step: int) -> None:
        """Refuse to save networks that are not finite: a NaN current is silent, so no loss shows it."""
        for name, module in (("actor", self.agent.actor), ("critic", self.agent.critic)):
            for key, value in module.named_parameters():
                if not torch.isfinite(value).all():
                    raise self._fault(f"{name}.{key} holds values that are not finite at step {step}")

    def _fault(self, what: str) -> SpikerlError:
        saved = self.out / "checkpoints" / "last.pt"
        good = f"the last good checkpoint is {saved}; " if saved.is_file() else ""
        return SpikerlError(f"{what}; the run is stopped", f"{good}try --set actor_lr=1e-4 --set critic_lr=1e-4")

    def _check_finite(self, step: int, observation: np.ndarray, reward: Any) -> None:
        if not (np.isfinite(observation).all() and math.isfinite(float(reward))):
            raise self._fault(f"'{self.settings.env}' gave a value that is not finite at step {step}")
