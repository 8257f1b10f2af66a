"""The replay ring against a deque, its file over crashes and restarts, and what it takes of memory and disk."""

from __future__ import annotations

import errno
import os
import tempfile
from collections import deque
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from spikerl_deploy.errors import SpikerlError
from training.draws import Draws
from training.replay import Batch, ReplayBuffer, pack, row_width, unpack

CPU = torch.device("cpu")
WIDTH = row_width(2, 1)


def rows(keys: list[int], seeds: int = 1) -> np.ndarray:
    """Transitions [n, S, width], recognisable in every field; those of seed i are numbered k + 1000 i."""
    k = np.float32([[key + 1000 * seed for seed in range(seeds)] for key in keys])
    return pack(np.stack([k, -k], -1), k[..., None] / 8, 10 * k, np.stack([k + 1, -k - 1], -1), k % 3 == 0)


def keys(batch: Batch) -> list[list[int]]:
    """The transitions of each seed in a batch, after checking that each one's fields belong together."""
    k = batch.o_tm1[..., 0]
    torch.testing.assert_close(batch.o_tm1, torch.stack([k, -k], -1))
    torch.testing.assert_close(batch.a_tm1, k[..., None] / 8)
    torch.testing.assert_close(batch.r_t, 10 * k)
    torch.testing.assert_close(batch.o_t, torch.stack([k + 1, -k - 1], -1))
    torch.testing.assert_close(batch.terminated, (k % 3 == 0).float())
    return [[int(value) - 1000 * seed for value in own] for seed, own in enumerate(k)]


def contents(replay: ReplayBuffer) -> list[list[int]]:
    """Everything that can be drawn, of each seed, from the oldest on."""
    index = torch.arange(replay.size).expand(replay.seeds, -1)
    return keys(unpack(replay.gather(index), 2, 1))


def test_a_row_holds_the_fields_in_order_and_gives_them_back() -> None:
    packed = pack(
        np.array([[1.0, 2.0], [3.0, 4.0]]), np.float32([[5], [6]]), np.array([7.0, 8.0]),
        np.array([[9.0, 10.0], [11.0, 12.0]]), np.array([False, True]),
    )  # fmt: skip
    assert packed.dtype == np.float32
    assert packed.tolist() == [[1, 2, 5, 7, 9, 10, 0], [3, 4, 6, 8, 11, 12, 1]]
    assert row_width(2, 1) == 7
    batch = unpack(torch.from_numpy(packed)[None], 2, 1)
    assert batch.o_tm1.tolist() == [[[1, 2], [3, 4]]] and batch.o_t.tolist() == [[[9, 10], [11, 12]]]
    assert batch.a_tm1.tolist() == [[[5], [6]]]
    assert batch.r_t.tolist() == [[7, 8]] and batch.terminated.tolist() == [[0, 1]]


@pytest.mark.parametrize(("seeds", "slack"), [(1, 0), (3, 0), (3, 2), (2, 20)])
def test_the_ring_keeps_the_last_transitions_of_each_seed_from_the_oldest_on(seeds: int, slack: int) -> None:
    replay, model = ReplayBuffer(seeds, WIDTH, 7, CPU, slack), deque(maxlen=7)  # type: ignore[var-annotated]
    next_key = 1
    for count in (1, 1, 2, 1, 3, 1, 7, 5, 1, 1, 1, 6, 4):
        new = list(range(next_key, next_key + count))
        next_key += count
        replay.store(rows(new, seeds))
        model.extend(new)
        assert (replay.size, replay.total) == (len(model), next_key - 1)
        assert replay.window[1] == replay.size
        assert contents(replay) == [list(model)] * seeds


def test_gather_takes_each_seeds_own_rows_in_the_order_of_the_indices() -> None:
    replay = ReplayBuffer(2, WIDTH, 4, CPU)
    replay.store(rows([1, 2, 3, 4], 2))
    replay.store(rows([5, 6], 2))
    assert keys(unpack(replay.gather(torch.tensor([[0, 3, 1], [2, 2, 0]])), 2, 1)) == [[3, 6, 4], [5, 5, 3]]


def test_sampling_is_uniform_over_the_window_and_with_replacement() -> None:
    replay, draws = ReplayBuffer(2, WIDTH, 5, CPU, slack=3), Draws((3, 4), 0, CPU)
    for k in range(1, 14):
        replay.store(rows([k], 2))
    index = draws.index(replay.size, replay.window, 20_000)
    for own in keys(unpack(replay.gather(index), 2, 1)):
        counts = np.bincount(own, minlength=14)
        assert counts[:9].sum() == 0
        np.testing.assert_allclose(counts[9:] / 20_000, 0.2, atol=0.015)


def test_what_is_stored_and_what_is_gathered_are_copies() -> None:
    replay, given_rows = ReplayBuffer(1, WIDTH, 3, CPU), rows([5])
    replay.store(given_rows)
    given_rows[:] = 9
    replay.gather(torch.zeros(1, 1, dtype=torch.int64)).fill_(7)
    assert contents(replay) == [[5]]


@settings(max_examples=60, deadline=None)
@given(
    seeds=st.integers(1, 2),
    capacity=st.integers(1, 6),
    slack=st.integers(0, 7),
    actions=st.lists(st.one_of(st.integers(1, 6), st.sampled_from(["save", "save", "crash"])), max_size=40),
)
def test_what_a_crash_leaves_is_what_there_was_at_the_checkpoint(
    seeds: int, capacity: int, slack: int, actions: list[int | str]
) -> None:
    """Whatever was written since, as long as it was no more than the slack."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "replay.bin"
        replay = ReplayBuffer(seeds, WIDTH, capacity, CPU, slack, file)
        model, saved, saved_total, since, next_key = deque(maxlen=capacity), [], 0, 0, 1  # type: ignore[var-annotated]
        for action in actions:
            if action == "save":
                replay.save()
                saved, saved_total, since = list(model), replay.total, 0
            elif action == "crash":
                replay = ReplayBuffer(seeds, WIDTH, capacity, CPU, slack, file)
                replay.restore(saved_total)
                model, since = deque(saved, capacity), 0
            else:
                count = min(int(action), capacity) if not saved_total else min(int(action), capacity, slack - since)
                new = list(range(next_key, next_key + count))
                if new:
                    replay.store(rows(new, seeds))
                model.extend(new)
                next_key, since = next_key + count, since + count
            assert contents(replay) == [list(model)] * seeds
            assert replay.size == len(model) == replay.window[1]


def test_one_row_more_than_the_slack_overwrites_the_oldest_of_the_checkpoint(tmp_path: Path) -> None:
    for beyond, kept in ((2, [3, 4, 5, 6]), (3, [9, 4, 5, 6])):
        file = tmp_path / f"replay{beyond}.bin"
        replay = ReplayBuffer(1, WIDTH, 4, CPU, slack=2, file=file)
        replay.store(rows([1, 2, 3, 4]))
        replay.store(rows([5, 6]))
        replay.save()
        for k in range(7, 7 + beyond):
            replay.store(rows([k]))
        replay = ReplayBuffer(1, WIDTH, 4, CPU, slack=2, file=file)
        replay.restore(6)
        assert contents(replay) == [kept]


def test_the_rows_reach_the_file_when_it_is_saved(tmp_path: Path) -> None:
    file = tmp_path / "replay.bin"
    replay = ReplayBuffer(2, WIDTH, 5, CPU, slack=1, file=file)
    replay.store(rows([1, 2, 3], 2))
    replay.save()
    on_disk = np.fromfile(file, np.float32).reshape(6, 2, WIDTH)
    np.testing.assert_array_equal(on_disk[:3], rows([1, 2, 3], 2))


def test_a_larger_buffer_takes_up_the_file_of_one_that_had_not_wrapped(tmp_path: Path) -> None:
    file = tmp_path / "replay.bin"
    small = ReplayBuffer(2, WIDTH, 5, CPU, file=file)
    small.store(rows([1, 2, 3, 4, 5], 2))
    small.save()
    length = file.stat().st_size
    grown = ReplayBuffer(2, WIDTH, 9, CPU, slack=3, file=file)
    grown.restore(5)
    assert file.stat().st_size == 12 * 2 * WIDTH * 4 > length
    grown.store(rows([6, 7, 8], 2))
    assert contents(grown) == [[1, 2, 3, 4, 5, 6, 7, 8]] * 2


def test_without_a_file_saving_writes_nothing_and_harms_nothing(tmp_path: Path) -> None:
    replay = ReplayBuffer(1, WIDTH, 3, CPU)
    replay.store(rows([1, 2]))
    replay.save()
    assert contents(replay) == [[1, 2]]
    assert list(tmp_path.iterdir()) == []


def test_the_files_space_is_taken_when_it_is_made_and_when_it_is_enlarged(tmp_path: Path) -> None:
    file = tmp_path / "replay.bin"
    for capacity in (5000, 20_000):  # made, and enlarged
        ReplayBuffer(2, WIDTH, capacity, CPU, slack=10, file=file)
        assert file.stat().st_size == (capacity + 10) * 2 * WIDTH * 4
        assert file.stat().st_blocks * 512 >= file.stat().st_size, "a hole in it would fail in the middle of the run"


def assert_one_line(error: SpikerlError, *parts: str) -> None:
    assert "\n" not in error.message and all(part in error.message for part in parts), error.message
    assert error.hint is not None and "\n" not in error.hint


def test_a_full_disk_is_refused_in_one_line_before_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "posix_fallocate", full)
    with pytest.raises(SpikerlError) as refusal:
        ReplayBuffer(1, 42, 1_000_000, CPU, file=tmp_path / "replay.bin")
    assert_one_line(refusal.value, "168 MB", "replay.bin", os.strerror(errno.ENOSPC))
    assert "save_replay=false" in (refusal.value.hint or "")


def test_a_disk_that_fails_while_saving_is_said_in_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    replay = ReplayBuffer(1, WIDTH, 3, CPU, file=tmp_path / "replay.bin")
    replay.store(rows([1]))

    def failing(*_: object) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(np.memmap, "flush", failing)
    with pytest.raises(SpikerlError) as refusal:
        replay.save()
    assert_one_line(refusal.value, "replay.bin", os.strerror(errno.EIO))


def test_a_folder_that_is_not_there_is_said_in_one_line(tmp_path: Path) -> None:
    with pytest.raises(SpikerlError) as refusal:
        ReplayBuffer(1, WIDTH, 3, CPU, file=tmp_path / "missing" / "replay.bin")
    assert_one_line(refusal.value, "replay.bin", os.strerror(errno.ENOENT))


def test_a_million_steps_of_halfcheetah_take_at_most_250_mb() -> None:
    width = row_width(17, 6)
    replay = ReplayBuffer(1, width, 1_000_000, CPU, slack=5_000)
    held = {tensor.data_ptr(): tensor.nbytes for tensor in vars(replay).values() if isinstance(tensor, torch.Tensor)}
    assert sum(held.values()) <= 250e6
    assert replay.rows.nbytes == 1_005_000 * (17 + 6 + 1 + 17 + 1) * 4
