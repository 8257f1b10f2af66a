"""`spikerl sweep`: search hyper-parameters over a TOML space, with Optuna."""

from __future__ import annotations

import os
import shlex
import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from spikerl_deploy.cli.common import (
    Format,
    FormatOption,
    Verbosity,
    complete_environment,
    console,
    one_thread_for_numpy,
    print_json,
    say,
)

if TYPE_CHECKING:
    from training.sweep_results import Summary
    from training.sweep_space import SweepPlan


def sweep(
    space: Annotated[Path, typer.Argument(metavar="SPACE.toml", help="Tables [settings], [space] and [study].")],
    trials: Annotated[int | None, typer.Option(help="Trials in total, over all processes and continuations.")] = None,
    processes: Annotated[int, typer.Option(min=1, help="Worker processes to start.")] = 1,
    out: Annotated[Path | None, typer.Option(help="Sweep folder; sweeps/NAME by default. Continued if there.")] = None,
    env: Annotated[
        str | None, typer.Option(help="Gymnasium MuJoCo environment id.", autocompletion=complete_environment)
    ] = None,
    steps: Annotated[int | None, typer.Option(help="Environment steps of a run.")] = None,
    recipe: Annotated[str | None, typer.Option(help="Fixed settings that ship with spikerl, by task name.")] = None,
    assignments: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Any fixed setting; repeatable.")
    ] = None,
    device: Annotated[str | None, typer.Option(help="auto, cpu or cuda.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the plan and write nothing.")] = False,
    output: FormatOption = Format.human,
) -> None:
    """Search hyper-parameters; the same command continues a sweep, and several may work on one at once.

    Fixed settings: flags over --set over SPIKERL_TRAIN_* variables over [settings] over --recipe over defaults.
    """
    one_thread_for_numpy()
    from training.sweep_space import load_plan

    flags = {"env": env, "steps": steps, "device": device}
    plan = load_plan(space, os.environ, assignments, flags, recipe, trials)
    folder = out if out is not None else Path("sweeps") / plan.name
    if dry_run:
        _print_plan(plan, folder, processes, output)
        return
    os.environ.setdefault("OMP_NUM_THREADS", str(plan.settings.threads))  # before torch reads it
    from training.sweep import run_sweep

    summary = run_sweep(plan, folder, processes, Verbosity.quiet)
    if output is Format.json:
        print_json(_document(plan, folder, summary))
    else:
        _print_summary(plan, folder, summary)
    if summary.interrupted:
        say(f"go on with: {shlex.join(['spikerl', *sys.argv[1:]])}")
        raise typer.Exit(130)
    if summary.best is not None:
        say(f"next: spikerl train --config {folder}/best.toml --seed {max(plan.options.seeds) + 1}")


def _document(plan: SweepPlan, folder: Path, summary: Summary) -> dict[str, Any]:
    best = None
    if summary.best is not None:
        best = asdict(summary.best) | {
            "run": str(folder / f"trial-{summary.best.trial:04}"),
            "config": str(folder / "best.toml"),
        }
    return {
        "schema": "spikerl.sweep/1",
        "sweep": str(folder),
        "env": plan.settings.env,
        "objective": plan.options.objective,
        "seeds": plan.options.seeds,
        "trials": summary.total,
        "counts": summary.counts,
        "best": best,
        "interrupted": summary.interrupted,
    }


def _print_summary(plan: SweepPlan, folder: Path, summary: Summary) -> None:
    from training.sweep_space import OBJECTIVES

    counts = ", ".join(f"{count} {state}" for state, count in summary.counts.items() if count) or "no trial"
    lines = [f"{plan.settings.env}: {counts}, of {summary.total} trials; sweep folder {folder}"]
    if summary.best is None:
        lines.append(f"no complete trial yet; what failed is in {folder}/results.csv")
    else:
        best = summary.best
        seeds = ", ".join(
            f"seed {seed}: {value:.1f}" for seed, value in zip(plan.options.seeds, best.returns, strict=True)
        )
        point = ", ".join(f"{name} = {value}" for name, value in best.params.items())
        lines.append(
            f"best: trial {best.trial}, {OBJECTIVES[plan.options.objective]} {best.value:.1f} over "
            f"{plan.settings.eval_episodes} evaluation episodes ({seeds}) with {point}"
        )
    console().print("\n".join(lines), soft_wrap=True)


def _print_plan(plan: SweepPlan, folder: Path, processes: int, output: Format) -> None:
    from training.sweep_space import OBJECTIVES

    options, runs = plan.options, plan.trials * len(plan.options.seeds)
    if output is Format.json:
        document = plan.identity() | {"schema": "spikerl.sweep-plan/1", "sweep": str(folder), "trials": plan.trials}
        print_json(document | {"processes": processes, "steps_at_most": runs * plan.settings.steps})
        return
    lines = [
        f"# would search in {folder} with {processes} process(es): {plan.trials} trials in total, "
        f"{len(options.seeds)} seed(s) each, at most {runs * plan.settings.steps:,} environment steps",
        f"# objective: {OBJECTIVES[options.objective]}; sampler {options.sampler} (seed {options.sampler_seed}), "
        f"pruner {options.pruner}; searched:",
        *(f"#   {dimension.name}: {dimension.document()}" for dimension in plan.dimensions),
        "# fixed:",
    ]
    console().print("\n".join(lines) + "\n" + plan.fixed_toml(), end="", soft_wrap=True)
