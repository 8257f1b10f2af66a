"""`spikerl verify` as a user and a CI file run it: matrix, JSON, JUnit, exit codes, skips and errors."""

from __future__ import annotations

import json
import shlex
import subprocess
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import pytest
from support import quantized_policy, random_policy, run_cli, run_here

from exporters.quantize import quantize
from spikerl_deploy.errors import SpikerlError
from spikerl_deploy.policy_file import save_policy

BACKENDS = '''
import numpy as np
from simulators.fixed import FixedBackend, FixedSession
from simulators.protocol import Availability, SpikeRecord
from spikerl_deploy.errors import SpikerlError

class WrongSession(FixedSession):
    """Flips neuron 5 of layer 1 at time step 2 of the fourteenth control step."""
    calls = 0

    def _infer(self, spikes, rasters):
        record = super()._infer(spikes, rasters)
        self.calls += 1
        if rasters and self.calls == 2:
            record.rasters[1][3, 2, 5] ^= True
        return record

class Wrong(FixedBackend):
    name = "wrong"
    summary = "one spike is wrong"

    def open(self, policy, batch=1):
        return WrongSession(policy, self.integers(policy), batch)

class Absent(FixedBackend):
    name = "absent"
    summary = "needs a package that is not here"

    def availability(self):
        return Availability(False, "chip-sdk is not installed", "pip install chip-sdk")

class Dying(FixedBackend):
    name = "dying"
    summary = "dies when it is opened"

    def open(self, policy, batch=1):
        raise SpikerlError("the chip fell silent", "power it up")
'''


@pytest.fixture(scope="module")
def distribution(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    information = folder / "odd_backends-1.0.dist-info"
    information.mkdir(parents=True)
    (folder / "odd_backends.py").write_text(BACKENDS)
    (information / "METADATA").write_text("Metadata-Version: 2.1\nName: odd-backends\nVersion: 1.0\n")
    names = "".join(f"{name.lower()} = odd_backends:{name}\n" for name in ("Wrong", "Absent", "Dying"))
    (information / "entry_points.txt").write_text(f"[spikerl.backends]\n{names}broken = odd_backends:Missing\n")
    return folder


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with an 8-bit policy, one whose integers truncate, and a float policy."""
    save_policy(quantized_policy(), tmp_path / "policy.nir")
    save_policy(quantized_policy(time_steps=16), tmp_path / "lossy.nir")
    save_policy(random_policy(), tmp_path / "float.nir")
    return tmp_path


def assert_error(done: subprocess.CompletedProcess[str], code: int, message: str, hint: str) -> None:
    lines = [line for line in done.stderr.splitlines() if line.startswith(("Error: ", "Hint: "))]
    assert done.returncode == code, done
    assert message in lines[0] and hint in lines[1]


def test_all_backends_that_are_here_agree_spike_for_spike(lava_folder: Path, folder: Path) -> None:
    done = run_cli("verify", "policy.nir", "--steps", "30", "--no-play", "--format", "json", "-o", "v.json", cwd=folder)
    assert done.returncode == 0, done
    document = json.loads(done.stdout)
    assert document == json.loads((folder / "v.json").read_text())
    assert (document["schema"], document["passed"], document["seeds"]) == ("spikerl.verify/1", True, [])
    assert document["reference"]["runs"] == "8-bit integers"
    assert document["reference"]["name"] == "fixed" and min(document["reference"]["spikes"]) > 0
    rows = {row["name"]: row for row in document["rows"]}
    assert {"lava", "netx", "torch", "torch, as trained", "snntorch", "norse", "spikingjelly"} <= set(rows)
    judged = {name: row for name, row in rows.items() if row["status"] == "passed"}
    assert {"lava", "netx", "torch", "snntorch"} <= set(judged)
    for row in judged.values():
        assert row["spikes"]["mismatches"] == [0, 0, 0] and row["action_error"]["value"] == 0
        assert row["tolerance"]["exact"] and row["returns"] is None
    for row in rows.values():
        assert row["status"] in ("passed", "informational") or (row["status"] == "skipped" and row["reasons"])
    assert rows["torch, as trained"]["status"] == "informational"
    assert sum(rows["torch, as trained"]["spikes"]["mismatches"]) > 0


def test_the_matrix_shows_returns_and_equal_ones_for_exact_backends(folder: Path) -> None:
    done = run_cli(
        *("verify", "policy.nir", "--backends", "netx,torch", "--steps", "25", "--episodes", "3", "--seed", "4"),
        cwd=folder,
    )
    assert done.returncode == 0, done
    assert "policy.nir on InvertedPendulum-v5: 25 control steps of fixed's closed loop, seeds 4 to 5" in done.stdout
    lines = {line.split("  ")[0].strip(): line.split() for line in done.stdout.splitlines()}
    assert lines["netx"][-1] == lines["torch"][-1] == "agrees"
    assert lines["fixed"][-2] == lines["netx"][-2] == lines["torch"][-2]
    assert "mean over seeds 4 to 6" in done.stdout
    assert done.stderr.splitlines()[0] == "fixed: recording 25 control steps"


def test_one_wrong_spike_exits_1_and_is_named_in_every_format(folder: Path, distribution: Path) -> None:
    arguments = ("verify", "policy.nir", "--backends", "wrong,torch", "--steps", "40", "--episodes", "2")
    files = ("-o", "v.json", "--junit", "v.xml")
    done = run_cli(*arguments, *files, cwd=folder, PYTHONPATH=str(distribution))
    where = "layer 1, control step 13 (step "
    again = "spikerl verify policy.nir --backends wrong --steps 40 --episodes 2 --format json"
    assert_error(done, 1, "wrong differs from fixed: 1 of ", again)
    assert where in done.stderr and "time step 2, neuron 5, where only " in done.stderr
    assert "DIFFERS" in done.stdout and where in done.stdout
    document = json.loads((folder / "v.json").read_text())
    rows = {row["name"]: row for row in document["rows"]}
    assert not document["passed"] and rows["wrong"]["status"] == "failed" and rows["torch"]["status"] == "passed"
    first = rows["wrong"]["first_divergence"]
    assert [first[key] for key in ("layer", "control_step", "time_step", "neuron")] == [1, 13, 2, 5]
    seeds = document["recorded"]
    before = sum(entry["control_steps"] for entry in seeds[: first["seed"]])
    assert first["episode_step"] == 13 - before < seeds[first["seed"]]["control_steps"]
    (suite,) = ElementTree.parse(folder / "v.xml").getroot()
    assert (suite.get("tests"), suite.get("failures"), suite.get("name")) == ("2", "1", "policy.nir")
    (failure,) = suite.iter("failure")
    assert where in str(failure.get("message"))


def test_what_breaks_off_does_not_hide_the_others(folder: Path, distribution: Path) -> None:
    done = run_cli(
        *("verify", "policy.nir", "--backends", "dying,netx", "--steps", "9", "--no-play", "--junit", "v.xml"),
        cwd=folder,
        PYTHONPATH=str(distribution),
    )
    assert_error(done, 1, "dying broke off, held against fixed: the chip fell silent", "power it up")
    assert "agrees" in done.stdout and "BROKE OFF" in done.stdout
    (suite,) = ElementTree.parse(folder / "v.xml").getroot()
    assert (suite.get("tests"), suite.get("failures"), suite.get("errors")) == ("2", "0", "1")


def test_all_skips_what_cannot_run_with_the_reason_and_names_refuse(folder: Path, distribution: Path) -> None:
    plan = ("verify", "policy.nir", "--dry-run", "--format", "json")
    done = run_cli(*plan, cwd=folder, PYTHONPATH=str(distribution), SPIKERL_CACHE_DIR=str(folder / "cache"))
    assert done.returncode == 0, done
    document = json.loads(done.stdout)
    assert document["schema"] == "spikerl.verify-plan/1" and document["reference"] == "fixed"
    skips = {row["name"]: row["reason"] for row in document["skipped"]}
    assert skips["absent"] == "backend 'absent' cannot run here: chip-sdk is not installed"
    assert "not installed" in skips["lava"] and "cannot be loaded from" in skips["broken"]
    assert {"wrong", "dying", "netx", "torch"} <= {row["name"] for row in document["rows"]}
    flagged = run_cli(*plan, "--device", "cpu", cwd=folder, PYTHONPATH=str(distribution))
    assert "broken" in {row["name"] for row in json.loads(flagged.stdout)["skipped"]}
    named = run_cli(*plan, "--backends", "absent,torch", cwd=folder, PYTHONPATH=str(distribution))
    assert_error(named, 2, "backend 'absent' cannot run here: chip-sdk is not installed", "pip install chip-sdk")
    assert not (folder / "cache").exists()


def test_a_float_policy_is_held_against_torch(folder: Path) -> None:
    arguments = ("verify", "float.nir", "--steps", "20", "--no-play", "--backends", "snntorch")
    done = run_here(*arguments, "--format", "json", cwd=folder)
    assert done.returncode == 0, done
    document = json.loads(done.stdout)
    assert document["reference"]["runs"] == "float32 weights of the NIR graph"
    assert document["reference"]["name"] == "torch" and document["policy"]["lossless"] == []
    (row,) = document["rows"]
    assert row["tolerance"] == {"exact": False, "mismatch_share": 1e-4, "action_error": 0.25}
    plan = json.loads(run_here("verify", "float.nir", "--dry-run", "--format", "json", cwd=folder).stdout)
    skips = {row["name"]: row["reason"] for row in plan["skipped"]}
    assert "runs integers" in skips["fixed"] and "runs integers" in skips["lava"] and "not quantized" in skips["netx"]


def test_a_tolerance_can_be_stated_for_what_need_not_be_exact(folder: Path) -> None:
    arguments = ("verify", "lossy.nir", "--backends", "torch,netx", "--dry-run", "--format", "json")
    given = ("--max-mismatches", "0.002", "--max-action-error", "0.1")
    rows = json.loads(run_here(*arguments, *given, cwd=folder).stdout)["rows"]
    tolerances = {row["name"]: row["tolerance"] for row in rows}
    assert tolerances["torch"] == {"exact": False, "mismatch_share": 0.002, "action_error": 0.1}
    assert tolerances["netx"]["exact"] and tolerances["torch, as trained"] is None
    stated = json.loads(run_here(*arguments, cwd=folder).stdout)["rows"]
    assert {row["name"]: row["tolerance"] for row in stated}["torch"]["mismatch_share"] == 5e-3
    strict = json.loads(run_here(*arguments, "--max-mismatches", "0", cwd=folder).stdout)["rows"]
    tolerance = {row["name"]: row["tolerance"] for row in strict}["torch"]
    assert tolerance == {"exact": False, "mismatch_share": 0.0, "action_error": 0.25}


def test_the_hint_of_a_failure_is_the_command_that_failed(folder: Path) -> None:
    trained = random_policy(time_steps=40)
    layers = tuple(replace(layer, current_decay=0.6, voltage_decay=0.83) for layer in trained.layers)
    save_policy(quantize(replace(trained, layers=layers), 8)[0], folder / "my policy.nir")
    given = ("--steps", "100", "--seed", "3", "--no-play", "--max-mismatches", "0.0", "--device", "cpu")
    done = run_here("verify", "my policy.nir", "--backends", "torch,netx", *given, cwd=folder)
    assert done.returncode == 1 and "none is allowed" in done.stderr, done
    hint = done.stderr.splitlines()[-1].removeprefix("Hint: ")
    assert "'my policy.nir'" in hint and " --backends torch " in hint
    again = run_here(*shlex.split(hint)[1:], cwd=folder)
    first, second = (one.stderr.splitlines()[-2] for one in (done, again))
    assert (again.returncode, second) == (1, first)
    assert json.loads(again.stdout)["rows"][0]["name"] == "torch"


def test_files_are_there_though_nobody_reads_what_is_printed(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def gone(_: object) -> None:
        raise SpikerlError("the reader is gone")

    monkeypatch.setattr("spikerl_deploy.cli.verify_table.print_verification", gone)
    arguments = ("--backends", "netx", "--steps", "3", "--no-play", "-o", "new/v.json", "--junit", "new/v.xml")
    assert "the reader is gone" in run_here("verify", "policy.nir", *arguments, cwd=folder).stderr
    assert json.loads((folder / "new/v.json").read_text())["passed"] and (folder / "new/v.xml").exists()


def test_a_wheel_that_is_not_there_is_no_skip(folder: Path, lava_folder: Path) -> None:
    for backend in ([], ["--backends", "lava-float"]):
        done = run_here("verify", "policy.nir", *backend, "--wheel", "none.whl", "--dry-run", cwd=folder)
        assert_error(done, 2, "no wheel at 'none.whl'", "pip download")


def test_a_dry_run_prints_the_plan_and_writes_nothing(folder: Path) -> None:
    before = sorted(folder.iterdir())
    arguments = ("verify", "policy.nir", "--dry-run", "-o", "v.json", "--junit", "v.xml")
    done = run_here(*arguments, "--backends", "torch,netx", cwd=folder)
    assert done.returncode == 0 and done.stderr == ""
    assert "would hold 3 backends against fixed on 500 control steps of InvertedPendulum-v5" in done.stdout
    assert "  torch: float32 weights of the NIR graph; allowed: none" in done.stdout
    assert sorted(folder.iterdir()) == before


@pytest.mark.parametrize(
    ("arguments", "message", "hint"),
    [
        (["none.nir"], "no policy file at 'none.nir'", "spikerl export"),
        (
            ["policy.nir", "--backends", "torch,lawa"],
            "unknown backend 'lawa'; there is: all, fixed, lava",
            "did you mean",
        ),
        (["policy.nir", "--backends", ""], "unknown backend ''", "spikerl backends list"),
        (["policy.nir", "--backends", "torch,all"], "'all' stands alone", "--backends all"),
        (["policy.nir", "--backends", "torch,torch"], "--backends names 'torch' twice", "leave one out"),
        (["policy.nir", "--backends", "fixed"], "nothing is left to hold against fixed", "--backends takes"),
        (["float.nir", "--backends", "torch"], "nothing is left to hold against torch", "--backends takes"),
        (["float.nir", "--backends", "fixed"], "backend 'fixed' runs integers", "--bits 8"),
        (["float.nir", "--backends", "netx"], "netx holds integers", "--bits 8"),
        (["policy.nir", "--env", "Hopper-v5"], "'Hopper-v5' observes 11 values, the policy takes 4", "--env"),
        (["policy.nir", "--backends", "netx", "--wheel", "x"], "--wheel concerns none of the backends netx", "leave"),
        (["policy.nir", "--backends", "torch", "--max-mismatches", "0.1"], "--max-mismatches 0.1: every", "leave"),
        (["policy.nir", "--worker-timeout", "0"], "worker time limit 0 s must be positive", "--worker-timeout 60"),
        (["policy.nir", "--device", "tpu"], "unknown device 'tpu'; there is: auto, cpu, cuda", ""),
        (["policy.nir", "--junit", "float.nir/x.xml"], "cannot write 'float.nir/x.xml'", "writable folder"),
        (["policy.nir", "--max-mismatches", "2"], "'--max-mismatches': Input should be less than", "--help"),
        (["policy.nir", "--steps", "0"], "'--steps': Input should be greater than or equal to 1", "--help"),
        (["none.nir", "-o", "new/v.json"], "no policy file at 'none.nir'", "spikerl export"),
        (["policy.nir", "-o", "x", "--junit", "./x"], "-o 'x' and --junit 'x' take the same place", "of its own"),
        (["policy.nir", "-o", "policy.nir", "--force"], "-o names 'policy.nir', which is the policy", "another name"),
        (["policy.nir", "-o", "float.nir"], "'float.nir' exists and is not overwritten", "another name with -o"),
        (["policy.nir", "--junit", "float.nir"], "'float.nir' exists and is not overwritten", "name with --junit"),
    ],
)
def test_an_input_error_exits_2_with_a_hint(folder: Path, arguments: list[str], message: str, hint: str) -> None:
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    done = run_here("verify", *arguments, cwd=folder)
    assert_error(done, 2, message, hint)
    assert done.stdout == "" and len(done.stderr.splitlines()) == 2
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


def test_a_device_that_is_not_there_is_no_skip(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    for name in ("policy.nir", "float.nir"):
        done = run_here("verify", name, "--device", "cuda", "--dry-run", cwd=folder)
        assert_error(done, 2, "device 'cuda' asked for", "--device cpu")


def test_names_complete_one_after_the_other() -> None:
    def complete(given: str) -> list[str]:
        words = {"COMP_WORDS": f"spikerl verify --backends {given}", "COMP_CWORD": "3"}
        return run_cli(_SPIKERL_COMPLETE="complete_bash", **words).stdout.split()

    assert {"all", "fixed", "netx", "torch"} <= set(complete(""))
    assert complete("tor") == ["torch"]
    offered = complete("torch,")
    assert {"torch,fixed", "torch,netx"} <= set(offered)
    assert "torch,torch" not in offered and "torch,all" not in offered
