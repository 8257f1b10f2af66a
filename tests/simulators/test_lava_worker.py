"""The worker's supervision: it dies, hangs, talks nonsense or is orphaned, and nothing is left behind."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import psutil
import pytest
from support import ROOT, quantized_policy, random_spikes

from simulators.lava import wire
from simulators.lava.backend import LavaBackend, integer_layers
from simulators.lava.client import WorkerClient, _end, group_members
from simulators.lava.session import REPLACED_MAX, LavaSession
from spikerl_deploy.errors import SpikerlError

SPIKES = random_spikes(0, (1, 5, 40))


def shared_memory(group: int) -> set[Path]:
    """Shared-memory segments that the processes of a group have mapped."""
    maps = [Path(f"/proc/{process.pid}/maps").read_text() for process in group_members(group)]
    return {Path(name) for text in maps for name in re.findall(r"/dev/shm/spikerl-\w+-\w+", text)}


@pytest.fixture
def session(lava_folder: Path) -> Iterator[LavaSession]:
    """An open session with a short time limit; afterwards no process and no shared memory may be left."""
    opened = LavaBackend(timeout=8).open(quantized_policy())
    group = opened.client.process.pid
    opened.infer(SPIKES)
    segments = shared_memory(group)
    assert segments
    yield opened
    opened.close()
    assert group_members(group) == []
    assert [segment for segment in segments if segment.exists()] == []


def test_closing_ends_every_process_and_may_be_repeated(session: LavaSession) -> None:
    session.infer(SPIKES)
    assert len(group_members(session.client.process.pid)) > 3
    session.close()
    assert group_members(session.client.process.pid) == []
    session.close()


def kill_worker(session: LavaSession) -> None:
    os.kill(session.client.process.pid, signal.SIGKILL)


def kill_one_of_lavas(session: LavaSession) -> None:
    worker = psutil.Process(session.client.process.pid)
    lava = [child for child in worker.children() if "resource_tracker" not in " ".join(child.cmdline())]
    lava[-1].kill()


def stop_everything(session: LavaSession) -> None:
    session.client.timeout = 1.0
    for process in group_members(session.client.process.pid):
        process.suspend()


FAILURES = {
    kill_worker: "lava worker failed: .*(died|broke)",
    kill_one_of_lavas: "lava worker failed: one of Lava's own processes died",
    stop_everything: "lava worker failed: it did not answer within 1 s",
}


@pytest.mark.parametrize("fail", FAILURES, ids=lambda fail: fail.__name__)
def test_a_worker_that_fails_is_replaced_and_the_control_step_repeated(
    session: LavaSession, fail: Callable[[LavaSession], None]
) -> None:
    wanted = [counts.tolist() for counts in session.infer(SPIKES).counts]
    group = session.client.process.pid
    said: list[str] = []
    session._say = said.append
    fail(session)
    started = time.monotonic()
    assert [counts.tolist() for counts in session.infer(SPIKES).counts] == wanted
    assert time.monotonic() - started < 20
    assert session.replaced == len(said) == 1
    assert re.search(FAILURES[fail], said[0])
    assert said[0].endswith("the control step is repeated by a new one")
    assert group_members(group) == []
    assert [counts.tolist() for counts in session.infer(SPIKES).counts] == wanted


@pytest.mark.parametrize("fail", FAILURES, ids=lambda fail: fail.__name__)
def test_a_control_step_is_repeated_once_only(session: LavaSession, fail: Callable[[LavaSession], None]) -> None:
    start = session._opened

    def broken() -> WorkerClient:
        session.client = start()
        fail(session)
        return session.client

    session._opened = broken  # type: ignore[method-assign]
    fail(session)
    started = time.monotonic()
    with pytest.raises(SpikerlError, match=FAILURES[fail]) as caught:
        session.infer(SPIKES)
    assert time.monotonic() - started < 20
    assert "\n" not in caught.value.message
    assert caught.value.hint
    with pytest.raises(SpikerlError, match="session is closed"):
        session.infer(SPIKES)


def test_a_session_does_not_replace_workers_for_ever(session: LavaSession) -> None:
    session.replaced = REPLACED_MAX
    kill_worker(session)
    with pytest.raises(SpikerlError, match=f"lava worker failed: .*; {REPLACED_MAX} before it failed, too"):
        session.infer(SPIKES)


def test_an_interrupted_request_ends_the_worker(session: LavaSession) -> None:
    """Its answer would be taken for the next one's."""
    group = session.client.process.pid
    threading.Timer(0.5, signal.raise_signal, [signal.SIGINT]).start()
    with pytest.raises(KeyboardInterrupt):
        while True:
            session.infer(SPIKES)
    assert group_members(group) == []


def test_a_damaged_answer_is_no_answer(session: LavaSession, monkeypatch: pytest.MonkeyPatch) -> None:
    wanted = session.infer(SPIKES).counts[0].tolist()
    said: list[str] = []
    session._say = said.append
    receive = wire._receive_exactly

    def damaged(connection: socket.socket, length: int) -> bytes:
        received = bytearray(receive(connection, length))
        if length > 100:
            monkeypatch.undo()
            received[len(received) // 2] ^= 1
        return bytes(received)

    monkeypatch.setattr(wire, "_receive_exactly", damaged)
    assert session.infer(SPIKES).counts[0].tolist() == wanted
    assert said[0].startswith("lava worker failed: it answered nonsense (a message is damaged)")


def test_a_worker_that_gets_nonsense_says_so_and_ends(session: LavaSession) -> None:
    said: list[str] = []
    session._say = said.append
    session.client._connection.sendall(b"nonsense" * 10)
    session.infer(SPIKES)
    assert "WireError: a frame's start is damaged" in said[0]


def test_closing_a_worker_that_hangs_does_not_wait_for_the_time_limit(session: LavaSession) -> None:
    session.client.timeout = 60.0
    for process in group_members(session.client.process.pid):
        process.suspend()
    started = time.monotonic()
    session.close()
    assert time.monotonic() - started < 9
    with pytest.raises(SpikerlError, match="session is closed"):
        session.infer(SPIKES)


def test_an_error_in_the_worker_is_quoted(lava_folder: Path, tmp_path: Path) -> None:
    policy = quantized_policy()
    assert policy.integers is not None
    with pytest.raises(SpikerlError, match=r"it died .*ModuleNotFoundError: No module named 'lava'"):
        LavaSession(policy, 1, integer_layers("chain", policy.integers), lambda: WorkerClient(tmp_path, 20))


def test_another_protocol_version_is_refused(lava_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("simulators.lava.client.PROTOCOL_VERSION", 99)
    with pytest.raises(SpikerlError, match="it speaks protocol 2, this is 99"):
        WorkerClient(lava_folder, timeout=20)


def test_shared_memory_goes_even_if_everything_is_killed_at_once(session: LavaSession) -> None:
    """Python's own resource tracker included, which would have removed it."""
    os.killpg(session.client.process.pid, signal.SIGKILL)
    session.infer(SPIKES)
    assert session.replaced == 1


ORPHAN = """
import sys, threading, time
sys.path[:0] = ["tests"]
from support import quantized_policy, random_spikes
from simulators.lava.backend import LavaBackend, integer_layers
def work():
    global session
    session = LavaBackend().open(quantized_policy())
    session.infer(random_spikes(0, (1, 5, 40)))
if sys.argv[1] != "main":
    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    time.sleep(0.5)  # the thread is over; its worker is not
    session.infer(random_spikes(0, (1, 5, 40)))
else:
    work()
if sys.argv[1] == "hung":  # the worker waits for a Lava that stands still, and does not see its parent go
    import psutil
    for child in psutil.Process(session.client.process.pid).children():
        child.suspend()
    threading.Thread(target=session.infer, args=[random_spikes(0, (1, 5, 40))], daemon=True).start()
    time.sleep(0.5)
print(session.client.process.pid, flush=True)
time.sleep(120)
"""


@pytest.mark.parametrize(
    ("number", "started_in"),
    [
        (signal.SIGKILL, "main"),
        (signal.SIGKILL, "thread"),
        (signal.SIGKILL, "hung"),
        (signal.SIGINT, "thread"),
        (signal.SIGTERM, "hung"),
    ],
)
def test_the_worker_dies_with_its_parent(lava_folder: Path, number: signal.Signals, started_in: str) -> None:
    parent = subprocess.Popen(
        [sys.executable, "-c", ORPHAN, started_in], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, cwd=ROOT
    )
    assert parent.stdout is not None
    group = int(parent.stdout.readline())
    assert group_members(group)
    parent.send_signal(number)
    parent.wait(10)
    deadline = time.monotonic() + 6
    while group_members(group) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert group_members(group) == []


def test_a_process_that_ignores_every_request_to_end_is_killed() -> None:
    code = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); print(1, flush=True); signal.pause()"
    stubborn = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, start_new_session=True)
    assert stubborn.stdout is not None
    stubborn.stdout.readline()
    ours, theirs = socket.socketpair()
    with theirs, tempfile.TemporaryFile() as log:
        _end(stubborn, ours, log, "spikerl-none-")
    assert stubborn.returncode == -signal.SIGKILL
    assert group_members(stubborn.pid) == []


def test_the_worker_never_loads_torch(session: LavaSession) -> None:
    session.infer(SPIKES)
    maps = Path(f"/proc/{session.client.process.pid}/maps").read_text()
    assert re.search(r"numpy", maps)
    assert "libtorch" not in maps


def test_sessions_leak_no_file_descriptor(lava_folder: Path) -> None:
    counts = []
    for _ in range(3):
        with LavaBackend().open(quantized_policy()) as opened:
            assert isinstance(opened.infer(SPIKES).output_counts, np.ndarray)
        counts.append(len(os.listdir("/proc/self/fd")))
    assert counts[0] == counts[-1]
