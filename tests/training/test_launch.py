"""The launcher of ranks: what it starts, what it passes on, and that nothing of it stays behind."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from pathlib import Path

import psutil
import pytest

from spikerl_deploy.errors import SpikerlError
from training.launch import launch_ranks


@pytest.fixture
def as_rank(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Makes the ranks run a script instead of spikerl: what is tested is the launcher."""

    def use(script: str, interpreter: str = "/bin/sh") -> None:
        path = tmp_path / "rank"
        path.write_text(f"#!{interpreter}\n{script}\n")
        path.chmod(0o755)
        monkeypatch.setattr("training.launch.sys.executable", str(path))

    return use


def test_each_rank_gets_its_place_and_the_same_arguments(tmp_path: Path, as_rank) -> None:
    as_rank(
        f'echo "$RANK $LOCAL_RANK $WORLD_SIZE $MASTER_ADDR $MASTER_PORT $*" > {tmp_path}/got-$RANK\n'
        f"cut -d' ' -f5 /proc/$$/stat > {tmp_path}/group-$RANK"
    )
    assert launch_ranks(3, ["train", "--ranks", "3", "--seed", "4"]) == 0
    got = [(tmp_path / f"got-{rank}").read_text().split() for rank in range(3)]
    for rank, words in enumerate(got):
        assert words[:4] == [str(rank), str(rank), "3", "127.0.0.1"]
        assert words[5:] == ["-m", "spikerl_deploy", "train", "--ranks", "3", "--seed", "4"]
    assert len({words[4] for words in got}) == 1
    groups = {(tmp_path / f"group-{rank}").read_text() for rank in range(3)}
    assert len(groups) == 3 and str(os.getpgrp()) not in groups, "a Ctrl-C would reach a rank twice"


def test_two_launches_do_not_meet_at_the_same_port(tmp_path: Path, as_rank) -> None:
    as_rank(f"echo $MASTER_PORT >> {tmp_path}/ports")
    for _ in range(3):
        launch_ranks(1, [])
    assert len(set((tmp_path / "ports").read_text().split())) > 1


def test_rank_0_has_the_terminal_and_the_others_are_silent(as_rank, capfd: pytest.CaptureFixture[str]) -> None:
    as_rank("echo out $RANK; echo err $RANK >&2")
    assert launch_ranks(2, []) == 0
    assert capfd.readouterr() == ("out 0\n", "err 0\n")


@pytest.mark.parametrize("ranks", [0, -2])
def test_a_number_of_ranks_that_makes_no_sense_is_refused(ranks: int) -> None:
    with pytest.raises(SpikerlError, match=f"--ranks {ranks}"):
        launch_ranks(ranks, [])


def test_an_error_of_all_ranks_is_shown_once(as_rank, capfd: pytest.CaptureFixture[str]) -> None:
    as_rank("echo Error: no such thing >&2; exit 2")
    assert launch_ranks(3, []) == 2
    assert capfd.readouterr().err == "Error: no such thing\n"


def test_an_error_of_another_rank_is_shown_with_its_code(
    as_rank, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("training.launch.GRACE_S", 0.3)
    as_rank("if [ $RANK = 1 ]; then echo Error: only here >&2; exit 3; fi; exec sleep 60")
    started = time.monotonic()
    assert launch_ranks(2, []) == 3
    assert time.monotonic() - started < 10
    assert "rank 1: Error: only here" in capfd.readouterr().err
    assert not [p for p in psutil.Process().children(recursive=True) if "sleep" in p.name()]


def test_the_rank_that_failed_is_shown_and_not_only_those_that_lost_it(
    as_rank, capfd: pytest.CaptureFixture[str]
) -> None:
    as_rank("[ $RANK = 1 ] && echo Error: the cause >&2 && exit 2; sleep 1; echo Error: lost it >&2; exit 2")
    assert launch_ranks(2, []) == 2
    assert "rank 1: Error: the cause" in capfd.readouterr().err


def test_a_rank_that_is_killed_is_told_by_its_signal(as_rank, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("training.launch.GRACE_S", 0.3)
    as_rank("if [ $RANK = 0 ]; then kill -9 $$; fi; exec sleep 60")
    assert launch_ranks(2, []) == 128 + signal.SIGKILL


def test_the_others_have_time_to_end_by_themselves(tmp_path: Path, as_rank) -> None:
    as_rank(f"if [ $RANK = 0 ]; then exit 2; fi; sleep 1; touch {tmp_path}/done")
    assert launch_ranks(2, []) == 2
    assert (tmp_path / "done").exists()


def test_a_rank_that_will_not_end_is_killed(as_rank, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("LINGER_S", "GRACE_S"):
        monkeypatch.setattr(f"training.launch.{name}", 0.3)
    as_rank("[ $RANK = 0 ] && sleep 0.3 && exit 2; trap '' TERM; while :; do sleep 1; done")
    started = time.monotonic()
    assert launch_ranks(2, []) == 2
    assert time.monotonic() - started < 10


@pytest.mark.parametrize(
    ("number", "arrives"),
    [(signal.SIGINT, signal.SIGINT), (signal.SIGTERM, signal.SIGTERM), (signal.SIGHUP, signal.SIGTERM)],
)
def test_a_signal_reaches_every_rank_once_and_the_handlers_come_back(
    tmp_path: Path, as_rank, number: signal.Signals, arrives: signal.Signals
) -> None:
    python = f"{sys.executable} -SE"  # a shell cannot trap what was ignored when it began, as in the background
    as_rank(
        "import os, pathlib, signal, sys, time\n"
        f"folder, rank = pathlib.Path({str(tmp_path)!r}), os.environ['RANK']\n"
        "def note(*_):\n"
        "    with (folder / f'seen-{rank}').open('a') as file: file.write('x')\n"
        "    time.sleep(0.5 * int(rank))\n"
        "    sys.exit(130)\n"
        f"signal.signal({int(arrives)}, note)\n"
        "(folder / f'up-{rank}').touch()\n"
        "time.sleep(10)",
        python,
    )

    def mine(*_: object) -> None:
        """What a signal would do that the launcher does not take; without it the tests would end here."""

    before = signal.signal(number, mine)

    def send() -> None:
        while not all((tmp_path / f"up-{rank}").exists() for rank in range(2)):
            time.sleep(0.05)
        os.kill(os.getpid(), number)

    thread = threading.Thread(target=send)
    thread.start()
    try:
        assert launch_ranks(2, []) == 130
        assert signal.getsignal(number) is mine
    finally:
        thread.join()
        signal.signal(number, before)
    assert [(tmp_path / f"seen-{rank}").read_text() for rank in range(2)] == ["x", "x"]
