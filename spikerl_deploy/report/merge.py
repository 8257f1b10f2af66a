"""One report of many inputs: what a file is, is found by its content; every part is checked before it is merged."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from spikerl_deploy.carbon import emissions_kg
from spikerl_deploy.errors import SpikerlError
from spikerl_deploy.report.document import BYTES_MAX, SCHEMA, check_schema_name, look_at, read_json, validate
from spikerl_deploy.report.warnings import report_warnings

VERIFY, MEASURE = "spikerl.verify/1", "spikerl.inference-energy/1"
OURS = b'"spikerl.'  # begins the names of our schemas
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
    """What the folder itself holds; JSON that is no document of ours is passed over."""
    sources = []
    metrics = (path for name in ("metrics.csv", "seed-*/metrics.csv") for path in folder.glob(name))
    if (folder / "config.toml").is_file() and any(metrics):
        sources.append(Source(folder, None))
    for path in sorted(path for path in folder.glob("*.json") if path.is_file()):
        name = _schema_name(path)
        if name in (VERIFY, MEASURE) or name.startswith("spikerl.report/"):
            sources.append(_read(path))
    return sources


def _schema_name(path: Path) -> str:
    """The schema that a file states; empty where it cannot be read and does not look like one of ours.

    Raises:
        SpikerlError: it is broken, and names a schema of ours.
    """
    try:
        return str(read_json(path).get("schema"))
    except SpikerlError as error:
        try:
            with path.open("rb") as stream:
                ours = OURS in stream.read(BYTES_MAX)
        except OSError:  # then no one knows what it is
            raise error from None
        if ours:
            raise
        return ""


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
            "reference": {"runs": reference.get("runs"), **{key: reference[key] for key in ("name", "spikes")}},
            "passed": document["passed"],
            "rows": [_row(row) for row in document["rows"]],
        }
    except (KeyError, TypeError, AttributeError) as error:
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
    said = [line for one in parts for line in _retitled(_own_warnings(one), _add(report, one))]
    if carbon_intensity is not None:
        report["training"] = [with_intensity(run, carbon_intensity, GIVEN_BY_USER) for run in report["training"]]
    report["title"] = title if title is not None else _title(report)
    report["warnings"] = list(dict.fromkeys([*report_warnings(report), *said]))
    return report


def with_intensity(run: Mapping[str, Any], grams_per_kwh: float, source: str) -> dict[str, Any]:
    """A training run with its carbon computed from its joules; null where its energy is unmeasured."""
    if run["energy"] is None:
        return {**run, "carbon": None}
    intensity = {"value": grams_per_kwh, "unit": "g CO2eq/kWh", "source": source}
    kilograms = emissions_kg(run["energy"]["joule"], grams_per_kwh)
    return {**run, "carbon": {"kg_co2eq": kilograms, "kind": "modelled", "intensity": intensity}}


def _own_warnings(parts: Mapping[str, list[Any]]) -> list[str]:
    """Warnings that cannot be found in the parts themselves; the others are found anew, under new titles."""
    found = report_warnings({**empty_report(), **parts})
    return [line for line in parts.get("warnings", []) if line not in found]


def _retitled(lines: Iterable[str], titles: Mapping[str, str]) -> list[str]:
    """Lines "training runs A, TITLE, and B, TITLE: ..." with the new titles of their runs."""
    if not titles:
        return list(lines)
    old = "|".join(re.escape(title) for title in sorted(titles, key=len, reverse=True))
    return [re.sub(rf"(?<=\b[AB], )(?:{old})(?=, and B, |: )", lambda found: titles[found[0]], line) for line in lines]


def _add(report: dict[str, Any], parts: Mapping[str, list[Any]]) -> dict[str, str]:
    """Append parts to a report under ids and titles of their own; speedups follow the ids of their runs.

    Returns:
        The new titles of runs by their old ones; one that two runs shared stays as it is.
    """
    renamed: dict[str, str] = {}
    titles: dict[str, str] = {}
    for run in parts.get("training", []):
        kept = _same(run, report["training"], "carbon") or _named(run, report["training"], [run["title"]])
        renamed[run["id"]], was = kept["id"], run["title"]
        titles[was] = kept["title"] if titles.get(was, kept["title"]) == kept["title"] else was
    for deployment in parts.get("deployments", []):
        if _same(deployment, report["deployments"]) is None:
            environment = deployment["environment"]
            seeds = len(environment["seeds"])
            longer = f"{deployment['title']}, {environment['id']}, {seeds} seed{'s' if seeds > 1 else ''}"
            _named(deployment, report["deployments"], [deployment["title"], longer])
    for speedup in parts.get("speedups", []):
        ids = {key: renamed.get(speedup[key], speedup[key]) for key in ("baseline", "run")}
        if ids["baseline"] != ids["run"]:  # copies of one run
            _once(report["speedups"], {**speedup, **ids})
    for part in ("conformance", "inference"):
        for entry in parts.get(part, []):
            _once(report[part], entry)
    return titles


def _same(entry: Mapping[str, Any], others: Iterable[dict[str, Any]], *besides: str) -> dict[str, Any] | None:
    """The one among the others that says the same, whatever it is called; `besides`: further keys left out.

    A run is the same one whatever intensity its carbon is stated at.
    """
    rest = {key: value for key, value in entry.items() if key not in ("id", "title", *besides)}
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
