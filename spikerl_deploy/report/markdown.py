"""A report as Markdown, short enough for the summary of a CI job."""

from __future__ import annotations

import html
import re
from typing import Any

from spikerl_deploy.report.headline import facts, left_out
from spikerl_deploy.report.table import Table, cell_text, printable
from spikerl_deploy.report.tables_energy import baselines_table, energy_table
from spikerl_deploy.report.tables_overview import (
    conformance_table,
    inference_table,
    speedup_table,
    summary_table,
    training_table,
)

_MEANING = re.compile(r"([\\`*_\[\]|~#])")


def markdown(document: dict[str, Any]) -> str:
    """The summary: warnings, headline numbers, energies, conformance, training; text of the document is escaped."""
    document = printable(document)
    deployments = document["deployments"]
    lines = [f"# {plain_text(document['title'])}", ""]
    for warning in document["warnings"]:
        lines += [f"> **Warning:** {plain_text(warning)}", ""]
    if len(deployments) == 1:
        lines += _facts(deployments[0])
    elif deployments:
        lines += table_lines(summary_table(deployments))
    for deployment in deployments:
        lines += folded(f"Energy: {deployment['title']}", energy_table(deployment), baselines_table(deployment))
        lines += [plain_text(left_out(deployment)), ""]
    for item in document["conformance"]:
        lines += [f"**Conformance of {plain_text(item['title'])}: {'passed' if item['passed'] else 'failed'}**", ""]
        lines += table_lines(conformance_table(item))
    for item in document["inference"]:
        lines += folded(f"Inference in torch: {item['policy']['file']}", inference_table(item))
    if document["training"]:
        lines += table_lines(training_table(document["training"]))
    if document["speedups"]:
        titles = {run["id"]: run["title"] for run in document["training"]}
        lines += table_lines(speedup_table(document["speedups"], titles))
    return "\n".join(lines).rstrip() + "\n"


def _facts(deployment: dict[str, Any]) -> list[str]:
    lines = ["| | | |", "| --- | ---: | --- |"]
    for fact in facts(deployment):
        kind = f" ({plain_text(fact.kind)})" if fact.kind else ""
        lines.append(f"| {plain_text(fact.name)} | **{plain_text(fact.value)}**{kind} | {plain_text(fact.detail)} |")
    return [*lines, ""]


def table_lines(table: Table) -> list[str]:
    """A table with its title and note, a line each; a blank line ends it."""
    lines = [f"**{plain_text(table.title)}**", ""]
    lines.append(f"| {' | '.join(plain_text(column.heading) for column in table.columns)} |")
    lines.append(f"| {' | '.join('---' if column.text else '---:' for column in table.columns)} |")
    lines += [f"| {' | '.join(plain_text(cell_text(cell)) for cell in row)} |" for row in table.rows]
    return [*lines, "", *([plain_text(table.note), ""] if table.note else [])]


def folded(title: str, *tables: Table) -> list[str]:
    """Tables under a title that unfolds them."""
    line = html.escape(" ".join(title.split()), quote=False)  # a blank line would end the HTML, and begin Markdown
    lines = [f"<details><summary>{line}</summary>", ""]
    for table in tables:
        lines += table_lines(table)
    return [*lines, "</details>", ""]


def plain_text(text: str) -> str:
    """Text that Markdown and HTML read as itself, in one line."""
    return _MEANING.sub(r"\\\1", html.escape(" ".join(text.split()), quote=False))
