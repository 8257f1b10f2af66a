"""Processes around a run: workers that die, launchers that are killed, two that want one folder."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest
import torch
from training_support import HOPPER, TINY, metrics_of, pointer_of, sets, tiny, wait_for_step

from spikerl_deploy.errors import SpikerlError
from training.run_state import restore
from training.settings import MAX_THREADS, Settings
from training.trainer import Trainer

ENDLESS = {
    "env": HOPPER, "steps": 10_000_000, "start_steps": 10, "eval_every": 200, "eval_episodes": 1, "compile": "off",
    "buffer_size": 10_000, "num_envs": 2,
}  # fmt: skip


def start(folder: Path, *arguments: str, **settings: object) -> subprocess.Popen[str]:
    """A real command in a process group of its own."""
    command = [sys.executable, "-m", "spikerl_deploy", "train", "--out", str(folder), *arguments]
    return subprocess.Popen(
        [*command, *sets(**ENDLESS | settings)], cwd=folder.parent, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        text=True, start_new_session=True,
    )  # fmt: skip


def until(holds: Callable[[], bool], seconds: float = 30) -> bool:
    deadline = time.monotonic() + seconds
    while not holds() and time.monotonic() < deadline:
        time.sleep(0.05)
    return holds()


def test_a_signal_to_the_whole_group_leaves_the_workers_to_the_trainer_which_saves(tmp_path: Path) -> None:
    run = tmp_path / "run"
    process = start(run, env_workers=True)
    wait_for_step(run, 200, lambda: process.poll() is None)
    family = psutil.Process(process.pid).children(recursive=True)
    os.killpg(process.pid, signal.SIGTERM)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130 and "go on with: spikerl train --resume" in err, err
    assert f"interrupted at step {pointer_of(run)['step']};" in err
    assert not psutil.wait_procs(family, timeout=10)[1]


def test_a_worker_that_dies_ends_the_run_with_one_line_and_the_state_stays(tmp_path: Path) -> None:
    run = tmp_path / "run"
    process = start(run, env_workers=True)
    wait_for_step(run, 200, lambda: process.poll() is None)
    family = psutil.Process(process.pid).children(recursive=True)
    worker = next(
        child
        for child in family
        if any("forkserver" in part for part in child.cmdline()) and child.ppid() != process.pid
    )
    worker.kill()
    _, err = process.communicate(timeout=60)
    assert process.returncode == 2 and "Traceback" not in err, err
    assert f"Error: a worker process of '{HOPPER}' has ended" in err
    assert pointer_of(run)["step"] >= 200
    assert not psutil.wait_procs(family, timeout=10)[1]


def test_ranks_do_not_outlive_a_launcher_that_is_killed(tmp_path: Path) -> None:
    run = tmp_path / "run"
    process = start(run, "--ranks", "2")
    wait_for_step(run, 200, lambda: process.poll() is None)
    ranks = psutil.Process(process.pid).children()
    assert len(ranks) == 2
    process.kill()
    process.communicate()
    assert not psutil.wait_procs(ranks, timeout=30)[1]
    assert pointer_of(run)["ranks"] == 2


def test_one_run_is_trained_by_one_process_at_a_time(tmp_path: Path) -> None:
    run = tmp_path / "run"
    process = start(run)
    try:
        wait_for_step(run, 200, lambda: process.poll() is None)
        for again in ({"resume": True}, {"force": True}):
            with pytest.raises(SpikerlError, match="is being trained by another process"):
                Trainer(Settings(**TINY | ENDLESS), run, quiet=True, **again).run()
        step = pointer_of(run)["step"]
        assert until(lambda: pointer_of(run)["step"] > step), "the first run was disturbed"
    finally:
        process.kill()
        process.communicate()
    assert metrics_of(run)


def test_force_leaves_files_alone_that_only_look_like_a_run(tmp_path: Path) -> None:
    for name in ("checkpoints/model.ckpt", "resume/notes.txt"):
        path = tmp_path / "precious" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("mine")
    with pytest.raises(SpikerlError, match="is no run folder"):
        Trainer(tiny(), tmp_path / "precious", force=True, quiet=True)
    assert (tmp_path / "precious" / "checkpoints" / "model.ckpt").read_text() == "mine"


def test_more_threads_than_any_machine_has_are_refused() -> None:
    with pytest.raises(SpikerlError, match=f"setting 'threads' = 100000 must be at most {MAX_THREADS}"):
        tiny(threads=100_000)


def test_a_run_of_another_device_is_not_resumed(tmp_path: Path) -> None:
    trainer = Trainer(tiny(), tmp_path / "run", quiet=True)
    with pytest.raises(SpikerlError, match="was trained on cuda, this is cpu"):
        restore(trainer, {"device": "cuda"})


def test_a_loss_that_is_not_finite_stops_the_run_though_its_gradient_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer = Trainer(tiny(env="Clock-v0", seeds=2), tmp_path / "run", quiet=True)
    take = trainer.envs.receive

    def receive():  # type: ignore[no-untyped-def]
        observations, rewards, terminated, truncated = take()
        if trainer.step == 150:
            rewards = rewards.copy()
            rewards[1] = 3e19  # its square overflows float32, the gradient of the mean square does not
        return observations, rewards, terminated, truncated

    monkeypatch.setattr(trainer.envs, "receive", receive)
    with pytest.raises(SpikerlError, match=r"critic_loss\[seed 1\] is not finite at update \d+"):
        trainer.run()


def test_a_run_leaves_the_floating_point_mode_of_its_process_as_it_was(tmp_path: Path) -> None:
    Trainer(tiny(steps=20, eval_every=20), tmp_path / "run", quiet=True).run()
    assert (torch.full((4,), 1e-30) * 1e-10 > 0).all(), "denormal numbers are flushed to zero"
