"""Run folders and entries of returns.json for the tests, written without the code that reads them."""

from __future__ import annotations

import csv
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from training.settings import Settings

EVERY = 10_000
Curve = Sequence[tuple[float, float]]  # mean and standard deviation of each evaluation, one every EVERY steps


def noisy_curve(count: int, top: float, seed: int = 0) -> Curve:
    """A curve that rises to about `top` in a million steps."""
    rng = np.random.default_rng(seed)
    rise = 1 - np.exp(-np.arange(count) / 20)
    means = top * rise + rng.normal(0, 0.03 * top, count)
    return [(float(mean), float(rng.uniform(0, 100))) for mean in means]


def write_run(folder: Path, curves: dict[int, Curve], ended: str | None = None, **settings: Any) -> Path:
    """A folder of a run with these seeds; `ended` is why its result.json says that it stopped, None that it goes on."""
    first = min(curves)
    settings = {"env": "Hopper-v5", "steps": 1_000_000, "eval_every": EVERY, **settings}
    resolved = Settings(seed=first, seeds=len(curves), **settings)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.toml").write_text(resolved.to_toml())
    manifest = {"command": ["spikerl", "train"], "seed": first, "versions": {"torch": "2.0", "mujoco": "3.0"}}
    (folder / "manifest.json").write_text(json.dumps(manifest))
    for seed, curve in curves.items():
        place = folder if len(curves) == 1 else folder / f"seed-{seed}"
        place.mkdir(exist_ok=True)
        with (place / "metrics.csv").open("w", newline="") as stream:
            writer = csv.writer(stream)
            writer.writerow(("step", "seconds", "steps_per_second", "kind", "name", "value"))
            for index, (mean, std) in enumerate(curve, start=1):
                step, seconds = index * EVERY, f"{index * 100.0:.3f}"
                writer.writerow((step - 1, seconds, "100.0", "episode", "return", repr(mean - 1)))
                writer.writerow((step, seconds, "100.0", "train", "critic_loss", "0.5"))
                writer.writerow((step, seconds, "100.0", "eval", "return_mean", repr(mean)))
                writer.writerow((step, seconds, "100.0", "eval", "return_std", repr(std)))
    longest = max(len(curve) for curve in curves.values())
    if ended:
        result = {"steps": longest * EVERY, "seconds": longest * 100.0, "stopped": ended, "ranks": 1}
        (folder / "result.json").write_text(json.dumps(result))
        (folder / "emissions.json").write_text(json.dumps(emissions(longest * 100.0)))
    return folder


def emissions(seconds: float) -> dict[str, Any]:
    """What a tracked run of that length leaves."""
    return {
        "tracked": True,
        "source": "CodeCarbon 3, offline",
        "duration_s": seconds,
        "energy_joule": {"cpu": {"value": 2000.0, "kind": "measured"}, "ram": {"value": 1000.0, "kind": "modelled"}},
        "total_energy_joule": 3000.0,
        "emissions_kg_co2eq": 0.0005,
        "carbon_intensity": {"value": 400.0, "unit": "g CO2eq/kWh", "source": "a table"},
        "cpu_model": "A Processor",
        "gpu_model": "",
    }


def entry(task: str = "hopper", group: str = "recipe", curves: dict[int, Curve] | None = None, **fields: Any) -> Any:
    """An entry as the file has it, finished after a million steps unless `fields` say otherwise."""
    from benchmarks.returns_document import TASKS

    curves = {0: noisy_curve(100, 3000.0)} if curves is None else curves
    seeds = []
    for seed, curve in curves.items():
        points = [[(index + 1) * EVERY, round(mean, 2), round(std, 2)] for index, (mean, std) in enumerate(curve)]
        means = [point[1] for point in points]
        seeds.append(
            {
                "seed": seed,
                "maximum": max(means),
                "maximum_step": points[int(np.argmax(means))][0],
                "final": means[-1],
                "last_ten": round(float(np.mean(means[-10:])), 2),
                "metrics": {"sha256": "ab" * 32, "bytes": 1000},
                "curve": points,
            }
        )
    done = max(len(curve) for curve in curves.values()) * EVERY
    return {
        "task": task,
        "env": TASKS[task],
        "group": group,
        "label": "a label" if group in ("search", "ablation") else "",
        "note": "a note" if group == "search" else "",
        "against": "" if group == "ablation" else None,
        "actor": "mlp" if group == "mlp" else "spiking",
        "steps_asked": 1_000_000,
        "steps_done": done,
        "status": "steps" if done >= 1_000_000 else "unfinished",
        "settings": {},
        "evaluation": {"every": EVERY, "episodes": 10, "seed": 10_000},
        "seconds": 3600.0,
        "energy": {"joule": 3000, "kind": "modelled", "source": "a meter"},
        "carbon": {"kg_co2eq": 0.001, "kind": "modelled", "intensity": "400 g CO2eq/kWh, a table"},
        "machine": {"processor": "A Processor", "gpu": None, "threads": 1, "ranks": 1},
        "versions": {"torch": "2.0"},
        "seeds": seeds,
        **fields,
    }


def document(*entries: Any) -> dict[str, Any]:
    """A checked document of these entries."""
    from benchmarks.returns_document import SCHEMA, check, key

    made = {"schema": SCHEMA, "runs": sorted(entries, key=key)}
    check(made, "the test's")
    return made
