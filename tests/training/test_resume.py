"""A run that was ended, by whatever and whenever, goes on as if it had not been."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from resume_support import HOPPING, edit_state, state_file
from training_support import (
    HOPPER,
    SOAK,
    Child,
    Fault,
    assert_same_run,
    error_of,
    go_on,
    installed,
    metrics_of,
    pointer_of,
    replay_of,
    resume,
    sets,
    soak,
    spikerl,
    state_of,
    succeeded,
    tiny,
    train,
    wait_for_step,
)

from training.trainer import Trainer

MOMENTS = [
    Fault("write", ".best.pt.*"),
    Fault("renamed", "best.pt"),
    Fault("flush", "replay-rank0.bin"),
    Fault("write", ".0*-rank0.pt.*"),
    Fault("rename", "0*-rank0.pt"),
    Fault("renamed", "0*-rank0.pt"),
    Fault("rename", "latest.json"),
    Fault("renamed", "latest.json"),
    Fault("remove", "0*-rank0.pt"),
    Fault("write", ".last.pt.*", 2),
    Fault("renamed", "last.pt", 2),
]


@pytest.fixture(scope="module")
def killed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same run, killed in every moment of a save and resumed each time."""
    folder = tmp_path_factory.mktemp("killed")
    done = train(folder, "run", Fault("write", ".0*-rank0.pt.*", 2), **HOPPING)
    assert done.returncode == -signal.SIGKILL
    for fault in MOMENTS:
        done = resume(folder, "run", fault=fault)
        assert done.returncode == -signal.SIGKILL, f"{fault} did not happen: {done}"
    assert pointer_of(folder / "run")["step"] < 480, "it was over before the last kill"
    succeeded(resume(folder, "run"))
    return folder / "run"


def test_a_run_killed_in_every_moment_of_a_save_ends_as_the_uninterrupted_one(killed: Path, hopping: Path) -> None:
    assert_same_run(killed, hopping)


def test_nothing_of_the_saves_that_were_cut_short_stays_behind(killed: Path) -> None:
    names = {str(path.relative_to(killed)) for path in killed.rglob("*") if path.is_file()}
    assert names == {
        "config.toml", "manifest.json", "manifest-resumed.json", "metrics.csv", "result.json", "emissions.json",
        "checkpoints/best.pt", "checkpoints/last.pt",
        "resume/latest.json", "resume/000000000480-rank0.pt", "resume/replay-rank0.bin",
    }  # fmt: skip


@pytest.mark.parametrize(
    "settings",
    [
        {"coding": "poisson", "seeds": 2, "num_envs": 2, "steps": 320, "checkpoint_every": 30, "update_every": 7},
        pytest.param(
            {"steps": 3000, "checkpoint_every": 170, "eval_every": 333, "update_to_data": 0.5, "buffer_size": 700},
            marks=soak,
        ),
        pytest.param(
            {"seeds": 3, "num_envs": 2, "env_workers": True, "steps": 1500, "checkpoint_every": 100},
            marks=soak,
        ),
    ],
)
def test_a_run_killed_at_random_moments_ends_as_the_uninterrupted_one(tmp_path: Path, settings: dict[str, Any]) -> None:
    settings = HOPPING | settings
    succeeded(train(tmp_path, "whole", **settings))
    rng = np.random.default_rng(2)
    log, arguments = tmp_path / "log", ["train", "--out", str(tmp_path / "run"), *sets(**settings)]
    kills = 0
    for _ in range(20 if SOAK else 3):
        child = Child(arguments, log)
        wait_for_step(tmp_path / "run", 0, child.process.is_alive)
        time.sleep(rng.uniform(0.3, 1.5))
        child.process.kill()
        child.process.join()
        kills += child.process.exitcode == -signal.SIGKILL
        arguments = ["train", "--resume", str(tmp_path / "run")]
    assert kills >= 2, "it was over too early"
    succeeded(resume(tmp_path, "run"))
    assert_same_run(tmp_path / "run", tmp_path / "whole")


def test_a_real_command_killed_and_resumed_ends_as_the_uninterrupted_one(tmp_path: Path, hopping: Path) -> None:
    with installed("train", "--out", "run", *sets(**HOPPING), cwd=tmp_path) as process:
        wait_for_step(tmp_path / "run", 120, lambda: process.poll() is None)
        process.kill()
        process.communicate()
    assert process.returncode == -signal.SIGKILL
    with installed("train", "--resume", "run", cwd=tmp_path) as process:
        _, err = process.communicate(timeout=120)
    assert process.returncode == 0, err
    assert_same_run(tmp_path / "run", hopping)


def test_a_run_killed_before_its_first_state_says_that_there_is_nothing_and_is_forced_away(tmp_path: Path) -> None:
    short = HOPPING | {"steps": 40}
    assert train(tmp_path, "run", Fault("write", ".0*-rank0.pt.*"), **short).returncode == -signal.SIGKILL
    error, _ = error_of(resume(tmp_path, "run"))
    assert "nothing to resume" in error and "latest.json" in error
    arguments = ["train", "--out", str(tmp_path / "run"), "--force", *sets(**short)]
    succeeded(spikerl(arguments, tmp_path / "log"))


@pytest.mark.parametrize("steps", [216, 217])  # an update of the critics is owed, and one of all networks
def test_a_run_told_to_end_saves_says_how_to_go_on_and_ends_as_the_uninterrupted_one(
    tmp_path: Path, hopping: Path, steps: int
) -> None:
    done = train(tmp_path, "run", Fault("step", count=steps, number=signal.SIGTERM), **HOPPING)
    assert done.returncode == 130, done
    step = pointer_of(tmp_path / "run")["step"]
    assert step % 40, "the signal came at a regular save, this shows nothing"
    assert f"interrupted at step {step}; go on with: spikerl train --resume {tmp_path / 'run'}" in done.stderr
    assert json.loads((tmp_path / "run" / "result.json").read_text())["stopped"] == "interrupted"
    succeeded(resume(tmp_path, "run"))
    assert_same_run(tmp_path / "run", hopping)


def test_the_losses_are_logged_as_without_the_interruption(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("training.trainer.LOG_EVERY", 100)
    # updates in bursts of 150: what is logged at step 200 is from step 189, before the run was ended
    settings = tiny(env=HOPPER, steps=240, update_after=40, update_every=150, eval_every=195, eval_episodes=1)
    Trainer(settings, tmp_path / "whole", quiet=True).run()
    losses = [(r["step"], r["name"]) for r in metrics_of(tmp_path / "whole") if r["kind"] == "train"]
    assert losses == [("200", "critic_loss"), ("200", "actor_loss")]
    result = Trainer(settings, tmp_path / "run", quiet=True, on_evaluation=lambda step, _: step == 195).run()
    assert (result.stopped, result.steps) == ("pruned", 195)
    go_on(tmp_path / "run")
    assert_same_run(tmp_path / "run", tmp_path / "whole")


@pytest.mark.parametrize(
    "kind",
    [{"actor": "mlp"}, {"target_actor": "proxy", "proxy_hidden": (9,), "seeds": 2, "readout": "membrane"}],
    ids=["mlp", "proxy and membrane"],
)
def test_a_run_of_any_kind_of_actor_goes_on_as_without_the_interruption(tmp_path: Path, kind: dict[str, Any]) -> None:
    settings = tiny(**HOPPING | {"steps": 240} | kind)
    Trainer(settings, tmp_path / "whole", quiet=True).run()
    result = Trainer(settings, tmp_path / "run", quiet=True, on_evaluation=lambda *_: True).run()
    assert (result.stopped, result.steps) == ("pruned", 80) and result.updates > 30
    go_on(tmp_path / "run")
    assert_same_run(tmp_path / "run", tmp_path / "whole")
    assert state_of(tmp_path / "run")["state"]["agent"].keys() >= {"actor_target", "actor_optimizer"}


def test_a_run_of_before_there_were_kinds_of_actors_goes_on(tmp_path: Path, interrupted: Path, hopping: Path) -> None:
    shutil.copytree(interrupted, tmp_path / "run")
    path = state_file(tmp_path / "run")
    stored = json.loads(torch.load(path, weights_only=True)["settings"])
    for name in ("actor", "readout", "target_actor", "proxy_hidden", "proxy_lr", "proxy_steps"):
        del stored[name]
    edit_state(path, settings=json.dumps(stored))
    go_on(tmp_path / "run")
    assert_same_run(tmp_path / "run", hopping)


def test_metrics_hold_each_row_once_however_far_the_run_went_after_its_state(tmp_path: Path, hopping: Path) -> None:
    settings = HOPPING | {"steps": 240}
    assert train(tmp_path, "run", Fault("rename", "0*200-rank0.pt"), **settings).returncode == -signal.SIGKILL
    with (tmp_path / "run" / "metrics.csv").open("a") as file:  # as a flush after the state would have left it
        file.write("170,1.0,170.0,episode,return,99.0\n180,1.0,180.0,epi")
    succeeded(resume(tmp_path, "run"))
    rows = metrics_of(tmp_path / "run")
    keys = [(r["step"], r["kind"], r["name"]) for r in rows]
    assert len(keys) == len(set(keys)) > 10
    wanted = [(r["step"], r["name"], r["value"]) for r in metrics_of(hopping) if int(r["step"]) <= 240]
    assert [(r["step"], r["name"], r["value"]) for r in rows] == wanted
    seconds = [float(r["seconds"]) for r in rows]
    assert seconds == sorted(seconds)


@pytest.mark.parametrize("buffer_size", [100, 300, 1000])  # wraps in both parts, in the second only, never
def test_more_steps_end_as_a_run_that_was_longer_from_the_start(tmp_path: Path, buffer_size: int) -> None:
    settings = HOPPING | {"buffer_size": buffer_size, "eval_every": 120, "checkpoint_every": 60}
    Trainer(tiny(**settings | {"steps": 360}), tmp_path / "whole", quiet=True).run()
    Trainer(tiny(**settings | {"steps": 240}), tmp_path / "run", quiet=True).run()
    go_on(tmp_path / "run", steps=360)
    assert_same_run(tmp_path / "run", tmp_path / "whole", but="checkpoints/best.pt/settings")  # saved before the change


def test_without_its_replay_buffer_a_run_says_so_and_collects_anew_before_it_updates(tmp_path: Path) -> None:
    settings = HOPPING | {"steps": 200, "save_replay": False, "update_after": 50}
    done = train(tmp_path, "run", Fault("step", count=130, number=signal.SIGINT), **settings)
    assert done.returncode == 130
    assert not list((tmp_path / "run" / "resume").glob("replay*"))
    step, updates = pointer_of(tmp_path / "run")["step"], state_of(tmp_path / "run")["state"]["agent"]["updates"]
    assert updates > 0
    done = succeeded(resume(tmp_path, "run"))
    assert f"the replay buffer was not kept (save_replay): updates go on at step {step + 50}" in done.stderr
    state = state_of(tmp_path / "run")["state"]
    assert state["step"] == 200
    assert state["agent"]["updates"] == updates + (200 - (step + 50) + 1)


def test_an_environment_whose_state_cannot_be_kept_starts_new_episodes_and_it_is_said(tmp_path: Path) -> None:
    settings = {"env": "Echo-v0", "steps": 130, "eval_every": 50, "checkpoint_every": 50}
    assert train(tmp_path, "run", Fault("rename", "0*100-rank0.pt"), **settings).returncode == -signal.SIGKILL
    done = succeeded(resume(tmp_path, "run"))
    assert "'Echo-v0' is not MuJoCo's, its state cannot be kept: its episodes start anew" in done.stderr
    rows = metrics_of(tmp_path / "run")
    assert [int(r["step"]) for r in rows if r["kind"] == "episode"] == [20, 40, 70, 90, 110, 130]
    assert [int(r["step"]) for r in rows if r["name"] == "return_mean"] == [50, 100, 130]
    observed = replay_of(tmp_path / "run")[:, 0, :3]
    assert len(np.unique(observed, axis=0)) == 130, "episodes were repeated"
    assert state_of(tmp_path / "run")["state"]["normalizer"]["count"]["__array__"].item() == 130 + 8


@pytest.mark.skipif((os.cpu_count() or 1) < 2, reason="one core has one thread")
def test_numpy_leaves_the_cores_to_torch(tmp_path: Path, interrupted: Path) -> None:
    program = f"""
import threadpoolctl
from typer.testing import CliRunner
from spikerl_deploy.cli import app
done = CliRunner().invoke(app, ["train", "--resume", {str(interrupted)!r}, "--set", "threads=2", "--dry-run"])
assert done.exit_code == 0, done.output
pools = {{pool["user_api"]: pool["num_threads"] for pool in threadpoolctl.threadpool_info()}}
print(pools["blas"], pools["openmp"])
"""
    environment = {name: value for name, value in os.environ.items() if name != "OPENBLAS_NUM_THREADS"}
    done = subprocess.run(
        [sys.executable, "-c", program],
        env=environment | {"OMP_NUM_THREADS": "2"}, capture_output=True, text=True, timeout=100, check=True,
    )  # fmt: skip
    assert done.stdout.split() == ["1", "2"]
