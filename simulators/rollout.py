"""The closed loop: episodes of a real environment, side by side, on any backend. The backend sees only spikes."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from simulators.protocol import Session
from spikerl_deploy.codec import Spikes, decode, encode
from spikerl_deploy.environments import check_fits, environment_spec, make_environment


@dataclass(frozen=True, eq=False)
class Rollout:
    """Episodes of a policy on a backend.

    Attributes:
        seeds, returns, lengths: one an episode; undiscounted returns, lengths in control steps.
        spike_totals: for the input and each layer [n], spikes of each neuron over all control steps.
        infer_seconds: wall time of each call of the backend, which serves up to `batch` episodes.
        observations: [M, obs_dim], as the environment gave them, of the first M control steps, if they were recorded.
        inputs: [N, B, T, n_in] spikes fed to the backend in its first N calls, if they were recorded.
        rasters: for each layer [N, B, T, n], the spikes it gave, likewise.
    """

    seeds: tuple[int, ...]
    returns: tuple[float, ...]
    lengths: tuple[int, ...]
    spike_totals: tuple[NDArray[np.int64], ...]
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


def rollout(
    session: Session,
    env_id: str,
    seeds: Sequence[int],
    progress: Callable[[int, int], None] | None = None,
    record: int = 0,
    observe: int = 0,
) -> Rollout:
    """Play one episode of the session's policy for each seed, side by side; a slot that ends takes the next seed.

    An episode ends when the environment terminates or truncates it. Its course depends on its seed alone,
    not on what runs beside it.

    Args:
        progress: called with (control steps, finished episodes) after every call of the backend.
        record: keep the spikes of the input and of every layer of the first so many calls.
        observe: keep the observations of the first so many control steps.

    Raises:
        SpikerlError: the environment cannot be made or does not fit the policy, or the backend failed.
    """
    slots = [_Slot(env_id) for _ in range(min(session.batch, len(seeds)))]
    try:
        check_fits(session.policy, env_id, environment_spec(slots[0].env, env_id))
        return _play(session, slots, list(seeds), progress, record, observe)
    finally:
        for slot in slots:
            slot.env.close()


class _Slot:
    """A place in the batch: an environment and the episode that runs in it."""

    def __init__(self, env_id: str) -> None:
        self.env = make_environment(env_id)
        self.episode: int | None = None
        self.generator = np.random.default_rng(0)
        self.observation = np.zeros(0)

    def start(self, episode: int | None, seeds: Sequence[int]) -> None:
        self.episode = episode
        if episode is not None:
            self.observation, _ = self.env.reset(seed=seeds[episode])
            self.generator = np.random.default_rng([seeds[episode], 1])  # Poisson coding; not the environment's stream


def _play(
    session: Session,
    slots: list[_Slot],
    seeds: list[int],
    progress: Callable[[int, int], None] | None,
    record: int,
    observe: int,
) -> Rollout:
    policy = session.policy
    assert policy.decoder is not None
    returns, lengths = np.zeros(len(seeds)), np.zeros(len(seeds), dtype=int)
    totals = [np.zeros(size, dtype=np.int64) for size in policy.sizes]
    batch = np.zeros(session.input_shape, dtype=bool)
    recorded: list[tuple[Spikes, ...]] = []
    observed: list[NDArray[np.float64]] = []
    seconds: list[float] = []
    waiting = iter(range(len(seeds)))
    for slot in slots:
        slot.start(next(waiting, None), seeds)
    started, finished = time.perf_counter(), 0
    while active := [row for row, slot in enumerate(slots) if slot.episode is not None]:
        observations = np.stack([slots[row].observation for row in active])
        if len(observed) < observe:
            observed.extend(observations.astype(np.float64))
        batch[:] = False
        batch[active] = encode(policy, observations, [slots[row].generator for row in active])
        before = time.perf_counter()
        spikes = session.infer(batch, rasters=len(recorded) < record)
        seconds.append(time.perf_counter() - before)
        actions = decode(spikes.output_counts[active], policy.time_steps, policy.decoder)
        for total, counts in zip(totals, (batch[active].sum(axis=1), *(c[active] for c in spikes.counts)), strict=True):
            total += counts.sum(axis=0)
        if spikes.rasters is not None:
            recorded.append((batch.copy(), *spikes.rasters))
        for row, action in zip(active, actions, strict=True):
            slot = slots[row]
            assert slot.episode is not None
            slot.observation, reward, terminated, truncated, _ = slot.env.step(action)
            returns[slot.episode] += float(reward)
            lengths[slot.episode] += 1
            if terminated or truncated:
                finished += 1
                slot.start(next(waiting, None), seeds)
        if progress is not None:
            progress(int(lengths.sum()), finished)
    return Rollout(
        tuple(seeds),
        tuple(returns.tolist()),
        tuple(lengths.tolist()),
        tuple(totals),
        np.array(seconds),
        session.batch,
        time.perf_counter() - started,
        np.stack(observed[:observe]) if observed else None,
        *_stacked(recorded),
    )


def _stacked(recorded: list[tuple[Spikes, ...]]) -> tuple[Spikes | None, tuple[Spikes, ...] | None]:
    if not recorded:
        return None, None
    inputs, *layers = (np.stack(parts) for parts in zip(*recorded, strict=True))
    return inputs, tuple(layers)
