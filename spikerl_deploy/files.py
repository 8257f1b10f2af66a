"""Atomic writes, overwrite protection and hashes for every artefact."""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from spikerl_deploy.errors import CannotWrite, SpikerlError


def refuse_overwrite(path: Path, force: bool, flag: str = "-o") -> None:
    """Refuse a path that exists, unless `force`.

    Args:
        flag: that names the path, for the hint.

    Raises:
        SpikerlError: `path` exists and `force` is false, it is a directory, or the system takes no such path.
    """
    try:
        exists, is_file, is_folder = path.exists(), path.is_file(), path.is_dir()
    except OSError as error:
        raise CannotWrite(f"cannot write '{path}': {error.strerror}", f"choose another name with {flag}") from error
    if is_folder:
        raise SpikerlError(f"'{path}' is a directory, a file name was expected", f"give a file name with {flag}")
    if exists and not is_file:
        raise SpikerlError(f"'{path}' is no regular file and is not replaced", f"choose another name with {flag}")
    if exists and not force:
        raise SpikerlError(
            f"'{path}' exists and is not overwritten", f"add --force, or choose another name with {flag}"
        )


def check_targets(targets: Iterable[tuple[str, Path]], force: bool, sources: Mapping[str, Path]) -> None:
    """Find out, writing nothing, what would be refused when files are written after the work.

    Args:
        targets: flag and path of each file. sources: files that are read, by what they are.

    Raises:
        SpikerlError: one is a source, or another one or within it, exists and `force` is false, or cannot be written.
    """
    taken: list[tuple[str, Path, Path]] = []
    for flag, path in targets:
        place = Path(os.path.realpath(path))
        for what, source in sources.items():
            if place == Path(os.path.realpath(source)):
                raise SpikerlError(f"{flag} names '{path}', which is the {what}", f"choose another name with {flag}")
        for other, named, there in taken:
            if place == there or place in there.parents or there in place.parents:
                raise SpikerlError(
                    f"{other} '{named}' and {flag} '{path}' take the same place", "give each a file of its own"
                )
        taken.append((flag, path, place))
        refuse_overwrite(path, force, flag)
        folder = next(parent for parent in path.absolute().parents if os.path.lexists(parent))
        try:
            with tempfile.TemporaryFile(dir=folder):
                pass
        except OSError as error:
            raise CannotWrite(
                f"cannot write '{path}': {error.strerror}", f"choose a writable folder with {flag}"
            ) from error


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
