"""`spikerl simulate` with perturbation, recording and video: what lands in the report and in the files."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from support import quantized_policy, run_here

from simulators.episodes import load_episodes
from simulators.fixed import FixedBackend
from simulators.perturb import Perturbation
from simulators.rendering import rendering_environment
from simulators.replay import replay
from simulators.rollout import rollout
from spikerl_deploy.errors import SpikerlError
from spikerl_deploy.policy_file import save_policy
from spikerl_deploy.report.document import read_report

ENV = "InvertedPendulum-v5"
CHIP = """
[mine]
title = "Mine"
[mine.sources]
own = { name = "measured on our bench", kind = "datasheet" }
[mine.energy]
synaptic_operation = { value = 1.0, unit = "pJ", kind = "measured", source = "own" }
"""
ON_FIXED = ["simulate", "p.nir", "--backend", "fixed", "--episodes", "3", "--seed", "4"]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    save_policy(quantized_policy(), tmp_path / "p.nir")
    return tmp_path


def deployment_of(text: str) -> dict[str, Any]:
    """The one deployment of a report."""
    (deployment,) = json.loads(text)["deployments"]
    return deployment


def played(perturbation: Perturbation | None) -> list[float]:
    with FixedBackend().open(quantized_policy()) as session:
        return list(rollout(session, ENV, range(4, 7), perturbation=perturbation).returns)


def test_a_perturbation_lands_in_the_report_and_applies_to_both(folder: Path) -> None:
    setting = Perturbation(noise=0.05, delay=1, drop=0.2)
    arguments = [*ON_FIXED, "--perturb", "noise=0.05,delay=1", "--perturb", "drop=0.2", "--format", "json"]
    done = run_here(*arguments, "--compare", "torch", "--device", "cpu", "-o", "report", cwd=folder)
    assert done.returncode == 0, done.stderr
    document = deployment_of(done.stdout)
    assert read_report(folder / "report") == json.loads(done.stdout)
    assert document["environment"]["perturbation"] == {
        "noise": 0.05,
        "delay": 1,
        "drop": 0.2,
        "noise_unit": "standard deviation of the observation",
        "delay_unit": "control steps",
        "drop_unit": "share of the input spikes",
        "words": "noise 0.05, delay 1, drop 0.2",
        "backends": ["fixed", "torch"],
    }
    assert document["backends"]["fixed"]["returns"] == played(setting) != played(None)
    clean = deployment_of(
        run_here(*ON_FIXED, "--compare", "torch", "--device", "cpu", "--format", "json", cwd=folder).stdout
    )
    assert clean["environment"]["perturbation"] is None
    assert clean["backends"]["torch"]["returns"] != document["backends"]["torch"]["returns"]
    arguments += ["--compare", "torch", "--device", "cpu", "--clean-baseline"]
    against_clean = deployment_of(run_here(*arguments, cwd=folder).stdout)
    assert against_clean["environment"]["perturbation"]["backends"] == ["fixed"]
    assert against_clean["backends"]["torch"]["returns"] == clean["backends"]["torch"]["returns"]
    assert against_clean["backends"]["fixed"]["returns"] == document["backends"]["fixed"]["returns"]


def test_a_report_folder_holds_a_page_and_plots_and_is_not_overwritten(folder: Path) -> None:
    done = run_here(*ON_FIXED, "-o", "report", cwd=folder)
    assert done.returncode == 0, done.stderr
    assert "report: report/report.html" in done.stderr
    assert sorted(path.name for path in (folder / "report").iterdir()) == ["plots", "report.html", "report.json"]
    plots = list((folder / "report" / "plots").iterdir())
    assert plots and all(path.read_bytes().startswith(b"\x89PNG") for path in plots)
    for name in ("report.json", "report.html"):
        again = run_here(*ON_FIXED, "-o", "report", cwd=folder)
        assert again.returncode == 2 and "not overwritten" in again.stderr and "running" not in again.stderr
        (folder / "report" / name).unlink()
    again = run_here(*ON_FIXED, "-o", "report", cwd=folder)
    assert "'report/plots' exists and is not overwritten" in again.stderr and "running" not in again.stderr


def test_constants_of_a_chip_file_come_beside_ours(folder: Path) -> None:
    (folder / "mine.toml").write_text(CHIP)
    done = run_here(*ON_FIXED, "--chip-file", "mine.toml", "--format", "json", cwd=folder)
    assert done.returncode == 0, done.stderr
    entry = deployment_of(done.stdout)["backends"]["fixed"]
    figures = {figure["id"]: figure for figure in entry["energy"]["figures"]}
    assert "loihi1/chip-dynamic" in figures
    operations = entry["workload"]["per_inference"]["synaptic_operations"]
    assert figures["mine/synops"]["high"] == pytest.approx(operations * 1e-6)
    assert "measured on our bench" in figures["mine/synops"]["sources"][0]


def test_the_terminal_shows_returns_operations_energy_and_where_it_breaks_even(folder: Path) -> None:
    done = run_here(*ON_FIXED, "--compare", "torch", "--device", "cpu", cwd=folder)
    text = " ".join(done.stdout.split())
    for part in ("fixed against torch: retention", "3 seeds; 95% percentile bootstrap", "synaptic operations",
                 "energy, uJ", "modelled", "loihi1/chip-dynamic: ", "break-even, ", "left out: encoder and decoder",
                 "Warning: p.nir on fixed: 3 seeds"):  # fmt: skip
        assert part in text
    assert max(map(len, done.stdout.splitlines()[:10])) <= 100


def test_the_human_report_says_that_it_was_perturbed(folder: Path) -> None:
    done = run_here(*ON_FIXED, "--perturb", "delay=2", cwd=folder)
    assert "perturbed on fixed: noise 0, delay 2, drop 0" in done.stdout
    assert "perturbed" not in run_here(*ON_FIXED, cwd=folder).stdout


def test_a_recording_of_all_episodes_is_replayed_exactly_and_says_what_it_is(folder: Path) -> None:
    arguments = [*ON_FIXED, "--compare", "torch", "--device", "cpu", "--parallel", "2", "--perturb", "drop=0.1"]
    done = run_here(*arguments, "--record", "new/r.npz", cwd=folder)
    assert done.returncode == 0, done.stderr
    episodes = load_episodes(folder / "new" / "r.npz")
    assert f"recording: new/r.npz, {len(episodes)} control steps" in done.stderr
    assert episodes.about["environment"]["perturbation"]["drop"] == 0.1
    assert (episodes.about["backend"], episodes.about["runs"]) == ("fixed", "8-bit integers")
    assert episodes.about["seeds"] == [4, 5, 6]
    assert episodes.about["policy"]["file"] == "p.nir"
    returns = [float(episodes.columns["rewards"][rows].sum()) for rows in episodes.by_episode()]
    assert returns == played(Perturbation(drop=0.1))
    with FixedBackend().open(quantized_policy(), 8) as session:
        assert replay(folder / "new" / "r.npz", session).exact
    again = run_here(*ON_FIXED, "--record", "new/r.npz", cwd=folder)
    assert (again.returncode, again.stdout) == (2, "")
    assert "not overwritten" in again.stderr


def test_a_recording_is_data_for_quantize(folder: Path) -> None:
    run_here(*ON_FIXED, "--record", "r.npz", cwd=folder)
    save_policy(quantized_policy().as_trained(), folder / "float.nir")
    done = run_here("quantize", "float.nir", "--bits", "6", "--data", "r.npz", "-o", "q.nir", cwd=folder)
    assert done.returncode == 0, done.stderr
    assert f"calibrated on {len(load_episodes(folder / 'r.npz'))} control steps" in " ".join(done.stdout.split())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--perturb", "noize=1"], "unknown perturbation 'noize'"),
        (["--perturb", "drop=1.5"], "drop=1.5 is outside [0, 1]"),
        (["--clean-baseline"], "--clean-baseline needs a baseline and a perturbation"),
        (["--clean-baseline", "--perturb", "delay=1"], "--clean-baseline needs a baseline"),
        (["--clean-baseline", "--compare", "torch"], "--clean-baseline needs a baseline"),
        (["--record", "r.txt"], "'r.txt' is no .npz"),
        (["--record", "p.nir/r.npz"], "cannot write 'p.nir/r.npz': Not a directory"),
        (["--record", "r.npz", "-o", "r.npz"], "-o 'r.npz/report.json' and --record 'r.npz' take the same place"),
        (["--record", "r.npz", "--video", "r.npz/x.gif"], "--record 'r.npz' and --video 'r.npz/x.gif' take the same"),
        (["--record", "p.npz", "--force"], "--record names 'p.npz', which is the policy"),
        (["--compare", "torch", "--min-retention", "nan"], "--min-retention nan is no number"),
        (["--compare", "torch", "--min-retention", "-inf"], "--min-retention -inf is no number"),
        (["--video", "v.avi"], "'v.avi' is neither .mp4 nor .gif"),
        (["--chip-file", "none.toml"], "none.toml"),
        (["-o", "p.nir"], "'p.nir' is a file, a folder for the report was expected"),
    ],
)
def test_what_would_fail_after_the_episodes_is_refused_before(folder: Path, arguments: list[str], message: str) -> None:
    (folder / "p.npz").symlink_to("p.nir")
    done = run_here(*ON_FIXED, *arguments, cwd=folder)
    assert done.returncode == 2
    assert message in done.stderr
    assert "running" not in done.stderr
    assert sorted(path.name for path in folder.iterdir()) == ["p.nir", "p.npz"]


def test_the_hint_names_the_flag_of_the_file_that_is_there(folder: Path) -> None:
    (folder / "r.npz").touch()
    done = run_here(*ON_FIXED, "--record", "r.npz", cwd=folder)
    assert done.stderr.splitlines()[1] == "Hint: add --force, or choose another name with --record"


def test_files_are_there_though_nobody_reads_what_is_printed(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def gone(_: object) -> None:
        raise SpikerlError("the reader is gone")

    monkeypatch.setattr("spikerl_deploy.cli.simulate.print_json", gone)
    done = run_here(*ON_FIXED, "--record", "r.npz", "--format", "json", cwd=folder)
    assert "the reader is gone" in done.stderr and len(load_episodes(folder / "r.npz")) > 0


def test_a_report_is_printed_though_a_file_cannot_be_written(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise SpikerlError("no space")

    monkeypatch.setattr("simulators.episodes.save_episodes", fail)
    done = run_here(*ON_FIXED, "--record", "r.npz", "--format", "json", cwd=folder)
    assert done.returncode == 2 and deployment_of(done.stdout)["backend"] == "fixed"


def test_names_and_paths_are_printed_as_they_are(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    name = "new[/bold] :bomb: [dim]/r.npz"
    done = run_here(*ON_FIXED, "--record", name, "--dry-run", "--parallel", "5", cwd=folder)
    assert f"  record: {name}" in done.stdout.splitlines()
    assert "3 side by side" in done.stdout
    monkeypatch.setattr(FixedBackend, "summary", "a [/toy]")
    assert "a [/toy] (integer)" in run_here("backends", "list").stdout


def test_a_dry_run_states_the_plan_and_writes_nothing(folder: Path) -> None:
    arguments = [*ON_FIXED, "--perturb", "noise=1", "--record", "new/r.npz", "--dry-run"]
    plan = json.loads(run_here(*arguments, "--format", "json", cwd=folder).stdout)
    assert (plan["record"], plan["video"], plan["perturbation"]["noise"]) == ("new/r.npz", None, 1.0)
    human = run_here(*arguments, cwd=folder).stdout
    assert "perturbed on fixed: noise 1, delay 0, drop 0" in human
    assert "record: new/r.npz" in human
    assert [path.name for path in folder.iterdir()] == ["p.nir"]


def test_a_video_of_the_first_episode_changes_no_return(folder: Path) -> None:
    try:
        rendering_environment(ENV).close()
    except SpikerlError as error:
        pytest.skip(error.message)
    done = run_here(*ON_FIXED, "--perturb", "delay=2", "--video", "v.gif", "--format", "json", cwd=folder)
    assert done.returncode == 0, done.stderr
    document = deployment_of(done.stdout)
    assert document["backends"]["fixed"]["returns"] == played(Perturbation(delay=2))
    image = Image.open(folder / "v.gif")
    assert image.n_frames == document["backends"]["fixed"]["lengths"][0] + 1
    assert np.asarray(image.convert("RGB")).shape == (528, 960, 3)


@pytest.mark.parametrize(
    ("training_energy", "message"),
    [
        ({"joule": -5.0}, "at $.training_energy.joule: -5.0, where minimum 0 was expected"),
        ({"joule": 10**400}, "at $.training_energy.joule: 1000"),
        ({"kind": "magic"}, 'at $.training_energy.kind: "magic"'),
        ({"intensity": {"value": float("nan")}}, "at $.training_energy.intensity.value: null"),
    ],
)
def test_a_provenance_that_no_report_holds_is_refused_before_the_episodes(
    folder: Path, training_energy: dict[str, Any], message: str
) -> None:
    save_policy(replace(quantized_policy(), provenance={"training_energy": training_energy}), folder / "p.nir", True)
    done = run_here(*ON_FIXED, "-o", "report", cwd=folder)
    assert (done.returncode, done.stdout) == (2, "") and "running" not in done.stderr
    error, hint = done.stderr.splitlines()
    assert error.startswith("Error: 'p.nir' has a provenance that no report can hold") and message in error
    assert hint.startswith("Hint: export it again") and not (folder / "report").exists()


def test_a_policy_of_a_run_that_never_evaluated_is_played(folder: Path) -> None:
    provenance = {"progress": {"eval_return": float("nan")}}
    save_policy(replace(quantized_policy(), provenance=provenance), folder / "p.nir", True)
    assert run_here(*ON_FIXED, "-o", "report", cwd=folder).returncode == 0
    (deployment,) = read_report(folder / "report")["deployments"]
    assert deployment["policy"]["provenance"] == {"progress": {"eval_return": None}}


def test_a_chip_file_with_the_title_of_a_built_in_chip_is_refused(folder: Path) -> None:
    (folder / "mine.toml").write_text(CHIP.replace('"Mine"', '" loihi 1"'))
    done = run_here(*ON_FIXED, "--chip-file", "mine.toml", cwd=folder)
    assert done.returncode == 2 and "running" not in done.stderr
    assert "chip 'mine' has the title ' loihi 1' of a built-in one" in done.stderr
