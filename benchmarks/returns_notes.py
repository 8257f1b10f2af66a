"""What one has to know to read the table of the returns: sentences from the runs and the published numbers."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from benchmarks.returns_document import TASKS
from benchmarks.returns_rows import ACTORS, Row, best, compared_with, plain, rows

FAR = 1.1  # other sources' return over the one in the table, from where on the notes tell it


def notes(document: dict[str, Any], published: dict[str, Any], where: str) -> str:
    """A Markdown list; `where` the details are, in words or as a link."""
    found = [
        f"Returns are means of {_episodes(document)} without exploration noise. Maximum: of all evaluations, so it is "
        f"biased upwards, the more the more there are (how many: {where}). ±: sample standard deviation over seeds; a "
        "row without it is one seed, which says nothing of others.",
        *_published(published, where),
    ]
    for task in TASKS:
        for group in ("recipe", "mlp"):
            for row in rows(document, task, group):
                found += [f"{row.run['env']}, {ACTORS[row.run['actor']]}: {note}." for note in _of_row(row, document)]
    return "".join(f"- {note}\n" for note in found)


def _episodes(document: dict[str, Any]) -> str:
    """Episodes of an evaluation; what most tasks have first, then the tasks that have others."""
    tasks: dict[int, dict[str, None]] = {}
    for run in document["runs"]:
        if run["group"] in ("recipe", "mlp"):
            tasks.setdefault(run["evaluation"]["episodes"], {})[run["env"]] = None
    usual = max(tasks, key=lambda count: (len(tasks[count]), -count), default=10)
    others = [f"{count} on {' and '.join(envs)}" for count, envs in sorted(tasks.items()) if count != usual]
    return f"{usual} episodes" + (f" ({', '.join(others)})" if others else "")


def _published(published: dict[str, Any], where: str) -> Iterator[str]:
    """Where the published returns of the table come from, how sure they are, and what speaks against them."""
    versions = published["versions"]
    changed = sum(not versions[task].startswith("Nothing") for task in TASKS)
    for source in compared_with(published).values():
        link = f"[{plain(source.get('id', source['title']))}]({source['url']})"
        quoted = "" if source["read"] else "; quoted, not checked against the source itself"
        yield f"Published: {plain(source['statistic'])}, {plain(source['environments'])} tasks, {link}{quoted}."
    yield (
        "Ours is the mean of each seed's maximum. Theirs may be the maximum of the mean curve, which is lower "
        f"({where})."
    )
    yield f"v5 differs from v4 in {changed} of the {len(TASKS)} tasks ({where})."
    for task, env in TASKS.items():
        reference = best(published, task, "ann")
        assert reference is not None
        others = [(method["returns"][task], published["sources"][method["source"]]) for method in _others(published)
                  if task in method["returns"]]  # fmt: skip
        far = [f"{value:,.0f} ({plain(source['title'])}; {plain(source['environments'])})"
               for value, source in others if value > FAR * reference[0]]  # fmt: skip
        if far:
            texts = " and ".join(far)
            yield f"{env}: where the table has {reference[0]:,.0f} for the published ANN, other sources have {texts}."


def _others(published: dict[str, Any]) -> list[dict[str, Any]]:
    """The ANNs of the same algorithm in sources that do not stand in the table."""
    sources, compared = published["sources"], compared_with(published)
    algorithms = {source["algorithm"] for source in compared.values()}
    return [method for method in published["methods"] if method["kind"] == "ann" and method["source"] not in compared
            and sources[method["source"]]["algorithm"] in algorithms]  # fmt: skip


def _of_row(row: Row, document: dict[str, Any]) -> Iterator[str]:
    """What is peculiar to the seeds of a row."""
    yield from _chosen(row, document)
    if any(run["status"] == "stop_return" for run, _ in row.parts):
        bound = row.run["settings"]["stop_return"]
        yield f"training ends at the first evaluation of {bound:,.0f} or more, so its last one is selected, too"
    with_bf16 = [seed["seed"] for run, seed in row.parts if run["settings"].get("bf16")]
    if with_bf16 and len(with_bf16) < len(row.parts):
        without = [seed for seed in row.seeds if seed not in with_bf16]
        yield f"seed {_listed(with_bf16)} with BF16, seed {_listed(without)} without"


def _chosen(row: Row, document: dict[str, Any]) -> Iterator[str]:
    """The seeds of a row on which its recipe was chosen: those that the tries of the search have, too."""
    tries = [run for run in document["runs"] if run["group"] == "search"
             and (run["task"], run["actor"]) == (row.run["task"], row.run["actor"])]  # fmt: skip
    tried_on = {seed["seed"] for run in tries for seed in run["seeds"]} & set(row.seeds)
    labels = {run["label"] for run in tries if any(seed["seed"] in tried_on for seed in run["seeds"])}
    if tried_on:
        yield (f"the recipe was chosen on seed {_listed(sorted(tried_on))}, out of {len(labels) + 1} settings tried "
               "there, which biases its returns upwards")  # fmt: skip


def _listed(numbers: list[int]) -> str:
    return ", ".join(map(str, numbers))
