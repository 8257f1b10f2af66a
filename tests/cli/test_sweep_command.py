"""`spikerl sweep` as a user runs it: several processes on one study, signals, results, errors."""

from __future__ import annotations

import csv
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from support import run_cli

SPACE = """
[settings]
hidden = [8]
critic_hidden = [8]
population = 4
batch_size = 16
steps = 2000
start_steps = 40
update_after = 2000  # acting only, so that a run is long enough to be struck, and short
eval_every = 400
eval_episodes = 1
tensorboard = false
carbon = false
device = "cpu"

[space]
actor_lr = {low = 1e-5, high = 1e-3, log = true}
time_steps = {choices = [2, 3]}

[study]
trials = 2
"""
SHORT = ["--steps", "60", "--set", "eval_every=60"]


@pytest.fixture
def space(tmp_path: Path) -> Path:
    (tmp_path / "space.toml").write_text(SPACE)
    return tmp_path


def start(*arguments: str, cwd: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [str(Path(sys.executable).parent / "spikerl"), "sweep", *arguments],
        cwd=cwd, env=os.environ | {"OMP_NUM_THREADS": "1", "NO_COLOR": "1"},
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


def wait_for(path: Path, child: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + 120
    while not path.exists():
        assert child.poll() is None and time.monotonic() < deadline, child.communicate()
        time.sleep(0.02)


def rows(folder: Path) -> list[dict[str, str]]:
    return list(csv.DictReader((folder / "results.csv").read_text().splitlines()))


def test_processes_on_one_study_run_exactly_the_trials_asked_for_and_different_points(space: Path) -> None:
    command = ["space.toml", "--trials", "4", *SHORT]
    pair = start(*command, "--processes", "2", "--format", "json", cwd=space)
    third = start(*command, cwd=space)
    outputs = [child.communicate(timeout=200) for child in (pair, third)]
    assert (pair.returncode, third.returncode) == (0, 0), outputs
    folder = space / "sweeps" / "space"
    table = rows(folder)
    assert [row["state"] for row in table] == ["complete"] * 4
    assert len({row["actor_lr"] for row in table}) == 4
    assert len(list(folder.glob("trial-*/seed-0/result.json"))) == 4
    workers = [err.count("starts") for _, err in outputs]
    assert sum(workers) == 4, "each trial by one worker"
    document = json.loads(outputs[0][0])
    assert document["schema"] == "spikerl.sweep/1" and document["trials"] == 4
    best = max(table, key=lambda row: float(row["value"]))
    assert document["best"]["value"] == float(best["value"])
    assert document["best"]["config"] == "sweeps/space/best.toml"


def test_a_killed_and_then_interrupted_sweep_is_continued_and_loses_nothing(space: Path) -> None:
    command = ["space.toml", "--out", "out", "--trials", "1"]
    child = start(*command, cwd=space)
    wait_for(space / "out/trial-0000/seed-0/checkpoints/best.pt", child)
    child.kill()
    child.communicate()

    child = start(*command, "--processes", "2", cwd=space)
    wait_for(space / "out/trial-0001/seed-0/checkpoints/best.pt", child)
    child.send_signal(signal.SIGTERM)
    _, err = child.communicate(timeout=60)
    assert child.returncode == 130
    assert "go on with: spikerl sweep space.toml --out out --trials 1 --processes 2" in err and "Traceback" not in err
    assert [row["state"] for row in rows(space / "out")] == ["lost", "interrupted", "waiting"]

    done = run_cli("-q", "sweep", *command, cwd=space)
    assert (done.returncode, done.stderr) == (0, "")
    table = rows(space / "out")
    assert [row["state"] for row in table] == ["lost", "interrupted", "complete"]
    assert len({(row["actor_lr"], row["time_steps"]) for row in table}) == 1, "the point is tried again"
    assert "1 complete, 1 interrupted, 1 lost, of 1 trials" in done.stdout
    assert "best mean return" in done.stdout and "over 1 evaluation episodes (seed 0: " in done.stdout

    train = run_cli("train", "--config", "out/best.toml", "--dry-run", cwd=space)
    assert train.returncode == 0 and "steps = 2000" in train.stdout


def test_a_dry_run_prints_the_plan_and_writes_nothing(space: Path) -> None:
    human = run_cli("sweep", "space.toml", "--dry-run", "--processes", "3", cwd=space)
    assert human.returncode == 0
    assert "2 trials in total, 1 seed(s) each, at most 4,000 environment steps" in human.stdout
    plan = json.loads(run_cli("sweep", "space.toml", "--dry-run", "--format", "json", *SHORT, cwd=space).stdout)
    assert plan["schema"] == "spikerl.sweep-plan/1"
    assert plan["space"]["actor_lr"] == {"low": 1e-5, "high": 1e-3, "log": True}
    assert (plan["settings"]["steps"], plan["steps_at_most"], plan["sweep"]) == (60, 120, "sweeps/space")
    assert [path.name for path in space.iterdir()] == ["space.toml"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["none.toml"], "cannot read space 'none.toml'"),
        (["space.toml", "--env", "Hoper-v5"], "unknown environment 'Hoper-v5'"),
        (["space.toml", "--set", "actor_lr=1"], "setting 'actor_lr' is both fixed and searched"),
        (["space.toml", "--set", "batchsize=1"], "unknown setting in --set 'batchsize'"),
        (["space.toml", "--recipe", "hopping"], "unknown recipe 'hopping'"),
        (["space.toml", "--trials", "0"], "trials = 0 is not an integer from 1"),
        (["space.toml", "--processes", "0"], "(given: 0)"),
        (["space.toml", "--out", "."], "'.' is no sweep folder"),
    ],
)
def test_an_error_is_one_line_with_a_hint_and_exit_code_2(space: Path, arguments: list[str], message: str) -> None:
    done = run_cli("sweep", *arguments, cwd=space)
    assert (done.returncode, done.stdout) == (2, ""), done
    error, hint = done.stderr.splitlines()
    assert error.startswith("Error: ") and message in error and hint.startswith("Hint: ")
    assert [path.name for path in space.iterdir()] == ["space.toml"]


def test_the_command_line_loads_optuna_only_to_search() -> None:
    code = "import sys, spikerl_deploy.cli, training.sweep_space; print({'optuna', 'torch'} & sys.modules.keys())"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "set()\n"
