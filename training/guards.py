"""What may go wrong around a run, turned into one line or a clean end: memory, disk."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

from spikerl_deploy.errors import CannotWrite, SpikerlError
from training.resume import FOLDER, POINTER
from training.settings import Settings


@contextmanager
def memory_errors(settings: Settings) -> Iterator[None]:
    """Turn a failed allocation, which torch reports as a RuntimeError, into an error of ours."""
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        ours = isinstance(error, MemoryError | torch.OutOfMemoryError) or "allocate memory" in str(error)
        if not ours:
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
        if isinstance(error, ConnectionError) or (isinstance(error, OSError) and error.strerror is None):
            raise
        what = error.message if isinstance(error, CannotWrite) else f"cannot write to '{out}': {error.strerror}"
        again = f"--resume {out}" if (out / FOLDER / POINTER).is_file() else f"--out {out} --force"
        cause = error.__cause__ if isinstance(error, CannotWrite) else error
        full = isinstance(cause, OSError) and cause.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
        raise SpikerlError(what, f"{'free space' if full else 'mend that'}, then: spikerl train {again}") from error
