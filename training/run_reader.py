"""A training run as it lies in its folder: settings, evaluations, result, energy. Loads no torch."""

from __future__ import annotations

import csv
import json
import math
import re
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

from spikerl_deploy.errors import SpikerlError

HINT = "give run folders of spikerl train"
SHOWN = 80  # characters of a value in an error
RESUMED_WITH = ", resumed with "
FINISHED = ("steps", "stop_return")  # reasons to stop of a run that did all it was asked for
KINDS = ("measured", "modelled", "unmeasured")  # from the strongest


def weaker(*kinds: str) -> str:
    """The kind of a figure that is made of figures of these kinds."""
    return max(kinds, key=KINDS.index)


@dataclass(frozen=True)
class Energy:
    """Energy of a run, tracked for `seconds`. `components`: value in J and kind of cpu, gpu and ram."""

    joule: float
    kind: str
    seconds: float
    source: str
    components: Mapping[str, Mapping[str, Any]]
    hardware: Mapping[str, str]

    @property
    def components_counted(self) -> Sequence[str]:
        """Parts of the machine that the energy includes."""
        return [name for name, part in self.components.items() if part["kind"] != "unmeasured"]


@dataclass(frozen=True)
class Evaluation:
    """Mean return, over episodes and seeds, at an environment step of each seed, `seconds` after the start."""

    step: int
    seconds: float
    mean_return: float


@dataclass(frozen=True)
class Run:
    """A run folder. `steps` are those of all its seeds together; the seeds of a run advance side by side.

    `evaluations` is the mean over seeds of `curves`, which has one a seed. `stopped` and `energy` are None while a run
    goes on, also where it had ended before and was resumed. `resumed` is the manifest of its last stretch, which holds
    those of the stretches between it and the start.
    """

    folder: Path
    settings: Mapping[str, Any]
    seeds: int
    steps: int
    seconds: float
    ranks: int
    stopped: str | None
    evaluations: Sequence[Evaluation]
    energy: Energy | None
    manifest: Mapping[str, Any]
    files: Sequence[Path]
    curves: Sequence[Sequence[Evaluation]]
    resumed: Mapping[str, Any]

    @property
    def finished(self) -> bool:
        """Whether it did all that its settings ask for."""
        return self.stopped in FINISHED

    def recorded(self, part: str) -> dict[str, str]:
        """A part of the manifests, `versions` or `machine`; where stretches differ, each value in turn."""
        earlier = self.resumed.get("earlier")
        stretches = [self.manifest, *(earlier if isinstance(earlier, list) else []), self.resumed or self.manifest]
        parts = (stretch.get(part) for stretch in stretches if isinstance(stretch, dict))
        tables = [table if isinstance(table, dict) else {} for table in parts]
        names = dict.fromkeys(name for table in tables for name in table)
        values = {name: [str(table.get(name, "none")) for table in tables] for name in names}
        return {str(name): RESUMED_WITH.join(one for one, _ in groupby(told)) for name, told in values.items()}


def read_run(folder: Path) -> Run:
    """Read a run folder; several seeds that trained side by side have their metrics in its `seed-*`.

    Raises:
        SpikerlError: it is no run folder, or a file in it is missing or malformed.
    """
    tables = [folder / "metrics.csv"]
    if not tables[0].is_file():
        tables = sorted(folder.glob("seed-*/metrics.csv"))
    if not tables:
        raise SpikerlError(f"'{folder}' is no run folder (metrics.csv is missing)", HINT)
    if not (folder / "config.toml").is_file():  # seeds that have their own need not have trained side by side
        raise SpikerlError(f"'{folder}' is no run folder (config.toml is missing)", HINT)
    read: list[Path] = []
    curves = [_metrics(path, read) for path in tables]
    settings, manifest, resumed, result, emissions = (
        _load(folder / name, read) if (folder / name).is_file() else {}
        for name in ("config.toml", "manifest.json", "manifest-resumed.json", "result.json", "emissions.json")
    )
    step, seconds = max(curve.last_step for curve in curves), max(curve.last_seconds for curve in curves)
    ranks = _ranks(manifest)
    if result:
        end = {
            name: _number(folder / "result.json", {"ranks": 1} | result, name) for name in ("steps", "seconds", "ranks")
        }
        ranks = int(end["ranks"])
        asked = settings.get("steps")
        fewer = result.get("stopped") == "steps" and isinstance(asked, int) and end["steps"] < asked
        if end["steps"] < step or fewer:
            result = {}  # of a run that was resumed since, and has not ended again
        else:
            step, seconds = int(end["steps"]), end["seconds"]
    if step <= 0 or seconds <= 0:
        raise SpikerlError(f"run '{folder}' has {step} steps in {seconds:g} s, nothing to compare", "train it first")
    return Run(
        folder,
        settings,
        len(curves),
        step * len(curves),
        seconds,
        ranks,
        str(result.get("stopped")) if result else None,
        _mean_curve([curve.evaluations for curve in curves]),
        _energy(folder / "emissions.json", emissions) if result else None,  # otherwise it is of an earlier stretch
        manifest,
        tuple(read),
        tuple(curve.evaluations for curve in curves),
        resumed,
    )


def _ranks(manifest: Mapping[str, Any]) -> int:
    """Ranks of a run that has no result yet; runs of before manifests told them count as of one."""
    machine = manifest.get("machine")
    told = str(machine.get("ranks", "")) if isinstance(machine, dict) else ""
    return int(told) if re.fullmatch("[1-9][0-9]{0,8}", told) else 1


def _load(path: Path, read: list[Path]) -> dict[str, Any]:
    try:
        text = path.read_text(encoding="utf-8")
        document = tomllib.loads(text) if path.suffix == ".toml" else json.loads(text)
    except (OSError, ValueError, RecursionError) as error:
        reason = getattr(error, "strerror", None) or " ".join(str(error).split())
        raise SpikerlError(f"cannot read '{path}': {reason}", HINT) from error
    if not isinstance(document, dict):
        raise SpikerlError(f"'{path}' holds no table of names and values", HINT)
    read.append(path)
    return document


def _number(path: Path, document: Mapping[str, Any], name: str) -> float:
    value = document.get(name)
    try:
        number = math.nan if isinstance(value, bool) or not isinstance(value, int | float) else float(value)
    except OverflowError:  # an integer of hundreds of digits
        number = math.inf
    if not 0 <= number < math.inf:
        raise SpikerlError(f"'{path}' has {name} = {repr(value)[:SHOWN]}, a number of 0 or more was expected", HINT)
    return number


@dataclass(frozen=True)
class _Curve:
    evaluations: Sequence[Evaluation]
    last_step: int
    last_seconds: float


def _metrics(path: Path, read: list[Path]) -> _Curve:
    evaluations, step, seconds, line = [], 0, 0.0, 1
    try:
        with path.open(newline="", encoding="utf-8") as stream:
            for line, row in enumerate(csv.DictReader(stream), start=2):  # noqa: B007 (an error names it)
                if None in row or None in row.values():
                    raise ValueError("fields are missing or too many")
                was, (step, seconds) = (step, seconds), (int(row["step"]), float(row["seconds"]))
                float(step)  # hundreds of digits overflow here, and not where time is divided by them
                value = float(row["value"]) if row["kind"] == "eval" and row["name"] == "return_mean" else None
                if step < was[0] or not was[1] <= seconds < math.inf:
                    raise ValueError("step or time runs backwards")
                if value is not None:
                    if not math.isfinite(value):
                        raise ValueError(f"return_mean is {value}")
                    evaluations.append(Evaluation(step, seconds, value))
    except (OSError, ValueError, OverflowError, TypeError, KeyError, csv.Error) as error:
        reason = f"no column {error}" if isinstance(error, KeyError) else getattr(error, "strerror", None) or error
        raise SpikerlError(f"cannot read '{path}', line {line}: {reason}", HINT) from error
    read.append(path)
    return _Curve(evaluations, step, seconds)


def _mean_curve(curves: Sequence[Sequence[Evaluation]]) -> Sequence[Evaluation]:
    """Mean over seeds at the steps that all seeds evaluated at; its time is that of the last seed there."""
    tables = [{point.step: point for point in curve} for curve in curves]
    mean = []
    for step in sorted(set.intersection(*(set(table) for table in tables))):
        points = [table[step] for table in tables]
        mean_return = math.fsum(point.mean_return for point in points) / len(points)
        mean.append(Evaluation(step, max(point.seconds for point in points), mean_return))
    return mean


def _energy(path: Path, document: Mapping[str, Any]) -> Energy | None:
    if not document.get("tracked"):
        return None
    components = document.get("energy_joule")
    if not isinstance(components, dict):
        raise SpikerlError(f"'{path}' has energy_joule = {components!r}, a table of parts was expected", HINT)
    for name, part in components.items():
        if not isinstance(part, dict) or part.get("kind") not in KINDS:
            raise SpikerlError(f"'{path}' has energy_joule.{name} = {part!r}, a kind was expected", HINT)
        if part["kind"] != "unmeasured":
            _number(path, part, "value")
    joule, seconds = _number(path, document, "total_energy_joule"), _number(path, document, "duration_s")
    kinds = {part["kind"] for part in components.values()} - {"unmeasured"}
    if not (joule and seconds and kinds):
        return None
    hardware = {name: str(document.get(name) or "") for name in ("cpu_model", "gpu_model")}
    return Energy(joule, weaker(*kinds), seconds, str(document.get("source")), components, hardware)
