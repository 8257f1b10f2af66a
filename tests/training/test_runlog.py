"""The log of a run: what is in its files, where it goes on, what it says."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from training_support import metrics_of

from spikerl_deploy.errors import SpikerlError
from training.runlog import FIELDS, RunLog


def open_log(*folders: Path, **options: Any) -> RunLog:
    return RunLog(list(folders), 1000, False, **options)


def test_a_value_is_a_row_of_its_seeds_file(tmp_path: Path) -> None:
    folders = [tmp_path / "a", tmp_path / "b"]
    for folder in folders:
        folder.mkdir()
    with open_log(*folders) as log:
        log.scalars(10, "train", {"x": 0.1, "y": 2})
        log.scalars(20, "eval", {"z": 1 / 3}, seed=1)
    rows = [[(r["step"], r["kind"], r["name"], r["value"]) for r in metrics_of(folder)] for folder in folders]
    assert rows == [[("10", "train", "x", "0.1"), ("10", "train", "y", "2.0")], [("20", "eval", "z", repr(1 / 3))]]
    assert (folders[0] / "metrics.csv").read_text().splitlines()[0] == ",".join(FIELDS)


def test_a_row_has_the_seconds_of_the_run_and_the_steps_a_second(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = [50.0]
    monkeypatch.setattr("training.runlog.time.monotonic", lambda: clock[0])
    with open_log(tmp_path, earlier=30.0) as log:
        clock[0] += 10.0
        log.scalars(600, "train", {"x": 1.0})
    assert (metrics_of(tmp_path)[0]["seconds"], metrics_of(tmp_path)[0]["steps_per_second"]) == ("40.000", "15.0")


def test_evaluations_are_on_the_disk_at_once(tmp_path: Path) -> None:
    with open_log(tmp_path) as log:
        log.scalars(10, "eval", {"x": 1.0})
        assert len(metrics_of(tmp_path)) == 1


def test_marks_are_the_lengths_with_everything_written(tmp_path: Path) -> None:
    with open_log(tmp_path) as log:
        log.scalars(1, "train", {"x": 1.0})
        (mark,) = log.marks()
        assert mark == (tmp_path / "metrics.csv").stat().st_size
        log.scalars(2, "train", {"x": 1.0})
        assert log.marks()[0] > mark


def test_what_came_after_the_mark_is_cut_off_and_the_log_goes_on(tmp_path: Path) -> None:
    with open_log(tmp_path) as log:
        log.scalars(1, "train", {"x": 1.0})
        marks = log.marks()
        log.scalars(2, "train", {"x": 2.0})
        seconds = log.seconds
    with open_log(tmp_path, marks=marks, earlier=100.0, step=1) as log:
        assert 100.0 <= log.seconds < 101.0 + seconds
        log.scalars(2, "train", {"x": 3.0})
        assert log.marks()[0] > marks[0]
    assert [(r["step"], r["value"]) for r in metrics_of(tmp_path)] == [("1", "1.0"), ("2", "3.0")]
    assert float(metrics_of(tmp_path)[1]["seconds"]) >= 100.0


def test_a_file_shorter_than_its_mark_is_refused(tmp_path: Path) -> None:
    with open_log(tmp_path) as log:
        (mark,) = log.marks()
    with pytest.raises(SpikerlError, match=r"metrics\.csv' is shorter than when the run was saved"):
        open_log(tmp_path, marks=[mark + 1])


def test_a_rank_that_writes_nothing_logs_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with open_log(marks=[], quiet=True) as log:
        log.scalars(1, "train", {"x": 1.0})
        assert log.marks() == []
        log.progress(1000, 3.0)
    assert list(tmp_path.iterdir()) == []


def test_progress_is_a_plain_line_now_and_then_and_at_the_end(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    with open_log(tmp_path, step=100) as log:
        log.progress(200, None)
        assert capsys.readouterr().err == ""
        monkeypatch.setattr("training.runlog.PLAIN_SECONDS", 0.0)
        log.progress(300, None)
        log.progress(300, 4.0)
        line = capsys.readouterr().err
        assert line.startswith("step 300/1000  ") and line.endswith("eval return -\n") and line.count("\n") == 1
        monkeypatch.setattr("training.runlog.PLAIN_SECONDS", 1e9)
        log.progress(1000, 4.25)
        assert "step 1000/1000" in (line := capsys.readouterr().err) and "eval return 4.2" in line
        log.say("hello")
        assert capsys.readouterr().err == "hello\n"


def test_the_rate_shown_is_of_this_process(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = [50.0]
    monkeypatch.setattr("training.runlog.time.monotonic", lambda: clock[0])
    with open_log(tmp_path, step=900, earlier=1e6) as log:
        clock[0] += 10.0
        log.progress(1000, None)
    assert "  10 steps/s" in capsys.readouterr().err


def test_a_quiet_log_says_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with open_log(tmp_path, quiet=True) as log:
        log.progress(1000, 1.0)
        log.say("hello")
    assert capsys.readouterr() == ("", "")


def test_events_after_the_state_are_purged_when_a_run_goes_on(tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    with RunLog([tmp_path], 1000, True) as log:
        log.scalars(10, "train", {"x": 1.0})
        marks = log.marks()
        log.scalars(20, "train", {"x": 2.0})
        log.scalars(30, "train", {"x": 3.0})
    with RunLog([tmp_path], 1000, True, marks=marks, step=10) as log:
        log.scalars(20, "train", {"x": 5.0})
    board = EventAccumulator(str(tmp_path / "tensorboard"))
    board.Reload()
    assert [(e.step, e.value) for e in board.Scalars("train/x")] == [(10, 1.0), (20, 5.0)]
