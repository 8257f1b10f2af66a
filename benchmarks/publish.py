"""Publish the best policy of a run: quantize it, play it on every backend, write its file, its card and the overview.

    python -m benchmarks.publish RUN --name hopper-v5 --recipe hopper --out policies

The run may still be training. Everything goes through the commands that a user has: `spikerl export`, `quantize` and
`simulate`. Seeds 0 to 9 are reported, or more with `--episodes`; the quantization is chosen on seeds 100 to 199, and
the checkpoint was chosen by the run's own evaluations, so that the reported returns choose neither. docs/policies.md
says more.
"""

from __future__ import annotations

import argparse
import json
import math
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from benchmarks.publish_card import build_card, export_arguments, refuse_paths
from benchmarks.publish_compare import check_comparable, check_return, comparison_table, print_table
from benchmarks.publish_pages import check_pages, write_pages
from benchmarks.publish_plan import CHOOSING_SEED, EPISODES, FIRST_SEED, METHODS, PARALLEL, Plan, check_plan
from benchmarks.publish_run import TakenRun, take_run, training_part
from spikerl_deploy.cli.quantize import DEFAULT_STEPS
from spikerl_deploy.errors import SpikerlError, error_lines
from spikerl_deploy.files import check_targets, write_json
from spikerl_deploy.manifest import build_manifest
from spikerl_deploy.model_card import read_card
from spikerl_deploy.policy_file import load_policy
from spikerl_deploy.zoo import content_sha256
from training.setting_sources import recipe_path

BYTES_MAX = 1_000_000  # of a shipped file


def publish(plan: Plan, shipped: dict[str, Any] | None = None, fraction: float | None = None) -> dict[str, Any]:
    """Make and write a policy and its card; the card is returned.

    Args:
        shipped: card to compare with. fraction: of its float return that will be required.

    Raises:
        SpikerlError: a file is there already, the run cannot be published so, or the policy file is too large.
    """
    if not re.fullmatch("[a-z0-9][a-z0-9-]*", plan.name):
        raise SpikerlError(f"'{plan.name}' is no name of a policy", "the environment's id in lower case: hopper-v5")
    recipe_path(plan.recipe)
    check_targets([("--out", path) for path in plan.targets()], plan.force, {})
    check_pages(plan.out)
    with tempfile.TemporaryDirectory(prefix="publish-") as folder:
        work = Path(folder)
        taken = take_run(plan.run, work / "run")
        check_plan(plan, taken.settings)
        if shipped is not None:
            check_comparable(shipped, taken.settings.env, fraction, plan.episodes)
        training = training_part(taken, plan.recipe, plan.of_seeds)
        method, selection = _choose(plan, taken, work)
        file = _shipped_file(plan, method, taken, work)
        reports = {
            backend: _simulate(work / method / f"{plan.name}.nir", backend, FIRST_SEED, plan.episodes)
            for backend in ("fixed", "lava")
        }
        calibration = None
        if method == "calibration":
            seed = load_policy(file).provenance["seed"]
            calibration = {"first_seed": seed, "control_steps": plan.calibration_steps}
        quantization = {"method": method, "bits": plan.bits, "calibration": calibration, "selection": selection}
        card = build_card(plan.name, file, taken, training, quantization, reports, build_manifest())
        _write(plan, file, card)
    return card


def _choose(plan: Plan, taken: TakenRun, work: Path) -> tuple[str, dict[str, Any] | None]:
    """The method, with its policy made in a folder of its name; and how it was chosen, None where it was given."""
    methods = METHODS if plan.method == "best" else (plan.method,)
    for method in methods:
        _quantize(plan, method, taken, work, work / method, True)
    if plan.method != "best":
        return plan.method, None
    candidates = []
    for method in methods:
        file = work / method / f"{plan.name}.nir"
        report = _simulate(file, "fixed", CHOOSING_SEED, plan.choosing_episodes)
        comparison = report["deployments"][0]["comparison"]
        candidates.append({"method": method, **{key: comparison[key] for key in ("retention", "mean_difference")}})
    seeds = list(range(CHOOSING_SEED, CHOOSING_SEED + plan.choosing_episodes))
    return better_method(candidates), {"seeds": seeds, "backend": "fixed", "candidates": candidates}


def better_method(candidates: list[dict[str, Any]]) -> str:
    """The method that keeps more: by retention, or by mean difference where one has none; of equals the first."""
    by = "mean_difference" if any(one["retention"] is None for one in candidates) else "retention"
    return str(max(candidates, key=lambda one: one[by])["method"])


def _quantize(plan: Plan, method: str, taken: TakenRun, work: Path, folder: Path, trained: bool) -> Path:
    """The policy file that a user's command makes, in a folder."""
    name = f"{plan.name}.nir"
    arguments = export_arguments(method, plan.bits, taken.source, name)
    if method == "calibration" and plan.calibration_steps != DEFAULT_STEPS:
        arguments += ["--steps", str(plan.calibration_steps)]
    _spikerl(work, *arguments, *([] if trained else ["--no-trained"]))
    folder.mkdir(exist_ok=True)
    return (work / name).rename(folder / name)


def _shipped_file(plan: Plan, method: str, taken: TakenRun, work: Path) -> Path:
    """The file as it is shipped: within the size, and what was simulated is what it deploys."""
    whole = work / method / f"{plan.name}.nir"
    file = whole if plan.trained else _quantize(plan, method, taken, work, work / "bare", False)
    size = file.stat().st_size
    if size > BYTES_MAX:
        hint = "--no-trained drops the float weights" if plan.trained else "train a smaller network"
        raise SpikerlError(
            f"{file.name} has {size:,} bytes, {size - BYTES_MAX:,} more than the {BYTES_MAX:,} of a shipped policy",
            hint,
        )
    policy = load_policy(file)
    refuse_paths(policy.provenance)
    if content_sha256(policy) != content_sha256(load_policy(whole)):
        raise SpikerlError("quantizing again gave other integers: what was simulated is not what would be shipped",
                           "give --method rounding, which draws nothing")  # fmt: skip
    return file


def _simulate(file: Path, backend: str, seed: int, episodes: int) -> dict[str, Any]:
    """The report of a deployment beside the float policy."""
    text = _spikerl(
        file.parent, "simulate", file.name, "--backend", backend, "--compare", "torch", "--device", "cpu",
        "--episodes", str(episodes), "--parallel", str(min(episodes, PARALLEL)), "--seed", str(seed),
        "--format", "json",
    )  # fmt: skip
    report: dict[str, Any] = json.loads(text)
    return report


def _spikerl(folder: Path, *arguments: str) -> str:
    """What a command prints; its messages go on to stderr."""
    done = subprocess.run(
        [sys.executable, "-m", "spikerl_deploy", *arguments], cwd=folder, stdout=subprocess.PIPE, text=True, check=False
    )
    if done.returncode:
        raise SpikerlError(f"spikerl {' '.join(arguments)} ended with exit code {done.returncode}", "see above")
    return done.stdout


def _write(plan: Plan, file: Path, card: dict[str, Any]) -> None:
    policy_file, card_file, _ = plan.targets()
    plan.out.mkdir(parents=True, exist_ok=True)
    staged = plan.out / f".{policy_file.name}.new"
    try:
        shutil.copyfile(file, staged)
        staged.replace(policy_file)
    finally:
        staged.unlink(missing_ok=True)
    write_json(card_file, card)
    write_pages(plan.out)


def main(given: list[str] | None = None) -> int:
    """The command; its exit codes are those of `spikerl`."""
    arguments = _parse(given)
    try:
        shipped = read_card(arguments.compare_with) if arguments.compare_with else None
        fraction = arguments.require_return
        if fraction is not None and (shipped is None or not (math.isfinite(fraction) and fraction > 0)):
            raise SpikerlError(f"--require-return {fraction:g} needs a card to compare with, and a positive number",
                               "add --compare-with policies/NAME.json")  # fmt: skip
        defaults = _defaults(shipped)
        given_instead = {name: value for name in defaults if (value := getattr(arguments, name)) is not None}
        plan = Plan(
            arguments.run,
            arguments.name,
            arguments.recipe,
            arguments.out,
            force=arguments.force,
            of_seeds=arguments.of_seeds,
            **(defaults | given_instead),
        )
        card = publish(plan, shipped, fraction)
        print(f"{plan.targets()[0]}: {card['policy']['bytes']:,} bytes; card {plan.targets()[2]}")
        if shipped is not None:
            print_table(comparison_table(shipped, card))
            if fraction is not None:
                check_return(shipped, card, fraction)
    except SpikerlError as error:
        print(error_lines(error.message, error.hint), file=sys.stderr)
        return error.exit_code
    return 0


def _defaults(shipped: dict[str, Any] | None) -> dict[str, Any]:
    """What of a plan follows the card that is compared with, if there is one, unless it is given."""
    if shipped is None:
        return {"method": "best", "bits": 8, "trained": True, "episodes": EPISODES}
    return {
        "method": shipped["quantization"]["method"],
        "bits": shipped["policy"]["bits"],
        "trained": shipped["policy"]["float_weights"],
        "episodes": len(shipped["evaluation"]["seeds"]),
    }


def _parse(given: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.publish", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("run", type=Path, help="run folder, also one that is still training; RUN/seed-N of several")
    parser.add_argument("--name", required=True, help="name of the policy: the environment's id in lower case")
    parser.add_argument("--recipe", required=True, help="recipe that the run was trained by")
    parser.add_argument("--method", choices=(*METHODS, "best"), help="how weights become integers; best, or the card's")
    parser.add_argument("--bits", type=int, help="of a weight; 8, or the card's")
    parser.add_argument(
        "--trained", action=argparse.BooleanOptionalAction, help="ship the float weights; yes, or as the card"
    )
    parser.add_argument(
        "--of-seeds",
        type=int,
        metavar="N",
        help="seeds of the recipe that it was chosen among; as many as the run trained",
    )
    parser.add_argument("--episodes", type=int, help="reported, with seeds from 0 on; 10, or as many as the card's")
    parser.add_argument("--out", type=Path, default=Path("policies"))
    parser.add_argument("--force", action="store_true", help="overwrite what exists")
    parser.add_argument(
        "--compare-with", type=Path, help="card of a shipped policy: it is made like this one, and printed beside"
    )
    parser.add_argument(
        "--require-return", type=float, metavar="FRACTION", help="of the shipped float return; or exit 1"
    )
    return parser.parse_args(given)


if __name__ == "__main__":
    sys.exit(main())
