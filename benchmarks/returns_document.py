"""The document of all training curves, `benchmarks/results/returns.json`: its layout, order, and what must hold in it.

Layout `spikerl.returns/1`, by `benchmarks/returns.schema.json`: a list of runs, a run a folder of `spikerl train`, in
it a list of seeds. A curve is a list of [environment step, mean return, standard deviation over episodes], one an
evaluation, rounded to two decimals, as `maximum`, `final` and `last_ten` (mean of the last ten evaluations) are.
`settings` are those that differ from the defaults; `against` is the label of the runs that an ablation is compared
with: the empty one is the recipe's, its own says that it is the one that others are compared with.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from itertools import combinations, pairwise
from pathlib import Path
from typing import Any

from spikerl_deploy.errors import SpikerlError
from spikerl_deploy.files import write_text
from spikerl_deploy.report.document import misfit, read_json
from training.run_document import LAST

SCHEMA = "spikerl.returns/1"
SCHEMA_FILE = Path(__file__).parent / "returns.schema.json"
RETURNS = Path(__file__).parent / "results" / "returns.json"
HINT = "add runs with: python -m benchmarks.returns add RUN --task TASK --group GROUP"
TASKS = {
    "inverted-double-pendulum": "InvertedDoublePendulum-v5",
    "hopper": "Hopper-v5",
    "walker2d": "Walker2d-v5",
    "half-cheetah": "HalfCheetah-v5",
    "ant": "Ant-v5",
}
GROUPS = ("recipe", "mlp", "search", "ablation")
ROUNDING = 0.0051  # of a value of two decimals, with what the float adds
# Settings that say where and how a run is computed, kept and watched, not what is computed; seeds of one row may differ
# in them. bf16 is none of them, it rounds the actor: it may differ too, but the tables tell it.
MACHINE = frozenset(
    "device compile cuda_graphs dist_backend threads env_workers tensorboard carbon country carbon_intensity "
    "checkpoint_every save_replay".split()
)
TOLD = frozenset({"bf16"})
# Settings that a dense actor does not have.
SPIKES = frozenset(
    "population time_steps coding encoder_range encoder_std current_decay voltage_decay v_threshold readout surrogate "
    "surrogate_width synaptic_norm norm_momentum target_actor proxy_hidden proxy_lr proxy_steps".split()
)


def read(path: Path = RETURNS) -> dict[str, Any]:
    """The document; an empty one where there is no file.

    Raises:
        SpikerlError: it is no such document, or contradicts itself.
    """
    if not path.exists():
        return {"schema": SCHEMA, "runs": []}
    try:
        document = read_json(path)
    except SpikerlError as error:
        raise SpikerlError(error.message, HINT) from error
    check(document, str(path))
    return document


def write(document: dict[str, Any], path: Path = RETURNS) -> None:
    """Check the document, bring it into its order and write it, a line a curve."""
    document = {**document, "runs": sorted(document["runs"], key=key)}
    check(document, str(path))
    write_text(path, text(document))


def key(run: dict[str, Any]) -> tuple[Any, ...]:
    """What tells a run from all others, and its place among them."""
    place = list(TASKS).index(run["task"]), GROUPS.index(run["group"])
    return *place, run["label"], tuple(seed["seed"] for seed in run["seeds"])


def text(document: dict[str, Any]) -> str:
    """JSON with a line for each field of a run and each curve."""
    runs = []
    for run in document["runs"]:
        lines = [f"    {json.dumps(name)}: {json.dumps(value)}" for name, value in run.items() if name != "seeds"]
        seeds = ",\n".join(f"      {json.dumps(seed, separators=(',', ':'))}" for seed in run["seeds"])
        runs.append("   {\n" + ",\n".join([*lines, f'    "seeds": [\n{seeds}\n    ]']) + "\n   }")
    inner = "\n" + ",\n".join(runs) + "\n  " if runs else ""
    return f'{{\n  "schema": {json.dumps(document["schema"])},\n  "runs": [{inner}]\n}}\n'


def check(document: dict[str, Any], name: str) -> None:
    """Hold a document against its schema and against itself.

    Raises:
        SpikerlError: names the place and the value.
    """
    problem = misfit(document, json.loads(SCHEMA_FILE.read_text(encoding="utf-8")))
    if problem is not None:
        raise SpikerlError(f"'{name}' is no valid {SCHEMA}: at {problem}", HINT)
    problem = next(_disagreements(document["runs"]), None)
    if problem is not None:
        raise SpikerlError(problem, HINT)


def name_of(run: dict[str, Any]) -> str:
    """A run in an error or a list."""
    written = "".join(letter if letter.isprintable() else "?" for letter in run["label"])
    label = f" '{written}'" if written else ""
    seeds = ", ".join(str(seed["seed"]) for seed in run["seeds"])
    return f"{run['task']} {run['group']}{label} seed {seeds}"


def compared(run: dict[str, Any]) -> dict[str, Any]:
    """What runs of one row must share: all that decides a result, but for the seed and what the tables tell."""
    apart = MACHINE | TOLD | (SPIKES if run["actor"] == "mlp" else frozenset())
    settings = {name: value for name, value in run["settings"].items() if name not in apart}
    return {**settings, "actor": run["actor"], "steps": run["steps_asked"], "evaluation": run["evaluation"],
            "ranks": run["machine"]["ranks"]}  # fmt: skip


def row_of(run: dict[str, Any]) -> tuple[str, str, str]:
    """Task, group and label: runs that are seeds of one thing."""
    return run["task"], run["group"], run["label"]


def baseline_of(run: dict[str, Any], runs: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The runs that an ablation is compared with."""
    group = "ablation" if run["against"] else "recipe"
    return [other for other in runs if row_of(other) == (run["task"], group, run["against"])]


def _disagreements(runs: list[dict[str, Any]]) -> Iterator[str]:
    for run in runs:
        yield from _in_run(run)
        for seed in run["seeds"]:
            yield from (f"{name_of(run)}: seed {seed['seed']}: {problem}" for problem in _in_seed(seed, run))
        yield from _in_ablation(run, runs)
    for one, other in combinations(runs, 2):
        if row_of(one) != row_of(other):
            continue
        twice = {seed["seed"] for seed in one["seeds"]} & {seed["seed"] for seed in other["seeds"]}
        if twice:
            yield f"seed {min(twice)} comes in two runs: {name_of(one)}, and {name_of(other)}"
        for name, (left, right) in differing(compared(one), compared(other)).items():
            yield f"{name_of(one)} and {name_of(other)} differ in {name}: {left} and {right}; seeds of a row share it"


def differing(one: dict[str, Any], other: dict[str, Any]) -> dict[str, tuple[Any, Any]]:
    """Values that differ, by name; a missing one is the default."""
    names = sorted(one.keys() | other.keys())
    pairs = {name: (one.get(name, "the default"), other.get(name, "the default")) for name in names}
    return {name: pair for name, pair in pairs.items() if pair[0] != pair[1]}


def _in_run(run: dict[str, Any]) -> Iterator[str]:
    name, group = name_of(run), run["group"]
    if run["env"] != TASKS[run["task"]]:
        yield f"{name} ran {run['env']}, task '{run['task']}' is {TASKS[run['task']]}"
    wanted = {"recipe": "spiking", "mlp": "mlp"}.get(group, run["actor"])
    if run["actor"] != wanted:
        yield f"{name} has actor '{run['actor']}', group '{group}' is of actor '{wanted}'"
    if bool(run["label"]) != (group in ("search", "ablation")):
        yield f"{name}: {'a run' if run['label'] else 'no run'} of group '{group}' goes without a label"
    if group == "search" and not run["note"]:
        yield f"{name} says not why it was left: group 'search' needs a note"
    if (run["against"] is None) == (group == "ablation"):
        yield f"{name}: 'against' is for group 'ablation', and for it alone"
    numbers = [seed["seed"] for seed in run["seeds"]]
    if numbers != sorted(set(numbers)):
        yield f"{name}: its seeds are not in order, or come twice"
    done = run["steps_done"] >= run["steps_asked"]
    if done != (run["status"] == "steps") and run["status"] != "stop_return":
        yield (f"{name} is '{run['status']}' after {run['steps_done']} of {run['steps_asked']} steps; "
               "a run that was ended in its last moments goes on with: spikerl train --resume RUN")  # fmt: skip


def _in_seed(seed: dict[str, Any], run: dict[str, Any]) -> Iterator[str]:
    curve = seed["curve"]
    if any(left[0] >= right[0] for left, right in pairwise(curve)) or curve[-1][0] > run["steps_done"]:
        yield "the curve's steps do not rise, or go beyond the steps done"
    if {"maximum": seed["maximum"], "maximum_step": seed["maximum_step"], "final": seed["final"]} != extremes(curve):
        yield "maximum, its step or final is not the curve's"
    if abs(seed["last_ten"] - last_ten([mean for _, mean, _ in curve])) > 2 * ROUNDING:
        yield f"last_ten {seed['last_ten']} is not the mean of the curve's last {LAST}"
    bound = run["settings"].get("stop_return")
    if run["status"] == "stop_return" and (bound is None or seed["final"] < bound - ROUNDING):
        yield f"it stopped at stop_return = {bound}, and ends at {seed['final']}"


def extremes(curve: list[list[float]]) -> dict[str, float]:
    """Maximum, the first step that has it, and the last evaluation of a curve."""
    step, mean, _ = max(curve, key=lambda point: (point[1], -point[0]))
    return {"maximum": mean, "maximum_step": step, "final": curve[-1][1]}


def last_ten(means: list[float]) -> float:
    """Mean of the last ten evaluations, or of all where there are fewer."""
    last = means[-LAST:]
    return math.fsum(last) / len(last)


def _in_ablation(run: dict[str, Any], runs: list[dict[str, Any]]) -> Iterator[str]:
    if run["group"] != "ablation" or run["against"] == run["label"]:
        return
    others = baseline_of(run, runs)
    what = f"ablation '{run['against']}'" if run["against"] else "recipe"
    seeds = {seed["seed"] for other in others for seed in other["seeds"]}
    if not seeds & {seed["seed"] for seed in run["seeds"]}:
        yield f"{name_of(run)} is compared with the {what} of {run['task']}, of which no run has its seed"
    for other in others:
        if other["evaluation"] != run["evaluation"] or other["actor"] != run["actor"]:
            yield f"{name_of(run)} and {name_of(other)} differ in evaluation or actor, and cannot be compared"
        if other["machine"]["ranks"] != run["machine"]["ranks"]:
            yield f"{name_of(run)} and {name_of(other)} differ in ranks, and cannot be compared"
