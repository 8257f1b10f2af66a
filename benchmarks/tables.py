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
    table = quantization_table if "quantization" in document["schema"] else training_table
    print(table(document), end="")


if __name__ == "__main__":
    main()
