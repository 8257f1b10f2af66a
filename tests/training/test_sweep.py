"""The sweep without its command: reading a space, who gets which point, and what becomes of a trial."""

from __future__ import annotations

import contextlib
import csv
import json
import math
import os
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import optuna
import pytest
import torch
from support import ROOT

from spikerl_deploy.errors import SpikerlError
from training.settings import from_sources
from training.sweep import objective_of, run_sweep
from training.sweep_space import SweepPlan, load_plan
from training.sweep_study import SweepStudy
from training.trainer import Trainer

TINY = """
hidden = [8]
critic_hidden = [8]
population = 4
batch_size = 16
steps = 120
start_steps = 40
update_after = 40
eval_every = 40
eval_episodes = 2
tensorboard = false
carbon = false
device = "cpu"
"""
SPACE = """
actor_lr = {low = 1e-5, high = 1e-3, log = true}
time_steps = {low = 2, high = 8}
gamma = {low = 0.9, high = 0.98, step = 0.02}
coding = {choices = ["regular", "poisson"]}
critic_hidden = {choices = [[8], [4, 4]]}
"""
Point = dict[str, Any]


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def write(space: str = SPACE, study: str = "", settings: str = TINY, name: str = "space.toml") -> Path:
    """A space file in the working folder; what is searched is not fixed."""
    searched = {line.partition(" ")[0] for line in space.splitlines()}
    fixed = "\n".join(line for line in settings.splitlines() if line.partition(" ")[0] not in searched)
    Path(name).write_text(f"[settings]\n{fixed}\n[space]\n{space}\n[study]\n{study}\n")
    return Path(name)


def plan_of(study: str = "", space: str = SPACE, **options: Any) -> SweepPlan:
    return load_plan(write(space, study), **options)


def drive(plan: SweepPlan, folder: str, value: Callable[[Point], float], stop: int = 10**6) -> list[Point]:
    """Claim and finish up to `stop` trials without training; the points in order."""
    points: list[Point] = []
    with SweepStudy(plan, Path(folder)) as study:
        while len(points) < stop and (trial := study.claim()) is not None:
            points.append(dict(trial.params))
            study.finish(trial, [value(points[-1])] * len(plan.options.seeds))
    return points


def rows(folder: str) -> list[dict[str, str]]:
    return list(csv.DictReader((Path(folder) / "results.csv").read_text().splitlines()))


def lr(point: Point) -> float:
    return -abs(math.log10(point["actor_lr"]) + 3.5)


# reading a space


@pytest.mark.parametrize(
    ("space", "message"),
    [
        ("actor_lrr = {low = 1, high = 2}", "'actor_lrr'"),
        ("actor_lr = 3e-4", "actor_lr = 0.0003 is neither a range nor choices"),
        ("actor_lr = {low = 1e-4, high = 1e-3, logg = true}", "unknown key of [space] actor_lr 'logg'"),
        ("actor_lr = {low = 1e-4}", "lacks 'high'"),
        ("actor_lr = {low = 1e-3, high = 1e-4}", "low 0.001 is not below high 0.0001"),
        ("actor_lr = {low = 0, high = 1}", "'actor_lr' = 0.0 must be positive"),
        ("explore_noise = {low = 0, high = 1, log = true}", "low 0.0 has no logarithm"),
        ("gamma = {low = 0.9, high = 1.0}", "'gamma' = 1.0 must be in [0, 1)"),
        ("actor_lr = {low = '1e-4', high = 1e-3}", "'1e-4' is no number"),
        ("actor_lr = {low = true, high = 2}", "True is no number"),
        ("actor_lr = {low = 1e-4, high = inf}", "'actor_lr' = inf is not a finite number"),
        ("actor_lr = {low = 1e-4, high = 1e-3, log = 1}", "log = 1 is not true or false"),
        ("actor_lr = {low = 1e-4, high = 1e-3, step = 1e-4, log = true}", "step 0.0001 and log exclude each other"),
        ("actor_lr = {low = 1, high = 2, step = 0.3}", "high 2.0 is no whole number of steps 0.3 above low 1.0"),
        ("time_steps = {low = 2.5, high = 8}", "'time_steps' = 2.5 is not an integer"),
        ("time_steps = {low = 2, high = 8, step = 1.5}", "step = 1.5 is not a positive integer"),
        ("time_steps = {low = 2, high = 8, step = 0}", "step = 0 is not a positive integer"),
        ("time_steps = {choices = []}", "choices = [] is no list of values"),
        ("time_steps = {choices = [2, 2.0]}", "choice 2.0 is there twice"),
        ("time_steps = {choices = [2, 'x']}", "'time_steps' = 'x' is not an integer"),
        ("time_steps = {choices = [2], low = 1}", "choices and low exclude each other"),
        ("coding = {low = 1, high = 2}", "a range, but the setting is no number"),
        ("bf16 = {low = 0, high = 1}", "a range, but the setting is no number"),
        ("coding = {choices = ['regular', 'morse']}", "'coding' 'morse'; there is: poisson, regular"),
        ("hidden = {choices = [8, [8]]}", "'hidden' = 8 is not a list of integers"),
        ("steps = {choices = [10, 20]}", "steps cannot be searched: it decides how a trial is measured"),
        ("seed = {low = 0, high = 9}", "seed cannot be searched"),
        ("device = {choices = ['cpu']}", "device cannot be searched: it decides where a trial runs"),
        ("", "[space] is empty"),
    ],
)
def test_a_dimension_that_makes_no_sense_is_refused_with_its_value(space: str, message: str) -> None:
    with pytest.raises(SpikerlError) as error:
        plan_of(space=space)
    assert message in error.value.message and error.value.hint
    assert "\n" not in error.value.message


@pytest.mark.parametrize(
    ("study", "message"),
    [
        ("trails = 3", "unknown key in [study] of 'space.toml' 'trails'"),
        ("trials = 0", "trials = 0 is not an integer from 1"),
        ("trials = 2.5", "trials = 2.5 is not an integer"),
        ("seeds = []", "seeds = [] is not a list of different seeds"),
        ("seeds = 3", "seeds = 3 is not a list"),
        ("seeds = [1, 1]", "seeds = [1, 1] is not a list of different seeds"),
        ("seeds = [-1]", "seeds = -1 is not an integer from 0"),
        ("objective = 'worst'", "unknown [study] objective 'worst'; there is: best, final, last10"),
        ("sampler = 'cmaes'", "unknown [study] sampler 'cmaes'"),
        ("pruner = 3", "unknown [study] pruner '3'"),
        ("sampler = 'grid'", "'grid' cannot enumerate [space] actor_lr"),
    ],
)
def test_study_options_that_make_no_sense_are_refused_with_their_value(study: str, message: str) -> None:
    with pytest.raises(SpikerlError) as error:
        plan_of(study)
    assert message in error.value.message and error.value.hint


def test_unknown_tables_and_settings_and_a_setting_both_fixed_and_searched_are_refused() -> None:
    path = Path("bad.toml")
    for text, message in [
        ("[sapce]\n", "unknown table in 'bad.toml' 'sapce'"),
        ("space = 3", "space = 3 in 'bad.toml' is no table"),
        ("[settings]\nactors = 1", "unknown setting in [settings] of 'bad.toml' 'actors'"),
        ("[settings]\ngamma = 2\n[space]\nactor_lr = {low = 1, high = 2}", "'gamma' = 2.0 must be in [0, 1)"),
        ("[settings]\nseed = 3", "'seed' is no fixed setting"),
        ("[settings", "is not TOML"),
    ]:
        path.write_text(text)
        with pytest.raises(SpikerlError) as error:
            load_plan(path)
        assert message in error.value.message
    for source in (
        {"environment": {"SPIKERL_TRAIN_GAMMA": "0.5"}},
        {"assignments": ["gamma=0.5"]},
        {"flags": {"gamma": 0.5}},
    ):
        with pytest.raises(SpikerlError, match="'gamma' is both fixed and searched"):
            load_plan(write(), **source)


def test_fixed_settings_come_from_flag_over_set_over_variable_over_file_over_recipe() -> None:
    path = write("gamma = {choices = [0.9]}", settings="batch_size = 1\npolyak = 0.1\nsteps = 1\nenv = 'Ant-v5'\n")
    plan = load_plan(
        path,
        {"SPIKERL_TRAIN_POLYAK": "0.2", "SPIKERL_TRAIN_STEPS": "2", "SPIKERL_TRAIN_ENV": "B", "PATH": "x"},
        ["steps=3", "env=C"],
        {"env": "D", "device": None},
        "inverted-pendulum",
    )
    s = plan.settings
    assert (s.batch_size, s.polyak, s.steps, s.env) == (1, 0.2, 3, "D")
    assert (s.eval_episodes, s.device) == (30, "auto"), "from the recipe, and from the defaults"


def test_the_points_have_the_types_of_the_settings_and_stay_in_the_space() -> None:
    points = drive(plan_of("trials = 25\nsampler = 'random'"), "sweep", lr)
    assert len(points) == 25
    assert {point["time_steps"] for point in points} == set(range(2, 9))
    assert {round(point["gamma"], 6) for point in points} == {0.9, 0.92, 0.94, 0.96, 0.98}
    assert {point["critic_hidden"] for point in points} == {"[8]", "[4, 4]"}
    rates = np.log10([point["actor_lr"] for point in points])
    assert -5 <= rates.min() < -4.7 and -3.3 < rates.max() <= -3 and abs(np.median(rates) + 4) < 0.5, "uniform in log"
    settings = plan_of().trial_settings(points[0], 7)
    assert settings.seed == 7 and settings.critic_hidden in ((8,), (4, 4)) and isinstance(settings.time_steps, int)


# who gets which point


def test_the_sampler_seed_decides_the_points_and_tpe_learns_from_values() -> None:
    space = "actor_lr = {low = 1e-5, high = 1e-3, log = true}\n"

    def points(folder: str, study: str, value: Callable[[Point], float] = lr) -> list[Point]:
        return drive(plan_of(f"trials = 16\nstartup_trials = 6\n{study}", space), folder, value)

    first = points("a", "sampler_seed = 1")
    assert points("b", "sampler_seed = 1") == first
    other = points("c", "sampler_seed = 1", lambda point: -lr(point))
    assert other[:6] == first[:6], "the first ones are random"
    assert np.mean([lr(point) for point in first[6:]]) > np.mean([lr(point) for point in other[6:]]) + 0.2
    assert drive(plan_of("sampler_seed = 2", space), "d", lr, stop=1) != first[:1]


@pytest.mark.parametrize("how", ["abandoned", "killed", "torn", "killed while waiting"])
def test_a_sweep_that_is_stopped_and_continued_tries_the_points_of_one_that_is_not(how: str) -> None:
    plan = plan_of("trials = 6\nstartup_trials = 2")
    whole = drive(plan, "whole", lr)
    start = drive(plan, "parts", lr, stop=3)
    with SweepStudy(plan, Path("parts")) as study:  # closing it frees the locks, as the end of a process does
        if how == "torn":
            study._study.ask()  # it died before it had a point
        else:
            trial = study.claim()
            assert trial is not None and trial.params == whole[3]
            study.report(trial, 40, 1.0)
            if how == "abandoned":
                study.abandon(trial)
    if how == "killed while waiting":
        with SweepStudy(plan, Path("parts")) as study:
            study._recover()
            study._study.ask()  # the retry dies before it has a point, too
    assert start + drive(plan, "parts", lr) == whole
    states = [row["state"] for row in rows("parts")]
    assert states.count("complete") == 6
    assert set(states) - {"complete"} == ({"interrupted"} if how == "abandoned" else {"lost"})


def test_a_grid_is_tried_whole_each_point_once_by_whoever_comes() -> None:
    space = "time_steps = {low = 2, high = 6, step = 2}\ncoding = {choices = ['regular', 'poisson']}\n"
    plan = plan_of("sampler = 'grid'", space + "gamma = {low = 0.9, high = 0.98, step = 0.04}")
    assert plan.trials == 18
    with SweepStudy(plan, Path("grid")) as study:
        study.claim()  # and dies
    points = [tuple(point.values()) for point in drive(plan, "grid", lambda point: 0.0)]
    assert len(points) == len(set(points)) == 18
    assert {point[2] for point in points} == {2, 4, 6}
    assert drive(plan_of("sampler = 'grid'\ntrials = 99", space), "again", lambda point: 0.0)[5:] == [
        {"coding": "poisson", "time_steps": 6}
    ]


CHILD = """
import sys, time
from pathlib import Path
from training.sweep_space import load_plan
from training.sweep_study import SweepStudy
with SweepStudy(load_plan(Path("space.toml")), Path("sweep")) as study:
    trial = study.claim()
    print(trial.number, flush=True)
    time.sleep(100)
"""


def test_a_trial_of_a_living_process_is_left_to_it_and_counts_until_the_process_dies() -> None:
    plan = plan_of("trials = 3\nsampler = 'random'")
    child = subprocess.Popen(
        [sys.executable, "-c", CHILD], env=os.environ | {"PYTHONPATH": str(ROOT)}, stdout=subprocess.PIPE, text=True
    )
    try:
        assert child.stdout is not None and child.stdout.readline() == "0\n"
        assert len(drive(plan, "sweep", lr)) == 2
        assert [row["state"] for row in rows("sweep")] == ["running", "complete", "complete"]
    finally:
        child.kill()
        child.wait()
    (again,) = drive(plan, "sweep", lr)
    table = rows("sweep")
    assert [row["state"] for row in table] == ["lost", "complete", "complete", "complete"]
    assert float(table[0]["actor_lr"]) == again["actor_lr"] and table[3]["retry_of"] == "0"


def test_a_point_that_takes_its_process_down_three_times_counts_as_failed() -> None:
    plan = plan_of("trials = 2")
    for _ in range(3):
        with SweepStudy(plan, Path("sweep")) as study:
            study.claim()
    assert len(drive(plan, "sweep", lr)) == 1
    table = rows("sweep")
    assert [row["state"] for row in table] == ["lost", "lost", "failed", "complete"]
    assert "died 3 times" in table[2]["error"]


def test_the_total_may_be_raised_and_the_machine_changed_but_nothing_else() -> None:
    drive(plan_of("trials = 2"), "sweep", lr)
    assert len(drive(plan_of("trials = 2", trials=3), "sweep", lr)) == 1
    assert drive(plan_of("trials = 2"), "sweep", lr) == []
    shuffled = "\n".join(reversed(SPACE.splitlines()))
    moved = plan_of("trials = 4", shuffled, assignments=["threads=2", "carbon=true"])
    assert len(drive(moved, "sweep", lr)) == 1
    before = {path.name: path.read_bytes() for path in Path("sweep").iterdir()}
    for plan, message in [
        (plan_of("seeds = [1]"), r"\[study\] seeds = \[0\], now it is \[1\]"),
        (plan_of("", SPACE.replace("high = 8", "high = 9")), r"\[space\] time_steps = .*'high': 8.*, now it is .*9"),
        (plan_of("", SPACE + "polyak = {choices = [0.5]}"), r"\[settings\] polyak = 0.995, now it is nothing"),
        (plan_of(assignments=["batch_size=17"]), r"\[settings\] batch_size = 16, now it is 17"),
    ]:
        with pytest.raises(SpikerlError, match=message) as error:
            drive(plan, "sweep", lr)
        assert "--out" in (error.value.hint or "")
    assert {path.name: path.read_bytes() for path in Path("sweep").iterdir()} == before


def test_a_sweep_begun_before_there_was_a_setting_goes_on_while_that_has_its_default() -> None:
    drive(plan_of("trials = 2"), "sweep", lr, stop=1)
    new = ("actor", "readout", "target_actor", "proxy_hidden", "proxy_lr", "proxy_steps")
    stored = "SELECT value_json FROM study_user_attributes WHERE key = 'plan'"
    with contextlib.closing(sqlite3.connect("sweep/study.db")) as database, database:
        plan = json.loads(database.execute(stored).fetchone()[0])
        for name in new:
            del plan["settings"][name]
        changed = database.execute(
            "UPDATE study_user_attributes SET value_json = ? WHERE key = 'plan'", (json.dumps(plan),)
        )
        assert changed.rowcount == 1
    with pytest.raises(SpikerlError, match=r"\[settings\] proxy_steps = 3, now it is 4"):
        drive(plan_of("trials = 2", assignments=["proxy_steps=4"]), "sweep", lr)
    with pytest.raises(SpikerlError, match=r"\[settings\] coding = nothing, now it is regular"):
        searched_before = "\n".join(line for line in SPACE.splitlines() if not line.startswith("coding"))
        drive(plan_of("trials = 2", searched_before), "sweep", lr)
    assert len(drive(plan_of("trials = 2"), "sweep", lr)) == 1


def test_a_folder_that_is_no_sweep_is_refused_and_left_as_it_is() -> None:
    plan = plan_of()
    Path("mine").mkdir()
    Path("file").write_text("mine")
    Path("other").mkdir()
    for name in ("mine/thesis.txt", "other/study.db"):
        Path(name).write_text("mine")
    for folder in ("mine", "file", "file/sweep", "other"):
        with pytest.raises(SpikerlError, match=folder):
            drive(plan, folder, lr)
    assert [path.name for path in (*Path("mine").iterdir(), *Path("other").iterdir())] == ["thesis.txt", "study.db"]
    drive(plan, "broken", lr, stop=1)
    Path("broken/study.db").write_text("no database" * 100)
    with pytest.raises(SpikerlError, match="file is not a database"):
        drive(plan, "broken", lr)


def test_the_study_is_one_that_optuna_reads_wherever_it_lies() -> None:
    drive(plan_of("trials = 3"), "a {b}#?%41", lr)
    Path("a {b}#?%41/study.db").rename("moved.db")
    study = optuna.load_study(study_name="spikerl-sweep", storage="sqlite:///moved.db")
    assert study.best_value == max(lr(trial.params) for trial in study.trials) and len(study.trials) == 3


# what becomes of a trial


class Pay(gymnasium.Env[np.ndarray, np.ndarray]):
    """Pays what the class says at each of five steps."""

    observation_space = gymnasium.spaces.Box(-np.inf, np.inf, (2,), np.float64)
    action_space = gymnasium.spaces.Box(np.float32([-1]), np.float32([1]))
    reward = 1.0

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[np.ndarray, dict]:
        super().reset(seed=seed)
        return self.np_random.normal(0, 1, 2), {}

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict]:
        return self.np_random.normal(0, 1, 2), self.reward, False, False, {}


@pytest.fixture
def pay(monkeypatch: pytest.MonkeyPatch) -> Iterator[type[Pay]]:
    gymnasium.register("Pay-v0", Pay, max_episode_steps=5, disable_env_checker=True)
    monkeypatch.setattr(Pay, "reward", 1.0)
    yield Pay
    del gymnasium.registry["Pay-v0"]


@pytest.mark.parametrize(("name", "value"), [("best", 30.0), ("final", 3.0), ("last10", 6.3)])
def test_the_objective_is_what_its_name_says(name: str, value: float) -> None:
    assert objective_of(name, [30.0, 20.0, 10.0, 9, 8, 7, 6, 5, 5, 5, 5, 3]) == pytest.approx(value)
    assert objective_of(name, [4.0]) == 4.0


def test_a_trial_is_worth_the_mean_over_its_seeds_and_best_toml_earns_it_again() -> None:
    plan = plan_of("trials = 2\nseeds = [3, 5]\nobjective = 'final'", "actor_lr = {low = 1e-4, high = 1e-2}")
    summary = run_sweep(plan, Path("sweep"), quiet=True)
    assert summary.counts["complete"] == 2 and summary.best is not None and not summary.interrupted
    for row in rows("sweep"):
        folder = Path(f"sweep/trial-000{row['trial']}")
        finals = [json.loads((folder / f"seed-{seed}/result.json").read_text())["final_return"] for seed in (3, 5)]
        assert [float(row["return_seed_3"]), float(row["return_seed_5"])] == finals
        assert float(row["value"]) == np.mean(finals)
        for seed in (3, 5):
            settings = from_sources(folder / f"seed-{seed}/config.toml")
            assert (settings.seed, settings.actor_lr) == (seed, float(row["actor_lr"]))
    best = max(rows("sweep"), key=lambda row: float(row["value"]))
    assert (summary.best.trial, summary.best.value) == (int(best["trial"]), float(best["value"]))
    result = Trainer(from_sources(Path("sweep/best.toml")), Path("again"), quiet=True).run()
    assert result.final_return == summary.best.returns[0] == float(best["return_seed_3"])
    assert Path("sweep/space.toml").read_text() == plan.text


def test_the_evaluation_that_reaches_stop_return_counts(pay: type[Pay]) -> None:
    plan = plan_of("trials = 1\nobjective = 'last10'", assignments=["env=Pay-v0", "stop_return=5"])
    summary = run_sweep(plan, Path("sweep"), quiet=True)
    assert summary.best is not None and summary.best.value == 5.0


def test_a_trial_below_the_median_is_pruned_at_its_first_judged_evaluation(pay: type[Pay]) -> None:
    study = "startup_trials = 2\npruner = 'median'\nseeds = [0, 1]\nsampler = 'random'"
    common = {"assignments": ["env=Pay-v0", "eval_every=30"]}
    run_sweep(plan_of(study, trials=2, **common), Path("sweep"), quiet=True)
    pay.reward = -1.0
    assert run_sweep(plan_of(study, trials=3, **common), Path("sweep"), quiet=True).counts["pruned"] == 1
    result = json.loads(Path("sweep/trial-0002/seed-0/result.json").read_text())
    assert (result["stopped"], result["steps"]) == ("pruned", 60), "at 30, before learning, none is judged"
    assert not Path("sweep/trial-0002/seed-1").exists()
    pay.reward = 2.0
    summary = run_sweep(plan_of(study, trials=4, **common), Path("sweep"), quiet=True)
    assert summary.counts["complete"] == 3 and summary.best is not None and summary.best.trial == 3
    assert summary.best.value == 10.0


def test_a_trial_that_is_trained_whole_is_complete_however_bad(pay: type[Pay]) -> None:
    study = "startup_trials = 1\nsampler = 'random'\npruner = 'median'"
    common = {"assignments": ["env=Pay-v0", "eval_every=120"]}
    run_sweep(plan_of(study, trials=1, **common), Path("sweep"), quiet=True)
    pay.reward = -1.0
    assert run_sweep(plan_of(study, trials=2, **common), Path("sweep"), quiet=True).counts["complete"] == 2


def test_without_a_pruner_no_trial_is_cut_short(pay: type[Pay]) -> None:
    study, common = "startup_trials = 1\nsampler = 'random'", {"assignments": ["env=Pay-v0"]}
    run_sweep(plan_of(study, trials=1, **common), Path("sweep"), quiet=True)
    pay.reward = -1.0
    assert run_sweep(plan_of(study, trials=2, **common), Path("sweep"), quiet=True).counts["complete"] == 2


def test_a_trial_whose_numbers_are_not_finite_fails_with_its_message_and_the_sweep_goes_on(
    capsys: pytest.CaptureFixture[str],
) -> None:
    space = "critic_lr = {choices = [1e30, 1e-3]}"
    summary = run_sweep(plan_of("sampler = 'grid'", space), Path("sweep"))
    assert (summary.counts["failed"], summary.counts["complete"]) == (1, 1)
    first, second = rows("sweep")
    assert first["state"] == "failed" and first["value"] == "" and "is stopped" in first["error"]
    assert second["state"] == "complete" and summary.best is not None and summary.best.trial == 1
    assert "trial 0: failed: " in capsys.readouterr().err
    assert drive(plan_of("sampler = 'grid'", space), "sweep", lambda point: 0.0) == [], "a failed point is not retried"


@pytest.mark.parametrize("quiet", [True, False])
def test_a_point_whose_values_contradict_each_other_fails_with_the_reason_and_the_sweep_goes_on(
    capsys: pytest.CaptureFixture[str], quiet: bool
) -> None:
    space = 'actor = {choices = ["spiking", "mlp"]}\ntarget_actor = {choices = ["proxy", "copy"]}'
    plan = plan_of("sampler = 'grid'\nobjective = 'final'", space, assignments=["proxy_hidden=[8]"])
    summary = run_sweep(plan, Path("sweep"), quiet=quiet)
    assert (summary.counts["complete"], summary.counts["failed"], len(rows("sweep"))) == (3, 1, 4)
    (bad,) = (row for row in rows("sweep") if row["state"] == "failed")
    assert (bad["actor"], bad["target_actor"]) == ("mlp", "proxy")
    assert "'target_actor' = 'proxy' is of spiking actors, not of actor 'mlp'" in bad["error"]
    said = capsys.readouterr().err
    assert said == "" if quiet else "starts: actor = mlp, target_actor = proxy" in said and "failed: setting" in said
    assert run_sweep(plan, Path("sweep"), quiet=True) == summary, "nothing is left to do"


@pytest.mark.parametrize("setting", ["env=NoSuch-v5", "country=Atlantis", "device=cuda"])
def test_what_all_trials_share_is_refused_before_anything_is_written(setting: str) -> None:
    if setting == "device=cuda" and torch.cuda.is_available():
        pytest.skip("CUDA is there")
    with pytest.raises(SpikerlError, match=setting.partition("=")[2]):
        run_sweep(plan_of(assignments=["carbon=true", setting]), Path("sweep"), quiet=True)
    assert not Path("sweep").exists()
