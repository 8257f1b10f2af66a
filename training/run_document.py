"""Training runs as parts of a report: learning curve, energy by section, carbon, and GPS-UP between them. No torch."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from spikerl_deploy.report.document import read_json, validate
from spikerl_deploy.report.merge import empty_report, slug
from training.compare_runs import per_step, warnings
from training.run_reader import Run
from training.settings import completed

LAST = 10  # evaluations that `last_ten_mean` is over
KINDS = {"actor": "actor", "readout": "readout", "target_actor": "target"}  # settings of what is trained, in words
WHAT = (
    "an environment step: time and energy of the whole run over its steps; "
    "Speedup is of measured wall times, the kind is that of the energies"
)


def training_parts(runs: Sequence[Run]) -> dict[str, list[Any]]:
    """The parts `training`, `speedups` and `warnings` of a report; the first run is the baseline of its environment."""
    parts: dict[str, list[Any]] = {"training": [], "speedups": [], "warnings": []}
    taken: set[str] = set()
    for run in runs:
        parts["training"].append(run_document(run, taken))
        taken.add(parts["training"][-1]["id"])
    for run, entry in zip(runs[1:], parts["training"][1:], strict=True):
        if run.settings.get("env") != runs[0].settings.get("env"):
            continue
        baseline = parts["training"][0]
        parts["speedups"].append(_speedup(runs[0], run, baseline["id"], entry["id"]))
        parts["warnings"] += [
            f"training runs A, {baseline['title']}, and B, {entry['title']}: {line}" for line in warnings(runs[0], run)
        ]
    return parts


def run_document(run: Run, taken: Iterable[str] = ()) -> dict[str, Any]:
    """A run as a report holds it, see docs/report.md. `taken`: ids that it may not have.

    Raises:
        SpikerlError: its manifest.json or emissions.json is no strict JSON, or holds what no report can.
    """
    env = run.settings.get("env")
    name = run.folder.resolve().name
    title = ", ".join([*([env] if isinstance(env, str) else []), *_kinds(run), name])
    returns = [point.mean_return for point in run.evaluations]
    last = returns[-LAST:]
    manifest, emissions = (_strict(run.folder / name) for name in ("manifest.json", "emissions.json"))
    document = {
        "id": _free(slug(title), set(taken)),
        "title": title,
        "env": env if isinstance(env, str) else None,
        "folder": name,
        "seeds": run.seeds,
        "steps": run.steps,
        "seconds": run.seconds,
        "finished": run.finished,
        "stopped": run.stopped,
        "curve": _curve(run),
        "best_return": max(returns, default=None),
        "final_return": returns[-1] if returns else None,
        "last_ten_mean": math.fsum(last) / len(last) if last else None,
        "energy": _energy(run, emissions),
        "carbon": _carbon(run, emissions),
        "manifest": manifest,
    }
    validate({**empty_report(), "training": [document]}, str(run.folder))
    return document


def _kinds(run: Run) -> list[str]:
    """What the run trained, where it is not the default, such as "mlp actor"."""
    usual, settings = completed({}), completed(run.settings)
    return [f"{settings[name]} {word}" for name, word in KINDS.items() if settings[name] != usual[name]]


def _free(name: str, taken: set[str]) -> str:
    names = [name, *(f"{name}-{number}" for number in range(2, len(taken) + 2))]
    return next(one for one in names if one not in taken)


def _curve(run: Run) -> list[dict[str, Any]]:
    """Mean over seeds, with the lowest and the highest seed where there are several."""
    by_step = [{point.step: point.mean_return for point in curve} for curve in run.curves]
    rows = []
    for point in run.evaluations:
        seeds = [curve[point.step] for curve in by_step]
        several = len(seeds) > 1
        rows.append(
            {
                "step": point.step,
                "seconds": point.seconds,
                "mean_return": point.mean_return,
                "low": min(seeds) if several else None,
                "high": max(seeds) if several else None,
            }
        )
    return rows


def _strict(path: Path) -> dict[str, Any]:
    return read_json(path) if path.is_file() else {}


def _energy(run: Run, emissions: Mapping[str, Any]) -> dict[str, Any] | None:
    if run.energy is None:
        return None
    sections = emissions.get("sections")
    return {
        "joule": run.energy.joule,
        "kind": run.energy.kind,
        "parts": {
            name: {"value": part.get("value"), "kind": part["kind"]} for name, part in run.energy.components.items()
        },
        "sections": {
            name: {key: section.get(key) for key in ("seconds", "energy_joule", "kind")}
            for name, section in (sections if isinstance(sections, dict) else {}).items()
            if isinstance(section, dict)
        },
    }


def _carbon(run: Run, emissions: Mapping[str, Any]) -> dict[str, Any] | None:
    """As the run stated it: modelled, since its intensity is a mean."""
    intensity, kilograms = emissions.get("carbon_intensity"), emissions.get("emissions_kg_co2eq")
    if run.energy is None or not isinstance(intensity, dict) or kilograms is None:
        return None
    stated = {key: intensity.get(key) for key in ("value", "unit", "source")}
    return {"kg_co2eq": kilograms, "kind": "modelled", "intensity": stated}


def _speedup(a: Run, b: Run, baseline: str, run: str) -> dict[str, Any]:
    ratios = per_step(a, b)
    return {
        "baseline": baseline,
        "run": run,
        "speedup": ratios.speedup,
        "greenup": ratios.greenup,
        "powerup": ratios.powerup,
        "quadrant": ratios.quadrant,
        "kind": ratios.kind,
        "what": WHAT,
    }
