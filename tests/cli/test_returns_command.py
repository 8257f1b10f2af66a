"""`python -m benchmarks.returns`: runs added, replaced, refused and removed, and what `write` writes."""

from __future__ import annotations

import json
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from returns_support import EVERY, document, entry, noisy_curve, write_run
from support import ROOT

from benchmarks import returns_document
from benchmarks.returns import BEGIN, END, add, main, remove
from spikerl_deploy.errors import SpikerlError
from training.actor import Spaces
from training.actors import make_actor
from training.setting_sources import recipe_path
from training.settings import Settings, from_sources
from training.stacked import generators_of

CURVE = noisy_curve(30, 3000.0)
RECIPE = {"actor_lr": 1e-4, "update_after": 10_000}
EMPTY: dict[str, Any] = {"schema": "spikerl.returns/1", "runs": []}


@pytest.fixture
def results(tmp_path: Path) -> Path:
    return tmp_path / "returns.json"


def call(results: Path, *arguments: str | Path) -> None:
    """One command on the results file of a test."""
    main(["--returns", str(results), *map(str, arguments)])


def call_refused(capsys: pytest.CaptureFixture[str], results: Path, *arguments: str | Path) -> str:
    """A command that is refused with exit code 2, and the line that says why; the file stays as it was."""
    before = results.read_bytes() if results.exists() else None
    capsys.readouterr()
    with pytest.raises(SystemExit) as left:
        call(results, *arguments)
    assert left.value.code == 2
    assert before == (results.read_bytes() if results.exists() else None)
    error, hint = capsys.readouterr().err.splitlines()
    assert error.startswith("Error: ") and hint.startswith("Hint: ")
    return error


def hopper(folder: Path, curve: Any = CURVE, seed: int = 0, ended: str | None = None, **settings: Any) -> Path:
    """A folder of a run with the settings of Hopper's recipe, and more."""
    return write_run(folder, {seed: curve}, ended, **(RECIPE | settings))


def test_a_run_that_has_gone_further_takes_the_place_of_what_it_was(tmp_path: Path, results: Path) -> None:
    call(results, "add", hopper(tmp_path / "run", CURVE[:20]), "--task", "hopper", "--group", "recipe")
    call(results, "add", hopper(tmp_path / "run"), "--task", "hopper", "--group", "recipe")
    (run,) = returns_document.read(results)["runs"]
    assert run["steps_done"] == 30 * EVERY and len(run["seeds"][0]["curve"]) == 30


@pytest.mark.parametrize(
    ("curve", "told"),
    [(CURVE[:10], "has gone further"), ([*CURVE[:5], (1.0, 1.0), *CURVE[6:]], f"its evaluation at step {6 * EVERY}")],
)
def test_another_run_takes_no_place_without_force(
    tmp_path: Path, results: Path, capsys: pytest.CaptureFixture[str], curve: Any, told: str
) -> None:
    call(results, "add", hopper(tmp_path / "run"), "--task", "hopper", "--group", "recipe")
    other = ["add", hopper(tmp_path / "other", curve), "--task", "hopper", "--group", "recipe"]
    assert told in call_refused(capsys, results, *other)
    call(results, *other, "--force")
    (run,) = returns_document.read(results)["runs"]
    assert len(run["seeds"][0]["curve"]) == len(curve)


def test_seeds_of_a_recipe_stand_beside_each_other_whatever_the_machine(tmp_path: Path, results: Path) -> None:
    flags = ["--task", "hopper", "--group", "recipe"]
    call(results, "add", hopper(tmp_path / "a"), *flags)
    call(results, "add", hopper(tmp_path / "b", seed=1, compile="on", threads=2, bf16=True, tensorboard=False), *flags)
    assert [run["seeds"][0]["seed"] for run in returns_document.read(results)["runs"]] == [0, 1]


@pytest.mark.parametrize(
    "changed", [{"batch_size": 256}, {"steps": 500_000}, {"eval_episodes": 5}, {"actor_lr": 3e-4}, {"time_steps": 9}]
)
def test_a_run_with_other_settings_than_the_recipe_is_none_of_its(
    tmp_path: Path, results: Path, capsys: pytest.CaptureFixture[str], changed: dict[str, Any]
) -> None:
    run = hopper(tmp_path / "run", **changed)
    error = call_refused(capsys, results, "add", run, "--task", "hopper", "--group", "recipe")
    name = next(iter(changed))
    assert "recipe 'hopper' has" in error and (name if "eval" not in name else "evaluation") in error


@pytest.mark.parametrize(
    "changed",
    [{"batch_size": 256}, {"hidden": (400, 300)}, {"steps": 500_000}, {"eval_every": 1_000}, {"actor_lr": 3e-4}],
)
def test_a_dense_twin_with_other_settings_than_the_recipe_is_none(
    tmp_path: Path, results: Path, capsys: pytest.CaptureFixture[str], changed: dict[str, Any]
) -> None:
    run = hopper(tmp_path / "run", actor="mlp", **changed)
    error = call_refused(capsys, results, "add", run, "--task", "hopper", "--group", "mlp")
    name = next(iter(changed))
    assert "recipe 'hopper' has" in error and (name if "eval" not in name else "evaluation") in error


def test_what_spikes_alone_have_is_not_asked_of_the_dense_twin(tmp_path: Path, results: Path) -> None:
    run = hopper(tmp_path / "run", actor="mlp", time_steps=9, v_threshold=1.0, threads=2)
    call(results, "add", run, "--task", "hopper", "--group", "mlp")
    call(results, "add", hopper(tmp_path / "b", seed=1, actor="mlp"), "--task", "hopper", "--group", "mlp")
    assert len(returns_document.read(results)["runs"]) == 2


def test_the_settings_of_spikes_are_settings_and_change_nothing_of_a_dense_actor() -> None:
    plain = Settings(env="Hopper-v5", actor="mlp", hidden=(4,))
    other = {"population": 3, "time_steps": 2, "coding": "poisson", "encoder_range": 1.0, "encoder_std": 0.1,
             "current_decay": 0.1, "voltage_decay": 0.1, "v_threshold": 1.0, "surrogate": "sigmoid",
             "surrogate_width": 0.1, "norm_momentum": 0.5, "proxy_hidden": (8,), "proxy_lr": 0.1,
             "proxy_steps": 1}  # fmt: skip
    refused = {"readout": "membrane", "synaptic_norm": "batch", "target_actor": "proxy"}
    assert other.keys() | refused.keys() == returns_document.SPIKES
    for name, value in refused.items():
        with pytest.raises(SpikerlError, match="is of spiking actors"):
            Settings(env="Hopper-v5", actor="mlp", **{name: value})
    spaces = Spaces(3, np.full(2, -1.0), np.full(2, 1.0))
    actors = [make_actor(spaces, settings, generators_of((0,))) for settings in (plain, replace(plain, **other))]
    assert torch.equal(*(actor(torch.ones(1, 5, 3)) for actor in actors))


def test_a_dense_run_is_of_group_mlp_and_no_recipe(
    tmp_path: Path, results: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = hopper(tmp_path / "run", actor="mlp")
    error = call_refused(capsys, results, "add", run, "--task", "hopper", "--group", "recipe")
    assert "has actor 'mlp', group 'recipe' is of actor 'spiking'" in error
    call(results, "add", run, "--task", "hopper", "--group", "mlp")
    (made,) = returns_document.read(results)["runs"]
    assert made["actor"] == "mlp" and made["settings"] == RECIPE


def test_seeds_of_one_try_share_their_settings(
    tmp_path: Path, results: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = ["--task", "hopper", "--group", "search", "--label", "a try", "--note", "left"]
    call(results, "add", hopper(tmp_path / "a"), *flags)
    error = call_refused(capsys, results, "add", hopper(tmp_path / "b", seed=1, critic_lr=3e-4), *flags)
    assert "differ in critic_lr" in error and "0.0003" in error


def test_a_seed_is_in_one_run_only(tmp_path: Path, results: Path, capsys: pytest.CaptureFixture[str]) -> None:
    flags = ["--task", "hopper", "--group", "recipe"]
    call(results, "add", hopper(tmp_path / "a", seed=1), *flags)
    both = write_run(tmp_path / "b", {1: CURVE, 2: CURVE}, **RECIPE)
    assert "has a seed of hopper recipe seed 1" in call_refused(capsys, results, "add", both, *flags)


def test_before_training_it_is_told_whether_its_seeds_are_in_a_run_already(
    tmp_path: Path, results: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    both = write_run(tmp_path / "run", {1: CURVE, 2: CURVE}, **RECIPE)
    call(results, "add", both, "--task", "hopper", "--group", "recipe")
    free = ("free", "--task", "hopper", "--group")
    for flags in (("recipe", "--seed", "3", "--seeds", "2"), ("recipe", "--seed", "0"), ("mlp", "--seed", "1")):
        call(results, *free, *flags)
    error = call_refused(capsys, results, *free, "recipe", "--seed", "0", "--seeds", "3")
    assert "seed 1 is in a run that is there already: hopper recipe seed 1, 2" in error
    error = call_refused(capsys, results, *free, "recipe", "--seed", "3", "--seeds", "-1")
    assert "no seeds from 3 to 1" in error
    call(results, "remove", "--task", "hopper", "--group", "recipe")
    call(results, *free, "recipe", "--seed", "0", "--seeds", "3")


def test_make_seeds_trains_none_that_is_recorded_already() -> None:
    """Before the hours of training, not after them."""
    seeds = ("make", "-C", str(ROOT), "-o", ".venv/.ready", "-n", "seeds", "TASK=hopper", "FROM=1", "SEEDS=2")
    printed = subprocess.run(seeds, capture_output=True, text=True, check=True).stdout
    asked = printed.index("benchmarks.returns free --task hopper --group recipe --seed 1 --seeds 2")
    assert asked < printed.index("spikerl train ") < printed.index("benchmarks.returns add ")
    dense = subprocess.run([*seeds, "ACTOR=mlp"], capture_output=True, text=True, check=True).stdout
    assert "free --task hopper --group mlp --seed 1" in dense and "--task hopper --group mlp\n" in dense


@pytest.mark.parametrize(
    ("flags", "told"),
    [
        (("--task", "walker2d", "--group", "search", "--label", "x", "--note", "y"), "task 'walker2d' is Walker2d-v5"),
        (("--task", "hoper", "--group", "recipe"), "unknown task 'hoper'"),
        (("--task", "hopper", "--group", "mlp"), "is of actor 'mlp'"),
        (("--task", "hopper", "--group", "recipe", "--label", "x"), "goes without a label"),
        (("--task", "hopper", "--group", "search", "--note", "y"), "goes without a label"),
        (("--task", "hopper", "--group", "search", "--label", "x"), "not why it was left"),
        (("--task", "hopper", "--group", "search", "--label", "x\ny", "--note", "y"), "label"),
        (("--task", "hopper", "--group", "search", "--label", "x" * 61, "--note", "y"), "label"),
        (("--task", "hopper", "--group", "ablation", "--label", "x"), "of which no run has its seed"),
        (("--task", "hopper", "--group", "ablation", "--label", "x", "--against", "z"), "ablation 'z'"),
        (("--task", "hopper", "--group", "recipe", "--against", "z"), "'against' is for group 'ablation'"),
    ],
)
def test_what_does_not_fit_is_refused_in_one_line(
    tmp_path: Path, results: Path, capsys: pytest.CaptureFixture[str], flags: tuple[str, ...], told: str
) -> None:
    assert told in call_refused(capsys, results, "add", hopper(tmp_path / "run"), *flags)


def test_the_order_is_that_of_tasks_groups_and_labels_however_they_came(tmp_path: Path, results: Path) -> None:
    entries = [entry("ant"), entry("hopper", "search", label="b"), entry("hopper", "mlp"), entry("hopper"),
               entry("hopper", "search", label="a"), entry("hopper", curves={1: CURVE})]  # fmt: skip
    texts = set()
    for order in (entries, entries[::-1]):
        returns_document.write({"schema": "spikerl.returns/1", "runs": order}, results)
        texts.add(results.read_text())
    assert len(texts) == 1
    assert [returns_document.name_of(run) for run in returns_document.read(results)["runs"]] == [
        "hopper recipe seed 0",
        "hopper recipe seed 1",
        "hopper mlp seed 0",
        "hopper search 'a' seed 0",
        "hopper search 'b' seed 0",
        "ant recipe seed 0",
    ]


def test_a_curve_is_a_line_and_five_seeds_of_five_tasks_are_below_a_megabyte(results: Path) -> None:
    entries = [entry(task, curves={seed: noisy_curve(200, 9e3)}, steps_asked=2_000_000, status="steps")
               for task in returns_document.TASKS for seed in range(5)]  # fmt: skip
    returns_document.write({"schema": "spikerl.returns/1", "runs": entries}, results)
    lines = results.read_text().splitlines()
    assert sum('"curve"' in line for line in lines) == 25 and results.stat().st_size < 300_000
    assert json.loads(results.read_text())["runs"][0]["seeds"][0] == entries[0]["seeds"][0]


def test_removing_takes_the_run_named_and_nothing_that_is_still_compared_with() -> None:
    filled = document(entry(), entry(curves={1: CURVE}), entry(group="ablation"), entry("ant"))
    left, told = remove(filled, "hopper", "recipe", "", 1)
    assert [returns_document.name_of(run) for run in left["runs"]] == [
        "hopper recipe seed 0", "hopper ablation 'a label' seed 0", "ant recipe seed 0"]  # fmt: skip
    assert told == "removed hopper recipe seed 1"
    with pytest.raises(SpikerlError, match="compared with the recipe"):
        remove(filled, "hopper", "recipe", "", 0)
    with pytest.raises(SpikerlError, match="there is: 'a label'"):
        remove(filled, "hopper", "ablation", "a lable", None)


def test_an_ablation_is_compared_only_with_runs_evaluated_alike() -> None:
    often = entry(group="ablation", evaluation={"every": EVERY, "episodes": 50, "seed": 10_000})
    with pytest.raises(SpikerlError, match="differ in evaluation"):
        document(entry(), often)
    document(entry(), entry(group="ablation"))
    base = entry(group="ablation", label="off", against="off")
    document(base, entry(group="ablation", label="on", against="off"))


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"maximum": 9e9}, "is not the curve's"),
        ({"maximum_step": EVERY}, "is not the curve's"),
        ({"final": 1.0}, "is not the curve's"),
        ({"last_ten": 1.0}, "last_ten 1.0"),
        ({"curve": [[EVERY, 1.0, 0.0], [EVERY, 1.0, 0.0]]}, "do not rise"),
    ],
)
def test_a_file_that_contradicts_itself_is_refused(results: Path, change: dict[str, Any], told: str) -> None:
    broken = entry()
    broken["seeds"][0] |= change
    results.write_text(returns_document.text({"schema": "spikerl.returns/1", "runs": [broken]}))
    with pytest.raises(SpikerlError, match=told):
        returns_document.read(results)


@pytest.mark.parametrize(
    ("fields", "told"),
    [
        ({"status": "unfinished"}, "is 'unfinished' after 1000000 of 1000000"),
        ({"steps_asked": 2_000_000}, "is 'steps' after"),
        ({"status": "stop_return"}, "stopped at stop_return = None"),
        ({"status": "stop_return", "settings": {"stop_return": 1e6}}, "stopped at stop_return"),
        ({"group": "winner"}, "group"),
        ({"host": "a name"}, "host"),
    ],
)
def test_an_entry_whose_status_or_fields_are_impossible_is_refused(fields: dict[str, Any], told: str) -> None:
    made = entry() | fields
    with pytest.raises(SpikerlError, match=told):
        add(EMPTY, {**made, "group": made["group"] if "group" in fields else "search", "label": "x", "note": "y"})


@pytest.mark.parametrize("content", ["", "{", "[]", '{"schema": "spikerl.returns/2", "runs": []}', '{"runs": NaN}'])
def test_an_empty_or_foreign_results_file_is_refused_and_kept(
    results: Path, capsys: pytest.CaptureFixture[str], content: str
) -> None:
    results.write_text(content)
    assert str(results) in call_refused(capsys, results, "list")


def project(tmp_path: Path, readme: str) -> Path:
    """A folder that `write` can write to."""
    (tmp_path / "docs").mkdir()
    (tmp_path / "README.md").write_text(readme)
    (tmp_path / "docs" / "returns.md").write_text(f"# Returns\n\n{BEGIN}\n{END}\n\nafter\n")
    return tmp_path


def test_write_changes_what_is_between_the_markers_and_is_done_when_done_again(tmp_path: Path, results: Path) -> None:
    root = project(tmp_path, f"before\n{BEGIN}\nan older table\n{END}\nafter\n")
    hostile = "x | <!-- returns: end --> <script>alert(1)</script> `[a](b)`"
    returns_document.write(document(entry(), entry(group="search", label="y", note=hostile)), results)
    call(results, "write", "--root", root)
    files = [root / name for name in ("README.md", "docs/returns.md", "docs/images/returns.svg",
                                      "docs/images/returns-dark.svg")]  # fmt: skip
    first = [path.read_bytes() for path in files]
    readme, docs = (path.read_text() for path in files[:2])
    assert readme.startswith(f"before\n{BEGIN}\n") and readme.endswith(f"{END}\nafter\n")
    assert "an older table" not in readme and "| Hopper-v5 | spiking | 1 |" in readme
    assert "<script>" not in docs and docs.count(END) == 1 and docs.endswith(f"{END}\n\nafter\n")
    line = next(line for line in docs.splitlines() if "alert" in line)
    assert line.replace("\\|", "").count("|") == 10  # a cell is a cell
    call(results, "write", "--root", root)
    assert first == [path.read_bytes() for path in files]


@pytest.mark.parametrize("readme", ["no markers", BEGIN, f"{END}\n{BEGIN}", f"{BEGIN}{END}{BEGIN}{END}"])
def test_write_without_both_markers_writes_nothing(
    tmp_path: Path, results: Path, capsys: pytest.CaptureFixture[str], readme: str
) -> None:
    root = project(tmp_path, readme)
    assert "README.md" in call_refused(capsys, results, "write", "--root", root)
    assert (root / "README.md").read_text() == readme and not (root / "docs" / "images").exists()
    assert f"{BEGIN}\n{END}" in (root / "docs" / "returns.md").read_text()


def test_list_tells_a_line_a_run(results: Path, capsys: pytest.CaptureFixture[str]) -> None:
    call(results, "list")
    assert capsys.readouterr().out == "no runs yet\n"
    returns_document.write(document(entry(curves={2: [(1.0, 0.0), (4000.4, 0.0)]})), results)
    call(results, "list")
    assert capsys.readouterr().out == "hopper recipe seed 2: unfinished, 20,000 of 1,000,000 steps, maximum 4,000\n"


def test_the_recipe_of_these_tests_is_the_shipped_one() -> None:
    recipe = from_sources(config=recipe_path("hopper"))
    assert {name: getattr(recipe, name) for name in RECIPE} == RECIPE
