"""Training runs as a report holds them, against what lies in their folders."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from report_support import ENV, write_run

from spikerl_deploy.errors import SpikerlError
from training.compare_runs import compare_document
from training.run_document import run_document, training_parts
from training.run_reader import read_run


def test_the_curve_of_several_seeds_is_their_mean_with_its_lowest_and_highest_seed(tmp_path: Path) -> None:
    write_run(tmp_path / "run", 100.0, None, ((1.0, 5.0, 3.0), (3.0, 1.0, 6.0)))
    document = run_document(read_run(tmp_path / "run"))
    assert [(p["step"], p["low"], p["mean_return"], p["high"]) for p in document["curve"]] == [
        (1000, 1.0, 2.0, 3.0),
        (2000, 1.0, 3.0, 5.0),
        (3000, 3.0, 4.5, 6.0),
    ]
    assert (document["seeds"], document["steps"], document["seconds"]) == (2, 6000, 100.0)
    assert (document["best_return"], document["final_return"], document["last_ten_mean"]) == (4.5, 4.5, 9.5 / 3)
    assert document["energy"] is document["carbon"] is None


def test_one_seed_has_no_band_and_the_last_ten_are_ten(tmp_path: Path) -> None:
    write_run(tmp_path / "run", 100.0, 500.0, (tuple(float(value) for value in range(20)),))
    document = run_document(read_run(tmp_path / "run"))
    assert {point["low"] for point in document["curve"]} == {point["high"] for point in document["curve"]} == {None}
    assert document["last_ten_mean"] == pytest.approx(14.5)
    assert (document["id"], document["title"], document["folder"]) == ("invertedpendulum-v5-run", f"{ENV}, run", "run")
    assert document["energy"] == {
        "joule": 500.0,
        "kind": "measured",
        "parts": {"cpu": {"value": 500.0, "kind": "measured"}, "gpu": {"value": None, "kind": "unmeasured"}},
        "sections": {"updating": {"seconds": 100.0, "energy_joule": 500.0, "kind": "modelled"}},
    }
    assert document["finished"] and document["stopped"] == "steps"


@pytest.mark.parametrize(
    ("settings", "kind"),
    [
        ('actor = "mlp"', "mlp actor, "),
        ('readout = "membrane"\ntarget_actor = "proxy"', "membrane readout, proxy target, "),
        ('actor = "spiking"\nreadout = "rates"\ntarget_actor = "copy"', ""),
        ("actor_lr = 0.1", ""),
    ],
)
def test_a_title_says_what_was_trained_where_it_is_not_the_default(tmp_path: Path, settings: str, kind: str) -> None:
    write_run(tmp_path / "run", 100.0, 500.0)
    with (tmp_path / "run" / "config.toml").open("a") as config:
        config.write(settings)
    document = run_document(read_run(tmp_path / "run"))
    assert document["title"] == f"{ENV}, {kind}run"
    assert document["id"] == document["title"].lower().replace(", ", "-").replace(" ", "-")


def test_the_first_run_is_the_baseline_of_those_of_its_environment(tmp_path: Path) -> None:
    for name, seconds, joule in (("a", 100.0, 3000.0), ("b", 40.0, 2000.0), ("c", 50.0, None), ("other", 1.0, 1.0)):
        write_run(tmp_path / name / "run", seconds, joule)
    (tmp_path / "other" / "run" / "config.toml").write_text('env = "Ant-v5"\n')
    runs = [read_run(tmp_path / name / "run") for name in ("a", "b", "c", "other")]
    parts = training_parts(runs)
    ids = [run["id"] for run in parts["training"]]
    assert len(set(ids)) == 4
    assert [(one["baseline"], one["run"]) for one in parts["speedups"]] == [(ids[0], ids[1]), (ids[0], ids[2])]
    expected = compare_document(runs[0], runs[1])["per_step"]
    for key in ("speedup", "greenup", "powerup", "quadrant"):
        assert parts["speedups"][0][key] == expected[key]
    assert (parts["speedups"][1]["greenup"], parts["speedups"][1]["kind"]) == (None, "unmeasured")
    for one in parts["speedups"]:
        assert one["what"].endswith("Speedup is of measured wall times, the kind is that of the energies")
    assert any("the energy of B is unmeasured" in line for line in parts["warnings"])
    assert training_parts([]) == {"training": [], "speedups": [], "warnings": []}


def test_figures_that_no_report_can_hold_are_refused_with_the_folder(tmp_path: Path) -> None:
    write_run(tmp_path / "run", 100.0, 500.0)
    path = tmp_path / "run" / "emissions.json"
    emissions = json.loads(path.read_text())
    emissions["sections"]["updating"]["seconds"] = "long"
    path.write_text(json.dumps(emissions))
    with pytest.raises(SpikerlError, match=r"run' is no valid .*training\[0\].energy.sections.updating.seconds"):
        run_document(read_run(tmp_path / "run"))
