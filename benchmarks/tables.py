"""The README's tables of the benchmarks, from their committed results.

python -m benchmarks.tables benchmarks/results/training.json
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results"
CONTENDERS = (("eager", "eager"), ("compiled", "`--compile`"), ("compiled_bf16", "`--compile --bf16`"))


def backends_table(document: dict[str, Any]) -> str:
    """Markdown of `benchmarks.backends`' control steps, with what they come to in ratios."""
    rows = {(row["backend"], row["side_by_side"]): row for row in document["control_step"]}
    lines = [
        "| control step, 170-256-256-60, T 5, 10 % activity | median | 99th percentile | control steps/s | times one |",
        "| --- | --- | --- | --- | --- |",
    ]
    for (name, batch), row in rows.items():
        rate = row["control_steps_per_s"]
        alone = rate / rows[name, 1]["control_steps_per_s"]
        times = f"{alone:.1f}" if batch > 1 else ""
        what = "one episode" if batch == 1 else f"{batch} side by side"
        milliseconds = f"{row['median_ms']:.3g} ms | {row['p99_ms']:.3g} ms"
        lines.append(f"| `{name}`, {what} | {milliseconds} | {rate:,.0f} | {times} |")
    fixed = rows["fixed", 64]["control_steps_per_s"]
    against = [(name, batch) for name in ("lava-stock", "lava") for batch in (1, 64)]
    ratios = "; ".join(
        f"{fixed / rows[pair]['control_steps_per_s']:,.0f} times that of `{pair[0]}` at {pair[1]}" for pair in against
    )
    memory, same = document["memory"], document["same_episodes"]
    early, late = memory["resident_mb"]
    lines += [
        "",
        f"The throughput of `fixed` at 64 is {ratios}.",
        f"Lava's processes together hold {early:.0f} MB after {memory['control_steps'][0]:,} control steps and "
        f"{late:.0f} MB after {memory['control_steps'][1]:,}.",
        f"The same {same['control_steps']:,} control steps of the double pendulum take `fixed` "
        f"{same['wall_s']['fixed']:.2f} s and `lava` {same['wall_s']['lava']:.1f} s, environment included,",
        "with the same returns.",
    ]
    return "\n".join(lines) + "\n"


def verify_table(document: dict[str, Any]) -> str:
    """Markdown of `spikerl verify`'s result: the conformance matrix."""
    reference = document["reference"]
    spikes = sum(reference["spikes"])
    lines = [
        "| backend | runs | spikes that differ, by layer | of | largest action error | return |",
        "| --- | --- | --- | --- | --- | --- |",
        f"| `{reference['name']}` | {document['policy']['bits']}-bit integers | the reference | {spikes:,} | "
        f"| {_mean(reference['returns']):.2f} |",
    ]
    for row in document["rows"]:
        if row["status"] == "skipped":
            lines.append(f"| `{row['name']}` | skipped: {row['reasons'][0]} | | | | |")
            continue
        mismatches = ", ".join(f"{count:,}" for count in row["spikes"]["mismatches"])
        error = f"{row['action_error']['share_of_range']:.0%} of the range" if row["action_error"]["value"] else "0"
        name = f"`{row['name']}`" if row["status"] != "informational" else row["name"]
        cells = (name, row["runs"], mismatches, f"{sum(row['spikes']['either']):,}", error)
        lines.append(f"| {' | '.join(cells)} | {_mean(row['returns']):.2f} |")
    return "\n".join(lines) + "\n"


def _mean(values: list[float]) -> float:
    return sum(values) / len(values)


def training_table(document: dict[str, Any]) -> str:
    """Markdown of `benchmarks.training`'s results on the CPU."""
    results = document["results"]
    lines = ["| HalfCheetah's sizes, batch 100 | baseline | ours | times faster |", "| --- | --- | --- | --- |"]
    for threads in (1, 2):
        row = results[f"update_{threads}_threads"]
        plural = "s" if threads > 1 else ""
        for key, name in CONTENDERS:
            lines.append(_compared(f"one update, {threads} thread{plural}, {name}", row["baseline_ms"], row[key]))
    action = results["action"]
    lines.append(_compared("one action, 1 thread", action["baseline_ms"], action["ours"]))
    lines += ["", "| HalfCheetah-v5, environments | steps/s |", "| --- | --- |"]
    rates = [
        (f"acting, stepping, storing: {row['num_envs']} {'in workers' if row['workers'] else 'in one process'}", row)
        for row in results["environments"]["without_updates"]
    ]
    training = results["training"]
    rates.append((f"training: 1, one update a step, `--compile`, {training['threads']} threads", training))
    lines += [f"| {what} | {row['steps_per_second']:,.0f} |" for what, row in rates]
    seeds, buffer = results["seeds"], results["buffer"]
    lines += ["", "| else | |", "| --- | --- |"]
    lines.append(
        f"| one update of five seeds at once, `--compile`, 1 thread | {seeds['five_to_one']:.1f} times one seed's |"
    )
    lines.append(f"| buffer of 1,000,000 steps | {buffer['array_mb']:.0f} MB |")
    return "\n".join(lines) + "\n"


def variants_table(document: dict[str, Any]) -> str:
    """Markdown of `benchmarks.training_variants`' results: what each costs, in times of the default."""
    parts = [document["results"][name] for name in ("eager", "compiled", "action")]
    lines = [
        "| in times of the default | update, eager | update, `--compile` | action |",
        "| --- | ---: | ---: | ---: |",
    ]
    for name in (name for name, row in parts[0].items() if isinstance(row, dict)):
        lines.append(f"| `{name}` | {' | '.join(_times(part.get(name)) for part in parts)} |")
    default = " | ".join(f"{part['default_ms']:.3g} ms" for part in parts)
    return "\n".join([*lines, f"| the default | {default} |"]) + "\n"


def _times(row: dict[str, Any] | None) -> str:
    if row is None:
        return "as the default"
    low, high = row["range"]
    return f"{row['times_the_default']:.2f} ({low:.2f} to {high:.2f})"


def quantization_table(document: dict[str, Any]) -> str:
    """Markdown of `benchmarks.quantization`'s results: share of the float return kept, with its interval."""
    names = ("rounding", "calibration", "training")
    episodes, baseline = document["seeds"]["played"], document["float"]["mean_return"]
    steps = f"{document['qat_steps']:,}"
    lines = [
        f"| bits | rounding | calibration | training, {steps} steps |",
        "| --- | --- | --- | --- |",
        *(
            f"| {bits} | {' | '.join(_kept(row.get(name)) for name in names)} |"
            for bits, row in document["bits"].items()
        ),
    ]
    cost = document["command"]
    slowest = max(document["export"].items(), key=lambda item: item[1]["seconds"])
    lines += [
        "",
        f"Of the float policy's {baseline:,.0f}, over seeds {episodes[0]} to {episodes[-1]}, on `fixed`. Calibration "
        f"on {cost['control_steps']:,} control steps takes {cost['cpu_seconds']:.1f} s of one core",
        f"and {cost['peak_memory_mb']:.0f} MB, the command's start included; the slowest export, "
        f"`{slowest[0]}`, {slowest[1]['seconds']:.2f} s.",
    ]
    return "\n".join(lines) + "\n"


ENERGIES = (
    "loihi1/synops", "loihi1/chip-dynamic", "loihi1/chip-total", "spinnaker2/chip-dynamic", "cmos45/memory-aware",
    "ann-int3/memory-aware", "ann-fp32/memory-aware", "snn-h100/synops",
)  # fmt: skip


def energy_table(document: dict[str, Any]) -> str:
    """Markdown of a report's energies: modelled ones of chips and of the dense ANN, and those of torch on this CPU."""
    (deployment,) = document["deployments"]
    energy = deployment["backends"][deployment["backend"]]["energy"]
    figures = {figure["id"]: figure for figure in [*energy["figures"], *energy["baselines"]]}
    models = {model["model"]: model["title"] for model in energy["models"]}
    lines = ["| an inference of | model or meter | uJ | kind | source |", "| --- | --- | --- | --- | --- |"]
    for name in ENERGIES:
        figure = figures[name]
        constants = ", ".join(figure["constants_kind"])
        cells = (figure["title"], models[figure["model"]], _span(figure["low"], figure["high"]))
        lines.append(f"| {' | '.join(cells)} | {figure['kind']} ({constants}) | {'; '.join(figure['sources'])} |")
    for row in (row for measurement in document["inference"] for row in measurement["rows"]):
        total = row["energy_uj"]["total"]
        what = f"{row['workload']}, torch on {row['device']}, {row['dtype']}, batch {row['batch']}"
        lines.append(
            f"| {what} | {row['meter']} | {_span(total['low'], total['high'])} | {row['kind']} | `spikerl measure` |"
        )
    own = next(line for line in energy["break_even"] if line["id"] == "cmos45/memory-aware")
    verdict = {True: "it saves", False: "it does not save", None: "undecided"}[own["saves"]]
    lines += [
        "",
        f"Firing rate {own['here']:.1%}; break-even against the quantized ANN, memory included, at "
        f"{own['threshold_low']:.1%} to {own['threshold_high']:.1%}: **{verdict}** ({own['kind']}).",
    ]
    return "\n".join(lines) + "\n"


def _span(low: float, high: float) -> str:
    ends = [f"{value:,.0f}" if value >= 100 else f"{value:.3g}" for value in (low, high)]
    return ends[0] if ends[0] == ends[1] else f"{ends[0]} to {ends[1]}"


def _kept(cell: dict[str, Any] | None) -> str:
    """Retention with its interval, and whether training was better than what it started from."""
    if cell is None:
        return ""
    low, high = cell["interval"]
    unchanged = cell.get("fine_tuning", {}).get("kept") == 0
    return f"{cell['retention']:.1%} [{low:.1%}, {high:.1%}]" + (", as calibrated" if unchanged else "")


def _compared(what: str, baseline_ms: float, ours: dict[str, Any]) -> str:
    low, high = ours["range"]
    ratio = f"{ours['times_faster']:.1f} ({low:.1f} to {high:.1f})"
    return f"| {what} | {baseline_ms:.3g} ms | {ours['ms']:.3g} ms | {ratio} |"


def main() -> None:
    """Print the table of one results file."""
    document = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    kind = document.get("benchmark") or document["schema"]
    tables = {"backends": backends_table, "variants": variants_table, "quantization": quantization_table,
              "verify": verify_table, "report/": energy_table}  # fmt: skip
    table = next((make for name, make in tables.items() if name in kind), training_table)
    print(table(document), end="")


if __name__ == "__main__":
    main()
