"""Signals that end a run or a sweep, in its own time. Loads no torch."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager

IMPATIENT_S = 1.0  # since the first signal

_collecting: list[list[int]] = []  # of the blocks that are open, the innermost last


@contextmanager
def interrupts() -> Iterator[list[int]]:
    """Collect SIGINT and SIGTERM instead of dying, so that the run can save; a later Ctrl-C dies.

    Within another such block both collect: a signal that comes to a trial of a sweep is one to the sweep.

    Launchers and schedulers send the same signal several times within moments, so only SIGINT, and only when the first
    signal is `IMPATIENT_S` old, is taken for impatience; whoever will not wait for SIGTERM has SIGKILL.
    """
    seen: list[int] = []
    since = 0.0

    def note(number: int, _frame: object) -> None:
        nonlocal since
        now = time.monotonic()
        if seen and number == signal.SIGINT and now - since > IMPATIENT_S:
            raise KeyboardInterrupt
        if not seen:
            since = now
        for collected in _collecting:
            collected.append(number)

    _collecting.append(seen)
    previous = {number: signal.signal(number, note) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield seen
    finally:
        _collecting.pop()
        for number, handler in previous.items():
            signal.signal(number, handler)
