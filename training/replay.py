"""Uniform experience replay: one packed row a transition, on the device, and in a file that a run can resume from."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from spikerl_deploy.errors import CannotWrite, SpikerlError


@dataclass(frozen=True)
class Batch:
    """Transitions: `o_tm1`, `o_t` [S, B, obs_dim], `a_tm1` [S, B, act_dim], `r_t` and `terminated` [S, B].

    `terminated` alone ends bootstrapping; an episode that was truncated bootstraps on.
    """

    o_tm1: Tensor
    a_tm1: Tensor
    r_t: Tensor
    o_t: Tensor
    terminated: Tensor


def row_width(obs_dim: int, act_dim: int) -> int:
    """Numbers a transition takes."""
    return 2 * obs_dim + act_dim + 2


def pack(o_tm1: np.ndarray, a_tm1: np.ndarray, r_t: np.ndarray, o_t: np.ndarray, terminated: np.ndarray) -> np.ndarray:
    """Rows [..., width] of transitions; observations [..., obs_dim], actions [..., act_dim], the others [...]."""
    return np.concatenate([o_tm1, a_tm1, r_t[..., None], o_t, terminated[..., None]], axis=-1, dtype=np.float32)


def unpack(rows: Tensor, obs_dim: int, act_dim: int) -> Batch:
    """Views of rows [S, B, width]."""
    o_tm1, a_tm1, r_t, o_t, terminated = rows.split([obs_dim, act_dim, 1, obs_dim, 1], dim=-1)
    return Batch(o_tm1, a_tm1, r_t.squeeze(-1), o_t, terminated.squeeze(-1))


class ReplayBuffer:
    """The last `capacity` transitions of each seed, in a ring of `capacity + slack` rows.

    With a file the ring outlives the process. Rows that are written after a checkpoint then fall on rows that no
    transition of the checkpoint's window occupies, as long as no more than `slack` are written before the next one: a
    run that is killed and resumed samples what it would have sampled.

    Attributes:
        total: transitions ever stored, a seed.
        window: int64 [2] on the device: the first row of the window, and its length.
    """

    def __init__(
        self, seeds: int, width: int, capacity: int, device: torch.device, slack: int = 0, file: Path | None = None
    ) -> None:
        self.seeds, self.width, self.capacity, self.slots, self.device = (
            seeds,
            width,
            capacity,
            capacity + slack,
            device,
        )
        self.total, self._saved = 0, 0
        self._file = _map_file(file, (self.slots, seeds, width)) if file is not None else None
        if device.type == "cpu" and self._file is not None:
            self.rows = torch.from_numpy(self._file)  # the file is the buffer; its pages are the operating system's
        else:
            # torch.empty leaves pages untouched, so memory grows with what is stored
            self.rows = torch.empty(self.slots, seeds, width, device=device)
        self._host = self.rows.numpy() if device.type == "cpu" else None
        self._flat = self.rows.view(self.slots * seeds, width)
        self._seed = torch.arange(seeds, device=device).unsqueeze(1)
        self.window = torch.zeros(2, dtype=torch.int64, device=device)

    @property
    def size(self) -> int:
        """Transitions of each seed that can be drawn."""
        return min(self.total, self.capacity)

    def store(self, rows: np.ndarray) -> None:
        """Append rows [n, S, width], n transitions of each seed; n at most the capacity."""
        n = rows.shape[0]
        start = self.total % self.slots
        first = min(n, self.slots - start)
        target: Any
        source: Any
        if self._host is not None:
            target, source = self._host, rows  # a tenth of the time of tensors
        else:
            target, source = self.rows, torch.from_numpy(rows).pin_memory().to(self.device, non_blocking=True)
        target[start : start + first] = source[:first]
        if first < n:
            target[: n - first] = source[first:]
        self.total += n
        self._set_window()

    def _set_window(self) -> None:
        if self.device.type == "cpu":
            self.window[0], self.window[1] = (self.total - self.size) % self.slots, self.size
        else:
            self.window.copy_(torch.tensor([(self.total - self.size) % self.slots, self.size]), non_blocking=True)

    def gather(self, index: Tensor) -> Tensor:
        """Rows [S, B, width] of the transitions index [S, B] of each seed, counted from the oldest in the window."""
        slot = (index + self.window[0]) % self.slots
        return self._flat.index_select(0, (slot * self.seeds + self._seed).flatten()).view(*index.shape, self.width)

    def save(self) -> None:
        """Bring the file up to date, to the disk.

        Raises:
            SpikerlError: the file cannot be written.
        """
        if self._file is None:
            return
        if self.device.type != "cpu":
            fresh = np.arange(max(self._saved, self.total - self.slots), self.total) % self.slots
            if len(fresh):
                self._file[fresh] = self.rows[torch.from_numpy(fresh).to(self.device)].cpu().numpy()
        try:
            self._file.flush()
        except OSError as error:
            raise CannotWrite(
                f"cannot write '{self._file.filename}': {error.strerror}", "check space and rights"
            ) from error
        self._saved = self.total

    def restore(self, total: int) -> None:
        """Take up what the file holds, as it was when `total` transitions had been stored."""
        assert self._file is not None
        self.total = self._saved = total
        if self.device.type != "cpu":
            used = min(total, self.slots)
            self.rows[:used].copy_(torch.from_numpy(self._file[:used]))
        self._set_window()


def check_file(path: Path, numbers: int) -> None:
    """Check that a file holds at least so many numbers.

    Raises:
        SpikerlError: it is missing or shorter.
    """
    if not path.is_file() or path.stat().st_size < numbers * 4:
        what = "is missing" if not path.is_file() else f"holds {path.stat().st_size} bytes of at least {numbers * 4}"
        raise SpikerlError(f"the replay buffer '{path}' {what}", "restore it, or train again")


def _map_file(path: Path, shape: tuple[int, ...]) -> np.memmap:
    """Map a file of float32, made or enlarged as needed with its space on the disk taken at once.

    Raises:
        SpikerlError: no space, or no right to write.
    """
    length, existed = int(np.prod(shape, dtype=object)) * 4, path.exists()
    try:
        with path.open("ab") as stream:
            if path.stat().st_size < length:
                os.posix_fallocate(stream.fileno(), 0, length)  # a full disk shows now, not in the middle of the run
        return np.memmap(path, np.float32, "r+", shape=shape)
    except (OSError, OverflowError) as error:
        if not existed:
            path.unlink(missing_ok=True)
        raise SpikerlError(
            f"cannot reserve {length / 1e6:.0f} MB for the replay buffer '{path}': {getattr(error, 'strerror', error)}",
            "free space, or --set buffer_size=100000, or --set save_replay=false",
        ) from error
