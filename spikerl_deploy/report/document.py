"""Reading a report: strict JSON of a bounded size, held against the published schema and against itself."""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Iterable, Iterator
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any, Literal

from spikerl_deploy.errors import SpikerlError

SCHEMA = "spikerl.report/2"
BYTES_MAX = 1 << 26  # a report of ten deployments with all their spikes is a few megabytes
SHOWN = 80  # characters of a value in an error
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
    """A JSON object, without NaN, infinities and names that come twice.

    Raises:
        SpikerlError: no such file, it is larger than BYTES_MAX, or no such object.
    """
    try:
        with path.open("rb") as stream:
            data = stream.read(BYTES_MAX + 1)
        if len(data) > BYTES_MAX:
            raise ValueError(f"it has more than {BYTES_MAX} bytes")
        document = json.loads(
            data.decode("utf-8"), parse_constant=_refuse, parse_float=_finite, object_pairs_hook=_once
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
    """Hold a document against the schema, and against what a schema cannot say: names and lengths that must agree.

    Args:
        name: of the document, for an error.

    Raises:
        SpikerlError: names the place as a JSON path, and the value.
    """
    from jsonschema import Draft202012Validator
    from jsonschema.exceptions import best_match

    error = best_match(Draft202012Validator(report_schema()).iter_errors(document))
    if error is not None:
        raise SpikerlError(f"'{name}' is no valid {SCHEMA}: at {_place(error.absolute_path)}: {_reason(error)}", HINT)
    problem = next(_disagreements(document), None)
    if problem is not None:
        raise SpikerlError(f"'{name}' contradicts itself: {problem}", HINT)


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


def _disagreements(document: dict[str, Any]) -> Iterator[str]:
    """What is wrong in a document that fits the schema, a sentence each."""
    for part in ("deployments", "training"):
        yield from _twice(part, [entry["id"] for entry in document[part]])
    for index, deployment in enumerate(document["deployments"]):
        for problem in _in_deployment(deployment):
            yield f"$.deployments[{index}]: {problem}"
    runs = {run["id"] for run in document["training"]}
    for index, speedup in enumerate(document["speedups"]):
        for key in ("baseline", "run"):
            if speedup[key] not in runs:
                yield f"$.speedups[{index}].{key}: no training run '{speedup[key]}'"


def _twice(part: str, ids: list[str]) -> Iterator[str]:
    for left, right in itertools.pairwise(sorted(ids)):
        if left == right:
            yield f"$.{part}: id '{left}' comes twice"


def _in_deployment(deployment: dict[str, Any]) -> Iterator[str]:
    backends, seeds = deployment["backends"], len(deployment["environment"]["seeds"])
    named = {"backend": deployment["backend"]}
    comparison = deployment["comparison"]
    if comparison is not None:
        named |= {f"comparison.{key}": comparison[key] for key in ("backend", "baseline")}
        yield from _length("comparison.differences", comparison["differences"], seeds)
    for place, name in named.items():
        if name not in backends:
            yield f"{place}: no backend '{name}'"
    for name, entry in backends.items():
        episodes = entry["workload"]["per_episode"]
        rows = {key: episodes[key] for key in ("synaptic_operations", "spikes", "input_spikes")}
        for key, values in {"returns": entry["returns"], "lengths": entry["lengths"], **rows}.items():
            yield from _length(f"backends.{name}.{key}", values, seeds)
        yield from _in_energy(f"backends.{name}.energy", entry["energy"])
    yield from _in_spikes(deployment["spikes"])
    yield from _in_membranes(deployment["membranes"])


def _length(place: str, values: list[Any], wanted: int) -> Iterator[str]:
    if len(values) != wanted:
        yield f"{place}: {len(values)} values, {wanted} were expected"


def _in_energy(place: str, energy: dict[str, Any]) -> Iterator[str]:
    for figure in (*energy["figures"], *energy["baselines"]):
        if figure["low"] > figure["high"]:
            yield f"{place}: '{figure['id']}' is lowest at {figure['low']} and highest at {figure['high']}"
    if energy["headline"]["id"] not in [figure["id"] for figure in energy["figures"]]:
        yield f"{place}.headline: no figure '{energy['headline']['id']}'"
    sweep = energy.get("sweep") or {"rates": [], "figures": []}
    for figure in sweep["figures"]:
        for side in ("low", "high"):
            yield from _length(f"{place}.sweep '{figure['id']}' {side}", figure[side], len(sweep["rates"]))


def _in_spikes(spikes: dict[str, Any] | None) -> Iterator[str]:
    if spikes is None:
        return
    steps = spikes["control_steps"] * spikes["time_steps"]
    for layer in spikes["layers"]:
        yield from _length(f"spikes '{layer['name']}'", layer["neuron"], len(layer["time"]))
        for key, size in (("time", steps), ("neuron", layer["neurons"])):
            if max(layer[key], default=0) >= size:
                yield f"spikes '{layer['name']}' {key}: {max(layer[key])} is beyond {size - 1}"


def _in_membranes(membranes: dict[str, Any] | None) -> Iterator[str]:
    if membranes is None:
        return
    steps = membranes["control_steps"] * membranes["time_steps"]
    for layer in membranes["layers"]:
        yield from _length(f"membranes '{layer['name']}' threshold", layer["threshold"], len(layer["traces"]))
        for trace in layer["traces"]:
            yield from _length(f"membranes '{layer['name']}' neuron {trace['neuron']}", trace["voltage"], steps)
            if max(trace["spikes"], default=0) >= steps:
                yield f"membranes '{layer['name']}' spikes: {max(trace['spikes'])} is beyond {steps - 1}"
