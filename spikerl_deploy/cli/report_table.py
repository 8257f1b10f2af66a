"""A report as tables on the terminal: what the page shows, in short."""

from __future__ import annotations

from typing import Any

from rich.console import Console
from rich.table import Column, Table

from spikerl_deploy.cli.common import console
from spikerl_deploy.report.tables import VERDICTS, deployed

SEEDS_SHOWN = 5


def _table(*headers: str) -> Table:
    """A plain table whose cells are folded where they are too long, and never cut."""
    return Table(*(Column(header, overflow="fold") for header in headers), box=None)


def print_report(document: dict[str, Any]) -> None:
    """Print every deployment, then what else the report holds, then its warnings."""
    out = console()
    for deployment in document["deployments"]:
        _deployment(out, deployment, len(document["deployments"]) > 1)
    _training(out, document)
    _conformance(out, document["conformance"])
    _inference(out, document["inference"])
    for line in document["warnings"]:
        out.print(f"Warning: {line}", soft_wrap=True)


def _deployment(out: Console, deployment: dict[str, Any], several: bool) -> None:
    environment, policy = deployment["environment"], deployment["policy"]
    seeds = environment["seeds"]
    if several:
        out.print(f"{deployment['id']}: {deployment['title']}", style="bold", soft_wrap=True)
    out.print(environment["id"], style="bold", end="")
    played = f"seeds {seeds[0]} to {seeds[-1]}" if len(seeds) > 1 else f"seed {seeds[0]}"
    out.print(f"  {'-'.join(map(str, policy['sizes']))}, T {policy['time_steps']}, {played}")
    perturbation = environment["perturbation"]
    if perturbation is not None:
        where = " and ".join(perturbation["backends"])
        out.print(f"perturbed on {where}: {perturbation['words']}", soft_wrap=True)
    _returns(out, deployment, seeds)
    _comparison(out, deployment["comparison"])
    _operations(out, deployment)
    _energy(out, deployed(deployment)["energy"])


def _returns(out: Console, deployment: dict[str, Any], seeds: list[int]) -> None:
    shown = seeds[:SEEDS_SHOWN]
    table = _table("return", "runs", *(f"seed {seed}" for seed in shown), "mean", "ms/step", "p99")
    for name, entry in deployment["backends"].items():
        time = entry["wall_time"]
        values = [f"{value:.1f}" for value in (*entry["returns"][:SEEDS_SHOWN], entry["mean_return"])]
        table.add_row(name, entry["runs"], *values, f"{time['median']:.2f}", f"{time['p99']:.2f}")
    out.print(table)
    for name, entry in deployment["backends"].items():
        if entry["return_interval"] is not None:
            low, high = entry["return_interval"]
            out.print(f"{name}: mean return {entry['mean_return']:.1f} [{low:.1f}, {high:.1f}], {len(seeds)} seeds")
    if len(seeds) > SEEDS_SHOWN:
        out.print(f"and {len(seeds) - SEEDS_SHOWN} more seeds, in the mean and in report.json", style="dim")


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


def _operations(out: Console, deployment: dict[str, Any]) -> None:
    table = _table(
        "per inference, counted", "layer", "spikes", "firing rate", "synaptic operations", "dense", "synapses"
    )
    for name, entry in deployment["backends"].items():
        workload = entry["workload"]
        table.add_row(name, "input", f"{workload['input']['spikes']:,.1f}", "", "", "", "")
        for layer in workload["layers"]:
            table.add_row(
                "",
                layer["name"].removeprefix("layer "),
                f"{layer['spikes']:,.1f}",
                f"{layer['firing_rate']:.1%}",
                f"{layer['effective_acs'] + layer['effective_macs']:,.0f}",
                f"{layer['dense']:,.0f}",
                f"{layer['synapses']:,}",
            )
        sums = workload["per_inference"]
        counts = [f"{sums[key]:,.0f}" for key in ("synaptic_operations", "dense")]
        table.add_row("", "sum", f"{sums['spikes']:,.1f}", "", *counts, "")
    out.print(table)


def _energy(out: Console, energy: dict[str, Any]) -> None:
    """Energy of the deployment only: the constants of a chip say nothing of the baseline's run."""
    models = {model["model"]: model["title"] for model in energy["models"]}
    figures = [*energy["figures"], *energy["baselines"]]
    kinds = " or ".join(dict.fromkeys(figure["kind"] for figure in figures))
    table = _table(f"energy, uJ per inference, {kinds}", *models.values(), "constants")
    rows = {figure["target"]: figure["title"] for figure in figures}
    for target, title in rows.items():
        here = [figure for figure in figures if figure["target"] == target]
        shown = {one["model"]: _range(one) + "*" * (one["id"] == energy["headline"]["id"]) for one in here}
        constants = dict.fromkeys(kind for one in here for kind in one["constants_kind"])
        named = title if list(rows.values()).count(title) == 1 else f"{title} ({target})"
        table.add_row(named, *(shown.get(model, "") for model in models), ", ".join(constants))
    out.print(table)
    (headline,) = [one for one in energy["figures"] if one["id"] == energy["headline"]["id"]]
    out.print(f"* {headline['id']}: {headline['what']}; {'; '.join(headline['sources'])}", style="dim", soft_wrap=True)
    for line in energy["break_even"]:
        out.print(_break_even(line), soft_wrap=True)
    exclusions = "; ".join(energy["exclusions"])
    out.print(f"left out: {exclusions}. Sources: report.json", style="dim", soft_wrap=True)


def _range(figure: dict[str, Any]) -> str:
    low, high = (_short(figure[side]) for side in ("low", "high"))
    return low if low == high else f"{low}-{high}"


def _short(value: float) -> str:
    """Three digits, without an exponent where that is no longer."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.2g}"


def _break_even(line: dict[str, Any]) -> str:
    """A threshold, where this policy stands, and who says so."""
    verdict = VERDICTS[line["saves"]]
    rate = line["quantity"] == "firing rate"
    ends = [line["threshold_low"], line["threshold_high"]]
    shown = [f"{end:.3g}" if not rate else f"{end:.2%}" for end in dict.fromkeys(ends) if end is not None]
    here = "unknown" if line["here"] is None else f"{line['here']:.2%}" if rate else f"{line['here']:.3g}"
    threshold = f"{line['quantity']} {' to '.join(shown)}" if shown else "none"
    return f"break-even, {line['title']}: {threshold}; here {here}: {verdict} ({line['kind']}; {line['source']})"


def _training(out: Console, document: dict[str, Any]) -> None:
    if not document["training"]:
        return
    table = _table("training run", "seeds", "steps", "time", "best return", "last ten", "energy", "carbon")
    for run in document["training"]:
        energy, carbon = run["energy"], run["carbon"]
        table.add_row(
            run["title"],
            str(run["seeds"]),
            f"{run['steps']:,}",
            f"{run['seconds']:,.0f} s",
            *("-" if run[key] is None else f"{run[key]:.1f}" for key in ("best_return", "last_ten_mean")),
            "unmeasured" if energy is None else f"{energy['joule'] / 1e3:.3g} kJ, {energy['kind']}",
            "-" if carbon is None else f"{carbon['kg_co2eq'] * 1e3:.3g} g CO2eq, {carbon['kind']}",
        )
    out.print(table)
    for speedup in document["speedups"]:
        ratios = [("Speedup", speedup["speedup"]), ("Greenup", speedup["greenup"]), ("Powerup", speedup["powerup"])]
        told = ", ".join(f"{name} {value:.2f}" for name, value in ratios if value is not None)
        out.print(f"{speedup['run']} against {speedup['baseline']}: {told} ({speedup['what']}; {speedup['kind']})",
                  soft_wrap=True)  # fmt: skip


def _conformance(out: Console, verifications: list[dict[str, Any]]) -> None:
    for one in verifications:
        statuses = ", ".join(f"{row['name']} {row['status']}" for row in one["rows"])
        verdict = "passed" if one["passed"] else "NOT passed"
        out.print(f"verification {one['title']}: {verdict} ({statuses})", soft_wrap=True)


def _inference(out: Console, measurements: list[dict[str, Any]]) -> None:
    for one in measurements:
        table = _table(f"inference, {one['policy']['file']}", "device", "mode", "batch", "inferences/s",
                      "uJ total", "above idle", "")  # fmt: skip
        for row in one["rows"]:
            energy = row["energy_uj"] or {}
            shown = [
                "-" if energy.get(key) is None else f"{energy[key]['mean']:,.4g}" for key in ("total", "above_idle")
            ]
            table.add_row(row["workload"], row["device"], f"{row['mode']}, {row['dtype']}", str(row["batch"]),
                          f"{row['inferences_per_second']:,.4g}", *shown, row["kind"])  # fmt: skip
        out.print(table)
