"""The run folder: whether one may be written, and where each thing lies in it."""

from __future__ import annotations

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
            raise SpikerlError(
                f"'{out}' exists and is not overwritten", f"go on with it: --resume {out}; or --force, or another --out"
            )
        if not (out / "checkpoints").is_dir() or not ((out / "config.toml").is_file() or _has_only_begun(out)):
            raise SpikerlError(f"'{out}' is no run folder, --force does not delete it", "choose another --out")
    check_writable(out)


def _has_only_begun(out: Path) -> bool:
    """Whether a run was killed here before it wrote more than its buffer and a half-written file."""
    names = {path.name for path in out.iterdir() if not path.name.startswith(".")}
    return names <= {"checkpoints", "resume", *(path.name for path in out.glob("seed-*"))}


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


def remove_half_written(out: Path) -> None:
    """Remove the temporary files of a process that was killed while it wrote; no other may be writing."""
    for path in out.rglob(".*.*"):
        if path.is_file():
            path.unlink()


def seed_folders(out: Path, seeds: tuple[int, ...]) -> list[Path]:
    """Where each seed's metrics and checkpoints lie: the run folder itself if there is one seed."""
    return [out] if len(seeds) == 1 else [out / f"seed-{seed}" for seed in seeds]
