"""When a run counts as finished, whose energy it has, and what its manifests record."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from report_support import write_run

from spikerl_deploy.files import write_json
from training.run_reader import read_run


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A finished run of 2,000 steps a seed, with energy."""
    write_run(tmp_path / "run", 100.0, 500.0)
    return tmp_path / "run"


def set_steps(folder: Path, steps: int) -> None:
    text = (folder / "config.toml").read_text()
    (folder / "config.toml").write_text(text.replace("steps = 2000", f"steps = {steps}"))


def set_result(folder: Path, **changes: object) -> None:
    write_json(folder / "result.json", json.loads((folder / "result.json").read_text()) | changes)


def test_a_run_is_finished_when_it_did_all_that_its_settings_ask_for(folder: Path) -> None:
    run = read_run(folder)
    assert (run.finished, run.stopped, run.steps // run.seeds) == (True, "steps", 2000)
    assert run.energy is not None and run.energy.joule == 500.0


def test_a_run_that_was_given_more_steps_has_not_ended_and_has_no_energy_yet(folder: Path) -> None:
    set_steps(folder, 5000)
    run = read_run(folder)
    assert (run.finished, run.stopped, run.energy) == (False, None, None)
    assert run.steps // run.seeds == 2000


def test_a_run_that_reached_its_return_is_finished_before_its_steps(folder: Path) -> None:
    set_steps(folder, 5000)
    set_result(folder, stopped="stop_return")
    assert read_run(folder).finished
    set_result(folder, stopped="interrupted")
    run = read_run(folder)
    assert (run.finished, run.stopped) == (False, "interrupted")
    assert run.energy is not None  # it is of all that was done


def test_without_a_result_the_energy_is_of_an_earlier_stretch_and_left_out(folder: Path) -> None:
    (folder / "result.json").unlink()
    run = read_run(folder)
    assert (run.finished, run.stopped, run.energy) == (False, None, None)


def test_versions_that_a_run_was_resumed_with_are_said_where_they_differ(folder: Path) -> None:
    write_json(folder / "manifest.json", {"versions": {"torch": "2.6", "numpy": "2.3", "old": "1"}})
    assert read_run(folder).recorded("versions") == {"torch": "2.6", "numpy": "2.3", "old": "1"}
    assert read_run(folder).recorded("machine") == {}
    write_json(folder / "manifest-resumed.json", {"versions": {"torch": "2.7", "numpy": "2.3", "new": "3"}})
    assert read_run(folder).recorded("versions") == {
        "torch": "2.6, resumed with 2.7", "numpy": "2.3", "old": "1, resumed with none", "new": "none, resumed with 3",
    }  # fmt: skip
    stretches = [{"versions": {"torch": version}} for version in ("2.6", "2.7", "2.7", "2.6")]
    write_json(folder / "manifest.json", stretches[0])
    write_json(folder / "manifest-resumed.json", stretches[3] | {"earlier": stretches[1:3]})
    assert read_run(folder).recorded("versions") == {"torch": "2.6, resumed with 2.7, resumed with 2.6"}
