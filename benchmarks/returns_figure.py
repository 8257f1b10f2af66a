"""The learning curves of the five tasks as one SVG figure, for light and for dark pages, from the curves alone."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.returns_document import TASKS
from benchmarks.returns_rows import ACTORS, Row, best, over_seeds, rows
from spikerl_deploy.report.plots.plot import Plot
from spikerl_deploy.report.plots.style import PALETTE, drawing, new_figure, prefixes
from spikerl_deploy.report.svg import plot_svg

FIGURES = (Path("docs/images/returns.svg"), Path("docs/images/returns-dark.svg"))
TITLE = "Learning curves of the five tasks"
GROUPS = (("recipe", "spiking", "blue"), ("mlp", "dense", "orange"))  # group, name beside its curves, colour
PAPER = ("#ffffff", "#0d1117")  # GitHub's
WIDTH, HEIGHT = 6.4, 6.2  # inches; texts of 9 points are read from 360 pixels on
MARGIN = 1.26  # axis over training steps: room for the names at the ends of the curves
LETTER, LINE = 0.027, 0.115  # of a panel's width and height: a letter, a line of text


def figures(document: dict[str, Any], published: dict[str, Any]) -> tuple[str, str]:
    """The figure as SVG files for light and dark pages; the same document gives the same text."""
    with drawing():
        figure = new_figure(WIDTH, HEIGHT)
        panels = figure.subplots(3, 2).ravel()
        for axes, task in zip(panels, TASKS, strict=False):
            _panel(axes, document, published, task)
        _key(panels[len(TASKS)], document)
        figure.supxlabel("environment steps", fontsize=9, color=PALETTE["muted"])
        figure.supylabel("mean return of an evaluation", fontsize=9, color=PALETTE["muted"])
    svg = plot_svg(Plot("returns", "returns", TITLE, finding(document, published), figure, ())) + "\n"
    return _on_paper(svg, PAPER[0]), _on_paper(_dark(svg), PAPER[1])


def finding(document: dict[str, Any], published: dict[str, Any]) -> str:
    """What the figure shows, in numbers: its alternative text."""
    texts = []
    for task, env in TASKS.items():
        parts = [
            f"{ACTORS[row.run['actor']]} maximum {over_seeds(row.values('maximum'))} ({_count(row)}, {row.gone})"
            for group, _, _ in GROUPS
            for row in rows(document, task, group)
        ]
        reference = best(published, task, "spiking")
        assert reference is not None
        parts.append(f"best published spiking {reference[0]:,.0f} ({reference[1]})")
        texts.append(f"{env}: {', '.join(parts)}")
    return f"Mean return against environment steps. {'; '.join(texts)}."


def _count(row: Row) -> str:
    return f"{len(row.seeds)} seed{'s' if len(row.seeds) > 1 else ''}"


def _dark(svg: str) -> str:
    """The same with the colours that report.html has on dark screens."""
    css = (Path(__file__).parent.parent / "spikerl_deploy/report/page.css").read_text(encoding="utf-8")
    block = css.partition("prefers-color-scheme: dark")[2].partition("}")[0]
    night = dict(re.findall(r"--(\w+): (#[0-9a-f]{6})", block))
    for name, colour in PALETTE.items():
        svg = re.sub(rf'(?<=: ){colour}(?=[;"])', night[name], svg)
    return svg


def _on_paper(svg: str, colour: str) -> str:
    return svg.replace("</desc>", f'</desc><rect width="100%" height="100%" fill="{colour}" />', 1)


@dataclass
class _Plan:
    """What of a panel is taken, in shares of its width and height."""

    end: float
    low: float
    high: float
    lines: list[NDArray[np.float64]] = field(default_factory=list)
    boxes: list[tuple[float, float, float, float]] = field(default_factory=list)

    def curve(self, steps: Sequence[float], values: Sequence[float]) -> None:
        """Take the points along a curve."""
        x = np.linspace(steps[0], steps[-1], 400)
        y = np.interp(x, steps, values)
        self.lines.append(np.column_stack([x / (self.end * MARGIN), self.share(y)]))

    def share(self, value: Any) -> Any:
        return (value - self.low) / (self.high - self.low)

    def place(self, text: str, spots: Iterator[tuple[float, float]]) -> tuple[float, float]:
        """The first spot, left end and middle of a text, where it hides nothing; else the last; and take it."""
        width = LETTER * len(text)
        for x, y in spots:
            box = (x, y - LINE / 2, x + width, y + LINE / 2)
            inside = box[0] >= 0 and box[2] <= 1.03 and box[1] >= 0 and box[3] <= 1
            if inside and not self._hits(box):
                break
        self.boxes.append(box)
        return x, y

    def _hits(self, box: tuple[float, float, float, float]) -> bool:
        left, bottom, right, top = box
        on_line = any(
            ((line[:, 0] > left) & (line[:, 0] < right) & (line[:, 1] > bottom) & (line[:, 1] < top)).any()
            for line in self.lines
        )
        return on_line or any(
            left < other[2] and right > other[0] and bottom < other[3] and top > other[1] for other in self.boxes
        )


def _panel(axes: Any, document: dict[str, Any], published: dict[str, Any], task: str) -> None:
    """A task: a thin line a seed, a thick one their mean, the best published return, and names beside them."""
    reference = best(published, task, "spiking")
    assert reference is not None
    found = {group: rows(document, task, group) for group, _, _ in GROUPS}
    every = [row for part in found.values() for row in part]
    end = max((_end(row) for row in every), default=1_000_000)
    means = [mean for row in every for _, seed in row.parts for _, mean, _ in seed["curve"]]
    low, high = min([0.0, *means]), max([reference[0], *means])
    plan = _Plan(end, low - 0.03 * (high - low), high + 0.24 * (high - low))
    axes.set(xlim=(0, end * MARGIN), ylim=(plan.low, plan.high))
    axes.plot([0, end], [reference[0]] * 2, "--", color=PALETTE["muted"], linewidth=1.1)
    plan.curve([0, end], [reference[0]] * 2)
    ends = [(last, name, colour) for group, name, colour in GROUPS
            for last in _curves(axes, plan, found[group], colour)]  # fmt: skip
    for (steps, value), name, colour in ends:
        x, y = plan.place(name, _beside(steps / (end * MARGIN), plan.share(value)))
        _text(axes, x, y, name, PALETTE[colour])
    label = f"best published {reference[0]:,.0f}, {reference[1]}"
    x, y = plan.place(label, _along(plan.share(reference[0]), 1 / MARGIN - LETTER * len(label)))
    _text(axes, x, y, label, PALETTE["muted"])
    _titles(axes, TASKS[task], found)
    axes.set_xticks([0, end / 2, end])
    axes.yaxis.get_major_locator().set_params(nbins=4)
    prefixes(axes.xaxis)
    prefixes(axes.yaxis)


def _end(row: Row) -> int:
    """Where the axis of a row ends: unfinished ones have the room to the steps asked for."""
    return max(int(run["steps_done" if row.finished else "steps_asked"]) for run, _ in row.parts)


def _curves(axes: Any, plan: _Plan, found: Sequence[Row], colour: str) -> Iterator[tuple[float, float]]:
    """Draw a policy's rows; the first has its mean drawn thick, of which the end is to be named."""
    for place, row in enumerate(found):
        curves = [seed["curve"] for _, seed in row.parts]
        for curve in curves:
            steps, means = [point[0] for point in curve], [point[1] for point in curve]
            axes.plot(steps, means, color=PALETTE[colour], linewidth=0.7, alpha=0.55)
            plan.curve(steps, means)
        steps, means = list(row.mean_curve), list(row.mean_curve.values())
        if place == 0 and steps:
            axes.plot(steps, means, color=PALETTE[colour], linewidth=1.9, zorder=3 if colour == "blue" else 2)
            yield steps[-1], means[-1]
        if not row.finished:
            for curve in curves:
                axes.plot(*curve[-1][:2], "o", color=PALETTE[colour], markerfacecolor="none", markersize=4.5)


def _beside(x: float, y: float) -> Iterator[tuple[float, float]]:
    """Spots for the name of a curve that ends at (x, y): right of it, level or a little off."""
    for off in (0.0, -0.06, 0.06, -0.12, 0.12, -0.18, 0.18, -0.24, -0.3, -0.36, -0.42, -0.48, -0.54):
        yield x + 0.03, y + off


def _along(y: float, right: float) -> Iterator[tuple[float, float]]:
    """Spots for the name of a level line: above or below it, at its left end, further right, at the top."""
    for x in (0.015, right / 2, right):
        for off in (0.075, -0.075, 0.15, -0.15):
            yield x, y + off
    yield 0.015, 1 - LINE / 2 - 0.005  # no curve goes there


def _text(axes: Any, x: float, y: float, text: str, colour: str) -> None:
    axes.text(x, y, text, color=colour, transform=axes.transAxes, va="center", ha="left", fontsize=8.5)


def _titles(axes: Any, env: str, found: dict[str, list[Row]]) -> None:
    """The task, and below it how many seeds of each policy have gone how far, a line a policy."""
    parts = [(name, found[group]) for group, name, _ in GROUPS if found[group]]
    lines = [f"{name}: {', '.join(_count(row) + _so_far(row) for row in part)}" for name, part in parts]
    lines = lines or ["not trained yet"]
    axes.set_title(env + "\n" * len(lines), color=PALETTE["ink"], fontweight="bold", linespacing=1.25)
    below = axes.text(0, 1.06, "\n".join(lines), color=PALETTE["muted"], transform=axes.transAxes, fontsize=8)
    below.set_in_layout(False)


def _so_far(row: Row) -> str:
    return "" if row.finished else f" to {row.run['steps_done'] / 1000:,.0f}k steps"


def _key(axes: Any, document: dict[str, Any]) -> None:
    """What the lines mean, in the place of a sixth panel."""
    twin = any(run["group"] == "mlp" for run in document["runs"])
    entries = [
        ("spiking policy, mean over seeds", {"color": PALETTE["blue"], "linewidth": 1.9}),
        *([("dense ANN of the same trainer", {"color": PALETTE["orange"], "linewidth": 1.9})] if twin else []),
        ("thin: each seed", {"color": PALETTE["blue"], "linewidth": 0.7, "alpha": 0.55}),
        ("best published spiking (v4)", {"color": PALETTE["muted"], "linewidth": 1.1, "linestyle": "--"}),
    ]
    axes.set(xlim=(0, 1), ylim=(0, 1))
    axes.axis("off")
    for place, (text, style) in enumerate(entries):
        axes.plot([0.02, 0.14], [_level(place)] * 2, **style)
        axes.text(0.19, _level(place), text, color=PALETTE["ink"], va="center", fontsize=9)
    if any(run["status"] == "unfinished" and run["group"] in ("recipe", "mlp") for run in document["runs"]):
        axes.plot(0.08, _level(len(entries)), "o", color=PALETTE["blue"], markerfacecolor="none", markersize=4.5)
        axes.text(0.19, _level(len(entries)), "unfinished, so far", color=PALETTE["ink"], va="center", fontsize=9)


def _level(place: int) -> float:
    return 0.88 - 0.17 * place
