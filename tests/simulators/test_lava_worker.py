"""The worker's supervision: it dies, hangs, talks nonsense or is orphaned, and nothing is left behind."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import psutil
import pytest
from support import ROOT, quantized_policy, random_spikes

from simulators.lava.backend import LavaBackend, LavaSession
from simulators.lava.client import WorkerClient, _end, group_members
from spikerl_deploy.errors import SpikerlError

SPIKES = random_spikes(0, (1, 5, 40))


def shared_memory(group: int) -> set[Path]:
    """Shared-memory segments that the processes of a group have mapped."""
    maps = [Path(f"/proc/{process.pid}/maps").read_text() for process in group_members(group)]
    return {Path(name) for text in maps for name in re.findall(r"/dev/shm/psm_\w+", text)}


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


def test_a_killed_worker_is_reported_at_once(session: LavaSession) -> None:
    session.infer(SPIKES)
    os.kill(session.client.process.pid, signal.SIGKILL)
    started = time.monotonic()
    with pytest.raises(SpikerlError, match="lava worker failed: .*(died|broke)") as caught:
        session.infer(SPIKES)
    assert time.monotonic() - started < 6
    assert caught.value.hint


def test_a_worker_that_hangs_is_ended_at_the_time_limit(session: LavaSession) -> None:
    session.infer(SPIKES)
    session.client.timeout = 1.0
    for process in group_members(session.client.process.pid):
        process.suspend()
    started = time.monotonic()
    with pytest.raises(SpikerlError, match=r"did not answer within 1 s") as caught:
        session.infer(SPIKES)
    assert time.monotonic() - started < 8
    assert caught.value.hint == "raise --worker-timeout"


def test_a_killed_process_of_lava_itself_is_noticed_soon(session: LavaSession) -> None:
    session.infer(SPIKES)
    worker = psutil.Process(session.client.process.pid)
    lava = [child for child in worker.children() if "resource_tracker" not in " ".join(child.cmdline())]
    lava[-1].kill()
    started = time.monotonic()
    with pytest.raises(SpikerlError, match="lava worker failed"):
        for _ in range(3):
            session.infer(SPIKES)
    assert time.monotonic() - started < 5  # sooner than the time limit of 8 s


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
    with pytest.raises(SpikerlError, match=r"it died .*ModuleNotFoundError: No module named 'lava'"):
        WorkerClient(tmp_path, timeout=20)


def test_another_protocol_version_is_refused(lava_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("simulators.lava.client.PROTOCOL_VERSION", 99)
    with pytest.raises(SpikerlError, match="it speaks protocol 1, this is 99"):
        WorkerClient(lava_folder, timeout=20)


def test_shared_memory_goes_even_if_everything_is_killed_at_once(session: LavaSession) -> None:
    """Python's own resource tracker included, which would have removed it."""
    os.killpg(session.client.process.pid, signal.SIGKILL)
    with pytest.raises(SpikerlError, match="lava worker failed"):
        session.infer(SPIKES)


ORPHAN = """
import sys, threading, time
sys.path[:0] = ["tests"]
from support import quantized_policy, random_spikes
from simulators.lava.backend import LavaBackend
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


@pytest.mark.parametrize("started_in", ["main", "thread", "hung"])
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT, signal.SIGTERM])
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
        _end(stubborn, ours, log, set())
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
