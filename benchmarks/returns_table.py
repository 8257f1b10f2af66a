"""What README.md and docs/returns.md say of the returns: Markdown from the curves and the published numbers alone."""

from __future__ import annotations

import html
import statistics
from typing import Any

from benchmarks.returns_docs import ablation_table, published_table, runs_table, search_table, versions_table
from benchmarks.returns_document import TASKS
from benchmarks.returns_notes import notes
from benchmarks.returns_rows import ACTORS, Row, best, compared_with, markdown_table, of_fewer, over_seeds, plain, rows
from training.run_document import LAST

DETAIL = frozenset({"maximum of the mean curve", "final", "share of published"})  # columns that README.md goes without


def readme_text(document: dict[str, Any], published: dict[str, Any]) -> str:
    """What stands in README.md: figure, table, and what one has to know to read them."""
    table = results_table(document, published, leave_out=DETAIL)
    text = notes(document, published, "[docs/returns.md](docs/returns.md)")
    return "\n".join([_picture(document, published, "docs/images/"), table, text])


def docs_text(document: dict[str, Any], published: dict[str, Any]) -> str:
    """What stands in docs/returns.md: everything."""
    parts = [
        "## Results\n",
        _picture(document, published, "images/"),
        results_table(document, published),
        notes(document, published, "below"),
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


def results_table(document: dict[str, Any], published: dict[str, Any], leave_out: frozenset[str] = frozenset()) -> str:
    """A row a task and policy, with the best published spiking return and the published ANN's beside the first."""
    sources = compared_with(published).values()
    version, algorithm = (plain(" or ".join(sorted({source[name] for source in sources})))
                          for name in ("environments", "algorithm"))  # fmt: skip
    head = ("task", "policy", "seeds", "environment steps", "maximum", "maximum of the mean curve", "final",
            f"mean of the last {LAST}", f"best published spiking ({version})", "share of published",
            f"published ANN {algorithm} ({version})")  # fmt: skip
    lines = []
    for task, env in TASKS.items():
        spiking, ann = best(published, task, "spiking"), best(published, task, "ann")
        assert spiking is not None and ann is not None
        reference, beside = f"{spiking[0]:,.0f}, {plain(spiking[1])}", f"{ann[0]:,.0f}"
        found = rows(document, task, "recipe")
        if not found:
            lines.append((env, "spiking", "none yet", *[""] * 5, reference, "", beside))
        for row in found:
            share = f"{statistics.fmean(row.values('maximum')) / spiking[0]:.1%}"
            lines.append((env, "spiking", *_cells(row), reference, share, beside))
            env = reference = beside = ""
        for row in rows(document, task, "mlp"):
            lines.append(("", ACTORS["mlp"], *_cells(row), "", "", ""))
    kept = [index for index, name in enumerate(head) if name not in leave_out]
    short, *cut = ([line[index] for index in kept] for line in (head, *lines))
    return markdown_table(short, cut, words=4)


def _cells(row: Row) -> tuple[str, ...]:
    few = of_fewer(seed["curve"] for _, seed in row.parts)
    maximum, final, last = (over_seeds(row.values(name)) for name in ("maximum", "final", "last_ten"))
    return str(len(row.parts)), row.steps, maximum, f"{max(row.mean_curve.values()):,.0f}", final, last + few


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
