"""A run as it is at one moment, also while it is being trained, and the part of a card that tells of its training."""

from __future__ import annotations

import shutil
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.run_records import RECORDS, changed
from spikerl_deploy.errors import SpikerlError
from spikerl_deploy.files import sha256_file
from training.checkpoint import load_checkpoint, policy_of
from training.run_document import LAST, run_document
from training.run_reader import read_run
from training.setting_sources import recipe_path
from training.settings import Settings, from_sources

STATED = ("seed", "seeds", "threads")  # a card has them elsewhere
CHECKPOINT = Path("checkpoints") / "best.pt"
ATTEMPTS, PAUSE_S = 5, 3.0  # a new best checkpoint may come while the files are copied
RETURN_TOLERANCE = 1e-6  # metrics.csv holds a return as text


@dataclass(frozen=True)
class TakenRun:
    """Copies of a run's records and of the best checkpoint of one of its seeds.

    Attributes:
        folder: the copied run folder. source: what `spikerl export` is given, seen from the folder's parent.
    """

    folder: Path
    source: str
    seed: int
    settings: Settings
    progress: dict[str, Any]

    @property
    def checkpoint(self) -> Path:
        return self.folder.parent / self.source / CHECKPOINT


def take_run(run: Path, target: Path) -> TakenRun:
    """Copy what a card is made of to `target`; the run may go on being trained meanwhile.

    Args:
        run: run folder of one seed, or the `seed-N` folder of one of several that trained side by side.

    Raises:
        SpikerlError: no run folder, no best checkpoint in it yet, no spiking policy, or best.pt and metrics.csv are
            not of one run.
    """
    whole = run.absolute()
    if not (whole / "config.toml").is_file() and (whole.parent / "config.toml").is_file():
        whole = whole.parent
    if not (whole / "config.toml").is_file():
        raise SpikerlError(f"'{run}' is no run folder (config.toml is missing)", "give a run folder of spikerl train")
    seed_folder = run.absolute()
    if not (seed_folder / CHECKPOINT).is_file():
        raise _without_checkpoint(run, seed_folder)
    source = Path(target.name) / seed_folder.relative_to(whole)
    for attempt in range(ATTEMPTS):
        if attempt:
            time.sleep(PAUSE_S)
        shutil.rmtree(target, ignore_errors=True)
        before = sha256_file(seed_folder / CHECKPOINT)
        _copy(whole, seed_folder, target, target.parent / source)
        if sha256_file(seed_folder / CHECKPOINT) == before == sha256_file(target.parent / source / CHECKPOINT):
            break
    else:
        raise SpikerlError(f"the best checkpoint of '{run}' changes all the time", "try again later")
    if read_run(target).stopped is None:  # it goes on: its energy is of an earlier stretch, and goes on no card
        (target / "emissions.json").unlink(missing_ok=True)
    provenance = policy_of(target.parent / source / CHECKPOINT).provenance
    settings = from_sources(target / "config.toml")  # a checkpoint's are older than a run that was given more steps
    seed = settings.seed if seed_folder == whole else int(seed_folder.name.removeprefix("seed-"))
    return TakenRun(target, str(source), seed, settings, provenance["progress"])


def _without_checkpoint(run: Path, folder: Path) -> SpikerlError:
    found = {
        path.parent.parent: load_checkpoint(path)["progress"]["eval_return"]
        for path in folder.glob("seed-*/checkpoints/best.pt")
    }
    if not found:
        return SpikerlError(f"'{run}' has no best checkpoint: nothing was evaluated yet", "train it further")
    best = max(found, key=lambda place: found[place])
    return SpikerlError(f"'{run}' holds {len(found)} seeds, one policy was expected",
                        f"the best evaluation is that of {run / best.name}")  # fmt: skip


def _copy(whole: Path, seed_folder: Path, target: Path, place: Path) -> None:
    try:
        place.joinpath(CHECKPOINT).parent.mkdir(parents=True)
        shutil.copyfile(seed_folder / CHECKPOINT, place / CHECKPOINT)
        for name in RECORDS:
            if (whole / name).is_file():
                shutil.copyfile(whole / name, target / name)
        metrics = (seed_folder / "metrics.csv").read_bytes()
        (place / "metrics.csv").write_bytes(metrics[: metrics.rfind(b"\n") + 1])  # a line may be half written
    except OSError as error:
        raise SpikerlError(f"cannot read '{error.filename}': {error.strerror}", "give the whole run folder") from error


def training_part(taken: TakenRun, recipe: str, of_seeds: int | None = None) -> dict[str, Any]:
    """How the policy was trained and chosen, as a card tells it.

    Args:
        of_seeds: seeds of the recipe that it was chosen among; None for those of its run.

    Raises:
        SpikerlError: an unknown recipe or one of another environment, records that cannot be read, or fewer seeds than
            the run trained.
    """
    run = read_run(taken.folder)
    document = run_document(run)
    step, chosen = int(taken.progress["step"]), float(taken.progress["eval_return"])
    returns = {point.step: point.mean_return for point in run.curves[0]}
    known = returns.setdefault(step, chosen)  # metrics.csv is flushed later than the checkpoint is written
    tolerance = RETURN_TOLERANCE * max(1.0, abs(chosen))
    if abs(known - chosen) > tolerance or max(returns.values()) > chosen + tolerance:
        raise SpikerlError(
            f"the checkpoint of step {step} returned {chosen:g}, metrics.csv has {known:g} there and at most "
            f"{max(returns.values()):g}: it is not the best of this run",
            "publish again once the run has saved its next state",
        )
    last = [returns[one] for one in sorted(returns)][-LAST:]
    settings = taken.settings
    planned = from_sources(recipe_path(recipe))
    if planned.env != settings.env:
        raise SpikerlError(f"recipe '{recipe}' is for {planned.env}, the run was of {settings.env}",
                           "give the recipe that the run was trained by")  # fmt: skip
    if of_seeds is not None and of_seeds < settings.seeds:
        raise SpikerlError(f"--of-seeds {of_seeds} is less than the {settings.seeds} seeds of the run", "count them in")
    emissions_machine = run.energy.hardware if run.energy is not None else {}
    processors = {"processor": emissions_machine.get("cpu_model"), "gpu": emissions_machine.get("gpu_model")}
    return {
        "recipe": recipe,
        "finished": run.finished,
        "stopped": run.stopped if run.finished else None,
        "steps_asked": settings.steps,
        "steps_done": max(run.steps // len(run.curves), step),
        "seed": taken.seed,
        "seeds": settings.seeds,
        "settings": changed(settings, Settings(env=settings.env, steps=settings.steps), STATED),
        "beyond_recipe": changed(settings, planned, STATED),
        "checkpoint": {
            "file": taken.checkpoint.name,
            "sha256": sha256_file(taken.checkpoint),
            "step": step,
            "updates": int(taken.progress["updates"]),
        },
        "selection": {
            "mean_return": chosen,
            "episodes": settings.eval_episodes,
            "first_seed": settings.eval_seed,
            "evaluations": len(returns),
            "of_seeds": of_seeds or settings.seeds,
        },
        "final_return": last[-1],
        "last_ten_mean": sum(last) / len(last),
        "seconds": run.seconds,
        "energy": run.energy and {"joule": run.energy.joule, "kind": run.energy.kind, "source": run.energy.source},
        "carbon": document["carbon"],
        "versions": run.recorded("versions"),
        "machine": {"threads": str(settings.threads)}
        | run.recorded("machine")
        | ({"ranks": str(run.ranks)} if run.ranks > 1 else {})
        | {key: value for key, value in processors.items() if value},
    }
