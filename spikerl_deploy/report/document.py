"""Reading a report: strict JSON of a bounded size, held against the published schema and against itself."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Iterator
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any, Literal

from spikerl_deploy.errors import SpikerlError
from spikerl_deploy.report.consistency import disagreements

SCHEMA = "spikerl.report/2"
BYTES_MAX = 1 << 26  # a report of ten deployments with all their spikes is a few megabytes
SHOWN = 80  # characters of a value in an error
DEPTH_MAX = 64  # parts within parts; a real report has about a dozen, and one more for each export of a policy
NUMBER_MAX = 1e100  # beyond it an axis cannot be divided, and sums overflow
SURROGATE = re.compile("[\ud800-\udfff]")  # half a pair, which no file holds
HINT = "make one: spikerl simulate POLICY -o DIR"


def read_report(path: Path) -> dict[str, Any]:
    """Read report.json, given as the file or as the folder that holds it.

    Raises:
        SpikerlError: no such file, or no report of this version that is whole; names the place and the value.
    """
    path = path / "report.json" if look_at(path) == "folder" else path
    document = read_json(path)
    check_schema_name(path, document)
    validate(document, str(path))
    return document


def check_schema_name(path: Path, document: dict[str, Any]) -> None:
    """Refuse a document that is no report of this version.

    Raises:
        SpikerlError: it is not.
    """
    name = document.get("schema")
    if name == SCHEMA:
        return
    if isinstance(name, str) and name.startswith("spikerl.report/"):
        raise SpikerlError(f"'{path}' is {_shown(name)}, which this version does not read: '{SCHEMA}' is needed",
                           "simulate again: spikerl simulate POLICY -o DIR")  # fmt: skip
    raise SpikerlError(f"'{path}' is no report: its schema is {_shown(name)}, '{SCHEMA}' was expected", HINT)


def look_at(path: Path) -> Literal["folder", "file"] | None:
    """What is at a path, None where nothing is.

    Raises:
        SpikerlError: the system takes no such path.
    """
    try:
        return "folder" if path.is_dir() else "file" if path.is_file() else None
    except OSError as error:
        raise SpikerlError(f"cannot look at '{path}': {error.strerror}", HINT) from error


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object, without NaN, numbers that no float holds, and names that come twice.

    Raises:
        SpikerlError: no such file, it is larger than BYTES_MAX, or no such object.
    """
    try:
        with path.open("rb") as stream:
            data = stream.read(BYTES_MAX + 1)
        if len(data) > BYTES_MAX:
            raise ValueError(f"it has more than {BYTES_MAX} bytes")
        document = json.loads(
            data.decode("utf-8"),
            parse_constant=_refuse,
            parse_float=_finite,
            parse_int=_integer,
            object_pairs_hook=_once,
        )
    except (OSError, ValueError, RecursionError) as error:
        reason = getattr(error, "strerror", None) or " ".join(str(error).split()) or type(error).__name__
        raise SpikerlError(f"cannot read '{path}': {reason}", HINT) from error
    if not isinstance(document, dict):
        raise SpikerlError(f"'{path}' holds no JSON object", HINT)
    return document


def _refuse(name: str) -> float:
    raise ValueError(f"{name} is no JSON number")


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"{text[:SHOWN]} is no finite number")
    return value


def _integer(text: str) -> int:
    _finite(text)  # hundreds of digits are an integer to Python, and overflow where they become a float
    return int(text)


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"'{next(name for name in names if names.count(name) > 1)[:SHOWN]}' comes twice in one object")
    return found


@cache
def report_schema() -> dict[str, Any]:
    """The published JSON schema, draft 2020-12."""
    text = files("spikerl_deploy").joinpath("data/report.schema.json").read_text(encoding="utf-8")
    schema: dict[str, Any] = json.loads(text)
    return schema


def validate(document: dict[str, Any], name: str) -> None:
    """Hold a document against the schema, and against what a schema cannot say: names, lengths and sums.

    Args:
        name: of the document, for an error.

    Raises:
        SpikerlError: names the place as a JSON path, and the value.
    """
    problem = misfit(document, report_schema())
    if problem is not None:
        raise SpikerlError(f"'{name}' is no valid {SCHEMA}: at {problem}", HINT)
    problem = next(disagreements(document), None)
    if problem is not None:
        raise SpikerlError(f"'{name}' contradicts itself: {problem}", HINT)


def validate_provenance(provenance: Any, name: str) -> None:
    """Refuse a policy's provenance that no report can hold.

    Args:
        name: of the policy, for an error.

    Raises:
        SpikerlError: names the place as a JSON path, and the value.
    """
    whole = report_schema()
    problem = misfit(provenance, {**whole["$defs"]["provenance"], "type": "object", "$defs": whole["$defs"]})
    if problem is not None:
        raise SpikerlError(f"'{name}' has a provenance that no report can hold: at {problem}",
                           "export it again: spikerl export RUN --to nir -o policy.nir")  # fmt: skip


def misfit(document: Any, schema: dict[str, Any]) -> str | None:
    """Where a document does not fit a schema, or holds what no file or plot can, and why."""
    from jsonschema import Draft202012Validator
    from jsonschema.exceptions import best_match

    problem = next(_unfit(document), None)  # first: the validator would exhaust the stack on what is nested deeper
    if problem is not None:
        return problem
    error = best_match(Draft202012Validator(schema).iter_errors(document))
    return None if error is None else f"{_place(error.absolute_path)}: {_reason(error)}"


def _unfit(value: Any, path: tuple[str | int, ...] = ()) -> Iterator[str]:
    """Places that cannot be written as JSON, or drawn, and why."""
    if isinstance(value, dict | list):
        if len(path) >= DEPTH_MAX:
            yield f"{_cut(_place(path))}: nested more than {DEPTH_MAX} deep"
            return
        for key, inner in value.items() if isinstance(value, dict) else enumerate(value):
            if isinstance(key, str):
                yield from _unfit(key, path)
            yield from _unfit(inner, (*path, key))
    elif isinstance(value, str):
        if SURROGATE.search(value):
            yield f"{_cut(_place(path))}: {_shown(value)} is no Unicode text"
    elif isinstance(value, int | float) and not abs(value) <= NUMBER_MAX:
        yield f"{_cut(_place(path))}: {_shown(value)} is not between {-NUMBER_MAX:g} and {NUMBER_MAX:g}"


def _place(parts: Iterable[str | int]) -> str:
    return "$" + "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in parts)


def _reason(error: Any) -> str:
    if error.validator in ("required", "additionalProperties"):
        return _cut(" ".join(error.message.split()))
    return f"{_shown(error.instance)}, where {error.validator} {_shown(error.validator_value)} was expected"


def _shown(value: Any) -> str:
    return _cut(json.dumps(value))


def _cut(text: str) -> str:
    return text if len(text) <= SHOWN else text[: SHOWN - 3] + "..."
