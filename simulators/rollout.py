"""The closed loop: episodes of a real environment, side by side, on any backend. The backend sees only spikes."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from simulators.observers import ControlStep, FirstObservations, FirstSpikes, Observer
from simulators.perturb import Disturbance, Perturbation
from simulators.protocol import Counts, Session
from spikerl_deploy.codec import Spikes, decode, encode
from spikerl_deploy.environments import check_fits, environment_error, environment_spec, make_environment
from spikerl_deploy.errors import SpikerlError
from spikerl_deploy.policy import Float, Policy

BYTE_MAX = 255  # calls of the backend whose input spikes a byte can count


@dataclass(frozen=True, eq=False)
class Rollout:
    """Episodes of a policy on a backend.

    Attributes:
        seeds, returns, lengths: one an episode; undiscounted returns, lengths in control steps, of what was played.
        episode_spikes: for the input and each layer [E, n], spikes of each neuron in each episode.
        infer_seconds: wall time of each call of the backend, which serves up to `batch` episodes.
        observations: [M, obs_dim], as the environment gave them, of the first M control steps, if they were recorded.
        inputs: [N, B, T, n_in] spikes fed to the backend in its first N calls, if they were recorded.
        rasters: for each layer [N, B, T, n], the spikes it gave, likewise.
    """

    seeds: tuple[int, ...]
    returns: tuple[float, ...]
    lengths: tuple[int, ...]
    episode_spikes: tuple[NDArray[np.int64], ...]
    infer_seconds: NDArray[np.float64]
    batch: int
    wall_seconds: float
    observations: NDArray[np.float64] | None = None
    inputs: Spikes | None = None
    rasters: tuple[Spikes, ...] | None = None

    @property
    def control_steps(self) -> int:
        """Control steps of all episodes together."""
        return sum(self.lengths)

    @property
    def spike_totals(self) -> tuple[NDArray[np.int64], ...]:
        """For the input and each layer [n], spikes of each neuron over all control steps."""
        return tuple(spikes.sum(axis=0) for spikes in self.episode_spikes)


def rollout(
    session: Session,
    env_id: str,
    seeds: Sequence[int],
    progress: Callable[[int, int], None] | None = None,
    record: int = 0,
    observe: int = 0,
    perturbation: Perturbation | None = None,
    observers: Sequence[Observer] = (),
    limit: int | None = None,
) -> Rollout:
    """Play one episode of the session's policy for each seed, side by side; a slot that ends takes the next seed.

    An episode ends when the environment terminates or truncates it. Its course depends on its seed alone,
    not on what runs beside it, nor on who watches.

    Args:
        progress: called with (control steps, finished episodes) after every call of the backend.
        record: keep the spikes of the input and of every layer of the first so many calls.
        observe: keep the observations of the first so many control steps.
        limit: stop after so many control steps of all episodes together, whether or not they have ended.

    Raises:
        SpikerlError: the environment cannot be made, does not fit the policy, fails or gives what is not finite, or the
            backend failed.
    """
    spikes, observations = FirstSpikes(record), FirstObservations(observe)
    own: list[Observer] = [*([spikes] if record > 0 else []), *([observations] if observe > 0 else [])]
    slots = [_Slot(env_id) for _ in range(min(session.batch, len(seeds)))]
    try:
        check_fits(session.policy, env_id, environment_spec(slots[0].env, env_id))
        return _Play(session, slots, list(seeds), perturbation, [*own, *observers], limit).run(
            progress, spikes, observations
        )
    finally:
        for slot in slots:
            slot.env.close()


def choose_actions(policy: Policy, counts: Counts) -> Float:
    """Actions [B, act_dim] of output counts [B, n_out], within the bounds to which training clips.

    The squashed action is within them but for rounding, where the bounds are not symmetric.
    """
    assert policy.decoder is not None
    actions = decode(counts, policy.time_steps, policy.decoder)
    clipped: Float = np.minimum(np.maximum(actions, policy.decoder.action_low), policy.decoder.action_high)
    return clipped


class _Slot:
    """A place in the batch: an environment and the episode that runs in it."""

    def __init__(self, env_id: str) -> None:
        self.env, self.env_id = make_environment(env_id), env_id
        self.episode = -1
        self.generator = np.random.default_rng(0)
        self.observation = np.zeros(0)
        self.disturbance: Disturbance | None = None

    @property
    def running(self) -> bool:
        return self.episode >= 0


class _Play:
    """Episodes under way."""

    def __init__(
        self,
        session: Session,
        slots: list[_Slot],
        seeds: list[int],
        perturbation: Perturbation | None,
        observers: Sequence[Observer],
        limit: int | None,
    ) -> None:
        self.session, self.slots, self.seeds, self.observers = session, slots, seeds, observers
        self.perturbation, self.limit = perturbation, limit
        self.observed = slots[0].env.observation_space.shape if slots else ()
        self.waiting: Iterator[int] = iter(range(len(seeds)))
        self.batch = np.zeros(session.input_shape, dtype=bool)
        self.returns, self.lengths = np.zeros(len(seeds)), np.zeros(len(seeds), dtype=int)
        sizes = session.policy.sizes
        # Spikes of each slot's episode so far; `arrived` are those of the input not yet in `counted_inputs`.
        self.counted_inputs, *self.counted_layers = (np.zeros((session.batch, n), dtype=np.int32) for n in sizes)
        self.arrived, self.bytes = np.zeros(session.input_shape, dtype=np.uint8), self.batch.view(np.uint8)
        self.episode_spikes = tuple(np.zeros((len(seeds), size), dtype=np.int64) for size in sizes)
        self.seconds: list[float] = []

    def run(
        self, progress: Callable[[int, int], None] | None, spikes: FirstSpikes, observations: FirstObservations
    ) -> Rollout:
        for slot in self.slots:
            self._start(slot)
        started, finished = time.perf_counter(), 0
        while active := [row for row, slot in enumerate(self.slots) if slot.running]:
            if self.limit is not None and self.lengths.sum() >= self.limit:
                break
            finished += self._step(active)
            if progress is not None:
                progress(int(self.lengths.sum()), finished)
        for slot in self.slots:
            self._keep_spikes(slot)  # of episodes that the limit cut short
        return Rollout(
            tuple(self.seeds),
            tuple(self.returns.tolist()),
            tuple(self.lengths.tolist()),
            self.episode_spikes,
            np.array(self.seconds),
            self.session.batch,
            time.perf_counter() - started,
            observations.stacked(),
            *spikes.stacked(),
        )

    def _start(self, slot: _Slot) -> None:
        """Begin the next episode that waits, or leave the slot empty."""
        slot.episode = next(self.waiting, -1)
        if not slot.running:
            return
        seed = self.seeds[slot.episode]
        try:
            slot.observation, _ = slot.env.reset(seed=seed)
        except Exception as error:
            raise environment_error(slot.env_id, f"failed at the reset of seed {seed}", error) from error
        slot.generator = np.random.default_rng([seed, 1])  # Poisson coding; not the environment's stream
        if self.perturbation is not None:
            slot.disturbance = self.perturbation.begin(self.session.policy, seed)

    def _step(self, active: list[int]) -> int:
        """One control step of the active slots; how many episodes it ended."""
        slots, policy, batch = [self.slots[row] for row in active], self.session.policy, self.batch
        rows = slice(None) if len(active) == len(batch) else active  # a view where all run
        episodes = [slot.episode for slot in slots]
        for slot in slots:
            if np.shape(slot.observation) != self.observed:
                raise SpikerlError(
                    f"the environment observes {np.shape(slot.observation)} {self._when(slot.episode)}, "
                    f"its space says {self.observed}"
                )
        clean = seen = np.stack([slot.observation for slot in slots])
        if not math.isfinite(clean.sum()):
            self._check_finite("observation", clean, episodes)
        generators = [slot.generator for slot in slots]
        batch.fill(False)
        if self.perturbation is None:
            batch[rows] = encode(policy, clean, generators)
        else:
            disturbed = [slot.disturbance for slot in slots if slot.disturbance is not None]
            seen = np.stack([one.sense(observation) for one, observation in zip(disturbed, clean, strict=True)])
            batch[rows] = encode(policy, seen, generators)
            for row, one in zip(active, disturbed, strict=True):
                one.lose(batch[row])
        wanted = any(observer.wants_rasters(episodes) for observer in self.observers)
        before = time.perf_counter()
        spikes = self.session.infer(batch, rasters=wanted)
        self.seconds.append(time.perf_counter() - before)
        self._count(spikes.counts)
        actions = choose_actions(policy, spikes.output_counts[rows])
        if not math.isfinite(actions.sum()):
            self._check_finite("action", actions, episodes)
        applied = [
            action if slot.disturbance is None else slot.disturbance.delay(action)
            for slot, action in zip(slots, actions, strict=True)
        ]
        rewards, terminated, truncated = [], [], []
        for slot, action in zip(slots, applied, strict=True):
            try:
                slot.observation, reward, ends, runs_out, _ = slot.env.step(action)
                rewards.append(float(reward))
                terminated.append(bool(ends))
                truncated.append(bool(runs_out))
            except Exception as error:
                raise environment_error(slot.env_id, f"failed {self._when(slot.episode)}", error) from error
            self.lengths[slot.episode] += 1
            if not math.isfinite(rewards[-1]):
                raise _came_apart(f"the reward is {rewards[-1]} {self._when(slot.episode)}")
            self.returns[slot.episode] += rewards[-1]
        if self.observers:
            happened = (actions, applied, rewards, terminated, truncated)
            step = ControlStep(episodes, active, clean, seen, batch, spikes.rasters, *happened)
            for observer in self.observers:
                observer.observe(step)
        done = [slot for slot, *ends in zip(slots, terminated, truncated, strict=True) if any(ends)]
        for slot in done:
            self._keep_spikes(slot)
            self._start(slot)
        return len(done)

    def _count(self, counts: Sequence[Counts]) -> None:
        """Count the spikes of a control step for every slot, whether it runs or not: `_keep_spikes` sorts that out."""
        self.arrived += self.bytes  # neurons and time steps apart, for a while: faster than their sum in every step
        if len(self.seconds) % BYTE_MAX == 0:
            self._count_inputs()
        for counted, count in zip(self.counted_layers, counts, strict=True):
            counted += count

    def _count_inputs(self) -> None:
        self.counted_inputs += self.arrived.sum(axis=1, dtype=np.int32)
        self.arrived.fill(0)

    def _keep_spikes(self, slot: _Slot) -> None:
        """Book what was counted in the slot to its episode, if there is one, and count from 0 again."""
        self._count_inputs()
        row = self.slots.index(slot)
        for spikes, counted in zip(self.episode_spikes, (self.counted_inputs, *self.counted_layers), strict=True):
            if slot.running:
                spikes[slot.episode] += counted[row]
            counted[row] = 0

    def _when(self, episode: int) -> str:
        return f"after {self.lengths[episode]} control steps of seed {self.seeds[episode]}"

    def _check_finite(self, what: str, values: NDArray[np.floating], episodes: list[int]) -> None:
        if np.isfinite(values).all():
            return
        row, place = (int(index) for index in np.argwhere(~np.isfinite(values))[0])
        found = f"value {place} of the {what} is {values[row, place]} {self._when(episodes[row])}"
        if what == "action":
            raise SpikerlError(f"{found}: the decoder overflows float32", "spikerl inspect POLICY")
        raise _came_apart(found)


def _came_apart(found: str) -> SpikerlError:
    return SpikerlError(f"{found}: the simulation has come apart", "another --seed, or less of --perturb")
