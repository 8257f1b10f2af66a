"""What README.md and docs/returns.md say of the returns: Markdown from the curves and the published numbers alone."""

from __future__ import annotations

import html
import statistics
from typing import Any

from benchmarks.returns_docs import ablation_table, published_table, runs_table, search_table, versions_table
from benchmarks.returns_document import LAST, TASKS
from benchmarks.returns_rows import ACTORS, Row, best, markdown_table, over_seeds, plain, rows


def readme_text(document: dict[str, Any], published: dict[str, Any]) -> str:
    """What stands in README.md: figure, table, and what one has to know to read them."""
    parts = _picture(document, published, "docs/images/"), results_table(document, published)
    return "\n".join([*parts, _notes(document, "[docs/returns.md](docs/returns.md)")])


def docs_text(document: dict[str, Any], published: dict[str, Any]) -> str:
    """What stands in docs/returns.md: everything."""
    parts = [
        "## Results\n",
        _picture(document, published, "images/"),
        results_table(document, published),
        _notes(document, "at the end of this page"),
        "## Not finished\n",
        unfinished(document),
        "## Every run\n",
        runs_table(document),
        "## How the recipes were found\n",
        search_table(document),
        "## Ablations\n",
        ablation_table(document),
        "## Published returns\n",
        published_table(published),
        "## v4 and v5\n",
        versions_table(published),
    ]
    return "\n".join(parts)


def _picture(document: dict[str, Any], published: dict[str, Any], folder: str) -> str:
    from benchmarks.returns_figure import FIGURES, finding

    light, dark = (f"{folder}{path.name}" for path in FIGURES)
    text = html.escape(finding(document, published))
    return (f'<picture>\n<source media="(prefers-color-scheme: dark)" srcset="{dark}">\n'
            f'<img src="{light}" width="760" alt="{text}">\n</picture>\n')  # fmt: skip


def results_table(document: dict[str, Any], published: dict[str, Any]) -> str:
    """A row a task and policy, with the best published spiking return and the published ANN's beside the first."""
    head = ("task", "policy", "seeds", "environment steps", "maximum", "final", f"mean of the last {LAST}",
            "best published spiking (v4)", "maximum of it", "published ANN TD3 (v4)")  # fmt: skip
    lines = []
    for task, env in TASKS.items():
        spiking, ann = best(published, task, "spiking"), best(published, task, "ann")
        assert spiking is not None and ann is not None
        reference, beside = f"{spiking[0]:,.0f}, {plain(spiking[1])}", f"{ann[0]:,.0f}"
        found = rows(document, task, "recipe")
        if not found:
            lines.append((env, "spiking", "none yet", *[""] * 4, reference, "", beside))
        for row in found:
            share = f"{statistics.fmean(row.values('maximum')) / spiking[0]:.1%}"
            lines.append((env, "spiking", *_cells(row), reference, share, beside))
            env = reference = beside = ""
        for row in rows(document, task, "mlp"):
            lines.append(("", ACTORS["mlp"], *_cells(row), "", "", ""))
    return markdown_table(head, lines, words=4)


def _cells(row: Row) -> tuple[str, ...]:
    fewest = min(len(seed["curve"]) for _, seed in row.parts)
    few = f" (of {fewest})" if fewest < LAST else ""
    seeds = "1" if len(row.parts) == 1 else str(len(row.parts))
    maximum, final, last = (over_seeds(row.values(name)) for name in ("maximum", "final", "last_ten"))
    return seeds, row.steps, maximum, final, last + few


def _notes(document: dict[str, Any], where: str) -> str:
    counts = {
        run["evaluation"]["episodes"]: run["env"] for run in document["runs"] if run["group"] in ("recipe", "mlp")
    }
    episodes = " or ".join(str(count) for count in sorted(counts)) or "10"
    lines = [
        f"Returns are means of {episodes} episodes without exploration noise. Maximum: of all evaluations, so it is "
        "biased upwards; ±: sample standard deviation over seeds; a row without it is one seed, "
        "which says nothing of others.",
        "Published: maximum average return of five seeds after 1M steps on the v4 tasks, arXiv:2509.23791; "
        f"v5 differs in four of the five tasks ({where}).",
    ]
    for task in TASKS:
        for group in ("recipe", "mlp"):
            lines += [note for row in rows(document, task, group) if (note := _rounded(row))]
    return "\n".join(lines) + "\n"


def _rounded(row: Row) -> str | None:
    """Which seeds were trained with BF16, where not all of a row were."""
    with_bf16 = [seed["seed"] for run, seed in row.parts if run["settings"].get("bf16")]
    if not with_bf16 or len(with_bf16) == len(row.parts):
        return None
    which = ", ".join(map(str, with_bf16))
    return (
        f"{row.run['env']}, {ACTORS[row.run['actor']]}: of seeds {', '.join(map(str, row.seeds))}, {which} with BF16."
    )


def unfinished(document: dict[str, Any]) -> str:
    """What has not gone to its end, a line each."""
    lines = []
    for task, env in TASKS.items():
        for group, what in (("recipe", "spiking"), ("mlp", ACTORS["mlp"])):
            found = rows(document, task, group)
            if not found and group == "recipe":
                lines.append(f"- {env}, {what}: not begun.")
            lines += [f"- {env}, {what}, seed {', '.join(map(str, row.seeds))}: {row.steps}."
                      for row in found if not row.finished]  # fmt: skip
    return "\n".join(lines or ["Every run of a recipe and of a dense twin has gone to its end."]) + "\n"
