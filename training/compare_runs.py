"""Speedup, Greenup and Powerup between two training runs. Loads no torch.

GPS-UP metrics: Abdulsalam et al. 2015, https://doi.org/10.1109/IGCC.2015.7393699.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from spikerl_deploy.errors import SpikerlError
from training.run_reader import Energy, Run, weaker
from training.settings import completed

SCHEMA = "spikerl.compare-runs/1"
EQUAL = 0.01  # a ratio this close to 1 is called equal in the name of a quadrant, nowhere else
MISMATCH = 0.05  # an energy whose seconds differ by a larger share from those of its run is called modelled
SEED_SETTINGS = ("seed", "seeds")


@dataclass(frozen=True)
class Work:
    """Time and energy that a run took for some work; the energy is None where it is unmeasured."""

    seconds: float
    joule: float | None
    kind: str
    steps: int | None = None  # of each seed, where the work is no fixed number of steps


@dataclass(frozen=True)
class Comparison:
    """The same work done by A, the baseline, and B. Ratios above 1: B is faster, greener, draws more power."""

    a: Work
    b: Work

    @property
    def speedup(self) -> float:
        """T_A / T_B."""
        return self.a.seconds / self.b.seconds

    @property
    def greenup(self) -> float | None:
        """E_A / E_B."""
        return None if self.a.joule is None or self.b.joule is None else self.a.joule / self.b.joule

    @property
    def powerup(self) -> float | None:
        """P_B / P_A, which is Speedup / Greenup."""
        return None if self.greenup is None else self.speedup / self.greenup

    @property
    def kind(self) -> str:
        """The weaker of the two energies' kinds."""
        return weaker(self.a.kind, self.b.kind)

    @property
    def quadrant(self) -> str | None:
        """Where the point lies in the plane of Powerup and Speedup, whose diagonal is Greenup = 1."""
        if self.greenup is None or self.powerup is None:
            return None
        time, power = _side(self.speedup), _side(self.powerup)
        energy = 0 if time == power == 0 else _side(self.greenup)
        names = (("neutral", "green", "red")[energy], ("as fast", "faster", "slower")[time])
        return f"{names[0]}: {names[1]} on {('the same', 'more', 'less')[power]} power"


def _side(ratio: float) -> int:
    return 0 if abs(ratio - 1) <= EQUAL else 1 if ratio > 1 else -1


def per_step(a: Run, b: Run) -> Comparison:
    """An environment step, of whichever seed; time and energy of the whole run over its steps."""
    return Comparison(*(_work(run, run.seconds / run.steps) for run in (a, b)))


def whole_run(a: Run, b: Run) -> Comparison | str:
    """The whole runs, or why they are not the same work."""
    if not (a.finished and b.finished):
        return "a run was not finished"
    if a.seeds != b.seeds or a.steps != b.steps:
        return f"not the same work: {a.steps} steps in all (seeds: {a.seeds}), {b.steps} (seeds: {b.seeds})"
    return Comparison(_work(a, a.seconds), _work(b, b.seconds))


def _work(run: Run, seconds: float, step: int | None = None) -> Work:
    """A part of a run, by its time. Its energy is the mean power over the tracked time, times that time."""
    energy = run.energy
    if energy is None:
        return Work(seconds, None, "unmeasured", step)
    covered = step is None and not _mismatched(energy, run)
    return Work(seconds, energy.joule / energy.seconds * seconds, energy.kind if covered else "modelled", step)


def _mismatched(energy: Energy, run: Run) -> bool:
    return abs(energy.seconds - run.seconds) > MISMATCH * run.seconds


def common_return(a: Run, b: Run) -> float | None:
    """The largest mean return that both runs reached; None where one has no evaluation."""
    if not (a.evaluations and b.evaluations):
        return None
    return min(max(point.mean_return for point in run.evaluations) for run in (a, b))


def to_return(a: Run, b: Run, wanted: float | None) -> Comparison | str:
    """Until an evaluation's mean return first reached the wanted one, or why that cannot be compared.

    The energy of that part of a run is modelled, whatever the kind of the run's energy.
    """
    if wanted is None:
        return "a run has no evaluation"
    if a.seeds != b.seeds:
        return f"not the same work: seeds {a.seeds} and {b.seeds}"
    works = []
    for name, run in (("A", a), ("B", b)):
        point = next((point for point in run.evaluations if point.mean_return >= wanted), None)
        if point is None:
            best = max((point.mean_return for point in run.evaluations), default=math.nan)
            return f"{name} never reached {wanted:g}; its best mean return is {best:g}"
        if point.seconds == 0:
            return f"{name} reached {wanted:g} in no time that its log resolves"
        works.append(_work(run, point.seconds, point.step))
    return Comparison(*works)


def differences(a: Mapping[str, Any], b: Mapping[str, Any], ignored: Sequence[str] = ()) -> dict[str, list[Any]]:
    """Names whose values differ, with both values; None where a side has none."""
    names = [name for name in {**a, **b} if name not in ignored]
    return {name: [_plain(a.get(name)), _plain(b.get(name))] for name in names if a.get(name) != b.get(name)}


def _differing_settings(a: Run, b: Run) -> dict[str, list[Any]]:
    """A setting that a run's folder does not name had its default."""
    return differences(completed(a.settings), completed(b.settings), SEED_SETTINGS)


def _plain(value: Any) -> Any:
    """A value as strict JSON has it; what it has not, such as TOML's inf and dates, as text."""
    try:
        json.dumps(value, allow_nan=False)
    except (TypeError, ValueError):
        return str(value)
    return value


def compare_document(a: Run, b: Run, wanted: float | None = None) -> dict[str, Any]:
    """The comparison of B with its baseline A, see docs/training-energy.md. `wanted`: return to reach.

    Raises:
        SpikerlError: the runs are of different environments, or the wanted return is not finite.
    """
    environments = [run.settings.get("env") for run in (a, b)]
    if environments[0] != environments[1] or not isinstance(environments[0], str):
        raise SpikerlError(
            f"'{a.folder}' trained {environments[0]!r}, '{b.folder}' {environments[1]!r}: not the same work",
            "compare runs of one environment",
        )
    if wanted is not None and not math.isfinite(wanted):
        raise SpikerlError(f"--to-return {wanted} is not finite", "leave it out for the largest both reached")
    chosen = wanted if wanted is not None else common_return(a, b)
    until = to_return(a, b, chosen)
    lines = warnings(a, b)
    if isinstance(until, Comparison) and all(
        work.steps == run.evaluations[0].step for work, run in ((until.a, a), (until.b, b))
    ):
        lines.append(f"both reached {chosen:g} at their first evaluation: that says nothing of learning")
    return {
        "schema": SCHEMA,
        "env": environments[0],
        "a": _run_entry(a),
        "b": _run_entry(b),
        "differing_settings": _differing_settings(a, b),
        "warnings": lines,
        "per_step": _entry(per_step(a, b)),
        "to_return": {
            "mean_return": chosen,
            "chosen": "by --to-return" if wanted is not None else "the largest that both reached",
            "energy": "mean power of the run times the time",
        }
        | _entry(until),
        "whole_run": _entry(whole_run(a, b)),
        "units": {"seconds": "s", "joule": "J"},
        "interval": "none: each side is one wall time and one energy",
        "source": "GPS-UP, Abdulsalam et al. 2015; Speedup T_A/T_B, Greenup E_A/E_B, Powerup P_B/P_A",
    }


def _run_entry(run: Run) -> dict[str, Any]:
    energy = {"joule": None, "kind": "unmeasured"} if run.energy is None else asdict(run.energy)
    best = max((point.mean_return for point in run.evaluations), default=None)
    return {
        "run": str(run.folder),
        "seeds": run.seeds,
        "steps": run.steps,
        "seconds": run.seconds,
        "ranks": run.ranks,
        "stopped": run.stopped,
        "finished": run.finished,
        "evaluations": len(run.evaluations),
        "eval_episodes": run.settings.get("eval_episodes"),
        "best_mean_return": best,
        "energy": energy,
    }


def _entry(comparison: Comparison | str) -> dict[str, Any]:
    if isinstance(comparison, str):
        return {"unavailable": comparison}
    return {
        "a": asdict(comparison.a),
        "b": asdict(comparison.b),
        "speedup": comparison.speedup,
        "greenup": comparison.greenup,
        "powerup": comparison.powerup,
        "energy_kind": comparison.kind,
        "quadrant": comparison.quadrant,
    }


def warnings(a: Run, b: Run) -> list[str]:
    """What a reader of the ratios must know, a line each."""
    lines = []
    for name, run in (("A", a), ("B", b)):
        if not run.finished:
            lines.append(f"{name} was not finished ({run.stopped or 'no result.json'})")
        if run.ranks > 1:
            lines.append(f"{name} ran on {run.ranks} ranks: its energy is that of the first one's machine, no other")
        if run.energy is None:
            lines.append(f"the energy of {name} is unmeasured: Speedup only")
        elif _mismatched(run.energy, run):
            lines.append(f"{name} took {run.seconds:.1f} s; its energy is scaled from {run.energy.seconds:.1f} s")
    if a.energy is not None and b.energy is not None:
        counted = [", ".join(run.components_counted) for run in (a.energy, b.energy)]
        if counted[0] != counted[1]:
            lines.append(f"the energy of A counts {counted[0]}; that of B {counted[1]}")
        if weaker(a.energy.kind, b.energy.kind) == "modelled":
            lines.append("energy is modelled by constants and load, at least in part: Greenup follows Speedup")
        lines += _differing("hardware", differences(a.energy.hardware, b.energy.hardware))
    for title, part in (("machines", "machine"), ("versions", "versions")):
        sides = [run.recorded(part) for run in (a, b)]
        if all(sides):
            lines += _differing(title, differences(sides[0], sides[1]))
        else:
            lines.append(f"a manifest.json does not name its {part}")
    if a.seeds != b.seeds:
        lines.append(f"seeds side by side: {a.seeds} in A, {b.seeds} in B; only steps can be compared")
    lengths = [run.steps // run.seeds for run in (a, b)]
    if lengths[0] != lengths[1]:
        lines.append(f"A made {lengths[0]} steps a seed, B {lengths[1]}: the first ones, without updates, are cheaper")
    return lines + _differing("settings", _differing_settings(a, b))


def _differing(title: str, different: Mapping[str, Sequence[Any]]) -> list[str]:
    if not different:
        return []
    return [f"{title} differ: " + ", ".join(f"{name} {old} and {new}" for name, (old, new) in different.items())]
