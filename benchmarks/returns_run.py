"""A run folder of `spikerl train`, also one that is still written or was interrupted, as an entry of returns.json."""

from __future__ import annotations

import csv
import hashlib
import tempfile
from pathlib import Path
from typing import Any

from benchmarks.returns_document import extremes, last_ten
from benchmarks.run_records import RECORDS, changed
from spikerl_deploy.errors import SpikerlError
from training.run_document import run_document
from training.run_reader import Run, read_run
from training.setting_sources import recipe_path
from training.settings import Settings, from_sources

IDENTITY = frozenset("env steps seed seeds actor eval_every eval_episodes eval_seed".split())  # in fields of their own


def read_entry(folder: Path, task: str, group: str, label: str, note: str, against: str | None) -> dict[str, Any]:
    """The entry of a run as its folder is now.

    Raises:
        SpikerlError: it is no run folder, a file in it is missing or malformed, or nothing was evaluated yet.
    """
    with tempfile.TemporaryDirectory() as place:
        copy = Path(place) / "run"
        try:
            tables = _copy(folder, copy)
            return _entry(copy, tables, task, group, label, note, against)
        except SpikerlError as error:  # of the copy, which its user never sees
            message = error.message.replace(str(copy), str(folder))
            raise SpikerlError(message, error.hint and error.hint.replace(str(copy), str(folder))) from error


def _copy(folder: Path, copy: Path) -> dict[Path, bytes]:
    """Copy what decides the entry: a run that goes on writes beside, and its last line may be half there."""
    tables = [folder / "metrics.csv"]
    if not tables[0].is_file():
        tables = sorted(folder.glob("seed-*/metrics.csv"))
    copied: dict[Path, bytes] = {}
    try:
        copy.mkdir()
        for name in RECORDS:
            if (folder / name).is_file():
                (copy / name).write_bytes((folder / name).read_bytes())
        for table in tables:
            data = table.read_bytes()
            whole = data[: data.rfind(b"\n") + 1]
            last = whole.rfind(b"\n", 0, -1) + 1
            if b",eval,return_mean," in whole[last:]:  # its return_std is still to come
                whole = whole[:last]
            target = copy / table.relative_to(folder)
            target.parent.mkdir(exist_ok=True)
            target.write_bytes(whole)
            copied[target] = whole
    except OSError as error:
        raise SpikerlError(
            f"cannot read run '{folder}': {error.strerror}", "give a run folder of spikerl train"
        ) from error
    return copied


def _entry(
    folder: Path, tables: dict[Path, bytes], task: str, group: str, label: str, note: str, against: str | None
) -> dict[str, Any]:
    run = read_run(folder)
    settings = from_sources(config=folder / "config.toml")
    document = run_document(run)
    done = run.steps // run.seeds
    energy, carbon = run.energy, document["carbon"]
    hardware = energy.hardware if energy is not None else {}
    seeds = _seeds(run, settings, tables)
    threads = run.recorded("machine").get("threads", str(settings.threads)).replace("none", "not recorded")
    return {
        "task": task,
        "env": settings.env,
        "group": group,
        "label": label,
        "note": note,
        "against": against,
        "actor": settings.actor,
        "steps_asked": settings.steps,
        "steps_done": done,
        "status": run.stopped if run.finished else "unfinished",
        "settings": not_default(settings),
        "evaluation": {"every": settings.eval_every, "episodes": settings.eval_episodes, "seed": settings.eval_seed},
        "seconds": round(run.seconds, 1),
        "energy": energy and {"joule": round(energy.joule), "kind": energy.kind, "source": energy.source},
        "carbon": carbon and {"kg_co2eq": round(carbon["kg_co2eq"], 6), "kind": carbon["kind"],
                              "intensity": _intensity(carbon["intensity"])},
        "machine": {"processor": hardware.get("cpu_model") or None, "gpu": hardware.get("gpu_model") or None,
                    "threads": int(threads) if threads.isdigit() else threads, "ranks": run.ranks},
        "versions": run.recorded("versions"),
        "seeds": seeds,
    }  # fmt: skip


def not_default(settings: Settings) -> dict[str, Any]:
    """Settings that differ from the defaults of such a run, without those that have fields of their own."""
    plain = Settings(env=settings.env, steps=settings.steps, eval_every=settings.eval_every)
    return changed(settings, plain, IDENTITY)


def recipe_settings(task: str) -> dict[str, Any]:
    """What the recipe of a task sets, as an entry has it."""
    settings = from_sources(config=recipe_path(task))
    return {"env": settings.env, "steps": settings.steps, "settings": not_default(settings),
            "evaluation": {"every": settings.eval_every, "episodes": settings.eval_episodes,
                           "seed": settings.eval_seed}}  # fmt: skip


def _seeds(run: Run, settings: Settings, tables: dict[Path, bytes]) -> list[dict[str, Any]]:
    """One a seed; seeds that train side by side have the evaluations that all of them have."""
    if len(tables) != settings.seeds:
        what = f"run '{run.folder}' has metrics of {len(tables)} seeds, its settings ask for {settings.seeds}"
        raise SpikerlError(what, "give the whole run folder")
    numbers = {f"seed-{seed}": seed for seed in settings.all_seeds}
    if len(tables) > 1 and {path.parent.name for path in tables} != set(numbers):
        raise SpikerlError(f"run '{run.folder}' has no folder for each of the seeds {min(numbers.values())} to "
                           f"{max(numbers.values())}", "give the whole run folder")  # fmt: skip
    if not run.evaluations:
        raise SpikerlError(f"run '{run.folder}' has no evaluation yet", "add it when it has one")
    steps = {point.step for point in run.evaluations}
    seeds = []
    for (path, data), curve in zip(tables.items(), run.curves, strict=True):
        spread = _spread(path)
        points = [
            [point.step, round(point.mean_return, 2), spread[point.step]] for point in curve if point.step in steps
        ]
        exact = [point.mean_return for point in curve if point.step in steps]
        number = settings.seed if len(tables) == 1 else numbers[path.parent.name]
        hashed = {"sha256": hashlib.sha256(data).hexdigest(), "bytes": len(data)}
        result = {**extremes(points), "last_ten": round(last_ten(exact), 2)}
        seeds.append({"seed": number, **result, "metrics": hashed, "curve": points})
    return sorted(seeds, key=lambda seed: seed["seed"])


def _spread(path: Path) -> dict[int, float]:
    """Standard deviation over the episodes of each evaluation; `read_run` has read and checked the rest of the file."""
    found: dict[int, float] = {}
    with path.open(newline="", encoding="utf-8") as stream:
        for row in csv.DictReader(stream):
            if row["kind"] == "eval" and row["name"] in ("return_mean", "return_std"):
                found.setdefault(int(row["step"]), -1.0)
                if row["name"] == "return_std":
                    found[int(row["step"])] = round(float(row["value"]), 2)
    missing = [step for step, value in found.items() if not 0 <= value < float("inf")]
    if missing:
        raise SpikerlError(f"'{path}' has no return_std at step {missing[0]}", "train it again with this version")
    return found


def _intensity(intensity: dict[str, Any]) -> str:
    value = intensity["value"]
    number = f"{value:.4g}" if isinstance(value, int | float) else str(value)
    return f"{number} {intensity['unit']}, {intensity['source']}"
