"""The run folder: whether one may be written, and where each thing lies in it."""

from __future__ import annotations

import errno
import fcntl
import os
import shutil
from pathlib import Path

from spikerl_deploy.errors import SpikerlError


def check_run_folder(out: Path, force: bool) -> None:
    """Check that a run may be written to a folder, and that it can be; an earlier run in it is left as it is.

    Raises:
        SpikerlError: it holds something and `force` is false, holds something that is no run, or cannot be written.
    """
    if out.exists() and (not out.is_dir() or any(path.is_file() for path in out.rglob("*"))):
        if not force:
            resumable = (out / "resume" / "latest.json").is_file()
            hint = f"go on with it: --resume {out}; or add --force" if resumable else "add --force, or another --out"
            raise SpikerlError(f"'{out}' exists and is not overwritten", hint)
        if not ((out / "config.toml").is_file() and (out / "checkpoints").is_dir()):
            raise SpikerlError(f"'{out}' is no run folder, --force does not delete it", "choose another --out")
    check_writable(out)


def check_writable(out: Path) -> None:
    """Check that a folder, or the first of its parents that is there, can be written.

    Raises:
        SpikerlError: it cannot.
    """
    there = next(folder for folder in (out, *out.absolute().parents) if folder.exists())
    if not there.is_dir() or not os.access(there, os.W_OK):
        raise SpikerlError(f"cannot write run folder '{out}': '{there}' is not writable", "choose another --out")


def clear_run_folder(out: Path, seeds: tuple[int, ...]) -> None:
    """Make the folder with its subfolders, or empty that of an earlier run first."""
    try:
        out.mkdir(parents=True, exist_ok=True)
        for path in out.iterdir():
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            else:
                path.unlink()
        (out / "checkpoints").mkdir()
        (out / "resume").mkdir()
        for folder in seed_folders(out, seeds):
            (folder / "checkpoints").mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise SpikerlError(f"cannot write run folder '{out}': {error.strerror}", "choose another --out") from error


class RunLock:
    """Keeps other processes from training in a run folder; ends with the process at the latest."""

    def __init__(self, out: Path) -> None:
        self._out, self._descriptor = out, -1

    def take(self) -> None:
        """Take the folder as it is now; what was taken before, and may have been replaced since, is released.

        Raises:
            SpikerlError: another process trains in it.
        """
        self.release()
        if not (self._out / "resume").is_dir():
            return
        descriptor = os.open(self._out / "resume", os.O_RDONLY)  # the folder itself: no file to leave behind
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            os.close(descriptor)
            if error.errno not in (errno.EWOULDBLOCK, errno.EACCES):
                return  # a file system without locks
            what = f"'{self._out}' is being trained by another process"
            raise SpikerlError(what, "wait for it, or choose another --out") from error
        self._descriptor = descriptor

    def release(self) -> None:
        """Let others train in the folder."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
        self._descriptor = -1


def remove_end(out: Path) -> None:
    """Remove what tells of the end of a run that goes on: its result and its energy are of a part of it now."""
    for name in ("result.json", "emissions.json"):
        (out / name).unlink(missing_ok=True)


def remove_half_written(out: Path) -> None:
    """Remove the temporary files of a process that was killed while it wrote; no other may be writing."""
    for path in out.rglob(".*.*"):
        if path.is_file():
            path.unlink()


def seed_folders(out: Path, seeds: tuple[int, ...]) -> list[Path]:
    """Where each seed's metrics and checkpoints lie: the run folder itself if there is one seed."""
    return [out] if len(seeds) == 1 else [out / f"seed-{seed}" for seed in seeds]
