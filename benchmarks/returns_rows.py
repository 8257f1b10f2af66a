"""Which seeds make a row of a table, what is written of them, and the published returns beside them."""

from __future__ import annotations

import statistics
import tomllib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from benchmarks.returns_document import TASKS, row_of
from spikerl_deploy.errors import SpikerlError
from spikerl_deploy.report.markdown import plain_text
from training.run_document import LAST

ACTORS = {"spiking": "spiking", "mlp": "dense ANN"}


def read_published(path: Path) -> dict[str, Any]:
    """The published returns.

    Raises:
        SpikerlError: no such file, or what the tables need is not in it.
    """
    try:
        with path.open("rb") as stream:
            document = tomllib.load(stream)
        for method in document["methods"]:
            source = document["sources"][method["source"]]
            for name in ("title", "url", "environments", "algorithm", "statistic", "checked"):
                if not isinstance(source[name], str):
                    raise ValueError(f"source '{method['source']}' has no text '{name}'")
            for name in ("read", "compared"):
                if not isinstance(source[name], bool):
                    raise ValueError(f"source '{method['source']}' says not whether it was '{name}'")
            if method["kind"] not in ("spiking", "ann") or not method["returns"].keys() <= TASKS.keys():
                raise ValueError(f"method '{method['name']}' of source '{method['source']}' has a wrong kind or task")
            if not all(isinstance(value, int | float) for value in method["returns"].values()):
                raise ValueError(
                    f"method '{method['name']}' of source '{method['source']}' has a return that is no number"
                )
        for task in TASKS:
            if any(best(document, task, kind) is None for kind in ("spiking", "ann")):
                raise ValueError(f"task '{task}' has no published return to be compared with")
            document["versions"][task]
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        reason = f"no {error}" if isinstance(error, KeyError) else getattr(error, "strerror", None) or error
        raise SpikerlError(f"cannot read published returns '{path}': {reason}", "see benchmarks/published_returns.toml"
                           ) from error  # fmt: skip
    return document


def best(published: dict[str, Any], task: str, kind: str) -> tuple[float, str] | None:
    """The highest return of a kind of method that is to be compared with, and the method's name."""
    compared = compared_with(published)
    methods = [one for one in published["methods"] if one["kind"] == kind and one["source"] in compared]
    return max(((one["returns"][task], one["name"]) for one in methods if task in one["returns"]), default=None)


def compared_with(published: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """The sources whose returns stand in the main table, by name."""
    return {name: source for name, source in published["sources"].items() if source["compared"]}


@dataclass(frozen=True)
class Row:
    """Seeds that have gone equally far, or to their end: what may be averaged. `parts`: run and seed of each."""

    parts: tuple[tuple[dict[str, Any], dict[str, Any]], ...]

    @property
    def run(self) -> dict[str, Any]:
        return self.parts[0][0]

    @property
    def finished(self) -> bool:
        return bool(self.run["status"] != "unfinished")

    @cached_property
    def seeds(self) -> list[int]:
        return [seed["seed"] for _, seed in self.parts]

    def values(self, name: str) -> list[float]:
        """`maximum`, `final` or `last_ten` of each seed."""
        return [seed[name] for _, seed in self.parts]

    @property
    def mean_curve(self) -> dict[int, float]:
        """The mean over seeds at each step, in their order, that all of them were evaluated at."""
        curves = [{step: mean for step, mean, _ in seed["curve"]} for _, seed in self.parts]
        shared = sorted(set.intersection(*(set(curve) for curve in curves)))
        return {step: statistics.fmean(curve[step] for curve in curves) for step in shared}

    @property
    def gone(self) -> str:
        """How far the seeds have gone, in words."""
        done = sorted({run["steps_done"] for run, _ in self.parts})
        span = f"{done[0]:,}" if len(done) == 1 else f"{done[0]:,} to {done[-1]:,}"
        if not self.finished:
            return f"unfinished at {span} of {self.run['steps_asked']:,} steps"
        if any(run["status"] == "stop_return" for run, _ in self.parts):
            return f"{span} steps, ended at a mean of {self.run['settings']['stop_return']:,.0f}"
        return f"{span} steps"

    @property
    def steps(self) -> str:
        """The same for a column of steps."""
        return self.gone.replace(" steps", "", 1) if self.finished else self.gone


def rows(document: dict[str, Any], task: str, group: str) -> list[Row]:
    """The rows of a task's policy: all finished seeds, then the unfinished ones by how far they are."""
    parts = [(run, seed) for run in document["runs"] if row_of(run) == (task, group, "") for seed in run["seeds"]]
    finished = tuple(part for part in parts if part[0]["status"] != "unfinished")
    found = [Row(finished)] if finished else []
    for done in sorted({run["steps_done"] for run, _ in parts if run["status"] == "unfinished"}, reverse=True):
        going = [part for part in parts if part[0]["status"] == "unfinished" and part[0]["steps_done"] == done]
        found.append(Row(tuple(going)))
    return found


def over_seeds(values: Sequence[float]) -> str:
    """Mean and sample standard deviation; of one seed its value alone."""
    mean = f"{statistics.fmean(values):,.0f}"
    return mean if len(values) == 1 else f"{mean} ± {statistics.stdev(values):,.0f}"


def of_fewer(curves: Iterable[Sequence[Any]]) -> str:
    """What stands behind a mean of the last evaluations where the shortest curve has too few for it."""
    fewest = min(len(curve) for curve in curves)
    return f" (of {fewest})" if fewest < LAST else ""


def plain(text: str) -> str:
    """Text that Markdown and HTML read as itself, in one line."""
    return plain_text(text).replace("$", r"\$")  # which GitHub takes for a formula


def markdown_table(head: Sequence[str], lines: Iterable[Sequence[str]], words: int) -> str:
    """A Markdown table; columns from `words` on hold numbers and are set to the right."""
    rule = ["---" if index < words else "---:" for index in range(len(head))]
    return "".join(f"| {' | '.join(cells)} |\n" for cells in (head, rule, *lines))
