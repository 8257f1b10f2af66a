"""Strict reading of chip files: a value that breaks the schema is refused with file, key and value."""

from __future__ import annotations

import math
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

from spikerl_deploy.errors import SpikerlError, unknown

SOURCE_KINDS = ("datasheet", "paper", "documentation", "source code", "secondary")
HINT = "docs/fit.md has the schema of a chip file"


@dataclass(frozen=True)
class Source:
    """Where a figure is from; `kind` is one of SOURCE_KINDS."""

    name: str
    kind: str
    url: str | None = None


def built_in_text(name: str) -> str:
    """A data file of the package."""
    return files("spikerl_deploy").joinpath("data", name).read_text(encoding="utf-8")


def file_text(path: Path) -> str:
    """A user's chip file.

    Raises:
        SpikerlError: it cannot be read.
    """
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise SpikerlError(f"cannot read chip file '{path}': {error}", HINT) from error


def read_toml(file: str, text: str) -> dict[str, Any]:
    """The document of a chip file, which holds something."""
    try:
        document = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise SpikerlError(f"'{file}' is not TOML: {error}", HINT) from error
    if not document:
        raise SpikerlError(f"'{file}' holds no chip", HINT)
    return document


def read_sources(file: str, name: str, value: Any) -> dict[str, Source]:
    """The table `sources` of a chip, by key."""
    return {key: _source(file, f"{name}.{key}", entry) for key, entry in any_table(file, name, value).items()}


def _source(file: str, key: str, entry: Any) -> Source:
    table = fixed_table(file, key, entry, required=("name", "kind"), optional=("url",))
    kind, url = one_of(file, f"{key}.kind", table["kind"], SOURCE_KINDS), table.get("url")
    return Source(
        text(file, f"{key}.name", table["name"]), kind, None if url is None else text(file, f"{key}.url", url)
    )


def cited(file: str, key: str, value: Any, sources: Mapping[str, Source]) -> Source:
    """The chip's source that a value names."""
    return sources[one_of(file, f"{key}.source", value, sources)]


def any_table(file: str, key: str, value: Any) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise SpikerlError(f"'{file}': {key} = {value!r} is no table", HINT)
    return value


def fixed_table(
    file: str, key: str, value: Any, required: Iterable[str], optional: Iterable[str] = ()
) -> dict[str, Any]:
    """A table with all required keys and no key beyond the optional ones."""
    table, needed = any_table(file, key, value), tuple(required)
    known = [f"{key}.{name}" for name in (*needed, *optional)]
    for found in table:
        if f"{key}.{found}" not in known:
            raise within(file, unknown("key", f"{key}.{found}", known, HINT))
    for name in needed:
        if name not in table:
            raise SpikerlError(f"'{file}': {key}.{name} is missing", HINT)
    return table


def text(file: str, key: str, value: Any) -> str:
    if not isinstance(value, str) or not value.strip():
        raise SpikerlError(f"'{file}': {key} = {value!r} is no text", HINT)
    return value


def one_of(file: str, key: str, value: Any, known: Iterable[str]) -> str:
    """A text that is one of the known ones."""
    names = tuple(known)
    if text(file, key, value) not in names:
        raise within(file, unknown(key, value, names, HINT))
    return str(value)


def integer(file: str, key: str, value: Any, signed: bool = False) -> int:
    if not isinstance(value, int) or isinstance(value, bool):
        raise SpikerlError(f"'{file}': {key} = {value!r} is no integer", HINT)
    if value <= 0 and not signed:
        raise SpikerlError(f"'{file}': {key} = {value} must be positive", HINT)
    return value


def positive(file: str, key: str, value: Any) -> float:
    """A finite number above zero."""
    if not isinstance(value, int | float) or isinstance(value, bool):
        raise SpikerlError(f"'{file}': {key} = {value!r} is no number", HINT)
    try:
        number = float(value)
    except OverflowError:  # an integer of hundreds of digits
        number = math.inf
    if not math.isfinite(number) or number <= 0:
        raise SpikerlError(f"'{file}': {key} = {number:g} must be positive and finite", HINT)
    return number


def positive_list(file: str, key: str, value: Any) -> tuple[int, ...]:
    if not isinstance(value, list) or not value:
        raise SpikerlError(f"'{file}': {key} = {value!r} is no list of integers", HINT)
    return tuple(integer(file, f"{key}[{index}]", item) for index, item in enumerate(value))


def within(file: str, error: SpikerlError) -> SpikerlError:
    """The same error with the file that it is in."""
    return SpikerlError(f"'{file}': {error.message}", error.hint or HINT)
