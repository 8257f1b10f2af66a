"""What a sweep found: counts, the best trial, results.csv and best.toml."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from optuna.trial import FrozenTrial, TrialState

from spikerl_deploy.files import write_text
from training.sweep_space import OBJECTIVES, SweepPlan

COUNTED = ("complete", "pruned", "failed", "running")  # states that count towards the trials asked for
RETRIED = ("interrupted", "lost")  # a signal came, or the process is gone: the point is tried again in a new trial
STATES = (*COUNTED, "waiting", *RETRIED)


@dataclass(frozen=True)
class Best:
    """The best complete trial: number, value, point, and the objective of each seed."""

    trial: int
    value: float
    params: dict[str, Any]
    returns: tuple[float, ...]


@dataclass(frozen=True)
class Summary:
    """Where a sweep stands. `counts` has the number of trials in each state; `total` is what was asked for."""

    total: int
    counts: dict[str, int]
    best: Best | None
    interrupted: bool = False


def trial_state(trial: FrozenTrial) -> str:
    """One of STATES; Optuna's FAIL stands for three of them, which the trial's attributes tell apart."""
    if trial.state is not TrialState.FAIL:
        return trial.state.name.lower()
    if "error" in trial.user_attrs:
        return "failed"
    return "interrupted" if "interrupted" in trial.user_attrs else "lost"


def summarise(plan: SweepPlan, trials: Sequence[FrozenTrial]) -> Summary:
    """Counts and best trial."""
    states = [trial_state(trial) for trial in trials]
    return Summary(plan.trials, {name: states.count(name) for name in STATES}, _best(plan, trials))


def _best(plan: SweepPlan, trials: Sequence[FrozenTrial]) -> Best | None:
    complete = [(trial.value, -trial.number, trial) for trial in trials if trial.state is TrialState.COMPLETE]
    if not complete:
        return None
    value, _, best = max(complete)  # the first of equals
    return Best(best.number, float(value or 0.0), plan.values(best.params), tuple(best.user_attrs["returns"]))


def write_results(plan: SweepPlan, trials: Sequence[FrozenTrial], folder: Path) -> None:
    """Rewrite results.csv, a row a trial, and, once a trial is complete, best.toml, a config of `spikerl train`."""
    names, seeds = [dimension.name for dimension in plan.dimensions], plan.options.seeds
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    of_seeds = [f"return_seed_{seed}" for seed in seeds]
    table.writerow(["trial", "state", "value", *names, *of_seeds, "seconds", "retry_of", "error"])
    for trial in trials:
        attributes, returns = trial.user_attrs, trial.user_attrs.get("returns", [])
        point = trial.params or trial.system_attrs.get("fixed_params", {})  # the latter while it waits
        seconds = "" if trial.duration is None else f"{trial.duration.total_seconds():.1f}"
        table.writerow(
            [
                *(trial.number, trial_state(trial), "" if trial.value is None else trial.value),
                *(point.get(name, "") for name in names),
                *(returns[index] if index < len(returns) else "" for index in range(len(seeds))),
                *(seconds, attributes.get("retry_of", ""), attributes.get("error", "")),
            ]
        )
    write_text(folder / "results.csv", text.getvalue())
    best = _best(plan, trials)
    if best is not None:
        what = f"{OBJECTIVES[plan.options.objective]} {best.value:.6g}, mean over training seeds {list(seeds)}"
        settings = plan.trial_settings(best.params, seeds[0])
        write_text(folder / "best.toml", f"# trial {best.trial} of a sweep: {what}\n{settings.to_toml()}")
