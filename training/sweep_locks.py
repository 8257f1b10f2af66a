"""Locks of a sweep folder, by which processes share one study.

They are advisory locks rather than heartbeats: the kernel frees a lock with the process that holds it, however that
ends, so that a trial whose process is gone is known at once and without a clock.
"""

from __future__ import annotations

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from spikerl_deploy.errors import SpikerlError


class Locks:
    """Locks on bytes of one file: byte 0 is the study's, byte n + 1 says that trial n has a living process.

    They are the process's: one object at a time, since closing any frees all.
    """

    def __init__(self, path: Path) -> None:
        try:
            self._file = path.open("ab")
        except OSError as error:
            raise SpikerlError(f"cannot write '{path}': {error.strerror}", "choose a writable --out") from error

    @contextmanager
    def study(self) -> Iterator[None]:
        """Be the only process that changes the study; waits for its turn."""
        fcntl.lockf(self._file, fcntl.LOCK_EX, 1, 0)
        try:
            yield
        finally:
            fcntl.lockf(self._file, fcntl.LOCK_UN, 1, 0)

    def hold(self, number: int) -> None:
        """Say that trial `number` has a process, this one."""
        fcntl.lockf(self._file, fcntl.LOCK_EX, 1, number + 1)

    def free(self, number: int) -> None:
        """Say that this process is done with trial `number`."""
        fcntl.lockf(self._file, fcntl.LOCK_UN, 1, number + 1)

    def held_by_another(self, number: int) -> bool:
        """Whether another living process has trial `number`."""
        try:
            fcntl.lockf(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, number + 1)
        except OSError:
            return True
        self.free(number)
        return False

    def close(self) -> None:
        self._file.close()
