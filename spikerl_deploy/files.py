"""Atomic writes, overwrite protection and hashes for every artefact."""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from spikerl_deploy.errors import CannotWrite, SpikerlError


def refuse_overwrite(path: Path, force: bool) -> None:
    """Refuse a path that exists, unless `force`.

    Raises:
        SpikerlError: `path` exists and `force` is false, or it is a directory.
    """
    if path.is_dir():
        raise SpikerlError(f"'{path}' is a directory, a file name was expected", "give a file name with -o")
    if path.exists() and not path.is_file():
        raise SpikerlError(f"'{path}' is no regular file and is not replaced", "choose another name with -o")
    if path.exists() and not force:
        raise SpikerlError(f"'{path}' exists and is not overwritten", "add --force, or choose another name with -o")


@contextmanager
def atomic_path(path: Path, force: bool = True) -> Iterator[Path]:
    """Yield a temporary path beside `path`; on success fsync it and rename it into place.

    Raises:
        SpikerlError: the target exists and `force` is false, or its folder cannot be written.
    """
    refuse_overwrite(path, force)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    except OSError as error:
        raise CannotWrite(f"cannot write '{path}': {error.strerror}", "choose a writable folder") from error
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        with temporary.open("rb") as stream:
            os.fsync(stream.fileno())
        temporary.chmod(0o666 & ~_umask())
        temporary.replace(path)
    except OSError as error:
        raise CannotWrite(f"cannot write '{path}': {error.strerror or error}", "check space and rights") from error
    finally:
        temporary.unlink(missing_ok=True)


def _umask() -> int:
    current = os.umask(0)
    os.umask(current)
    return current


def write_text(path: Path, text: str, force: bool = True) -> None:
    """Write UTF-8 text atomically."""
    with atomic_path(path, force) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: Path, document: Any, force: bool = True) -> None:
    """Write strict JSON (no NaN) atomically, indented by two."""
    write_text(path, json.dumps(document, indent=2, allow_nan=False) + "\n", force)


def sha256_file(path: Path) -> str:
    """SHA-256 of a file, as 64 hexadecimal digits."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
