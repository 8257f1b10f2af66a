"""Parts that the sections of the page are made of: headline numbers, figures with their tables, tables."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from spikerl_deploy.report.headline import facts, left_out
from spikerl_deploy.report.markup import Markup, join, tag
from spikerl_deploy.report.plots.plot import Plot
from spikerl_deploy.report.svg import plot_svg
from spikerl_deploy.report.table import Cell, Column, Table, cell_text

_KINDS = ("measured", "modelled", "datasheet", "unmeasured")


def headline_list(deployment: dict[str, Any]) -> Markup:
    """The numbers that a reader wants first, each with what it is."""
    entries = (
        tag(
            "div",
            tag("dt", fact.name),
            tag("dd", tag("strong", fact.value), kind_tag(fact.kind), tag("span", fact.detail)),
        )
        for fact in facts(deployment)
    )
    comparison = deployment["comparison"]
    intervals = f" Intervals: {comparison['interval']}." if comparison else ""
    excluded = f"{left_out(deployment)}{intervals}".strip()
    return join(tag("dl", *entries, class_="headline"), tag("p", excluded, class_="note") if excluded else None)


def kind_tag(kind: str | None) -> Markup | None:
    """Whether a number is measured or modelled."""
    return tag("em", kind, class_=f"kind {kind if kind in _KINDS else ''}".strip()) if kind else None


def figures(plots: Sequence[Plot]) -> Markup:
    """Plots side by side where there is room, wide ones across."""
    return tag("div", *(figure(plot) for plot in plots), class_="plots")


def figure(plot: Plot) -> Markup:
    """A plot, what it says, and the numbers behind it."""
    heading = f"{plot.id}-heading"
    drawing = tag(
        "div",
        Markup(plot_svg(plot, page=True)),
        class_="canvas",
        tabindex="0",
        role="group",
        aria_label=f"{plot.title}, scrolls sideways on narrow screens",
    )
    return tag(
        "figure",
        tag("h3", plot.title, id=heading),
        drawing,
        tag("figcaption", plot.finding),
        *(data_table(table) for table in plot.tables),
        id=plot.id,
        class_="wide" if plot.wide else None,
        aria_labelledby=heading,
    )


def data_table(table: Table) -> Markup:
    """A table that folds away."""
    return tag("details", tag("summary", f"Table: {table.title}"), bare_table(table))


def bare_table(table: Table) -> Markup:
    """A table in a box of its own, which scrolls sideways and can be reached by keyboard."""
    head = tag("tr", *(_heading(column, [row[i] for row in table.rows]) for i, column in enumerate(table.columns)))
    body = (tag("tr", *(_cell(cell, table.columns[i], i == 0) for i, cell in enumerate(row))) for row in table.rows)
    return join(
        tag(
            "div",
            tag("table", tag("caption", table.title), tag("thead", head), tag("tbody", *body)),
            class_="scroll",
            tabindex="0",
            role="group",  # no landmark: there are dozens
            aria_label=table.title,
        ),
        tag("p", table.note, class_="note") if table.note else None,
    )


def _heading(column: Column, cells: Sequence[Cell]) -> Markup:
    """A column of words says how long its longest cell is: the style sheet gives it room for that, up to a limit."""
    unit = tag("small", column.unit) if column.unit else None
    longest = max((len(cell_text(cell)) for cell in cells), default=0)
    words = {"class_": "text", "style": f"--longest: {longest}"} if column.text else {}
    name = Markup(join(column.name).replace("/", "/<wbr>"))
    return tag("th", name, " " if unit else None, unit, scope="col", **words)


def _cell(cell: Cell, column: Column, first: bool) -> Markup:
    text: str | Markup | None = cell_text(cell)
    if column.name.endswith(("kind", " is")) and cell in _KINDS:
        text = kind_tag(str(cell))
    if first:
        return tag("th", text, scope="row", class_="text" if column.text else None)
    return tag("td", text, class_="text" if column.text else None)
