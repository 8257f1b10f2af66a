"""What cannot go on, and what may not change when a run goes on: one line, and the run stays as it is."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from resume_support import cut, edit_state, state_file
from training_support import (
    HOPPER,
    error_of,
    go_on,
    resume,
    spikerl,
    succeeded,
)

from spikerl_deploy.errors import SpikerlError


def _with_other_networks(path: Path) -> str:
    settings = json.loads(torch.load(path, weights_only=True)["settings"])
    return json.dumps(settings | {"hidden": [9]})


SPOILT = {
    "no folder": (shutil.rmtree, "nothing to resume"),
    "no pointer": (lambda run: (run / "resume" / "latest.json").unlink(), "latest.json is missing"),
    "empty pointer": (lambda run: (run / "resume" / "latest.json").write_text(""), "latest.json"),
    "foreign pointer": (lambda run: (run / "resume" / "latest.json").write_text('["x"]'), "latest.json"),
    "pointer without ranks": (lambda run: (run / "resume" / "latest.json").write_text('{"step": 109}'), "resume"),
    "pointer to nothing": (
        lambda run: (run / "resume" / "latest.json").write_text('{"step": 77, "ranks": 1}'), "000000000077-rank0.pt"
    ),
    "state missing": (lambda run: state_file(run).unlink(), "rank0.pt' is missing"),
    "state empty": (lambda run: cut(state_file(run), 0), "rank0.pt"),
    "state cut": (lambda run: cut(state_file(run), 0.6), "rank0.pt"),
    "state foreign": (lambda run: torch.save({"weight": torch.zeros(2)}, state_file(run)), "rank0.pt"),
    "state a policy": (lambda run: shutil.copy(run / "checkpoints" / "last.pt", state_file(run)), "rank0.pt"),
    "state newer": (lambda run: edit_state(state_file(run), version=9), "version 9"),
    "state without settings": (lambda run: edit_state(state_file(run), settings=None), "settings"),
    "state of unknown settings": (lambda run: edit_state(state_file(run), settings='{"gama": 1}'), "gama"),
    "state without state": (lambda run: edit_state(state_file(run), state=None), "state"),
    "state without agent": (lambda run: edit_state(state_file(run), agent=None), "agent"),
    "state without returns": (lambda run: edit_state(state_file(run), last=None), "state"),
    "state at no step": (lambda run: edit_state(state_file(run), step="soon"), "state"),
    "state without draws": (lambda run: edit_state(state_file(run), draws=None), "draws"),
    "state of other networks": (
        lambda run: edit_state(state_file(run), settings=_with_other_networks(state_file(run))),
        "misshapen",
    ),
    "metrics cut": (lambda run: cut(run / "metrics.csv", 0.5), "metrics.csv"),
    "replay missing": (lambda run: (run / "resume" / "replay-rank0.bin").unlink(), "replay-rank0.bin"),
    "manifest spoilt": (lambda run: (run / "manifest-resumed.json").write_text("[1"), "manifest-resumed.json"),
    "replay cut": (lambda run: cut(run / "resume" / "replay-rank0.bin", 0.2), "replay-rank0.bin"),
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


def test_only_the_end_of_a_run_and_its_threads_may_change_when_it_goes_on(tmp_path: Path, interrupted: Path) -> None:
    interrupted = Path(shutil.copytree(interrupted, tmp_path / "run"))
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
