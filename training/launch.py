"""`spikerl train --ranks N`: the ranks of one machine as processes of their own, as torchrun would start them.

Unlike torchrun it passes on a rank's exit code and its one-line error as they are.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Mapping, Sequence
from typing import IO

from spikerl_deploy.errors import RankLost, SpikerlError

PARENT = "SPIKERL_LAUNCHER"  # names the descriptor by which a rank sees that its launcher lives
POLL_S = 0.05
SETTLE_S = 0.3  # ranks that fail for the same reason fail at about the same time
LINGER_S = 3.0  # for the others to end by themselves after one rank has failed, before they are told to
GRACE_S = 20.0  # for them to save what they can, before they are killed


def launch_ranks(ranks: int, arguments: Sequence[str]) -> int:
    """Run `spikerl ARGUMENTS` as that many ranks; the exit code of the first that failed, or 0.

    Rank 0 has the terminal. What the others write is shown if one of them fails. SIGINT and SIGTERM go to all of them.

    Raises:
        SpikerlError: a number of ranks that makes no sense.
    """
    if ranks < 1:
        raise SpikerlError(f"--ranks {ranks} is no number of ranks", "for example --ranks 2")
    port, processes = _free_port(), []  # type: int, list[subprocess.Popen[bytes]]
    logs = [tempfile.TemporaryFile("w+") for _ in range(ranks)]  # noqa: SIM115 - closed below
    alive, held = os.pipe()  # the ranks see its end when this process is gone, however it went
    forwarded = {signal.SIGINT: signal.SIGINT, signal.SIGTERM: signal.SIGTERM, signal.SIGHUP: signal.SIGTERM}
    previous = {
        number: signal.signal(number, lambda number, _frame: _send(processes, forwarded[signal.Signals(number)]))
        for number in forwarded
    }
    try:
        for rank in range(ranks):
            processes.append(_start(rank, ranks, port, alive, arguments, logs[rank]))
        return _wait(processes, logs)
    finally:
        _send(processes, signal.SIGKILL)
        for number, handler in previous.items():
            signal.signal(number, handler)
        for log in logs:
            log.close()
        os.close(alive)
        os.close(held)


def end_with_launcher(environment: Mapping[str, str]) -> None:
    """Tell this process to end, as SIGTERM does, once the one that launched it as a rank is gone."""
    if PARENT not in environment:
        return

    def watch(descriptor: int) -> None:
        os.read(descriptor, 1)  # returns when nobody holds the other end any more
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=watch, args=(int(environment[PARENT]),), name="spikerl-launcher", daemon=True).start()


def _start(
    rank: int, ranks: int, port: int, alive: int, arguments: Sequence[str], log: IO[str]
) -> subprocess.Popen[bytes]:
    place = {
        "RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(ranks),
        "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), PARENT: str(alive),
    }  # fmt: skip
    output = None if rank == 0 else log
    # a process group of its own: a Ctrl-C of the terminal would otherwise arrive twice
    return subprocess.Popen(
        [sys.executable, "-m", "spikerl_deploy", *arguments],
        env=os.environ | place, stdout=output, stderr=output, process_group=0, pass_fds=(alive,),
    )  # fmt: skip


def _wait(processes: list[subprocess.Popen[bytes]], logs: Sequence[IO[str]]) -> int:
    while all(process.poll() is None for process in processes):
        time.sleep(POLL_S)
    while not any(process.poll() for process in processes) and any(process.poll() is None for process in processes):
        time.sleep(POLL_S)
    if all(process.poll() == 0 for process in processes):
        return 0
    time.sleep(SETTLE_S)
    failed = [rank for rank, process in enumerate(processes) if process.poll()]
    _end(processes)
    causes = [rank for rank in failed if processes[rank].returncode != RankLost.exit_code]
    # whoever lost another failed because of one that may have ended later than it did
    causes += [rank for rank, process in enumerate(processes) if process.returncode not in (0, RankLost.exit_code)]
    first = (causes or failed)[0]
    if first != 0:
        logs[first].seek(0)
        print(f"rank {first}: {logs[first].read().strip()}", file=sys.stderr)
    code = processes[first].returncode
    return 128 - code if code < 0 else 2 if code == RankLost.exit_code else code


def _end(processes: list[subprocess.Popen[bytes]]) -> None:
    """Let the ranks end by themselves for a while, as interrupted ones do; then tell them to; at last make them."""
    for patience, number in ((LINGER_S, signal.SIGTERM), (GRACE_S, signal.SIGKILL)):
        deadline = time.monotonic() + patience
        while time.monotonic() < deadline and any(process.poll() is None for process in processes):
            time.sleep(POLL_S)
        _send(processes, number)
    for process in processes:
        process.wait()


def _send(processes: list[subprocess.Popen[bytes]], number: int) -> None:
    for process in processes:
        if process.poll() is None:
            process.send_signal(number)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
