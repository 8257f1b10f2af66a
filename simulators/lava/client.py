"""The user's side of the worker: starts it, talks to it under a time limit, and leaves no process behind."""

from __future__ import annotations

import logging
import os
import secrets
import select
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import psutil

import simulators
from simulators.lava.wire import PROTOCOL_VERSION, Arrays, WireClosed, WireError, receive_message, send_message
from spikerl_deploy.errors import SpikerlError

DEFAULT_TIMEOUT = 60.0  # seconds for an answer
MAX_TIMEOUT = 86_400.0
POLL_SECONDS = 0.2  # how soon a worker's death is noticed
GRACE_SECONDS = 3.0  # between asking processes to end and ending them
SHARED_MEMORY = Path("/dev/shm")  # where Linux shows it as files
_QUOTED_CHARACTERS = 300
_LOG = logging.getLogger("spikerl.lava")


class WorkerFailed(SpikerlError):
    """The worker died, hung or sent nonsense; it has been ended. Another one may do better."""


class WorkerClient:
    """One worker process and the connection to it.

    Args:
        lava_folder: folder that holds the Lava wheel's packages.
        timeout: seconds that start-up and every answer may take.

    Raises:
        SpikerlError: the worker cannot be started or speaks another protocol.
        WorkerFailed: it dies, does not answer in time or answers nonsense.
    """

    def __init__(self, lava_folder: Path, timeout: float = DEFAULT_TIMEOUT) -> None:
        self.timeout = timeout
        self._members: set[int] = set()
        try:
            self._log = tempfile.TemporaryFile()  # noqa: SIM115 (lives as long as the client)
            self._connection, theirs = socket.socketpair()
        except OSError as error:
            raise SpikerlError(f"lava worker cannot be started: {error}", "spikerl doctor") from error
        # A worker started from a thread must outlive that thread, so only the main thread's dies with it at once.
        deathbed = "die" if threading.current_thread() is threading.main_thread() else "watch"
        segments = f"spikerl-{secrets.token_hex(6)}-"  # what its shared memory is called
        arguments = [str(theirs.fileno()), str(lava_folder), deathbed, segments]
        with theirs:
            try:
                self.process = subprocess.Popen(
                    [sys.executable, "-P", "-m", "simulators.lava.worker", *arguments],
                    pass_fds=[theirs.fileno()],
                    stdin=subprocess.DEVNULL,
                    stdout=self._log,
                    stderr=self._log,
                    start_new_session=True,  # its own process group: ended as one, and deaf to the terminal's Ctrl-C
                    env=_worker_environment(),
                )
            except OSError as error:
                self._connection.close()
                self._log.close()
                raise SpikerlError(f"lava worker cannot be started: {error}", "spikerl doctor") from error
        self._finalizer = weakref.finalize(self, _end, self.process, self._connection, self._log, segments)
        with self._ended_if_interrupted():
            protocol = self._receive("hello", timeout)[0].get("protocol")
        if protocol != PROTOCOL_VERSION:
            failure = self._failure(f"it speaks protocol {protocol}, this is {PROTOCOL_VERSION}")
            raise SpikerlError(failure.message, "reinstall spikerl-deploy: two versions are mixed")

    def request(self, fields: dict[str, Any], answer: str, arrays: Arrays | None = None) -> Arrays:
        """Send a message and return the arrays of its answer.

        Raises:
            SpikerlError: the client is closed.
            WorkerFailed: as for the class.
        """
        with self._ended_if_interrupted():
            return self._request(fields, answer, arrays, self.timeout)

    @contextmanager
    def _ended_if_interrupted(self) -> Iterator[None]:
        """End a worker whose answer nobody waits for any longer: the next request would take it for its own."""
        try:
            yield
        except SpikerlError:
            raise
        except BaseException:
            self._finalizer()
            raise

    def remember_processes(self) -> None:
        """Note which processes the worker has now, to notice if one dies."""
        self._members = {process.pid for process in group_members(self.process.pid)}

    def forget_processes(self) -> None:
        """Take it for no failure if processes end, as those of a network do that another one replaces."""
        self._members = set()

    def close(self) -> None:
        """Ask the worker to stop Lava and exit; end it if it does not. May be called twice."""
        if not self._finalizer.alive:
            return
        self.forget_processes()
        try:
            with self._ended_if_interrupted():
                self._request({"op": "close"}, "closed", None, min(self.timeout, GRACE_SECONDS))
                self.process.wait(GRACE_SECONDS)
        except WorkerFailed as failure:
            _LOG.warning("it was to close: %s", failure.message)
        except subprocess.TimeoutExpired:
            _LOG.warning("lava worker closed, but is still there after %g s: it is ended", GRACE_SECONDS)
        else:
            if not _gone(self.process):
                left = ", ".join(str(process.pid) for process in group_members(self.process.pid))
                _LOG.warning("lava worker left processes behind, which are ended: %s", left)
        self._finalizer()

    def _request(self, fields: dict[str, Any], answer: str, arrays: Arrays | None, timeout: float) -> Arrays:
        if not self._finalizer.alive:
            raise SpikerlError("the lava session is closed", "open another")
        try:
            self._connection.settimeout(timeout)
            send_message(self._connection, fields, arrays)
        except WireError as error:
            raise SpikerlError(f"this is too large for a lava worker: {error}", "run it on --backend fixed") from error
        except OSError as error:  # a time-out is one
            raise self._failure(f"the connection broke ({error})") from error
        return self._receive(answer, timeout)[1]

    def _receive(self, answer: str, timeout: float) -> tuple[dict[str, Any], Arrays]:
        deadline = time.monotonic() + timeout
        late = f"it did not answer within {timeout:g} s"
        readable = select.poll()  # unlike select.select it takes any file descriptor
        readable.register(self._connection, select.POLLIN)
        try:
            while not readable.poll(POLL_SECONDS * 1e3):
                if self.process.poll() is not None:
                    raise self._failure("it died")
                if self._members - {process.pid for process in group_members(self.process.pid)}:
                    raise self._failure("one of Lava's own processes died")
                if time.monotonic() > deadline:
                    raise self._failure(late, "raise --worker-timeout")
            self._connection.settimeout(max(deadline - time.monotonic(), POLL_SECONDS))
            fields, arrays = receive_message(self._connection)
        except TimeoutError:
            raise self._failure(late, "raise --worker-timeout") from None
        except (WireClosed, OSError) as error:
            raise self._failure(f"it died ({error})") from error
        except WireError as error:
            raise self._failure(f"it answered nonsense ({error})") from error
        if fields.get("op") != answer:
            raise self._failure(f"it answered '{fields.get('op')}' where '{answer}' was expected")
        return fields, arrays

    def _failure(self, what: str, hint: str = "see what is here: spikerl doctor") -> WorkerFailed:
        """Error that quotes the worker's last output; ends the worker."""
        code = self.process.poll()
        self._log.seek(0, os.SEEK_END)
        self._log.seek(max(self._log.tell() - 4096, 0))
        lines = self._log.read().decode(errors="replace").strip().splitlines()
        exit_text = "" if code is None else f", exit code {code}"
        last = f"; its last output: {lines[-1].strip()[:_QUOTED_CHARACTERS]}" if lines else ""
        self._finalizer()
        return WorkerFailed(f"lava worker failed: {what}{exit_text}{last}", hint)


def _worker_environment() -> dict[str, str]:
    """The caller's environment, with our packages importable and one thread for each numeric library."""
    root = str(Path(simulators.__file__).resolve().parent.parent)
    one_thread = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
    path = os.pathsep.join(filter(None, (root, os.environ.get("PYTHONPATH"))))
    return os.environ | one_thread | {"PYTHONPATH": path, "PYTHONUNBUFFERED": "1"}


def group_members(group: int) -> list[psutil.Process]:
    """Living processes of a process group, zombies left out."""
    members = []
    for process in psutil.process_iter(["status"]):
        try:
            if os.getpgid(process.pid) == group and process.info["status"] != psutil.STATUS_ZOMBIE:
                members.append(process)
        except (ProcessLookupError, PermissionError):
            continue
    return members


def _end(process: subprocess.Popen[bytes], connection: socket.socket, log: IO[bytes], segments: str) -> None:
    """End the worker's whole process group, wait for it, and remove the shared memory it leaves.

    SIGTERM first (and SIGCONT, for one that was stopped): multiprocessing's resource tracker ignores it,
    outlives the others and unlinks the shared memory they leave behind. Whatever is still there after the
    grace time is killed.

    Args:
        segments: what the names of its shared memory begin with.
    """
    connection.close()
    try:
        _signal_group(process.pid, signal.SIGTERM)
        _signal_group(process.pid, signal.SIGCONT)
        ended = _gone(process)
    except BaseException:  # an impatient Ctrl-C
        ended = False
        raise
    finally:
        if not ended:
            _signal_group(process.pid, signal.SIGKILL)
            _gone(process)
        process.wait()
        log.close()
        for segment in SHARED_MEMORY.glob(segments + "*"):
            segment.unlink(missing_ok=True)


def _gone(process: subprocess.Popen[bytes]) -> bool:
    """Wait for a process group to end, for the grace time at most."""
    deadline = time.monotonic() + GRACE_SECONDS
    while group_members(process.pid):
        if time.monotonic() > deadline:
            return False
        process.poll()
        time.sleep(0.01)
    return True


def _signal_group(group: int, number: signal.Signals) -> None:
    try:
        os.killpg(group, number)
    except (ProcessLookupError, PermissionError):
        pass  # nothing is left of it
