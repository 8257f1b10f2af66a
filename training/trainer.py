"""The training run: environments, replay, updates, evaluation and artefacts in a run folder; also on several ranks."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from spikerl_deploy.environments import spec_of
from spikerl_deploy.errors import SpikerlError
from spikerl_deploy.files import write_json, write_text
from training.acting import Actions
from training.actor import Spaces
from training.carbon import CarbonTracker
from training.checkpoint import Progress, save_checkpoint
from training.device import bf16_in_hardware, choose_device, wants_compiling
from training.distributed import Group, Place
from training.draws import Draws, environment_seed
from training.evaluate import Evaluator
from training.faults import Faults
from training.graphs import GraphedUpdate
from training.guards import disk_errors, memory_errors
from training.normalizer import RunningNormalizer
from training.replay import ReplayBuffer, check_file, pack, row_width
from training.result import RESULT, Result, read_result
from training.resume import read_state, replay_file, save_state
from training.run_folder import (
    RunLock,
    check_run_folder,
    check_writable,
    clear_run_folder,
    remove_end,
    remove_half_written,
    seed_folders,
)
from training.run_manifest import write_manifest
from training.run_state import capture, restore
from training.runlog import RunLog
from training.settings import Settings
from training.signals import interrupts
from training.td3 import TD3
from training.vector import Environments

LOG_EVERY = 1_000  # environment steps between records of the losses


class Trainer:
    """One run of TD3 from its settings to its folder; with `resume`, the rest of one."""

    def __init__(
        self,
        settings: Settings,
        out: Path,
        force: bool = False,
        quiet: bool = False,
        on_evaluation: Callable[[int, float], bool] | None = None,
        resume: bool = False,
        place: Place | None = None,
    ) -> None:
        """Args: `on_evaluation` gets step and mean return of each evaluation and answers whether to stop (`pruned`)."""
        place = place if place is not None else Place()
        self.settings, self.out, self.on_evaluation, self.resume = settings, out, on_evaluation, resume
        self.first, self.quiet = place.rank == 0, quiet or place.rank > 0
        s = settings
        if resume:
            check_writable(out)
        elif self.first:
            check_run_folder(out, force)
        self.device = choose_device(s.device, place.local_rank)
        torch.set_num_threads(s.threads)
        torch.manual_seed(environment_seed(s.seed, place.rank, 0))  # Poisson coding of updates draws from it
        spec = spec_of(s.env)
        self.spaces = Spaces(spec.obs_dim, spec.action_low, spec.action_high)
        self.group = Group(place, self.device, s.dist_backend)
        self.stride = self.group.size * s.num_envs  # environment steps that one turn of the loop takes
        with memory_errors(s):
            self.agent = TD3(self.spaces, s, self.device, s.all_seeds, wants_compiling(s, self.device, self.group.size))
            self.normalizer = RunningNormalizer(s.seeds, spec.obs_dim, s.observation_clip, self.device)
        if self.group.size > 1:
            self.agent.average = self.group.average
            self.group.share([*self.agent.actor.parameters(), *self.agent.critic.parameters()])
            self.group.share([*self.agent.actor_target.parameters(), *self.agent.critic_target.parameters()])
        self.draws = Draws(s.all_seeds, self.group.rank, self.device)
        self.envs = Environments(s.env, s.seeds * s.num_envs, s.env_workers)
        self.evaluator = Evaluator(s.env, s.seeds, s.eval_episodes, s.eval_seed, self.group)
        graphed = self.device.type == "cuda" and s.cuda_graphs and self.group.size == 1
        self.actions = Actions(self.agent.actor, self.normalizer, graphed)
        self.evaluated_actions = Actions(self.agent.actor, self.normalizer)
        self._updater = GraphedUpdate(self._one_update) if graphed else self._one_update
        self.carbon = CarbonTracker(False, s.country)
        self.step, self.owed = 0, 0.0
        self.best, self.last = np.full((2, s.seeds), -np.inf)
        self.evaluated = False
        self.episode_returns = np.zeros((s.seeds, s.num_envs))
        self.losses: dict[str, Tensor] = {}
        self.updates_from = s.update_after
        self.lock = RunLock(out)
        self.faults = Faults(out, s.env, self.agent, self.group)

    def run(self) -> Result:
        """Train until the steps are done, the asked return is reached, or a signal comes; write all artefacts."""
        # Adam's moments of neurons without gradient decay into denormal numbers, which take up to ten times as long
        torch.set_flush_denormal(True)
        try:
            return self._run()
        finally:
            torch.set_flush_denormal(False)  # it is of the whole process, and off by default
            self.lock.release()

    def _run(self) -> Result:
        s = self.settings
        if self.first:
            self.lock.take()
        state = read_state(self.out, self.group.rank) if self.resume else None
        if state is not None and (ended := self._ended(state)) is not None:
            self._close()
            self.group.leave()
            return ended
        # before anything is written: it refuses a country that it does not know
        earlier = state["carbon"] if state else None
        self.carbon = CarbonTracker(s.carbon and self.first, s.country, earlier, s.carbon_intensity)
        if self.first and self.resume:
            remove_half_written(self.out)
        elif self.first:
            clear_run_folder(self.out, s.all_seeds)
            self.lock.take()
            # before all else: it marks the folder as a run, which --force may replace
            write_text(self.out / "config.toml", s.to_toml())
        self.group.wait()
        try:
            with memory_errors(s):
                self._make_replay(state["total"] if state else None)
        except SpikerlError:
            if self.first and not self.resume:
                (self.out / "config.toml").unlink()  # nothing has begun
            raise
        if self.first and not self.resume:
            write_manifest(self.out, s, self.group.size)
        folders = seed_folders(self.out, s.all_seeds) if self.first else []
        marks, earlier = (state["marks"], state["seconds"]) if state else (None, 0.0)
        stopped, going_on = "steps", state is None
        try:
            with disk_errors(self.out), memory_errors(s), interrupts() as signals:
                if state is None:
                    self.begin_episodes()
                else:
                    restore(self, state)
                with RunLog(folders, s.steps, s.tensorboard, self.quiet, marks, earlier, self.step) as log:
                    if state is None:
                        if s.bf16 and bf16_in_hardware(self.device) is False:  # later it could not be changed
                            log.say("warning: BF16 is emulated here, slower than float32; --no-bf16 trains in float32")
                        self._save(log)
                    elif self.first:  # not before: where it cannot go on, its records stay those of its end
                        remove_end(self.out)
                        write_text(self.out / "config.toml", s.to_toml())
                        write_manifest(self.out, s, self.group.size, self.step)
                    going_on = True
                    stopped = self._loop(log, signals)
                    seconds = log.seconds
                self._write_emissions()
        except BaseException:
            if going_on:  # a run that fails has spent energy too; how it failed matters more
                with suppress(SpikerlError):
                    self._write_emissions()
            raise
        finally:
            self._close()
        last = self.last if self.evaluated else np.full(s.seeds, math.nan)
        result = Result(
            *(self.step, self.agent.updates, seconds, float(self.best.mean()), float(last.mean()), stopped),
            *(self.group.size, tuple(zip(s.all_seeds, self.best.tolist(), last.tolist(), strict=True))),
        )
        if self.first:
            write_json(self.out / RESULT, result.document())
        self.group.leave()
        return result

    def _close(self) -> None:
        self.envs.close()
        self.evaluator.close()

    def _ended(self, state: Mapping[str, Any]) -> Result | None:
        """The result of a run that was to be resumed and has no step to do; its folder stays as it is."""
        step = state["step"]
        done = step >= self.settings.steps or self._reached(state["last"])
        return read_result(self.out, step) if done else None

    def _write_emissions(self) -> None:
        if self.first:
            write_json(self.out / "emissions.json", self.carbon.stop())

    def begin_episodes(self, step: int = 0) -> None:
        """Start an episode in every environment."""
        s = self.settings
        numbers = range(step, step + s.num_envs)
        seeds = [environment_seed(seed, self.group.rank, number) for seed in s.all_seeds for number in numbers]
        with self.faults.of_environments(self.step):
            self.observation = self.envs.reset(seeds)
        self.faults.check_environment(self.step, self.observation)
        self.normalizer.observe(self._by_seed(self.observation))
        self._exchange(False)

    def _loop(self, log: RunLog, signals: list[int]) -> str:
        s = self.settings
        if self._reached(self.last):  # a finished run was resumed
            return "stop_return"
        while self.step < s.steps:
            self.carbon.section("collecting")
            actions = self._choose()
            self.envs.send(actions)
            self._learn()  # what earlier steps owe; meanwhile worker processes step
            self.carbon.section("collecting")
            self._take(actions, log)
            interrupted = self._exchange(bool(signals))
            due = self._passed(s.eval_every) or self.step >= s.steps
            if due:  # only then: a save leaves what is owed to the next turn, so that it changes nothing
                self._learn()
            if self._passed(LOG_EVERY):
                self._log_losses(log)
            if due:
                self._evaluate(log)
            stopped = "interrupted" if interrupted and self.step < s.steps else self._stops() if due else None
            if stopped or due or self._passed(s.checkpoint_every):
                self._save(log)
            if stopped:
                if stopped == "interrupted":
                    log.say(f"interrupted at step {self.step}; go on with: spikerl train --resume {self.out}")
                return stopped
            if self._passed(100) or self.step >= s.steps:
                log.progress(self.step, float(self.last.mean()) if self.evaluated else None)
        return "steps"

    def _choose(self) -> np.ndarray:
        """Exploring actions [S * num_envs, act_dim], of all environments in the order of seeds."""
        s, low, high = self.settings, self.spaces.action_low, self.spaces.action_high
        if self.step < s.start_steps:
            chosen = self.draws.uniform_actions(s.num_envs, low, high)
        else:
            noise = self.draws.exploration_noise(s.num_envs, self.spaces.act_dim) * (high - low) / 2
            best = self.actions(self._by_seed(self.observation), self.draws.exploration)
            chosen = np.clip(best + s.explore_noise * noise, low, high)
        return chosen.astype(np.float32).reshape(-1, self.spaces.act_dim)

    def _take(self, actions: np.ndarray, log: RunLog) -> None:
        """Receive what the actions led to, and keep it."""
        s = self.settings
        with self.faults.of_environments(self.step + self.stride):
            following, rewards, terminated, truncated = self.envs.receive()
        self.step += self.stride
        self.faults.check_environment(self.step, following, rewards)
        rows = self._by_seed(pack(self.observation, actions, rewards, following, terminated))
        self.replay.store(np.ascontiguousarray(rows.swapaxes(0, 1)))
        self.normalizer.observe(self._by_seed(following))
        self.episode_returns += self._by_seed(rewards)
        if self.step >= self.updates_from:
            self.owed += s.update_to_data * s.num_envs
        done = terminated | truncated
        self.observation = following
        if done.any():
            for seed, env in zip(*np.nonzero(self._by_seed(done)), strict=True):
                log.scalars(self.step, "episode", {"return": self.episode_returns[seed, env]}, seed)
                self.episode_returns[seed, env] = 0.0
            with self.faults.of_environments(self.step):
                self.observation = self.envs.reset_done(following, done)
            self.faults.check_environment(self.step, self.observation)
            self.normalizer.observe(self._by_seed(self.observation), self._by_seed(done))

    def _learn(self) -> None:
        """Do the updates that fell due."""
        if self.owed < max(1.0, self.settings.update_every * self.settings.update_to_data):
            return
        self.carbon.section("updating")
        while self.owed >= 1.0:
            self.losses |= self._updater(self.agent.count_update())
            self.owed -= 1.0
        if self.device.type == "cpu":  # on a GPU looking means waiting: there it is done when losses are logged
            self.faults.check(self.step)

    def _one_update(self, with_actor: bool) -> dict[str, Tensor]:
        batch_size = self.settings.batch_size
        index = self.draws.index(self.replay.size, self.replay.window, self.agent.batches * batch_size)
        rows = self.replay.gather(index)
        normal = self.draws.target_noise(batch_size, self.spaces.act_dim)
        statistics = (self.normalizer.mean_tensor, self.normalizer.inverse_std_tensor)
        return self.agent.step(rows, normal, statistics, with_actor)

    def _exchange(self, signalled: bool) -> bool:
        """Merge the ranks' statistics, and learn whether any of them was told to end."""
        if self.group.size == 1:
            self.normalizer.merge()
            return signalled
        everyone = self.group.exchange(np.append(self.normalizer.pending(), float(signalled)))
        self.normalizer.merge([values[:-1] for values in everyone])
        return any(values[-1] for values in everyone)

    def _evaluate(self, log: RunLog) -> None:
        self.carbon.section("evaluating")
        self.faults.check(self.step)
        self.faults.check_parameters(self.step)  # an actor of NaN acts: no spike is a decision too
        returns = self.evaluator(self.evaluated_actions)
        self.last, self.evaluated = returns.mean(axis=1), True
        for seed, own in enumerate(returns):
            log.scalars(self.step, "eval", {"return_mean": own.mean(), "return_std": own.std()}, seed)
        log.progress(self.step, float(self.last.mean()))
        better = self.last > self.best
        self.best = np.maximum(self.best, self.last)
        for seed in np.flatnonzero(better):
            self._save_policy("best", seed)

    def _stops(self) -> str | None:
        """Why to stop after an evaluation, or None."""
        if self._reached(self.last):
            return "stop_return"
        if self.on_evaluation is not None and self.on_evaluation(self.step, float(self.last.mean())):
            return "pruned"
        return None

    def _reached(self, last: np.ndarray) -> bool:
        """Whether every seed's last evaluation, -inf before the first, has the return to stop at."""
        return self.settings.stop_return is not None and bool(last.min() >= self.settings.stop_return)

    def _passed(self, every: int) -> bool:
        """Whether the last turn reached or passed a multiple of so many steps."""
        return self.step // every != (self.step - self.stride) // every

    def _by_seed(self, values: np.ndarray) -> np.ndarray:
        """[S * num_envs, ...] as [S, num_envs, ...]."""
        return values.reshape(self.settings.seeds, self.settings.num_envs, *values.shape[1:])

    def _make_replay(self, stored: int | None) -> None:
        """Make the buffer, or open that of a run in which so many transitions a seed had been stored."""
        s, size = self.settings, self.group.size
        local_steps = -(-s.steps // size) + s.num_envs
        capacity = max(min(s.buffer_size, max(local_steps, stored or 0)), s.num_envs)
        wraps = capacity < local_steps
        slack = s.checkpoint_every // size + 2 * s.num_envs if wraps and s.save_replay else 0
        width = row_width(self.spaces.obs_dim, self.spaces.act_dim)
        file = replay_file(self.out, self.group.rank) if s.save_replay else None
        if file is not None and stored is not None:
            check_file(file, min(stored, capacity + slack) * s.seeds * width)
        self.replay = ReplayBuffer(s.seeds, width, capacity, self.device, slack, file)

    def _save(self, log: RunLog) -> None:
        """Write the policies as they are, and the state from which the run can go on."""
        self.carbon.section("saving")
        self.faults.check(self.step)
        self.faults.check_parameters(self.step)
        for seed in range(self.settings.seeds):
            self._save_policy("last", seed)
        self.replay.save()
        rank, size = self.group.rank, self.group.size
        save_state(self.out, self.step, rank, size, self.settings, capture(self, log), self.group.wait)

    def say(self, text: str) -> None:
        """A line on stderr, before the log is open."""
        if not self.quiet:
            print(text, file=sys.stderr, flush=True)

    def _save_policy(self, name: str, seed: int) -> None:
        if not self.first:
            return
        folder = seed_folders(self.out, self.settings.all_seeds)[seed]
        eval_return = float(self.last[seed]) if self.evaluated else None
        progress = Progress(self.step, self.agent.updates, eval_return)
        normalization = self.normalizer.snapshot(seed)
        path = folder / "checkpoints" / f"{name}.pt"
        save_checkpoint(path, self.agent.actor, normalization, self.settings, progress, seed)

    def _log_losses(self, log: RunLog) -> None:
        self.faults.check(self.step)
        for name, values in self.losses.items():
            for seed, value in enumerate(values.tolist()):
                log.scalars(self.step, "train", {name: value}, seed)
