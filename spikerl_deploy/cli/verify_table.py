"""The matrix of `spikerl verify`, for people."""

from __future__ import annotations

from typing import Any

from spikerl_deploy.cli.common import console

VERDICT = {"passed": "agrees", "failed": "DIFFERS", "error": "BROKE OFF", "informational": "not judged"}
LEGEND = (
    "spikes that differ: of those that at least one of the two gave; action error: the largest, in the action's units, "
    "and as share of its range"
)


def print_verification(document: dict[str, Any]) -> None:
    """Print a verification document: one line a backend, then where each diverges, then what was skipped."""
    from rich.table import Table

    from simulators.verify_document import divergence_text

    out, reference = console(), document["reference"]
    recorded = document["recorded"]
    out.print(
        f"{document['policy']['file']} on {document['environment']}: {document['control_steps']} control steps of "
        f"{reference['name']}'s closed loop, seed{_span([entry['seed'] for entry in recorded])}, "
        f"{document['policy']['time_steps']} time steps each, {sum(reference['spikes']):,} spikes",
        soft_wrap=True,
    )
    played = ["return"] if document["seeds"] else []
    table = Table("backend", "allowed", "spikes that differ", "by layer", "action error", *played, "verdict", box=None)
    mean = [_mean(reference["returns"])] if played else []
    table.add_row(reference["name"], "", "", "", "", *mean, "reference")
    for row in document["rows"]:
        if row["status"] != "skipped":
            table.add_row(*_cells(row, bool(played)))
    out.print(table)
    means = f"; return: mean over seed{_span(document['seeds'])}" if played else ""
    out.print(f"{LEGEND}{means}", style="dim", soft_wrap=True)
    for row in document["rows"]:
        if row["status"] == "skipped":
            hint = f" ({row['hint']})" if row["hint"] else ""
            out.print(f"skipped {row['name']}: {row['reasons'][0]}{hint}", soft_wrap=True)
            continue
        out.print(f"{row['name']}: {row['runs']}", soft_wrap=True)
        for text in [*row["reasons"], *([divergence_text(row, reference["name"])] if row["first_divergence"] else [])]:
            out.print(f"  {text}", soft_wrap=True)
    for warning in document["warnings"]:
        out.print(f"Warning: {warning}", soft_wrap=True)


def print_plan(document: dict[str, Any]) -> None:
    """Print what would be verified."""
    out = console()
    out.print(
        f"would hold {len(document['rows'])} backends against {document['reference']} on {document['control_steps']} "
        f"control steps of {document['environment']}",
        soft_wrap=True,
    )
    for row in document["rows"]:
        out.print(f"  {row['name']}: {row['runs']}; allowed: {_allowed(row['tolerance'])}", soft_wrap=True)
    for row in document["skipped"]:
        out.print(f"  skipped {row['name']}: {row['reason']}", soft_wrap=True)


def _cells(row: dict[str, Any], played: bool) -> list[str]:
    spikes, error = row["spikes"], row["action_error"]
    cells = [row["name"], _allowed(row["tolerance"])]
    if spikes is None:
        cells += ["", "", ""]
    else:
        total = sum(spikes["mismatches"])
        cells += [
            f"{total:,} ({_percent(spikes['mismatch_share'])})" if total else "0",
            ", ".join(f"{count:,}" for count in spikes["mismatches"]),
            f"{error['value']:.3g} ({_percent(error['share_of_range'])})" if error["value"] else "0",
        ]
    if played:
        cells.append("" if row["returns"] is None else _mean(row["returns"]))
    return [*cells, VERDICT[row["status"]]]


def _allowed(tolerance: dict[str, Any] | None) -> str:
    if tolerance is None:
        return "-"
    if tolerance["exact"]:
        return "none"
    return f"{_percent(tolerance['mismatch_share'])}; {_percent(tolerance['action_error'])}"


def _percent(share: float) -> str:
    return f"{share * 100:.2g}%" if share < 0.1 else f"{share:.1%}"


def _mean(returns: list[float]) -> str:
    return f"{sum(returns) / len(returns):.2f}"


def _span(seeds: list[int]) -> str:
    """One number, or the first and the last of several that count up."""
    return f" {seeds[0]}" if len(seeds) == 1 else f"s {seeds[0]} to {seeds[-1]}"
