"""`spikerl policies`, and the names of shipped policies wherever a policy is asked for."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from card_support import ship
from support import quantized_policy, run_cli, run_here

from spikerl_deploy import __version__, zoo
from spikerl_deploy.cli.common import complete_policy, complete_shipped, complete_source
from spikerl_deploy.policy_file import save_policy
from spikerl_deploy.report.warnings import report_warnings

SAID = f"invertedpendulum-v5: the policy shipped with spikerl {__version__}\n"
HIDDEN = "invertedpendulum-v5: what lies here, which hides the policy of that name that ships with spikerl\n"
ON_FIXED = ["--backend", "fixed", "--episodes", "2"]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of policies, beside the empty folder that the commands run in."""
    place = tmp_path / "policies"
    ship(place)
    monkeypatch.setattr(zoo, "folder", lambda: place)
    monkeypatch.setattr("spikerl_deploy.cli.common.Verbosity.quiet", False)
    return place


@pytest.fixture
def here(tmp_path: Path) -> Path:
    place = tmp_path / "here"
    place.mkdir()
    return place


def test_help_takes_under_half_a_second() -> None:
    before = os.times()
    assert run_cli("policies", "--help").returncode == 0
    after = os.times()  # of the processor: others may keep it busy
    assert after.children_user + after.children_system - before.children_user - before.children_system < 0.5


def test_the_list_names_each_with_its_numbers(folder: Path, here: Path) -> None:
    card = ship(folder, "another-v5")
    done = run_here("policies", cwd=here)
    assert done.returncode == 0, done.stderr
    (line,) = [line for line in done.stdout.splitlines() if line.startswith("another-v5 ")]
    retention = card["evaluation"]["comparisons"]["lava"]["retention"]
    size = f"{card['policy']['bytes'] / 1e3:,.0f}"
    for shown in ("Another-v5", str(card["policy"]["neurons"]), f"{retention * 100:.1f} % [", size):
        assert f" {shown}" in line
    assert done.stderr == "next: spikerl simulate another-v5 --backend lava\n"
    document = json.loads(run_here("policies", "--format", "json", cwd=here).stdout)
    assert document["schema"] == "spikerl.policies/1"
    assert [one["name"] for one in document["policies"]] == ["another-v5", "invertedpendulum-v5"]


def test_what_must_be_known_of_a_policy_stands_below_the_list(folder: Path, here: Path) -> None:
    card = json.loads((folder / "invertedpendulum-v5.json").read_text())
    card["training"] |= {"finished": False, "stopped": None}
    (folder / "invertedpendulum-v5.json").write_text(json.dumps(card))
    assert "\ninvertedpendulum-v5: Unfinished: the run was asked for " in run_here("policies", cwd=here).stdout
    assert run_here("policies", "invertedpendulum-v5", cwd=here).stdout.splitlines()[1].startswith("Unfinished: ")


def test_an_empty_list_is_an_honest_one(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(zoo, "folder", lambda: here)
    assert run_here("policies", cwd=here).stdout == "no policy ships with this installation\n"
    assert json.loads(run_here("policies", "--format", "json", cwd=here).stdout)["policies"] == []
    assert run_here("policies", "--check", cwd=here).returncode == 0
    assert "no policy of that name ships" in run_here("inspect", "hopper-v5", cwd=here).stderr


def test_a_card_is_printed_in_words_and_as_it_is(folder: Path, here: Path) -> None:
    done = run_here("policies", "InvertedPendulum-v5", cwd=here)
    assert done.returncode == 0, done.stderr
    for title in ("Returns", "Training", "Quantization", "What an inference costs", "Use and limits", "Make it again"):
        assert f"\n{title}\n" in done.stdout
    assert "Simulation only" in done.stdout
    printed = json.loads(run_here("policies", "invertedpendulum-v5", "--format", "json", cwd=here).stdout)
    assert printed == json.loads((folder / "invertedpendulum-v5.json").read_text())


def test_a_name_that_is_not_shipped_is_an_error_with_the_near_ones(folder: Path, here: Path) -> None:
    for arguments in (["policies", "invertedpendulm-v5"], ["policies", "invertedpendulm-v5", "--check"]):
        done = run_here(*arguments, cwd=here)
        assert (done.returncode, done.stdout) == (2, "")
        assert "did you mean invertedpendulum-v5?" in done.stderr


def test_check_passes_over_whole_files_and_fails_on_a_changed_one(folder: Path, here: Path) -> None:
    ship(folder, "another-v5")
    done = run_here("policies", "--check", cwd=here)
    assert (done.returncode, done.stderr) == (0, "")
    assert [line.split() for line in done.stdout.splitlines()] == [
        ["ok", "another-v5"],
        ["ok", "invertedpendulum-v5"],
    ]
    content = bytearray((folder / "another-v5.nir").read_bytes())
    content[-1] ^= 1
    (folder / "another-v5.nir").write_bytes(content)
    done = run_here("policies", "--check", cwd=here)
    assert done.returncode == 1
    assert done.stdout.splitlines()[0].split()[:2] == ["FAILED", "another-v5"]
    assert "sha256" in done.stderr.splitlines()[0]
    assert run_here("policies", "invertedpendulum-v5", "--check", cwd=here).returncode == 0
    document = json.loads(run_here("policies", "--check", "--format", "json", cwd=here).stdout)
    checked = {one["name"]: one["ok"] for one in document["policies"]}
    assert checked == {"another-v5": False, "invertedpendulum-v5": True}


def test_check_holds_the_card_against_the_content_of_its_file(folder: Path, here: Path) -> None:
    card = json.loads((folder / "invertedpendulum-v5.json").read_text())
    card["policy"]["content_sha256"] = "0" * 64
    (folder / "invertedpendulum-v5.json").write_text(json.dumps(card))
    done = run_here("policies", "--check", cwd=here)
    assert done.returncode == 1
    assert "invertedpendulum-v5.nir has content_sha256 " in done.stderr


def test_check_fails_on_a_broken_card_and_on_a_file_without_one(folder: Path, here: Path) -> None:
    (folder / "stray.nir").write_bytes(b"")
    done = run_here("policies", "--check", cwd=here)
    assert done.returncode == 1
    assert "stray.nir has no card" in done.stderr
    (folder / "stray.nir").unlink()
    (folder / "invertedpendulum-v5.json").write_text("{}")
    done = run_here("policies", "--check", cwd=here)
    assert done.returncode == 1
    assert done.stdout.startswith("FAILED  invertedpendulum-v5")
    assert run_here("policies", cwd=here).returncode == 2


@pytest.mark.parametrize(
    "arguments",
    [
        ["simulate", "NAME", *ON_FIXED, "--dry-run"],
        ["verify", "NAME", "--backends", "torch", "--dry-run"],
        ["measure", "NAME", "--device", "cpu", "--dry-run"],
        ["inspect", "NAME"],
        ["fit", "NAME", "--chip", "loihi1"],
        ["export", "NAME", "--dry-run"],
        ["quantize", "NAME", "--steps", "50", "--dry-run"],
    ],
    ids=lambda arguments: arguments[0],
)
def test_every_verb_takes_a_name_and_says_so(folder: Path, here: Path, arguments: list[str]) -> None:
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    done = run_here(*("InvertedPendulum-v5" if one == "NAME" else one for one in arguments), cwd=here)
    assert done.returncode == 0, done.stderr
    assert done.stderr.startswith(SAID)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
    done = run_here(*("invertedpendulm-v5" if one == "NAME" else one for one in arguments), cwd=here)
    assert done.returncode == 2
    assert done.stderr == (
        "Error: nothing at 'invertedpendulm-v5', and no policy of that name ships with spikerl\n"
        "Hint: did you mean invertedpendulum-v5? see: spikerl policies\n"
    )
    assert list(here.iterdir()) == []


def test_the_report_of_a_shipped_policy_reads_well_and_lands_here(folder: Path, here: Path) -> None:
    done = run_here("simulate", "invertedpendulum-v5", *ON_FIXED, "-o", "report", cwd=here)
    assert done.returncode == 0, done.stderr
    (deployment,) = json.loads((here / "report" / "report.json").read_text())["deployments"]
    assert deployment["title"] == "invertedpendulum-v5.nir on fixed"
    assert deployment["id"] == "invertedpendulum-v5-fixed"
    card = json.loads((folder / "invertedpendulum-v5.json").read_text())
    assert deployment["policy"]["sha256"] == card["policy"]["sha256"]
    assert run_here("export", "invertedpendulum-v5", cwd=here).returncode == 0
    assert sorted(path.name for path in here.iterdir()) == ["policy.nir", "report"]
    assert sorted(path.name for path in folder.iterdir()) == ["invertedpendulum-v5.json", "invertedpendulum-v5.nir"]


def test_a_file_or_a_folder_of_the_name_wins(folder: Path, here: Path) -> None:
    save_policy(quantized_policy(seed=3), here / "own.nir")
    (here / "invertedpendulum-v5").symlink_to("own.nir")
    done = run_here("inspect", "invertedpendulum-v5", "--format", "json", cwd=here)
    assert done.stderr == HIDDEN
    shipped = json.loads(run_here("inspect", "./invertedpendulum-v5", "--format", "json", cwd=here).stdout)
    assert json.loads(done.stdout)["sha256"] == shipped["sha256"]
    (here / "invertedpendulum-v5").unlink()
    (here / "invertedpendulum-v5").mkdir()
    for verb, problem in (
        (["inspect", "invertedpendulum-v5"], "'invertedpendulum-v5' is no run folder"),
        (["simulate", "invertedpendulum-v5", *ON_FIXED], "no policy file at 'invertedpendulum-v5'"),
    ):
        failed = run_here(*verb, cwd=here)
        assert failed.stderr.startswith(f"{HIDDEN}Error: {problem}")


def test_a_path_is_never_taken_for_a_name(folder: Path, here: Path) -> None:
    for given in (
        *(f"{place}invertedpendulum-v5" for place in ("x/", "../", "./")),
        "invertedpendulum-v5/",
        "invertedpendulum-v5.nir",
    ):
        done = run_here("simulate", given, *ON_FIXED, cwd=here)
        assert done.returncode == 2
        assert "no policy file at" in done.stderr


def test_a_damaged_policy_runs_nowhere(folder: Path, here: Path) -> None:
    with (folder / "invertedpendulum-v5.nir").open("ab") as stream:
        stream.write(b"\0")
    for verb in (["simulate", "invertedpendulum-v5", *ON_FIXED], ["inspect", "invertedpendulum-v5"]):
        done = run_here(*verb, cwd=here)
        assert (done.returncode, done.stdout) == (2, "")
        assert done.stderr.startswith("Error: the shipped policy 'invertedpendulum-v5' is damaged: ")


def test_quiet_says_nothing_of_where_the_policy_is_from(folder: Path, here: Path) -> None:
    assert run_here("-q", "inspect", "invertedpendulum-v5", cwd=here).stderr == ""


def test_names_complete_with_the_files_beside_them(folder: Path, here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(here)
    for name in ("inv.nir", "inv.pt", "inv.txt", "other.nir", ".inv.nir"):
        (here / name).touch()
    (here / "inv-run").mkdir()
    assert complete_shipped("INV") == ["invertedpendulum-v5"]
    assert complete_policy("inv") == ["invertedpendulum-v5", "inv.nir", "inv-run/"]
    assert complete_source("inv") == ["invertedpendulum-v5", "inv.nir", "inv.pt", "inv-run/"]
    assert complete_source("") == ["invertedpendulum-v5", "inv.nir", "inv.pt", "other.nir", "inv-run/"]
    assert complete_policy("oth") == complete_source("oth") == []  # the shell takes its own files then


def test_the_shell_completes_names(here: Path) -> None:
    (name, *_) = zoo.names()
    done = run_cli(
        cwd=here, _SPIKERL_COMPLETE="complete_bash", COMP_WORDS=f"spikerl simulate {name[:3]}", COMP_CWORD="2"
    )
    assert name in done.stdout.split()


def test_a_policy_without_float_weights_states_its_baseline(folder: Path, here: Path) -> None:
    export = run_here("export", "invertedpendulum-v5", "--no-trained", "-o", "bare.nir", cwd=here)
    assert export.returncode == 0, export.stderr
    arguments = [*ON_FIXED, "--compare", "torch", "--device", "cpu"]
    bare = run_here("simulate", "bare.nir", *arguments, "-o", "report", cwd=here)
    assert bare.returncode == 0, bare.stderr
    line = "its baseline, torch, ran the weights of the NIR graph in floating point"
    assert line in bare.stdout
    assert line not in run_here("simulate", "invertedpendulum-v5", *arguments, cwd=here).stdout
    document = json.loads((here / "report" / "report.json").read_text())
    assert any(line in one for one in report_warnings(document))
    document["deployments"][0]["policy"]["bits"] = None  # a float policy: its graph has the weights as trained
    assert not any(line in one for one in report_warnings(document))
