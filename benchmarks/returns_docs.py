"""The tables of docs/returns.md alone: every run, the search, the ablations, published returns and versions."""

from __future__ import annotations

import statistics
from collections.abc import Iterable
from typing import Any

from benchmarks.returns_document import MACHINE, TASKS, TOLD, baseline_of, differing, extremes, row_of
from benchmarks.returns_rows import ACTORS, Row, compared_with, markdown_table, over_seeds, plain


def runs_table(document: dict[str, Any]) -> str:
    """A row a run and seed of the recipes and the dense twins: what it was, and what it took."""
    head = ("task", "policy", "seed", "settings beside the defaults", "environment steps", "evaluations", "energy",
            "carbon", "machine", "versions", "SHA-256 of metrics.csv", "maximum", "at step", "final",
            "hours")  # fmt: skip
    lines = []
    for run in document["runs"]:
        if run["group"] not in ("recipe", "mlp"):
            continue
        for index, seed in enumerate(run["seeds"]):
            hours, *costs = _costs(run) if index == 0 else ["as above"] * 4
            lines.append((run["env"], ACTORS[run["actor"]], str(seed["seed"]), _settings(run["settings"]),
                          Row(((run, seed),)).steps, _evaluations(run, seed), *costs, _versions(run),
                          f"`{seed['metrics']['sha256'][:12]}`", f"{seed['maximum']:,.0f}",
                          f"{seed['maximum_step']:,}", f"{seed['final']:,.0f}", hours))  # fmt: skip
    note = ("Hours, energy and carbon are of all seeds of a run together, and of the run as it was when it was added; "
            "energy is told when a run ends or is stopped, and is that of the whole machine, other work on it included."
            " The SHA-256 tells which metrics.csv a curve is from; those files hold times, are not published, and come "
            "out another each time.\n")  # fmt: skip
    return markdown_table(head, lines, words=11) + "\n" + note if lines else "No run was added yet.\n"


def _evaluations(run: dict[str, Any], seed: dict[str, Any]) -> str:
    return f"{len(seed['curve'])} of {run['evaluation']['episodes']} episodes"


def _versions(run: dict[str, Any]) -> str:
    named = {name: run["versions"].get(name) for name in ("spikerl-deploy", "torch", "gymnasium", "mujoco")}
    told = ", ".join(f"{name} {version}" for name, version in named.items() if version)
    return plain(f"{told}. {run['note']}" if run["note"] else told)


def _costs(run: dict[str, Any]) -> tuple[str, str, str, str]:
    """Hours, energy, carbon and machine of a run."""
    energy, carbon, machine = run["energy"], run["carbon"], run["machine"]
    where = [name for name in (machine["processor"], machine["gpu"]) if name] or ["not told before the run ends"]
    where.append("1 thread" if machine["threads"] == 1 else f"threads: {machine['threads']}")
    if machine["ranks"] > 1:
        where.append(f"{machine['ranks']} ranks")
    return (
        f"{run['seconds'] / 3600:.2f}",
        f"{energy['joule'] / 1e3:,.0f} kJ, {energy['kind']} ({plain(energy['source'])})" if energy else "",
        f"{carbon['kg_co2eq'] * 1e3:,.1f} g CO2eq, {carbon['kind']} ({plain(carbon['intensity'])})" if carbon else "",
        plain(", ".join(where)),
    )


def _settings(settings: dict[str, Any]) -> str:
    shown = {name: value for name, value in settings.items() if name not in MACHINE}
    texts = (f"{name} = {_value(value)}" for name, value in shown.items())
    return plain(", ".join(texts)) or "none"


def _value(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else f"{value:g}" if isinstance(value, float) else str(value)


def search_table(document: dict[str, Any]) -> str:
    """What was tried to find the recipes, and why it was left; then the tasks on which nothing was."""
    head = ("task", "policy", "tried", "settings beside the defaults", "why it was left", "seed", "environment steps",
            "maximum", "final")  # fmt: skip
    lines = [
        (run["env"], ACTORS[run["actor"]], plain(run["label"]), _settings(run["settings"]), plain(run["note"]),
         str(seed["seed"]), f"{run['steps_done']:,} of {run['steps_asked']:,}", f"{seed['maximum']:,.0f}",
         f"{seed['final']:,.0f}")
        for run in document["runs"] if run["group"] == "search" for seed in run["seeds"]
    ]  # fmt: skip
    return (markdown_table(head, lines, words=7) if lines else "No try was recorded.\n") + "\n" + _untried(document)


def _untried(document: dict[str, Any]) -> str:
    """The tasks whose recipe was not searched for, and whose settings it has."""
    searched = {run["task"] for run in document["runs"] if run["group"] == "search"}
    recipes = {
        run["task"]: {name: value for name, value in run["settings"].items() if name not in MACHINE | TOLD}
        for run in document["runs"] if run["group"] == "recipe"
    }  # fmt: skip
    lines = []
    for task, env in TASKS.items():
        if task in searched or task not in recipes:
            continue
        like = [TASKS[other] for other in TASKS if other in searched and recipes.get(other) == recipes[task]]
        taken = "the defaults" if not recipes[task] else f"the settings of {' and '.join(like)}" if like else ""
        lines.append(f"- {env}: no try to find the recipe is on record{f'; it has {taken}' if taken else ''}.\n")
    return "".join(lines)


def ablation_table(document: dict[str, Any]) -> str:
    """What each technique changes: the same task, seeds and steps, so far as both runs have gone."""
    head = ("task", "change", "compared with", "settings that differ", "seeds", "both up to step", "maximum without",
            "maximum with", "at that step without", "at that step with", "change of the maximum")  # fmt: skip
    lines, seen = [], set()
    for run in document["runs"]:
        if run["group"] != "ablation" or run["against"] == run["label"] or row_of(run) in seen:
            continue
        seen.add(row_of(run))
        lines.append(_ablation(run, [one for one in document["runs"] if row_of(one) == row_of(run)],
                               baseline_of(run, document["runs"])))  # fmt: skip
    return markdown_table(head, lines, words=5) if lines else "No technique was switched on or off yet.\n"


def _ablation(
    run: dict[str, Any], changed: Iterable[dict[str, Any]], base: Iterable[dict[str, Any]]
) -> tuple[str, ...]:
    ours, theirs = (
        {seed["seed"]: (run, seed["curve"]) for run in part for seed in run["seeds"]} for part in (changed, base)
    )
    seeds = sorted(ours.keys() & theirs.keys())
    shared = [{point[0] for point in ours[seed][1]} & {point[0] for point in theirs[seed][1]} for seed in seeds]
    end = max(set.intersection(*shared), default=0)
    compared = plain(run["against"]) or "the recipe"
    first = run["env"], plain(run["label"]), compared, _differences(theirs, ours, seeds), str(len(seeds))
    if not end:
        return *first, "no evaluation at the same step", *[""] * 5
    cut = [[[point for point in curves[seed][1] if point[0] <= end] for seed in seeds] for curves in (theirs, ours)]
    tops, finals = ([[extremes(curve)[name] for curve in side] for side in cut] for name in ("maximum", "final"))
    without, within = (statistics.fmean(side) for side in tops)
    percent = f"{within / without - 1:+.1%}" if without > 0 else ""
    until = f"{end:,} of {run['steps_asked']:,}" if end < run["steps_asked"] else f"{end:,}"
    return *first, until, *map(over_seeds, tops), *map(over_seeds, finals), percent


def _differences(base: dict[int, Any], changed: dict[int, Any], seeds: list[int]) -> str:
    """Settings that differ, and of which seeds where not of all: BF16 may be on in some seeds of a row alone."""
    found: dict[str, list[int]] = {}
    for seed in seeds:
        for name, (left, right) in differing(base[seed][0]["settings"], changed[seed][0]["settings"]).items():
            if name not in MACHINE:
                found.setdefault(f"{name}: {_value(left)} to {_value(right)}", []).append(seed)
    texts = (text if of == seeds else f"{text} (seed {', '.join(map(str, of))})" for text, of in found.items())
    return plain("; ".join(texts)) or "none"


def published_table(published: dict[str, Any]) -> str:
    """Every published return, and each source with what was checked of it."""
    head = ("method", "environments", "source", *(env.removesuffix("-v5") for env in TASKS.values()))
    lines = []
    for method in published["methods"]:
        source = published["sources"][method["source"]]
        name = f"{method['name']}, {source['algorithm']}"
        cells = [f"{method['returns'][task]:,.0f}" if task in method["returns"] else "" for task in TASKS]
        lines.append((plain(name), plain(source["environments"]), plain(source["title"]), *cells))
    notes = []
    for source in published["sources"].values():
        link = f"[{plain(source.get('id', 'file'))}]({source['url']})"
        notes.append(f"- {plain(source['title'])}, {link}: {plain(source['statistic'])}. {plain(source['checked'])}")
    return markdown_table(head, lines, words=3) + "\n" + "\n".join(notes) + "\n"


def versions_table(published: dict[str, Any]) -> str:
    """What differs between the versions of each task."""
    versions = published["versions"]
    lines = [(env.removesuffix("-v5"), plain(versions[task])) for task, env in TASKS.items()]
    theirs = " and ".join(sorted({source["environments"] for source in compared_with(published).values()}))
    text = (
        f"The published returns of the main table are of the {plain(theirs)} tasks, ours of the v5 tasks. They are not "
        "the same tasks, so a ratio between them is a landmark, no measurement. "
        f"From {plain(versions['source'])}: <{versions['url']}>.\n\n"
    )
    return text + markdown_table(("task", "what changed from v4 to v5"), lines, words=2)
