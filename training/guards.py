"""What may go wrong around a run, turned into one line or a clean end: memory, disk, signals."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from spikerl_deploy.errors import CannotWrite, SpikerlError
from training.resume import FOLDER, POINTER
from training.settings import Settings


@contextmanager
def memory_errors(settings: Settings) -> Iterator[None]:
    """Turn a failed allocation, which torch reports as a RuntimeError, into an error of ours."""
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if isinstance(error, RuntimeError) and "alloc" not in str(error) and "out of memory" not in str(error):
            raise
        raise SpikerlError(
            f"not enough memory for hidden {list(settings.hidden)}, batch_size {settings.batch_size}, "
            f"buffer_size {settings.buffer_size}",
            "set smaller ones with --set",
        ) from error


@contextmanager
def disk_errors(out: Path) -> Iterator[None]:
    """Turn a failed write of anything in the run folder into an error that says how to go on, if one can."""
    try:
        yield
    except (CannotWrite, OSError) as error:
        if isinstance(error, OSError) and error.strerror is None:
            raise
        what = error.message if isinstance(error, CannotWrite) else f"cannot write to '{out}': {error.strerror}"
        again = f"--resume {out}" if (out / FOLDER / POINTER).is_file() else f"--out {out} --force"
        raise SpikerlError(what, f"free space, then: spikerl train {again}") from error


@contextmanager
def interrupts() -> Iterator[list[int]]:
    """Collect SIGINT and SIGTERM instead of dying, so that the run can save; a second one dies."""
    seen: list[int] = []

    def note(number: int, _frame: object) -> None:
        if seen:
            raise KeyboardInterrupt
        seen.append(number)

    previous = {number: signal.signal(number, note) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield seen
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
