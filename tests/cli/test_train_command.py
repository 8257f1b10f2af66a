"""`spikerl train`: its flags, its plan, its result, its errors."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from training_support import error_of, installed, sets, spikerl, succeeded


def plan(folder: Path, *arguments: str) -> dict:
    done = succeeded(spikerl(["train", *arguments, "--dry-run", "--format", "json"], folder))
    document: dict = json.loads(done.stdout)
    assert document["schema"] == "spikerl.train-plan/1"
    return document


def test_every_flag_is_a_setting_of_the_plan_and_nothing_is_written(tmp_path: Path) -> None:
    arguments = (
        "--env Hopper-v5 --steps 500 --seed 4 --seeds 3 --num-envs 2 --dist-backend gloo --compile --device cpu --bf16 "
        "--stop-return 7.5 --ranks 2"
    )
    document = plan(tmp_path, *arguments.split())
    wanted = {
        "env": "Hopper-v5", "steps": 500, "seed": 4, "seeds": 3, "num_envs": 2, "dist_backend": "gloo",
        "compile": "on", "device": "cpu", "bf16": True, "stop_return": 7.5,
    }  # fmt: skip
    assert {name: document["settings"][name] for name in wanted} == wanted
    assert document["run"] == "runs/Hopper-v5-seed4-6"
    assert plan(tmp_path, "--no-compile")["settings"]["compile"] == "off"
    assert plan(tmp_path)["settings"]["compile"] == "auto"
    assert plan(tmp_path, "--seed", "9")["run"].endswith("-seed9")
    assert not list(tmp_path.iterdir())


def test_the_plan_is_a_config_that_trains_the_same(tmp_path: Path) -> None:
    human = succeeded(spikerl(["train", "--seeds", "2", "--num-envs", "3", "--compile", "--dry-run"], tmp_path))
    (tmp_path / "plan.toml").write_text(human.stdout)
    again = plan(tmp_path, "--config", "plan.toml")
    assert again["settings"] == plan(tmp_path, "--seeds", "2", "--num-envs", "3", "--compile")["settings"]


def test_a_flag_comes_before_set_before_a_variable_before_a_file(tmp_path: Path) -> None:
    (tmp_path / "c.toml").write_text("num_envs = 2\nseeds = 2\nupdate_to_data = 2\ncompile = 'off'\n")
    done = succeeded(
        spikerl(
            "train --config c.toml --set num_envs=4 --num-envs 5 --compile --dry-run --format json".split(),
            tmp_path,
            SPIKERL_TRAIN_SEEDS="3",
            SPIKERL_TRAIN_NUM_ENVS="3",
        )
    )
    settings = json.loads(done.stdout)["settings"]
    assert [settings[n] for n in ("num_envs", "seeds", "update_to_data", "compile")] == [5, 3, 2.0, "on"]


def test_the_result_is_json_of_a_schema_and_the_hint_exports_a_seed(tmp_path: Path) -> None:
    arguments = ["train", "--seeds", "2", "--seed", "7", "--num-envs", "2", "--format", "json", *sets(steps=40)]
    done = succeeded(spikerl(arguments, tmp_path))
    document = json.loads(done.stdout)
    assert document["schema"] == "spikerl.train/1"
    assert (document["env"], document["seed"], document["run"]) == (
        "InvertedPendulum-v5", 7, "runs/InvertedPendulum-v5-seed7-8",
    )  # fmt: skip
    assert (document["steps"], document["stopped"], document["ranks"]) == (40, "steps", 1)
    assert [own["seed"] for own in document["per_seed"]] == [7, 8]
    assert set(document) == {
        "schema", "run", "env", "seed", "steps", "updates", "seconds", "steps_per_second", "best_return",
        "final_return", "stopped", "ranks", "per_seed",
    }  # fmt: skip
    assert "next: spikerl export runs/InvertedPendulum-v5-seed7-8/seed-7 --to nir" in done.stderr
    stored = json.loads((tmp_path / document["run"] / "result.json").read_text())
    assert stored == {name: value for name, value in document.items() if name in stored}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--ranks", "0"], "--ranks 0 is no number of ranks"),
        (["--ranks", "-3"], "--ranks -3 is no number of ranks"),
        (["--ranks", "many"], "'--ranks'"),
        (["--seeds", "0"], "setting 'seeds' = 0 must be positive"),
        (["--num-envs", "0"], "setting 'num_envs' = 0 must be positive"),
        (["--dist-backend", "smoke"], "unknown value of setting 'dist_backend' 'smoke'"),
        (["--set", "compile=maybe"], "unknown value of setting 'compile' 'maybe'"),
        (["--set", "checkpoint_every=0"], "setting 'checkpoint_every' = 0 must be positive"),
        (["--set", "update_to_data=0"], "setting 'update_to_data' = 0.0 must be positive"),
        (["--seed", "4294967295", "--seeds", "2"], "must be below 2^32"),
        (["--resume", "none"], "nothing to resume in 'none'"),
        (["--config", "a.toml", "--recipe", "inverted-pendulum"], "--config and --recipe exclude each other"),
        (["--out", "file"], "'file' exists and is not overwritten"),
        (["--out", "file/run"], "cannot write run folder 'file/run'"),
    ],
)
def test_an_error_of_usage_is_one_line_and_nothing_is_written(
    tmp_path: Path, arguments: list[str], message: str
) -> None:
    (tmp_path / "file").write_text("mine")
    error, _ = error_of(spikerl(["train", *arguments], tmp_path))
    assert message in error
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_compiling_without_a_compiler_is_refused(tmp_path: Path) -> None:
    error, hint = error_of(spikerl(["train", "--compile", *sets(), "--out", "run"], tmp_path, CXX="/nonexistent"))
    assert "--compile needs the C++ compiler '/nonexistent'" in error and "--no-compile" in hint
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [(["--env", "Hoper-v5"], "unknown environment 'Hoper-v5'"), (["--out", "."], "exists and is not overwritten")],
)
def test_an_error_of_the_ranks_is_one_line_with_their_exit_code_and_comes_soon(
    tmp_path: Path, arguments: list[str], message: str
) -> None:
    (tmp_path / "file").write_text("mine")
    with installed("train", "--ranks", "2", *sets(), *arguments, cwd=tmp_path) as process:
        out, err = process.communicate(timeout=17)  # importing torch twice takes some seconds, waiting would take more
    assert (process.returncode, out) == (2, "")
    lines = err.splitlines()
    assert len(lines) == 2 and lines[0].startswith("Error: ") and lines[1].startswith("Hint: "), err
    assert message in lines[0]


def test_rank_errors_found_before_the_ranks_start_cost_no_process(tmp_path: Path) -> None:
    error, _ = error_of(spikerl(["train", "--ranks", "2", "--set", "gamma=2"], tmp_path))
    assert "gamma" in error
