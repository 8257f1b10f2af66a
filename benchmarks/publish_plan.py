"""What is to be published and how, and the seeds of the episodes that decide it and of those that are reported."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from spikerl_deploy.cli.quantize import DEFAULT_STEPS
from spikerl_deploy.errors import SpikerlError
from training.settings import Settings

METHODS = ("rounding", "calibration")
FIRST_SEED, EPISODES = 0, 10  # reported
PARALLEL = 50  # episodes that are played side by side, at most
# The quantization is chosen on so many episodes, because twenty do not see a fall that happens in one of fifty.
CHOOSING_SEED, CHOOSING_EPISODES = 100, 100


@dataclass(frozen=True)
class Plan:
    """What is to be published, and how.

    Attributes:
        method: rounding, calibration, or best: the one that keeps more of the return.
        trained: ship the float weights, the baseline of later comparisons.
        of_seeds: seeds of the recipe that this one was chosen among, None for those of the run.
        calibration_steps: control steps that calibration records.
    """

    run: Path
    name: str
    recipe: str
    out: Path
    method: str = "best"
    bits: int = 8
    trained: bool = True
    force: bool = False
    episodes: int = EPISODES
    choosing_episodes: int = CHOOSING_EPISODES
    of_seeds: int | None = None
    calibration_steps: int = DEFAULT_STEPS

    def targets(self) -> list[Path]:
        return [self.out / f"{self.name}{suffix}" for suffix in (".nir", ".json", ".md")]


def check_plan(plan: Plan, settings: Settings) -> None:
    """Refuse what its card would contradict, before anything long."""
    if plan.name != settings.env.lower():
        raise SpikerlError(f"'{plan.name}' is no name of a policy for {settings.env}", f"--name {settings.env.lower()}")
    chose = {"the checkpoint": range(settings.eval_seed, settings.eval_seed + settings.eval_episodes)}
    if plan.method == "best":
        chose["the quantization"] = range(CHOOSING_SEED, CHOOSING_SEED + plan.choosing_episodes)
    for what, seeds in chose.items():
        both = [seed for seed in range(FIRST_SEED, FIRST_SEED + plan.episodes) if seed in seeds]
        if both:
            raise SpikerlError(
                f"seed {both[0]} would be reported and has a part in choosing {what}, seeds {seeds[0]} to {seeds[-1]}",
                f"report fewer with --episodes; this run was evaluated from eval_seed = {settings.eval_seed} on",
            )
