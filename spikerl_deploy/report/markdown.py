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
    lines = [f"# {_plain(document['title'])}", ""]
    for warning in document["warnings"]:
        lines += [f"> **Warning:** {_plain(warning)}", ""]
    if len(deployments) == 1:
        lines += _facts(deployments[0])
    elif deployments:
        lines += _table(summary_table(deployments))
    for deployment in deployments:
        lines += _folded(f"Energy: {deployment['title']}", energy_table(deployment), baselines_table(deployment))
        lines += [_plain(left_out(deployment)), ""]
    for item in document["conformance"]:
        lines += [f"**Conformance of {_plain(item['title'])}: {'passed' if item['passed'] else 'failed'}**", ""]
        lines += _table(conformance_table(item))
    for item in document["inference"]:
        lines += _folded(f"Inference in torch: {item['policy']['file']}", inference_table(item))
    if document["training"]:
        lines += _table(training_table(document["training"]))
    if document["speedups"]:
        titles = {run["id"]: run["title"] for run in document["training"]}
        lines += _table(speedup_table(document["speedups"], titles))
    return "\n".join(lines).rstrip() + "\n"


def _facts(deployment: dict[str, Any]) -> list[str]:
    lines = ["| | | |", "| --- | ---: | --- |"]
    for fact in facts(deployment):
        kind = f" ({_plain(fact.kind)})" if fact.kind else ""
        lines.append(f"| {_plain(fact.name)} | **{_plain(fact.value)}**{kind} | {_plain(fact.detail)} |")
    return [*lines, ""]


def _table(table: Table) -> list[str]:
    lines = [f"**{_plain(table.title)}**", ""]
    lines.append(f"| {' | '.join(_plain(column.heading) for column in table.columns)} |")
    lines.append(f"| {' | '.join('---' if column.text else '---:' for column in table.columns)} |")
    lines += [f"| {' | '.join(_plain(cell_text(cell)) for cell in row)} |" for row in table.rows]
    return [*lines, "", *([_plain(table.note), ""] if table.note else [])]


def _folded(title: str, *tables: Table) -> list[str]:
    line = html.escape(" ".join(title.split()), quote=False)  # a blank line would end the HTML, and begin Markdown
    lines = [f"<details><summary>{line}</summary>", ""]
    for table in tables:
        lines += _table(table)
    return [*lines, "</details>", ""]


def _plain(text: str) -> str:
    """Text that Markdown and HTML read as itself, in one line."""
    return _MEANING.sub(r"\\\1", html.escape(" ".join(text.split()), quote=False))
