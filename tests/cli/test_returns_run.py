"""A run folder as an entry of returns.json, against what was written into its files."""

from __future__ import annotations

import csv
import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from returns_support import EVERY, emissions, noisy_curve, write_run

from benchmarks.returns_docs import runs_table
from benchmarks.returns_document import SCHEMA, check, text
from benchmarks.returns_run import read_entry
from spikerl_deploy.errors import SpikerlError


def read(folder: Path, **fields: Any) -> dict[str, Any]:
    """The entry of a Hopper run, checked."""
    wanted: dict[str, Any] = {"task": "hopper", "group": "search", "label": "x", "note": "y", "against": None} | fields
    entry = read_entry(folder, **wanted)
    check({"schema": SCHEMA, "runs": [entry]}, "the test's")
    return entry


def returns_of(folder: Path) -> np.ndarray:
    """[evaluations, 2]: step and mean return, read from metrics.csv on its own."""
    with (folder / "metrics.csv").open() as stream:
        rows = list(csv.DictReader(stream))
    return np.array([(int(row["step"]), float(row["value"])) for row in rows if row["name"] == "return_mean"])


def test_maximum_final_and_the_last_ten_are_those_of_metrics_csv(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", {3: noisy_curve(100, 3000.0)}, "steps")
    entry = read(run)
    (seed,) = entry["seeds"]
    table = returns_of(run)
    assert seed["seed"] == 3
    assert seed["maximum"] == pytest.approx(table[:, 1].max(), abs=0.005)
    assert seed["maximum_step"] == table[table[:, 1].argmax(), 0]
    assert seed["final"] == pytest.approx(table[-1, 1], abs=0.005)
    assert seed["last_ten"] == pytest.approx(table[-10:, 1].mean(), abs=0.005)
    assert np.allclose(np.array(seed["curve"])[:, :2], table, atol=0.005)
    assert seed["metrics"]["sha256"] == hashlib.sha256((run / "metrics.csv").read_bytes()).hexdigest()
    assert (entry["status"], entry["steps_done"], entry["steps_asked"]) == ("steps", 1_000_000, 1_000_000)
    assert entry["energy"] == {"joule": 3000, "kind": "modelled", "source": "CodeCarbon 3, offline"}
    assert entry["carbon"]["kg_co2eq"] == 0.0005 and "400 g CO2eq/kWh" in entry["carbon"]["intensity"]
    assert entry["machine"] == {"processor": "A Processor", "gpu": None, "threads": 1, "ranks": 1}


def test_the_spread_is_over_the_episodes_of_each_evaluation(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", {0: [(1.0, 0.25), (5.0, 2.004), (3.0, 0.0)]})
    assert read(run)["seeds"][0]["curve"] == [[EVERY, 1.0, 0.25], [2 * EVERY, 5.0, 2.0], [3 * EVERY, 3.0, 0.0]]


def test_the_first_of_equal_maxima_gives_the_step(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", {0: [(1.0, 0.0), (7.0, 0.0), (7.0, 0.0)]})
    assert read(run)["seeds"][0]["maximum_step"] == 2 * EVERY


def test_a_run_that_goes_on_is_unfinished_and_tells_no_energy_of_an_earlier_stretch(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", {0: noisy_curve(5, 100.0)})
    (run / "emissions.json").write_text(json.dumps(emissions(100.0)))
    entry = read(run)
    assert (entry["status"], entry["steps_done"], entry["seconds"]) == ("unfinished", 5 * EVERY, 500.0)
    assert entry["energy"] is entry["carbon"] is entry["machine"]["processor"] is None


@pytest.mark.parametrize("cut", [1, 12, 60, 63])
def test_what_is_half_written_at_the_end_is_not_read(tmp_path: Path, cut: int) -> None:
    whole = write_run(tmp_path / "whole", {0: [(1.0, 0.5), (5.0, 0.5)]})
    run = write_run(tmp_path / "run", {0: [(1.0, 0.5), (5.0, 0.5), (8.5, 0.5)]})
    data = (run / "metrics.csv").read_bytes()
    (run / "metrics.csv").write_bytes(data[:-cut])  # within the return_std of the third, or its return_mean
    entry = read(run)
    assert entry["seeds"][0]["curve"] == read(whole)["seeds"][0]["curve"]
    hashed = entry["seeds"][0]["metrics"]
    assert hashlib.sha256(data[: hashed["bytes"]]).hexdigest() == hashed["sha256"] and hashed["bytes"] < len(data) - cut


def test_an_interrupted_run_is_unfinished_with_the_energy_that_it_took(tmp_path: Path) -> None:
    entry = read(write_run(tmp_path / "run", {0: noisy_curve(5, 100.0)}, "interrupted"))
    assert entry["status"] == "unfinished"
    assert entry["energy"]["joule"] == 3000 and entry["machine"]["processor"] == "A Processor"


def test_a_run_that_is_to_go_further_than_it_ended_is_unfinished(tmp_path: Path) -> None:
    assert read(write_run(tmp_path / "run", {0: noisy_curve(5, 100.0)}, "steps"))["status"] == "unfinished"


def test_a_run_that_reached_its_stop_return_is_finished(tmp_path: Path) -> None:
    entry = read(write_run(tmp_path / "run", {0: [(1.0, 0.0), (99.0, 0.0)]}, "stop_return", stop_return=90.0))
    assert (entry["status"], entry["steps_done"]) == ("stop_return", 2 * EVERY)


def test_seeds_trained_side_by_side_are_one_entry_cut_where_all_of_them_are(tmp_path: Path) -> None:
    curves = {9: noisy_curve(4, 10.0, 1), 10: noisy_curve(3, 20.0, 2), 11: noisy_curve(4, 30.0, 3)}
    entry = read(write_run(tmp_path / "run", curves))
    assert [seed["seed"] for seed in entry["seeds"]] == [9, 10, 11]  # seed-10 comes before seed-9 by name
    for seed in entry["seeds"]:
        assert [point[0] for point in seed["curve"]] == [EVERY, 2 * EVERY, 3 * EVERY]
        means = [mean for mean, _ in curves[seed["seed"]][:3]]
        assert seed["maximum"] == pytest.approx(max(means), abs=0.005)
        assert seed["last_ten"] == pytest.approx(np.mean(means), abs=0.005)


def test_only_settings_that_differ_from_the_defaults_are_kept(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", {4: [(1.0, 0.0)]}, bf16=True, hidden=(64, 32), eval_episodes=7, steps=500_000)
    entry = read(run)
    assert entry["settings"] == {"bf16": True, "hidden": [64, 32]}
    assert entry["evaluation"] == {"every": EVERY, "episodes": 7, "seed": 10_000}
    assert (entry["actor"], entry["env"], entry["steps_asked"]) == ("spiking", "Hopper-v5", 500_000)


def test_an_entry_holds_no_path_of_the_machine(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", {0: [(1.0, 0.0)]}, "interrupted")
    manifest = json.loads((run / "manifest.json").read_text()) | {"command": ["spikerl", "--out", str(run)]}
    (run / "manifest.json").write_text(json.dumps(manifest))
    assert str(tmp_path) not in text({"schema": SCHEMA, "runs": [read(run)]})


def test_versions_that_differ_after_resuming_are_both_told(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", {0: [(1.0, 0.0)]})
    manifest = json.loads((run / "manifest.json").read_text())
    resumed = {**manifest, "versions": manifest["versions"] | {"torch": "2.1"}}
    (run / "manifest-resumed.json").write_text(json.dumps(resumed))
    versions = read(run)["versions"]
    assert "2.0" in versions["torch"] and "2.1" in versions["torch"] and versions["mujoco"] == "3.0"


def test_threads_that_a_run_was_resumed_with_are_told_beside_the_first(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", {0: [(1.0, 0.0)]}, threads=2)
    assert read(run)["machine"]["threads"] == 2  # of before manifests told
    manifest = json.loads((run / "manifest.json").read_text())
    (run / "manifest.json").write_text(json.dumps(manifest | {"machine": {"threads": "1"}}))
    assert read(run)["machine"]["threads"] == 1
    (run / "manifest-resumed.json").write_text(json.dumps(manifest | {"machine": {"threads": "2"}}))
    entry = read(run)
    assert entry["machine"]["threads"] == "1, resumed with 2"
    check({"schema": SCHEMA, "runs": [entry]}, "it")
    assert "threads: 1, resumed with 2" in runs_table({"runs": [entry | {"group": "recipe"}]})


def spoil(run: Path, how: str) -> None:
    """Damage a run folder."""
    metrics = run / "metrics.csv"
    if how == "no metrics":
        metrics.unlink()
    elif how == "no settings":
        (run / "config.toml").unlink()
    elif how == "an unknown setting":
        (run / "config.toml").write_text((run / "config.toml").read_text() + "wings = 2\n")
    elif how == "no folder":
        shutil.rmtree(run)
    elif how == "a second seed missing":
        (run / "config.toml").write_text((run / "config.toml").read_text().replace("seeds = 1", "seeds = 2"))
    else:
        lines = metrics.read_text().splitlines(keepends=True)
        content = {
            "empty": "",
            "a heading alone": lines[0],
            "no evaluation": "".join(line for line in lines if ",eval," not in line),
            "no return_std": "".join(line for line in lines[:-1] if ",return_std," not in line) + lines[-1],
            "a return that is none": metrics.read_text().replace("return_mean,5.0", "return_mean,nan"),
        }[how]
        metrics.write_text(content)


@pytest.mark.parametrize(
    ("how", "told"),
    [
        ("no metrics", "metrics.csv is missing"),
        ("no settings", "config.toml is missing"),
        ("an unknown setting", "wings"),
        ("no folder", "metrics.csv is missing"),
        ("a second seed missing", "metrics of 1 seeds, its settings ask for 2"),
        ("empty", "0 steps"),
        ("a heading alone", "0 steps"),
        ("no evaluation", "has no evaluation yet"),
        ("no return_std", f"has no return_std at step {EVERY}"),
        ("a return that is none", "return_mean is nan"),
    ],
)
def test_a_folder_that_is_no_whole_run_is_refused_in_one_line_that_names_it(
    tmp_path: Path, how: str, told: str
) -> None:
    run = write_run(tmp_path / "run", {0: [(1.0, 0.5), (5.0, 0.5)]})
    spoil(run, how)
    with pytest.raises(SpikerlError) as caught:
        read(run)
    assert told in caught.value.message and str(run) in caught.value.message, caught.value.message
    assert "\n" not in caught.value.message and caught.value.message.count("/tmp/") <= 2


def test_reading_changes_nothing_in_the_folder(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", {0: noisy_curve(3, 5.0)})
    before = {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in run.rglob("*") if path.is_file()}
    read(run)
    assert before == {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in run.rglob("*") if path.is_file()}
