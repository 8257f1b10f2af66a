"""A run that was ended, by whatever and whenever, goes on as if it had not been."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
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

from spikerl_deploy.errors import SpikerlError
from spikerl_deploy.manifest import processor
from training.resume import read_settings
from training.run_manifest import trainer_code, write_manifest
from training.run_reader import read_run
from training.trainer import Trainer

# Contacts, a buffer that wraps, a state every 40 steps: what is hardest to take up again.
HOPPING: dict[str, Any] = {
    "env": HOPPER, "steps": 480, "start_steps": 30, "update_after": 40, "eval_every": 80, "eval_episodes": 1,
    "checkpoint_every": 40, "buffer_size": 100,
}  # fmt: skip
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
def hopping(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that nothing interrupted."""
    folder = tmp_path_factory.mktemp("reference")
    succeeded(train(folder, "run", **HOPPING))
    return folder / "run"


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
    path = _state(tmp_path / "run")
    stored = json.loads(torch.load(path, weights_only=True)["settings"])
    for name in ("actor", "readout", "target_actor", "proxy_hidden", "proxy_lr", "proxy_steps"):
        del stored[name]
    _edit(path, settings=json.dumps(stored))
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


def test_a_finished_run_resumed_changes_nothing(tmp_path: Path, hopping: Path) -> None:
    shutil.copytree(hopping, tmp_path / "run")
    before = json.loads((hopping / "result.json").read_text())
    done = succeeded(resume(tmp_path, "run", "--format", "json"))
    after = json.loads(done.stdout)
    assert {name: after[name] for name in before} == before
    for path in (path for path in hopping.rglob("*") if path.is_file()):
        assert (tmp_path / "run" / path.relative_to(hopping)).read_bytes() == path.read_bytes(), path
    assert sum(path.is_file() for path in (tmp_path / "run").rglob("*")) == sum(
        path.is_file() for path in hopping.rglob("*")
    )


@pytest.mark.parametrize("spoil", ["replay-rank0.bin", "metrics.csv"])
def test_a_finished_run_that_cannot_be_extended_stays_finished(tmp_path: Path, hopping: Path, spoil: str) -> None:
    run = tmp_path / "run"
    shutil.copytree(hopping, run)
    (spoilt,) = run.rglob(spoil)
    _cut(spoilt, 0.2)
    error_of(resume(tmp_path, "run", "--steps", "960"))
    for name in ("config.toml", "manifest.json", "result.json", "emissions.json"):
        assert (run / name).read_bytes() == (hopping / name).read_bytes(), name
    assert not (run / "manifest-resumed.json").exists()


def test_a_signal_in_the_last_turn_leaves_a_finished_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trainer = Trainer(tiny(**HOPPING), tmp_path / "run", quiet=True)
    real = trainer.envs.receive

    def receive() -> Any:
        if trainer.step == 479:
            os.kill(os.getpid(), signal.SIGINT)
        return real()

    monkeypatch.setattr(trainer.envs, "receive", receive)
    assert trainer.run().stopped == "steps"
    assert read_run(tmp_path / "run").finished


def test_stretches_that_came_to_no_new_state_are_not_told(tmp_path: Path) -> None:
    for step, threads in ((40, 1), (40, 2), (80, 3), (80, 4), (90, 5)):
        write_manifest(tmp_path, tiny(threads=threads), step)
    document = json.loads((tmp_path / "manifest-resumed.json").read_text())
    told = [(one["step"], one["machine"]["threads"]) for one in (*document["earlier"], document)]
    assert told == [(40, "2"), (80, "4"), (90, "5")]


def test_a_run_killed_after_its_last_state_is_ended_when_it_is_resumed(tmp_path: Path, hopping: Path) -> None:
    shutil.copytree(hopping, tmp_path / "run")
    (tmp_path / "run" / "result.json").unlink()
    succeeded(resume(tmp_path, "run"))
    assert read_run(tmp_path / "run").finished
    assert_same_run(tmp_path / "run", hopping)


def test_a_run_that_goes_on_tells_no_end_and_which_code_machine_and_threads_each_stretch_had(
    tmp_path: Path, interrupted: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, seen = tmp_path / "run", []
    shutil.copytree(interrupted, run)
    assert read_run(run).stopped == "interrupted"
    started = json.loads((run / "manifest.json").read_text())
    assert started["versions"]["spikerl-deploy"].endswith(f"+{trainer_code()}")
    assert (started["machine"]["threads"], started["machine"]["processor"]) == ("1", processor())

    def look(_step: int, _mean: float) -> bool:
        seen.append([(run / name).exists() for name in ("result.json", "emissions.json")])
        return len(seen) == 1

    settings, _ = read_settings(run)
    monkeypatch.setattr("training.run_manifest.trainer_code", lambda: "0123456789ab")
    stopped = Trainer(replace(settings, threads=2), run, quiet=True, on_evaluation=look, resume=True).run().stopped
    assert (stopped, seen) == ("pruned", [[False, False]])
    monkeypatch.undo()
    assert go_on(run).stopped == "steps"
    recorded = read_run(run).recorded("machine")
    assert recorded["threads"] == "1, resumed with 2" and recorded["processor"] == processor()
    code = started["versions"]["spikerl-deploy"]
    other = f"{code.partition('+')[0]}+0123456789ab"
    assert read_run(run).recorded("versions")["spikerl-deploy"] == f"{code}, resumed with {other}, resumed with {code}"
    assert json.loads((run / "manifest-resumed.json").read_text())["earlier"][0]["step"] < 480


def test_a_run_that_reached_its_return_is_over_until_another_is_asked(tmp_path: Path) -> None:
    settings = tiny(**HOPPING | {"steps": 240, "stop_return": -100.0})
    assert Trainer(settings, tmp_path / "run", quiet=True).run().stopped == "stop_return"
    again = go_on(tmp_path / "run")
    assert (again.stopped, again.steps) == ("stop_return", 80)
    other = go_on(tmp_path / "run", stop_return=1e6)
    assert (other.stopped, other.steps) == ("steps", 240)


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


def test_an_environment_that_cannot_start_when_a_run_goes_on_is_one_line_and_the_run_stays(
    tmp_path: Path, interrupted: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = tmp_path / "run"
    shutil.copytree(interrupted, run)

    def unlicensed(self: object) -> None:
        raise OSError("no\nlicence")

    with monkeypatch.context() as patch:
        patch.setattr("gymnasium.envs.mujoco.hopper_v5.HopperEnv.reset_model", unlicensed)
        with pytest.raises(SpikerlError, match=r"failed at step \d+ \(rank 0\): OSError: no licence") as error:
            go_on(run)
    assert "\n" not in error.value.message and f"spikerl train --resume {run}" in (error.value.hint or "")
    assert go_on(run).stopped == "steps"


def test_energy_and_time_of_the_parts_add_up(tmp_path: Path) -> None:
    settings = HOPPING | {"steps": 160, "carbon": True}
    done = train(tmp_path, "run", Fault("step", count=120, number=signal.SIGINT), **settings)
    assert done.returncode == 130, done.stderr
    first, result = (json.loads((tmp_path / "run" / f"{n}.json").read_text()) for n in ("emissions", "result"))
    succeeded(resume(tmp_path, "run"))
    whole, whole_result = (json.loads((tmp_path / "run" / f"{n}.json").read_text()) for n in ("emissions", "result"))
    assert whole["total_energy_joule"] > first["total_energy_joule"] > 0
    assert whole["duration_s"] > first["duration_s"] > 0
    for name in ("collecting", "updating", "evaluating"):
        assert whole["sections"][name]["seconds"] >= first["sections"][name]["seconds"] - 0.2
        assert whole["sections"][name]["energy_joule"] > 0.5 * first["sections"][name]["energy_joule"]
    total = sum(section["energy_joule"] for section in whole["sections"].values())
    parts = sum(part["value"] or 0.0 for part in whole["energy_joule"].values())
    assert whole["total_energy_joule"] == pytest.approx(total) == pytest.approx(parts, rel=0.02)
    assert whole_result["seconds"] > result["seconds"]


@pytest.fixture(scope="module")
def interrupted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that can be resumed, to be copied and spoilt."""
    folder = tmp_path_factory.mktemp("interrupted")
    done = train(folder, "run", Fault("step", count=110, number=signal.SIGINT), **HOPPING)
    assert done.returncode == 130
    return folder / "run"


def _cut(path: Path, length: float) -> None:
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * length)])


def _edit(path: Path, **parts: Any) -> None:
    document = torch.load(path, weights_only=True)
    for name, value in parts.items():
        where = document if name in document else document["state"]
        if value is None:
            del where[name]
        else:
            where[name] = value
    torch.save(document, path)


def _state(run: Path) -> Path:
    (path,) = (run / "resume").glob("0*-rank0.pt")
    return path


NINE = {"hidden": [9]}
SPOILT = {
    "no folder": (shutil.rmtree, "nothing to resume"),
    "no pointer": (lambda run: (run / "resume" / "latest.json").unlink(), "latest.json is missing"),
    "empty pointer": (lambda run: (run / "resume" / "latest.json").write_text(""), "latest.json"),
    "foreign pointer": (lambda run: (run / "resume" / "latest.json").write_text('["x"]'), "latest.json"),
    "pointer without ranks": (lambda run: (run / "resume" / "latest.json").write_text('{"step": 109}'), "resume"),
    "pointer to nothing": (
        lambda run: (run / "resume" / "latest.json").write_text('{"step": 77, "ranks": 1}'), "000000000077-rank0.pt"
    ),
    "state missing": (lambda run: _state(run).unlink(), "rank0.pt' is missing"),
    "state empty": (lambda run: _cut(_state(run), 0), "rank0.pt"),
    "state cut": (lambda run: _cut(_state(run), 0.6), "rank0.pt"),
    "state foreign": (lambda run: torch.save({"weight": torch.zeros(2)}, _state(run)), "rank0.pt"),
    "state a policy": (lambda run: shutil.copy(run / "checkpoints" / "last.pt", _state(run)), "rank0.pt"),
    "state newer": (lambda run: _edit(_state(run), version=9), "version 9"),
    "state without settings": (lambda run: _edit(_state(run), settings=None), "settings"),
    "state of unknown settings": (lambda run: _edit(_state(run), settings='{"gama": 1}'), "gama"),
    "state without state": (lambda run: _edit(_state(run), state=None), "state"),
    "state without agent": (lambda run: _edit(_state(run), agent=None), "agent"),
    "state without returns": (lambda run: _edit(_state(run), last=None), "state"),
    "state at no step": (lambda run: _edit(_state(run), step="soon"), "state"),
    "state without draws": (lambda run: _edit(_state(run), draws=None), "draws"),
    "state of other networks": (
        lambda run: _edit(_state(run), settings=json.dumps(json.loads(torch.load(_state(run))["settings"]) | NINE)),
        "misshapen",
    ),
    "metrics cut": (lambda run: _cut(run / "metrics.csv", 0.5), "metrics.csv"),
    "replay missing": (lambda run: (run / "resume" / "replay-rank0.bin").unlink(), "replay-rank0.bin"),
    "manifest spoilt": (lambda run: (run / "manifest-resumed.json").write_text("[1"), "manifest-resumed.json"),
    "replay cut": (lambda run: _cut(run / "resume" / "replay-rank0.bin", 0.2), "replay-rank0.bin"),
}  # fmt: skip


@pytest.mark.parametrize("case", SPOILT)
def test_what_cannot_be_resumed_is_one_line_and_stays_as_it_is(tmp_path: Path, interrupted: Path, case: str) -> None:
    spoil, message = SPOILT[case]
    shutil.copytree(interrupted, tmp_path / "run")
    spoil(tmp_path / "run")
    error, _ = error_of(resume(tmp_path, "run"))
    assert message in error
    if case != "no folder":
        assert (tmp_path / "run" / "checkpoints" / "last.pt").is_file()


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


def test_only_the_end_of_a_run_and_its_threads_may_change_when_it_goes_on(tmp_path: Path, interrupted: Path) -> None:
    flags = {
        "seed": ["--seed", "3"], "env": ["--env", "Ant-v5"], "seeds": ["--seeds", "2"], "num-envs": ["--num-envs", "2"],
        "set gamma": ["--set", "gamma=0.9"], "out": ["--out", "x"], "force": ["--force"],
        "device": ["--device", "cuda"],
        "config": ["--config", "c.toml"], "recipe": ["--recipe", "inverted-pendulum"], "bf16": ["--bf16"],
        "compile": ["--compile"], "dist-backend": ["--dist-backend", "gloo"],
    }  # fmt: skip
    for name, arguments in flags.items():
        error, hint = error_of(spikerl(["train", "--resume", str(interrupted), *arguments], tmp_path))
        assert f"--{name} cannot change when a run goes on" in error
        assert "--steps" in hint
    error, hint = error_of(spikerl(["train", "--resume", str(interrupted), "--ranks", "2"], tmp_path))
    assert "--ranks 2" in error and "trained with 1" in error
    assert not (tmp_path / "x").exists()
    plan = succeeded(
        spikerl(["train", "--resume", str(interrupted), "--steps", "999", "--dry-run", "--format", "json"], tmp_path)
    )
    planned = json.loads(plan.stdout)
    assert (planned["settings"]["steps"], planned["settings"]["buffer_size"]) == (999, 100)
    assert planned["run"] == str(interrupted)
    threads = ["--set", "threads=2", "--set", "steps=300", "--dry-run"]
    plan = succeeded(spikerl(["train", "--resume", str(interrupted), *threads], tmp_path))
    assert "threads = 2" in plan.stdout and "steps = 300" in plan.stdout
    same = ["--set", "gamma=0.99", "--env", HOPPER, "--steps", "480", "--dry-run"]
    assert succeeded(spikerl(["train", "--resume", str(interrupted), *same], tmp_path)).stdout
    error, _ = error_of(spikerl(["train", "--resume", str(interrupted), "--set", "threads=0"], tmp_path))
    assert "threads" in error and "must be positive" in error
