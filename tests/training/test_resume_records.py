"""What a run's files say of its end, of its stretches and of their energy, before, while and after it goes on."""

from __future__ import annotations

import json
import os
import shutil
import signal
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from resume_support import HOPPING, cut
from training_support import (
    Fault,
    assert_same_run,
    error_of,
    go_on,
    resume,
    succeeded,
    tiny,
    train,
)

from spikerl_deploy.processor import processor
from training.resume import read_settings
from training.run_manifest import trainer_code, write_manifest
from training.run_reader import read_run
from training.trainer import Trainer


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
    cut(spoilt, 0.2)
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
        write_manifest(tmp_path, tiny(threads=threads), resumed_at=step)
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
