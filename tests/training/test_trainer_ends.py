"""Every way in which a run may not start, or may end: folders, signals, full disks, numbers that are not finite."""

from __future__ import annotations

import glob
import json
import math
import os
import re
import signal
import time
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import psutil
import pytest
from support import run_here
from training_support import (
    HOPPER,
    Child,
    Fault,
    assert_same_run,
    error_of,
    go_on,
    installed,
    metrics_of,
    pointer_of,
    rows_of,
    saved_numbers,
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
from training.checkpoint import load_checkpoint, policy_of
from training.compare_runs import compare_document
from training.run_document import run_document
from training.run_reader import read_run
from training.settings import Settings
from training.signals import interrupts
from training.trainer import Trainer

SHORT: dict[str, Any] = {"steps": 20, "eval_every": 20, "eval_episodes": 1}


def test_a_run_folder_is_not_overwritten_unless_forced(tmp_path: Path) -> None:
    settings, folder = tiny(**SHORT), tmp_path / "run"
    Trainer(settings, folder, quiet=True).run()
    (folder / "notes.txt").write_text("mine")
    with pytest.raises(SpikerlError, match=str(folder)) as error:
        Trainer(settings, folder, quiet=True)
    assert f"--resume {folder}" in (error.value.hint or "")
    assert (folder / "notes.txt").exists()
    Trainer(tiny(steps=30, eval_every=30), folder, force=True, quiet=True).run()
    assert not (folder / "notes.txt").exists()
    assert json.loads((folder / "result.json").read_text())["steps"] == 30
    assert pointer_of(folder) == {"step": 30, "ranks": 1}
    assert len(list((folder / "resume").glob("*.pt"))) == 1


@pytest.mark.parametrize("files", [["thesis.txt"], ["config.toml", "content/post.md"], ["manifest.json"]])
def test_force_does_not_delete_a_folder_that_is_no_run(tmp_path: Path, files: list[str]) -> None:
    for name in files:  # other tools have a config.toml, too
        path = tmp_path / "folder" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text('title = "My site"\n')
    with pytest.raises(SpikerlError, match="folder"):
        Trainer(tiny(), tmp_path / "folder", force=True, quiet=True)
    assert all((tmp_path / "folder" / name).is_file() for name in files)


def test_force_does_not_replace_a_file(tmp_path: Path) -> None:
    (tmp_path / "run").write_text("mine")
    with pytest.raises(SpikerlError, match="run"):
        Trainer(tiny(), tmp_path / "run", force=True, quiet=True)
    assert (tmp_path / "run").read_text() == "mine"


def test_an_empty_folder_is_used(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    assert Trainer(tiny(**SHORT), tmp_path / "run", quiet=True).run().steps == 20


@pytest.mark.parametrize("folder", ["file/run", "file/deep/run", "/proc/run"])
def test_a_folder_that_cannot_be_written_is_found_before_any_work(tmp_path: Path, folder: str) -> None:
    (tmp_path / "file").write_text("mine")
    with pytest.raises(SpikerlError, match="cannot write run folder") as error:
        Trainer(tiny(**SHORT), tmp_path / folder, quiet=True).run()
    assert "--out" in (error.value.hint or "")
    assert (tmp_path / "file").read_text() == "mine"


UNSTARTED = [
    ({"env": "NoSuch-v5"}, "NoSuch-v5"),
    ({"carbon": True, "country": "Atlantis"}, "Atlantis"),
    ({"hidden": (3_000_000, 3_000_000)}, "not enough memory"),
    ({"steps": 10**15, "buffer_size": 10**14}, "cannot reserve .* for the replay buffer"),
    ({"steps": 10**15, "buffer_size": 10**14, "save_replay": False}, "not enough memory"),
]


@pytest.mark.parametrize(("settings", "message"), UNSTARTED)
def test_a_run_that_cannot_start_leaves_nothing_to_force_away(
    tmp_path: Path, settings: dict[str, Any], message: str
) -> None:
    with pytest.raises(SpikerlError, match=message):
        Trainer(tiny(**SHORT | settings), tmp_path / "run", quiet=True).run()
    assert not [path for path in (tmp_path / "run").rglob("*") if path.is_file()]
    assert Trainer(tiny(**SHORT), tmp_path / "run", quiet=True).run().steps == 20


@pytest.mark.parametrize(("settings", "message"), UNSTARTED[:3])  # a buffer is reserved once the earlier one is gone
def test_a_run_that_cannot_start_spares_the_one_that_it_was_to_replace(
    tmp_path: Path, settings: dict[str, Any], message: str
) -> None:
    folder = tmp_path / "run"
    Trainer(tiny(**SHORT), folder, quiet=True).run()
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    with pytest.raises(SpikerlError, match=message):
        Trainer(tiny(**SHORT | settings), folder, force=True, quiet=True).run()
    assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before


@pytest.mark.parametrize("kind", [["--actor", "mlp"], ["--set", "readout=membrane"]])
def test_a_run_that_no_chip_can_take_over_is_a_run_and_its_end_does_not_speak_of_exporting(
    tmp_path: Path, kind: list[str]
) -> None:
    run = tmp_path / "run"
    done = succeeded(run_here("train", "--out", str(run), *kind, *sets(steps=40, eval_every=20)))
    assert "run folder" in done.stdout and "spikerl export" not in done.stderr
    assert f"its learning curve: spikerl report {run} -o report" in done.stderr
    error, hint = error_of(run_here("export", str(run), "-o", str(tmp_path / "p.nir")))
    assert "no spikes to export" in error or "do not spike" in error
    assert "spikerl report" in hint and not (tmp_path / "p.nir").exists()
    read = read_run(run)
    assert (read.steps, read.finished, len(read.evaluations)) == (40, True, 2)
    assert run_document(read)["best_return"] == max(point.mean_return for point in read.evaluations)
    assert compare_document(read, read)


def test_stop_return_ends_the_run_at_the_first_evaluation_that_reaches_it(tmp_path: Path) -> None:
    # the two evaluation environments' first episodes return 10, their second and third ones 28
    settings = tiny(env="Clock-v0", eval_every=50)
    assert Trainer(Settings(**vars(settings) | {"stop_return": 28.0}), tmp_path / "a", quiet=True).run().steps == 100
    result = Trainer(Settings(**vars(settings) | {"stop_return": 10.0}), tmp_path / "b", quiet=True).run()
    assert (result.steps, result.stopped, result.final_return) == (50, "stop_return", 10.0)
    assert pointer_of(tmp_path / "b")["step"] == 50
    result = Trainer(Settings(**vars(settings) | {"stop_return": 28.5}), tmp_path / "c", quiet=True).run()
    assert (result.steps, result.stopped, result.best_return) == (400, "steps", 28.0)


def test_a_run_stops_for_its_return_when_the_worst_of_its_seeds_reaches_it(tmp_path: Path) -> None:
    settings = {"env": "Echo-v0", "seeds": 3, "eval_every": 20, "steps": 20, "eval_episodes": 1}
    probe = Trainer(tiny(**settings), tmp_path / "probe", quiet=True).run()
    worst, mean = min(own[2] for own in probe.per_seed), probe.final_return
    assert worst < mean - 0.1
    for name, wanted, stopped in (("a", (worst + mean) / 2, "steps"), ("b", worst - 0.1, "stop_return")):
        result = Trainer(tiny(**settings, stop_return=wanted), tmp_path / name, quiet=True).run()
        assert (result.stopped, result.final_return) == (stopped, mean)


def test_best_stays_at_the_best_evaluation_and_last_goes_on(tmp_path: Path) -> None:
    folder = tmp_path / "run"  # evaluations at 50, 100, 150, 200: 10, 28, 28, 10
    result = Trainer(tiny(env="Clock-v0", eval_every=50, steps=200), folder, quiet=True).run()
    best, last = (load_checkpoint(folder / "checkpoints" / f"{name}.pt")["progress"] for name in ("best", "last"))
    assert (best["step"], best["eval_return"]) == (100, 28.0)
    assert (last["step"], last["eval_return"]) == (200, 10.0)
    assert (result.best_return, result.final_return) == (28.0, 10.0)


def test_who_looks_at_the_evaluations_may_end_the_run(tmp_path: Path) -> None:
    seen: list[tuple[int, float]] = []

    def look(step: int, value: float) -> bool:
        seen.append((step, value))
        return step >= 100

    result = Trainer(tiny(env="Clock-v0", eval_every=50), tmp_path / "run", quiet=True, on_evaluation=look).run()
    assert (result.stopped, result.steps) == ("pruned", 100)
    assert seen == [(50, 10.0), (100, 28.0)]
    assert pointer_of(tmp_path / "run")["step"] == 100


def descendants() -> set[psutil.Process]:
    return set(psutil.Process().children(recursive=True))


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_real_command_that_is_told_to_end_saves_and_says_how_to_go_on(tmp_path: Path, number: signal.Signals) -> None:
    folder, before = tmp_path / "run", descendants()
    workers = "true" if number == signal.SIGTERM else "false"
    arguments = sets(
        env=HOPPER, steps=10_000_000, start_steps=10, eval_every=500, env_workers=workers, eval_episodes=1,
        compile="off", buffer_size=10_000,
    )  # fmt: skip
    with installed("train", "--out", str(folder), *arguments, cwd=tmp_path) as process:
        wait_for_step(folder, 500, lambda: process.poll() is None)
        process.send_signal(number)
        out, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    result = json.loads((folder / "result.json").read_text())
    assert result["stopped"] == "interrupted" and result["steps"] % 500, "it went on to the next evaluation"
    assert f"interrupted at step {result['steps']}; go on with: spikerl train --resume {folder}" in err
    assert "Traceback" not in err and "(interrupted)" in out
    assert pointer_of(folder)["step"] == result["steps"]
    assert load_checkpoint(folder / "checkpoints" / "last.pt")["progress"]["step"] == result["steps"]
    assert policy_of(folder / "checkpoints" / "last.pt").closed_loop_ready
    _, alive = psutil.wait_procs(descendants() - before, timeout=5)
    assert not alive


def test_signals_that_follow_at_once_are_the_same_wish_and_the_run_saves(tmp_path: Path) -> None:
    settings = {
        "env": HOPPER, "steps": 10_000_000, "start_steps": 10, "eval_every": 200, "eval_episodes": 1,
        "compile": "off", "buffer_size": 10_000,
    }  # fmt: skip
    child = Child(["train", "--out", str(tmp_path / "run"), *sets(**settings)], tmp_path / "log")
    wait_for_step(tmp_path / "run", 200, child.process.is_alive)
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGTERM):
        os.kill(child.process.pid or 0, number)
        time.sleep(0.002)
    done = child.wait()
    assert done.returncode == 130 and "Traceback" not in done.stderr, done
    assert json.loads((tmp_path / "run" / "result.json").read_text())["stopped"] == "interrupted"
    assert state_of(tmp_path / "run")["state"]["step"] == pointer_of(tmp_path / "run")["step"] >= 200


def test_signals_are_collected_a_late_ctrl_c_ends_and_the_handlers_come_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("training.signals.IMPATIENT_S", 0.2)
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    with pytest.raises(KeyboardInterrupt):
        with interrupts() as seen:
            for number in (signal.SIGTERM, signal.SIGINT, signal.SIGTERM):
                os.kill(os.getpid(), number)
                time.sleep(0.01)
            time.sleep(0.3)
            os.kill(os.getpid(), signal.SIGTERM)  # may be a launcher's once more
            time.sleep(0.01)
            assert seen == [signal.SIGTERM, signal.SIGINT, signal.SIGTERM, signal.SIGTERM]
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(0.5)
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == before


def test_a_signal_to_a_run_within_a_sweep_is_one_to_the_sweep() -> None:
    with interrupts() as sweeps:
        with interrupts() as runs:
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(0.01)
        assert runs == sweeps == [signal.SIGTERM]
    with interrupts() as later:
        assert later == []


DISK: dict[str, Any] = {
    "env": HOPPER, "steps": 150, "start_steps": 10, "eval_every": 50, "checkpoint_every": 50, "eval_episodes": 1,
}  # fmt: skip


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("undisturbed") / "run"
    Trainer(tiny(**DISK), folder, quiet=True).run()
    return folder


@pytest.mark.parametrize(
    ("fault", "step"),
    [
        (Fault("step", "metrics.csv", 80, full=0), 50),  # the disk is full under one open file
        (Fault("step", count=80, full=0), 50),  # under all
        (Fault("flush", "replay-rank0.bin", 3, number=signal.SIGCONT), 50),
        (Fault("write", ".0*-rank0.pt.*", 3, full=1000), 50),
        pytest.param(Fault("step", count=80, full=4096), 50, marks=soak),
        pytest.param(Fault("write", ".last.pt.*", 3, full=1000), 50, marks=soak),
        (Fault("write", ".best.pt.*", 1, full=1000), 0),
    ],
    ids=lambda value: f"{value.at}-{value.name}-{value.full}" if isinstance(value, Fault) else "",
)
def test_a_full_disk_is_one_line_that_says_how_to_go_on_from_the_state_before(
    tmp_path: Path, undisturbed: Path, fault: Fault, step: int
) -> None:
    error, hint = error_of(train(tmp_path, "run", fault, **DISK))
    assert "cannot write" in error
    assert f"spikerl train --resume {tmp_path / 'run'}" in hint
    assert pointer_of(tmp_path / "run")["step"] == step
    go_on(tmp_path / "run")
    assert_same_run(tmp_path / "run", undisturbed)


def test_a_disk_that_is_full_before_the_first_state_promises_no_resuming(tmp_path: Path) -> None:
    error, hint = error_of(train(tmp_path, "run", Fault("write", ".0*-rank0.pt.*", 1, full=1000), **DISK))
    assert "cannot write" in error
    assert "--resume" not in hint
    succeeded(spikerl(["train", "--out", str(tmp_path / "run"), "--force", *sets(**DISK | {"steps": 20})], tmp_path))


def test_a_full_disk_under_the_events_is_one_line_too(tmp_path: Path) -> None:
    fault = Fault("step", "events.out*", 60, full=0)
    done = train(
        tmp_path, "run", fault, **DISK | {"tensorboard": True, "steps": 1200, "eval_every": 100, "start_steps": 1200}
    )
    assert done.returncode in (0, 2)
    assert "Traceback" not in done.stderr, done.stderr
    if done.returncode == 2:
        error_of(done)


def test_no_space_for_the_replay_buffer_is_said_with_ways_out(tmp_path: Path) -> None:
    settings = DISK | {"steps": 10**15, "buffer_size": 10**14}
    error, hint = error_of(train(tmp_path, "run", **settings))
    assert "cannot reserve" in error and "replay-rank0.bin" in error
    assert "--set buffer_size=" in hint and "--set save_replay=false" in hint


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        ("observation", r"'Clock-v0' gave observation\[0\] = nan at step 30 \(environment 0, rank 0\)"),
        ("reward", r"'Clock-v0' gave reward = nan at step 30 \(environment 0, rank 0\)"),
        ("reset", r"'Clock-v0' gave observation\[0\] = nan at step 11 \(environment 0, rank 0\)"),
    ],
)
def test_a_value_of_the_environment_that_is_not_finite_stops_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, bad: str, message: str
) -> None:
    monkeypatch.setitem(gymnasium.registry["Clock-v0"].kwargs, "bad", bad)
    settings = tiny(env="Clock-v0", eval_every=400, eval_episodes=1, checkpoint_every=10)
    trainer = Trainer(settings, tmp_path / "run", quiet=True)
    with pytest.raises(SpikerlError, match=message) as error:
        trainer.run()
    assert str(tmp_path / "run" / "checkpoints" / "last.pt") in (error.value.hint or "")
    assert np.isfinite(trainer.normalizer.mean).all()
    assert np.isfinite(rows_of(trainer)).all()
    assert pointer_of(tmp_path / "run")["step"] == (10 if bad == "reset" else 20)
    assert not [name for name, value in saved_numbers(tmp_path / "run") if not math.isfinite(value)]


@pytest.mark.parametrize(
    ("bad", "message", "saved"),
    [
        ("raises", r"'Clock-v0' failed at step 30 \(rank 0\): RuntimeError: out of fuel", 20),
        ("raises at reset", r"'Clock-v0' failed at step 11 \(rank 0\): KeyError: .*no.*licence", 10),
    ],
)
def test_whatever_an_environment_raises_ends_the_run_with_one_line_and_it_can_go_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, bad: str, message: str, saved: int
) -> None:
    settings, folder = tiny(env="Clock-v0", eval_every=400, eval_episodes=1, checkpoint_every=10), tmp_path / "run"
    with monkeypatch.context() as patch:
        patch.setitem(gymnasium.registry["Clock-v0"].kwargs, "bad", bad)
        with pytest.raises(SpikerlError, match=message) as error:
            Trainer(settings, folder, quiet=True).run()
    assert "\n" not in error.value.message
    assert f"spikerl train --resume {folder}" in (error.value.hint or "")
    assert pointer_of(folder)["step"] == saved


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        ("raises", "'Clock-v0' failed in the evaluation's episode of seed 10001: RuntimeError: out of fuel"),
        ("raises at reset", "'Clock-v0' failed in the evaluation's episode of seed 10001: KeyError: "),
        ("reward", "a reward that is not finite in the evaluation's episode of seed 10001"),
        ("observation", "a reward that is not finite in the evaluation's episode of seed 10001"),
    ],
)
def test_an_environment_that_fails_in_an_evaluation_names_the_seed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, bad: str, message: str
) -> None:
    trainer = Trainer(tiny(env="Clock-v0", eval_episodes=2), tmp_path / "run", quiet=True)
    monkeypatch.setattr(trainer.evaluator._envs[0][1].unwrapped, "bad", bad)
    with pytest.raises(SpikerlError, match=message):
        for _ in range(9):  # nine times the episodes of 4, 7 or 99 steps
            trainer.evaluator(trainer.evaluated_actions)


@pytest.mark.parametrize(("seeds", "steps"), [(1, 150), (1, 400), (1, 2_000), (2, 400)])
def test_a_gradient_that_is_not_finite_stops_the_run_and_spares_the_last_good_checkpoint(
    tmp_path: Path, seeds: int, steps: int
) -> None:
    folder = tmp_path / "run"  # the critics overflow soon after step 100; evaluations at 60, 120, 180, ...
    settings = tiny(env="Clock-v0", steps=steps, update_after=100, eval_every=60, critic_lr=1e30, seeds=seeds)
    with pytest.raises(
        SpikerlError, match=r"gradient of critic\.\S+ is not finite at update \d+, found at step 1"
    ) as e:
        Trainer(settings, folder, quiet=True).run()
    checkpoints = sorted(folder.rglob("last.pt"))
    assert len(checkpoints) == seeds
    named = re.search(r"\S+last\.pt", e.value.hint or "")
    assert named is not None and set(glob.glob(named[0])) & set(map(str, checkpoints)), e.value.hint  # noqa: PTH207
    for path in checkpoints:
        assert policy_of(path).closed_loop_ready
    assert not [name for name, value in saved_numbers(folder) if not math.isfinite(value)]
    steps_seen = [int(row["step"]) for row in metrics_of(checkpoints[0].parent.parent)]
    assert max(steps_seen) < 200


def test_a_gradient_of_the_actor_is_watched_too(tmp_path: Path) -> None:
    settings = tiny(env="Clock-v0", update_after=30, eval_every=20, actor_lr=1e38)
    with pytest.raises(SpikerlError, match=r"(actor|critic)\.\S+ is not finite"):
        Trainer(settings, tmp_path / "run", quiet=True).run()
    assert not [name for name, value in saved_numbers(tmp_path / "run") if not math.isfinite(value)]


def test_a_parameter_that_overflows_by_a_finite_gradient_is_not_saved(tmp_path: Path) -> None:
    # one update, with which all is evaluated and saved before there is another gradient to look at
    settings = tiny(env="Clock-v0", update_after=60, eval_every=60, checkpoint_every=30, actor_lr=1e39, critic_lr=1e39)
    with pytest.raises(SpikerlError, match="is not finite at step 60"):
        Trainer(settings, tmp_path / "run", quiet=True).run()
    assert pointer_of(tmp_path / "run")["step"] == 30
    assert not [name for name, value in saved_numbers(tmp_path / "run") if not math.isfinite(value)]


def test_a_fault_found_by_the_command_is_one_line_and_the_run_can_be_looked_at(tmp_path: Path) -> None:
    done = train(tmp_path, "run", env="Clock-v0", update_after=100, eval_every=60, critic_lr=1e30)
    error, hint = error_of(done)
    assert "not finite at update" in error and "last.pt" in hint
    assert (tmp_path / "run" / "emissions.json").is_file()
    exported = spikerl(["export", str(tmp_path / "run"), "-o", str(tmp_path / "p.nir")], tmp_path / "log")
    succeeded(exported)
