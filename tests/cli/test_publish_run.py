"""What publishing takes from a run folder, also from one that is still training, was resumed or holds several seeds."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from card_support import a_card
from publish_support import EMISSIONS, RECIPE, evaluations
from training_support import PENDULUM, tiny

from benchmarks import publish_card, publish_run
from benchmarks.publish_run import take_run, training_part
from spikerl_deploy.errors import SpikerlError
from spikerl_deploy.files import write_json
from spikerl_deploy.model_card_tables import training_table
from training.checkpoint import policy_of
from training.run_reader import read_run
from training.trainer import Trainer


def test_a_run_without_an_evaluation_has_nothing_to_publish(copy: Path, tmp_path: Path) -> None:
    (copy / "checkpoints" / "best.pt").unlink()
    with pytest.raises(SpikerlError, match="has no best checkpoint"):
        take_run(copy, tmp_path / "run")


def test_metrics_that_lag_behind_the_checkpoint_are_completed_by_it(copy: Path, tmp_path: Path) -> None:
    whole = training_part(take_run(copy, tmp_path / "whole"), RECIPE)
    step = whole["checkpoint"]["step"]
    lines = (copy / "metrics.csv").read_text().splitlines(keepends=True)
    (copy / "metrics.csv").write_text(
        "".join(line for line in lines if not line.startswith(f"{step},") or "eval" not in line)
    )
    assert training_part(take_run(copy, tmp_path / "lagging"), RECIPE)["selection"] == whole["selection"]


def test_a_checkpoint_that_is_not_the_best_of_its_metrics_is_refused(copy: Path, tmp_path: Path) -> None:
    with (copy / "metrics.csv").open("a") as stream:
        stream.write("400,1e6,1,eval,return_mean,1e6\n")
    with pytest.raises(SpikerlError, match="it is not the best of this run"):
        training_part(take_run(copy, tmp_path / "run"), RECIPE)


def test_a_run_that_ended_has_its_energy_with_its_source(copy: Path, tmp_path: Path) -> None:
    write_json(copy / "emissions.json", EMISSIONS)
    part = training_part(take_run(copy, tmp_path / "run"), RECIPE)
    assert part["energy"] == {"joule": 2000.0, "kind": "measured", "source": "a meter"}
    assert part["carbon"]["kg_co2eq"] == 0.5


def test_a_run_that_was_given_more_steps_is_asked_for_those_of_its_settings(copy: Path, tmp_path: Path) -> None:
    text = (copy / "config.toml").read_text()
    (copy / "config.toml").write_text(text.replace("steps = 400\n", "steps = 900\n", 1))
    write_json(copy / "emissions.json", EMISSIONS)
    part = training_part(take_run(copy, tmp_path / "run"), RECIPE)
    assert (part["finished"], part["stopped"], part["energy"]) == (False, None, None)
    assert (part["steps_done"], part["steps_asked"], part["beyond_recipe"]["steps"]) == (400, 900, 900)


def test_versions_of_a_resumed_run_are_those_of_both_stretches(copy: Path, tmp_path: Path) -> None:
    manifest = json.loads((copy / "manifest.json").read_text())
    manifest["versions"]["torch"] = "9.0"
    write_json(copy / "manifest-resumed.json", manifest)
    part = training_part(take_run(copy, tmp_path / "run"), RECIPE)
    first = json.loads((copy / "manifest.json").read_text())["versions"]
    assert part["versions"] == first | {"torch": f"{first['torch']}, resumed with 9.0"}


def test_a_run_of_several_ranks_says_so_and_how_to_train_it_again(copy: Path, tmp_path: Path) -> None:
    assert "ranks" not in training_part(take_run(copy, tmp_path / "one"), RECIPE)["machine"]
    result = json.loads((copy / "result.json").read_text())
    write_json(copy / "result.json", result | {"ranks": 4})
    taken = take_run(copy, tmp_path / "run")
    part = training_part(taken, RECIPE)
    assert part["machine"]["ranks"] == "4"
    commands = publish_card._commands(
        "name", policy_of(taken.checkpoint), taken, part, {"method": "rounding", "bits": 8}, [0]
    )
    assert " --ranks 4 --out run" in commands[0]
    rows = dict(training_table(a_card() | {"training": part}).rows)
    assert rows["ranks"] == "4"


def test_ranks_of_a_run_without_a_result_are_those_of_its_manifest(copy: Path, tmp_path: Path) -> None:
    (copy / "result.json").unlink()
    manifest = json.loads((copy / "manifest.json").read_text())
    for told, ranks in (("4", 4), ("1", 1), ("0", 1), ("many", 1)):
        write_json(copy / "manifest.json", manifest | {"machine": manifest["machine"] | {"ranks": told}})
        assert read_run(copy).ranks == ranks
    write_json(copy / "manifest.json", manifest)
    assert read_run(copy).ranks == 1


def test_the_seeds_that_a_policy_was_chosen_among_may_be_of_several_runs(run: Path, tmp_path: Path) -> None:
    taken = take_run(run, tmp_path / "run")
    assert training_part(taken, RECIPE, 5)["selection"]["of_seeds"] == 5
    assert training_part(taken, RECIPE)["selection"]["of_seeds"] == 1


def test_a_checkpoint_that_changes_while_it_is_copied_is_copied_again(
    copy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    checkpoint, copies, pauses = copy / "checkpoints" / "best.pt", [], []
    later = checkpoint.read_bytes()
    checkpoint.write_bytes(b"an earlier one")
    real = publish_run._copy

    def copy_while_training(*places: Path) -> None:
        real(*places)
        copies.append(checkpoint.read_bytes())
        checkpoint.write_bytes(later)

    monkeypatch.setattr(publish_run, "_copy", copy_while_training)
    monkeypatch.setattr(publish_run.time, "sleep", pauses.append)
    taken = take_run(copy, tmp_path / "run")
    assert copies == [b"an earlier one", later] and pauses == [publish_run.PAUSE_S]
    assert taken.checkpoint.read_bytes() == later
    monkeypatch.setattr(publish_run, "_copy", lambda *places: (real(*places), checkpoint.write_bytes(later + b"x")))
    monkeypatch.setattr(publish_run, "sha256_file", lambda path: object())
    with pytest.raises(SpikerlError, match="changes all the time"):
        take_run(copy, tmp_path / "run")


def test_one_seed_of_several_is_published_by_its_folder(tmp_path: Path) -> None:
    run = tmp_path / "both"
    Trainer(tiny(env=PENDULUM, seed=5, seeds=2, steps=120, eval_every=60), run).run()
    with pytest.raises(SpikerlError, match="holds 2 seeds") as error:
        take_run(run, tmp_path / "run")
    assert "the best evaluation is that of" in str(error.value.hint)
    taken = take_run(run / "seed-6", tmp_path / "run")
    assert (taken.seed, taken.source) == (6, "run/seed-6")
    assert taken.checkpoint.read_bytes() == (run / "seed-6" / "checkpoints" / "best.pt").read_bytes()
    part = training_part(taken, RECIPE)
    assert (part["seed"], part["seeds"], part["steps_done"]) == (6, 2, 120)
    assert part["selection"]["of_seeds"] == 2
    with pytest.raises(SpikerlError, match="--of-seeds 1 is less than the 2 seeds of the run"):
        training_part(taken, RECIPE, 1)
    assert part["selection"]["mean_return"] == pytest.approx(max(evaluations(run / "seed-6").values()))
