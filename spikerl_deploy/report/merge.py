"""One report of many inputs: what a file is, is found by its content; every part is checked before it is merged."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from spikerl_deploy.carbon import emissions_kg
from spikerl_deploy.errors import SpikerlError
from spikerl_deploy.report.document import SCHEMA, check_schema_name, look_at, read_json, validate
from spikerl_deploy.report.warnings import report_warnings

VERIFY, MEASURE = "spikerl.verify/1", "spikerl.inference-energy/1"
PARTS = ("deployments", "training", "speedups", "conformance", "inference", "warnings")
WHAT = "a report, a training run, or JSON of verify or measure"
HINT = "spikerl report RUN_FOLDER REPORT_FOLDER verify.json energy.json -o DIR"
GIVEN_BY_USER = "given by the user"


@dataclass(frozen=True)
class Source:
    """An input: its file, or its folder for a training run; the parts of a report that it gives, None for a run."""

    path: Path
    parts: dict[str, Any] | None = field(repr=False)


def empty_report() -> dict[str, Any]:
    """A report of nothing."""
    return {"schema": SCHEMA, "manifest": {}, "title": "", **{part: [] for part in PARTS}}


def find_sources(paths: Iterable[Path], skip: Path | None = None) -> list[Source]:
    """Read what is at the paths, each file once.

    Args:
        paths: files, or folders that hold inputs themselves or, if not, in their subfolders. skip: a folder left out,
            where the merged report will be.

    Raises:
        SpikerlError: nothing at a path, nothing that is known in it, or a part that is not valid.
    """
    found: dict[Path, Source] = {}
    left_out = skip.resolve() if skip is not None else None
    for path in paths:
        there = look_at(path)
        if there is None:
            raise SpikerlError(f"nothing at '{path}'", HINT)
        here = [_read(path)] if there == "file" else _in_folder(path) or _below(path, left_out)
        for source in here:
            found.setdefault(source.path.resolve(), source)
    return list(found.values())


def _below(path: Path, left_out: Path | None) -> list[Source]:
    """What the folders in a folder hold."""
    try:
        folders = sorted(folder for folder in path.iterdir() if folder.is_dir() and folder.resolve() != left_out)
    except OSError as error:
        raise SpikerlError(f"cannot look into '{path}': {error.strerror}", HINT) from error
    here = [source for folder in folders for source in _in_folder(folder)]
    if not here:
        raise SpikerlError(f"'{path}' holds none of: {WHAT}", HINT)
    return here


def _in_folder(folder: Path) -> list[Source]:
    """What the folder itself holds; JSON files of other schemas are passed over."""
    sources = []
    metrics = (path for name in ("metrics.csv", "seed-*/metrics.csv") for path in folder.glob(name))
    if (folder / "config.toml").is_file() and any(metrics):
        sources.append(Source(folder, None))
    for path in sorted(folder.glob("*.json")):
        name = str(read_json(path).get("schema"))
        if name in (VERIFY, MEASURE) or name.startswith("spikerl.report/"):
            sources.append(_read(path))
    return sources


def _read(path: Path) -> Source:
    document = read_json(path)
    name = document.get("schema")
    report = empty_report()
    if name == VERIFY:
        report["conformance"] = [_conformance(path, document)]
    elif name == MEASURE:
        report["inference"] = [document]
    elif isinstance(name, str) and name.startswith("spikerl.report/"):
        check_schema_name(path, document)
        report = document
    else:
        raise SpikerlError(f"'{path}' is none of: {WHAT}; its schema is {str(name)[:60]!r}", HINT)
    validate(report, str(path))
    return Source(path, {part: report[part] for part in PARTS})


def _conformance(path: Path, document: Mapping[str, Any]) -> dict[str, Any]:
    """A verification as a report holds it; types are the schema's to check."""
    try:
        policy, reference = document["policy"], document["reference"]
        return {
            "title": f"{policy['file']} against {reference['name']}",
            "policy": policy,
            "environment": document["environment"],
            "reference": {key: reference[key] for key in ("name", "spikes")},
            "passed": document["passed"],
            "rows": [_row(row) for row in document["rows"]],
        }
    except (KeyError, TypeError) as error:
        missing = f"'{error.args[0]}' is missing" if isinstance(error, KeyError) else "a part is no object"
        raise SpikerlError(f"'{path}' is no whole {VERIFY}: {missing}", "spikerl verify POLICY -o FILE") from error


def _row(row: Mapping[str, Any]) -> dict[str, Any]:
    spikes, action = row["spikes"] or {}, row["action_error"] or {}
    return {
        **{key: row[key] for key in ("name", "runs", "status", "returns")},
        **{key: spikes.get(key) for key in ("mismatches", "either")},
        "action_error": action.get("share_of_range"),
    }


def merge_reports(
    sources: Sequence[Source],
    runs: Mapping[str, list[Any]],
    manifest: Mapping[str, Any],
    title: str | None = None,
    carbon_intensity: float | None = None,
) -> dict[str, Any]:
    """The report of all sources; parts that two of them share are in it once.

    Args:
        runs: the parts `training`, `speedups` and `warnings` of the run folders among the sources.
        carbon_intensity: g CO2eq/kWh for every training run, None keeps each run's own.
    """
    report = empty_report() | {"manifest": dict(manifest)}
    parts = [runs, *(source.parts for source in sources if source.parts is not None)]
    for one in parts:
        _add(report, one)
    if carbon_intensity is not None:
        report["training"] = [with_intensity(run, carbon_intensity, GIVEN_BY_USER) for run in report["training"]]
    report["title"] = title if title is not None else _title(report)
    said = [line for one in parts for line in one.get("warnings", [])]
    report["warnings"] = list(dict.fromkeys([*report_warnings(report), *said]))
    return report


def with_intensity(run: Mapping[str, Any], grams_per_kwh: float, source: str) -> dict[str, Any]:
    """A training run with its carbon computed from its joules; null where its energy is unmeasured."""
    if run["energy"] is None:
        return {**run, "carbon": None}
    intensity = {"value": grams_per_kwh, "unit": "g CO2eq/kWh", "source": source}
    kilograms = emissions_kg(run["energy"]["joule"], grams_per_kwh)
    return {**run, "carbon": {"kg_co2eq": kilograms, "kind": "modelled", "intensity": intensity}}


def _add(report: dict[str, Any], parts: Mapping[str, list[Any]]) -> None:
    """Append parts to a report under ids and titles of their own; speedups follow the ids of their runs."""
    renamed = {}
    for run in parts.get("training", []):
        kept = _same(run, report["training"]) or _named(run, report["training"], [run["title"]])
        renamed[run["id"]] = kept["id"]
    for deployment in parts.get("deployments", []):
        if _same(deployment, report["deployments"]) is None:
            environment = deployment["environment"]
            longer = f"{deployment['title']}, {environment['id']}, {len(environment['seeds'])} seeds"
            _named(deployment, report["deployments"], [deployment["title"], longer])
    for speedup in parts.get("speedups", []):
        ids = {key: renamed.get(speedup[key], speedup[key]) for key in ("baseline", "run")}
        _once(report["speedups"], {**speedup, **ids})
    for part in ("conformance", "inference"):
        for entry in parts.get(part, []):
            _once(report[part], entry)


def _same(entry: Mapping[str, Any], others: Iterable[dict[str, Any]]) -> dict[str, Any] | None:
    """The one among the others that says the same, whatever it is called."""
    rest = {key: value for key, value in entry.items() if key not in ("id", "title")}
    return next((other for other in others if all(other[key] == value for key, value in rest.items())), None)


def _named(entry: Mapping[str, Any], others: list[dict[str, Any]], titles: Sequence[str]) -> dict[str, Any]:
    """The entry under the first title and id that no other has, appended to the others."""
    taken = {other["id"] for other in others} | {other["title"] for other in others}
    for number, title in enumerate(_numbered(titles)):
        name = entry["id"] if number == 0 else slug(title)
        if title not in taken and name not in taken:
            break
    named = {**entry, "id": name, "title": title}
    others.append(named)
    return named


def _numbered(titles: Sequence[str]) -> Iterator[str]:
    yield from titles
    number = 2
    while True:
        yield f"{titles[-1]} ({number})"
        number += 1


def _once(entries: list[Any], entry: Any) -> None:
    if entry not in entries:
        entries.append(entry)


def slug(text: str) -> str:
    """A name of a-z, 0-9 and -, for ids."""
    return re.sub("[^a-z0-9]+", "-", text.lower()).strip("-") or "unnamed"


def _title(report: Mapping[str, Any]) -> str:
    deployments, runs = report["deployments"], report["training"]
    if len(deployments) == 1:
        return f"{deployments[0]['environment']['id']} on {deployments[0]['backend']}"
    played = dict.fromkeys(deployment["environment"]["id"] for deployment in deployments)
    if deployments:
        return f"{', '.join(played)}: {len(deployments)} deployments"
    if runs:
        return f"{', '.join(dict.fromkeys(run['env'] or run['folder'] for run in runs))}: training"
    return "Conformance" if report["conformance"] else "Energy of inference"
