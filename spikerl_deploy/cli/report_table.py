"""A report document as tables on the terminal."""

from __future__ import annotations

from typing import Any

from rich.console import Console
from rich.table import Table

from spikerl_deploy.cli.common import console


def print_report(document: dict[str, Any]) -> None:
    """Print returns, activity, energy and time of every backend, and the comparison."""
    out = console()
    environment, policy = document["environment"], document["policy"]
    sizes = "-".join(map(str, policy["sizes"]))
    seeds = environment["seeds"]
    out.print(environment["id"], style="bold", end="")
    out.print(f"  {sizes}, T {policy['time_steps']}, seeds {seeds[0]} to {seeds[-1]}")
    perturbation = environment["perturbation"]
    if perturbation is not None:
        where = " and ".join(perturbation["backends"])
        out.print(f"perturbed on {where}: {perturbation['words']}", soft_wrap=True)
    _returns(out, document, seeds)
    _comparison(out, document["comparison"])
    _activity(out, document)
    _energy(out, document)


def _returns(out: Console, document: dict[str, Any], seeds: list[int]) -> None:
    table = Table("backend", "runs", *(f"seed {seed}" for seed in seeds[:5]), "mean", "ms/step", "p99", box=None)
    for name, entry in document["backends"].items():
        time = entry["wall_time"]
        shown = [f"{value:.1f}" for value in entry["returns"][:5]]
        table.add_row(
            name, entry["runs"], *shown, f"{entry['mean_return']:.1f}", f"{time['median']:.2f}", f"{time['p99']:.2f}"
        )
    out.print(table)
    if len(seeds) > 5:
        out.print(f"and {len(seeds) - 5} more seeds, in the mean and in report.json", style="dim")


def _comparison(out: Console, comparison: dict[str, Any] | None) -> None:
    if comparison is None:
        return
    low, high = comparison["difference_interval"]
    retention = "undefined (baseline's mean return is not positive)"
    if comparison["retention"] is not None:
        retention = f"{comparison['retention']:.2%}"
        if comparison["retention_interval"] is not None:
            retention += " [{:.2%}, {:.2%}]".format(*comparison["retention_interval"])
    out.print(
        f"{comparison['backend']} against {comparison['baseline']}: retention {retention}, "
        f"paired difference {comparison['mean_difference']:+.2f} [{low:+.2f}, {high:+.2f}]",
        soft_wrap=True,
    )
    out.print(f"{comparison['seeds']} seeds; {comparison['interval']}", style="dim", soft_wrap=True)


def _activity(out: Console, document: dict[str, Any]) -> None:
    table = Table("per control step", "layer", "spikes", "activity", "synaptic operations", "dense MACs", box=None)
    for name, entry in document["backends"].items():
        step = entry["per_control_step"]
        table.add_row(name, "input", f"{step['input_spikes']:.1f}", "", "", "")
        rows = zip(step["spikes"], step["activity"], step["synaptic_operations"],
                   step["dense_multiply_accumulates"], strict=True)  # fmt: skip
        for index, (spikes, activity, operations, macs) in enumerate(rows, start=1):
            table.add_row("", str(index), f"{spikes:.1f}", f"{activity:.1%}", f"{operations:.0f}", str(macs))
    out.print(table)


def _energy(out: Console, document: dict[str, Any]) -> None:
    """Energy of the deployment only: the constants of a chip say nothing of the baseline's run."""
    energy = document["backends"][document["backend"]]["energy"]
    table = Table("energy per inference", "", "kind", "constants", box=None)
    for figure in energy["figures"]:
        table.add_row(
            figure["title"],
            f"{figure['value']:.3g} uJ",
            figure["kind"],
            f"{figure['constants_kind']}: {figure['source']}",
        )
    out.print(table)
    out.print(f"lower bounds; left out: {', '.join(energy['exclusions'])}", style="dim", soft_wrap=True)
