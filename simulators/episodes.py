"""Recorded episodes: every observation, spike, action and reward of a closed loop, and the file that keeps them."""

from __future__ import annotations

import itertools
import json
import zipfile
import zlib
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from simulators.observers import ControlStep
from spikerl_deploy.codec import Spikes
from spikerl_deploy.errors import SpikerlError
from spikerl_deploy.files import atomic_path
from spikerl_deploy.policy import Policy

SCHEMA = "spikerl.recording/1"
HINT = "make one: spikerl simulate POLICY --record FILE.npz"
BYTES_MAX = 1 << 33  # of the unpacked file: ten million control steps of a policy of the usual size
COLUMNS: dict[str, Any] = {
    "episode": np.int32,
    "step": np.int32,
    "clean_observations": np.float64,
    "observations": np.float64,
    "actions": np.float32,
    "applied": np.float32,
    "rewards": np.float64,
    "terminated": np.bool_,
    "truncated": np.bool_,
}
# What reading a file that is broken or hostile can raise: false sizes, ciphers, pickles, odd compression.
_READ_ERRORS = (
    *(OSError, ValueError, EOFError, AttributeError, TypeError, KeyError, MemoryError, OverflowError, RuntimeError),
    *(NotImplementedError, SyntaxError, zipfile.BadZipFile, zlib.error),
)


@dataclass(frozen=True, eq=False)
class Episodes:
    """M control steps, all of the first episode, then all of the next.

    Attributes:
        about: what was recorded, where and of which file; plain JSON. `seeds` has one seed an episode.
        columns: by the names of COLUMNS, arrays of M rows: `episode` [M] indexes the seeds, `step` [M] counts from 0,
            `clean_observations` [M, obs_dim] are the environment's, `observations` what the policy saw of them,
            `actions` [M, act_dim] what it decided, `applied` what the environment got, `rewards` [M] what came of it.
        spikes: for the input and each layer [M, ceil(T * n / 8)]: the bits of [T, n], most significant first.
        sizes: neurons of the input and of each layer. time_steps: T.
    """

    about: dict[str, Any]
    columns: dict[str, NDArray[Any]]
    spikes: tuple[NDArray[np.uint8], ...]
    sizes: tuple[int, ...]
    time_steps: int

    def __len__(self) -> int:
        return len(self.columns["step"])

    def raster(self, index: int, rows: slice = slice(None)) -> Spikes:
        """Spikes [m, T, n] of the input (0) or of a layer (from 1), of some control steps."""
        bits = self.time_steps * self.sizes[index]
        unpacked = np.unpackbits(self.spikes[index][rows], axis=1, count=bits).astype(bool)
        return unpacked.reshape(-1, self.time_steps, self.sizes[index])

    def by_episode(self) -> list[slice]:
        """Rows of each episode."""
        starts = np.flatnonzero(np.diff(self.columns["episode"], prepend=-1)).tolist()
        return [slice(begin, end) for begin, end in itertools.pairwise([*starts, len(self)])]


class Recorder:
    """Observer that keeps whole episodes, with spikes as bits: at most 4 kB a control step for 170-256-256-60, T = 5.

    Args:
        policy: of the session that plays. only: the episodes to keep; None keeps all.
    """

    def __init__(self, policy: Policy, only: Collection[int] | None = None) -> None:
        self._policy, self._only = policy, only
        self._columns: dict[str, list[NDArray[Any]]] = {name: [] for name in COLUMNS}
        self._spikes: list[list[NDArray[np.uint8]]] = [[] for _ in policy.sizes]
        self._lengths: dict[int, int] = {}

    def wants_rasters(self, episodes: Sequence[int]) -> bool:
        return self._only is None or any(episode in self._only for episode in episodes)

    def observe(self, step: ControlStep) -> None:
        kept = [row for row, episode in enumerate(step.episodes) if self._only is None or episode in self._only]
        if not kept:
            return
        assert step.rasters is not None
        episodes = [step.episodes[row] for row in kept]
        values = {
            "episode": episodes,
            "step": [self._lengths.get(episode, 0) for episode in episodes],
            "clean_observations": step.clean[kept],
            "observations": step.observations[kept],
            "actions": step.actions[kept],
            "applied": [step.applied[row] for row in kept],
            "rewards": [step.rewards[row] for row in kept],
            "terminated": [step.terminated[row] for row in kept],
            "truncated": [step.truncated[row] for row in kept],
        }
        for name, value in values.items():
            self._columns[name].append(np.array(value, dtype=COLUMNS[name]))
        slots = [step.slots[row] for row in kept]
        for parts, raster in zip(self._spikes, (step.inputs, *step.rasters), strict=True):
            parts.append(np.packbits(raster[slots].reshape(len(kept), -1), axis=1))
        for episode in episodes:
            self._lengths[episode] = self._lengths.get(episode, 0) + 1

    def episodes(self, seeds: Sequence[int], about: dict[str, Any] | None = None) -> Episodes:
        """What was kept, episode after episode.

        Args:
            seeds: of the rollout. about: plain JSON that says what was recorded.
        """
        columns = {name: np.concatenate(parts) for name, parts in self._columns.items()}
        order = np.argsort(columns["episode"], kind="stable")
        spikes = tuple(np.concatenate(parts)[order] for parts in self._spikes)
        ordered = {name: column[order] for name, column in columns.items()}
        return Episodes(
            {**(about or {}), "seeds": list(seeds)}, ordered, spikes, self._policy.sizes, self._policy.time_steps
        )


def save_episodes(episodes: Episodes, path: Path, force: bool = False) -> None:
    """Write a compressed .npz file, atomically: `about` (JSON), the columns, `spikes_0` (input), `spikes_1`, ...

    Raises:
        SpikerlError: the file exists and `force` is false, or it cannot be written.
    """
    about = {**episodes.about, "schema": SCHEMA, "sizes": list(episodes.sizes), "time_steps": episodes.time_steps}
    arrays = {f"spikes_{index}": packed for index, packed in enumerate(episodes.spikes)}
    arrays |= {"about": np.array(json.dumps(about, allow_nan=False))} | episodes.columns
    with atomic_path(path, force) as temporary, temporary.open("wb") as stream:
        np.savez_compressed(stream, **arrays)  # type: ignore[arg-type]  # a name could be `allow_pickle`, never here


def load_episodes(path: Path) -> Episodes:
    """Inverse of `save_episodes`.

    Raises:
        SpikerlError: no such file, or no recording of this version that is whole.
    """
    if not path.is_file():
        raise SpikerlError(f"no recording at '{path}'", HINT)
    try:
        with zipfile.ZipFile(path) as archive:
            unpacked = sum(entry.file_size for entry in archive.infolist())
        if unpacked > BYTES_MAX:
            raise ValueError(f"it unpacks to {unpacked} bytes, at most {BYTES_MAX} are read")
        with np.load(path, allow_pickle=False) as file:
            about = json.loads(str(file["about"]))
            if about["schema"] != SCHEMA:
                raise ValueError(f"its schema is {about['schema']!r}, '{SCHEMA}' was expected")
            _check_whole(about, "sizes", 1)
            _check_whole(about, "seeds", 0)
            sizes, time_steps = tuple(about["sizes"]), int(about["time_steps"])
            columns = {name: file[name] for name in COLUMNS}
            spikes = tuple(file[f"spikes_{index}"] for index in range(len(sizes)))
        _check(about, columns, spikes, sizes, time_steps)
    except _READ_ERRORS as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise SpikerlError(f"cannot read recording '{path}': {reason}", HINT) from error
    return Episodes(about, columns, spikes, sizes, time_steps)


def _check_whole(about: dict[str, Any], name: str, least: int) -> None:
    values = about[name]
    if not isinstance(values, list) or not values or any(type(one) is not int or one < least for one in values):
        raise ValueError(f"'{name}' is {str(values)[:60]}, a list of whole numbers from {least} on was expected")


def _check(
    about: dict[str, Any],
    columns: dict[str, NDArray[Any]],
    spikes: tuple[NDArray[Any], ...],
    sizes: tuple[int, ...],
    time_steps: int,
) -> None:
    rows, seeds = len(columns["step"]), len(about["seeds"])
    for name, column in columns.items():
        dimensions = 2 if name in ("clean_observations", "observations", "actions", "applied") else 1
        if column.dtype != COLUMNS[name] or column.ndim != dimensions or len(column) != rows:
            raise ValueError(f"'{name}' is {column.dtype} {column.shape}")
        if not np.isfinite(column).all():
            raise ValueError(f"'{name}' holds values that are not finite")
    for name, other in (("observations", "clean_observations"), ("applied", "actions")):
        if columns[name].shape != columns[other].shape:
            raise ValueError(f"'{name}' is {columns[name].shape}, '{other}' is {columns[other].shape}")
    episode = columns["episode"]
    if rows == 0 or episode[0] < 0 or (np.diff(episode) < 0).any() or episode[-1] >= seeds:
        raise ValueError(f"'episode' does not go through its {seeds} seeds")
    starts = np.flatnonzero(np.diff(episode, prepend=-1))
    if (columns["step"] != np.arange(rows) - np.repeat(starts, np.diff(starts, append=rows))).any():
        raise ValueError("'step' does not count from 0 in each episode")
    for index, (packed, size) in enumerate(zip(spikes, sizes, strict=True)):
        shape = (rows, -(-time_steps * size // 8))
        if packed.dtype != np.uint8 or packed.shape != shape or time_steps < 1:
            raise ValueError(f"'spikes_{index}' is {packed.dtype} {packed.shape}, uint8 {shape} was expected")
