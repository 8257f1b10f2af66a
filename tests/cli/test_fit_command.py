"""`spikerl fit` as a user runs it: table, JSON, list, exit codes and errors."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest
from support import quantized_policy, random_policy, run_cli, run_here

from spikerl_deploy.chips import load_chips
from spikerl_deploy.policy_file import save_policy

CHIP = """
[lab]
title = "Lab chip"
[lab.sources]
sheet = { name = "lab notebook", kind = "datasheet" }
[lab.limits]
inputs = { value = 41, source = "sheet" }
output_neurons = { value = 9, source = "sheet" }
"""


@pytest.fixture
def policy(tmp_path: Path) -> Path:
    save_policy(quantized_policy(), tmp_path / "policy.nir")
    return tmp_path / "policy.nir"


def assert_error(done: subprocess.CompletedProcess[str], code: int, message: str, hint: str) -> None:
    lines = done.stderr.splitlines()
    assert (done.returncode, len(lines)) == (code, 2), done
    assert lines[0].startswith("Error: ") and message in lines[0]
    assert lines[1].startswith("Hint: ") and hint in lines[1]


def test_a_policy_that_fits_is_laid_out_and_exits_0(policy: Path) -> None:
    done = run_cli("fit", str(policy), "--chip", "loihi1")
    assert done.returncode == 0 and done.stderr == ""
    assert "40-24-20-10, integers, on Loihi 1" in done.stdout
    assert "core 1: 24 of layer 1, 20 of layer 2, 10 of layer 3, 2 always firing" in done.stdout
    assert "fits every published limit of Loihi 1" in done.stdout
    assert "not checked, no published limit: " in done.stdout


def test_a_policy_that_does_not_fit_exits_1_and_names_the_worst(policy: Path) -> None:
    done = run_cli("fit", str(policy), "--chip", "xylo-a3")
    assert_error(done, 1, "does not fit Xylo Audio 3: input channels 41, the chip has 16", "spikerl fit --list")
    assert "exceeds by 25" in done.stdout and "fits every published limit" not in done.stdout


def test_json_is_complete_on_both_exits(policy: Path) -> None:
    done = run_cli("fit", str(policy), "--chip", "loihi1", "--format", "json")
    document = json.loads(done.stdout)
    assert (document["schema"], document["chip"], document["fits"], document["worst"]) == (
        "spikerl.fit/1", "loihi1", True, None,
    )  # fmt: skip
    assert document["cores"][0]["slices"] == [[0, 24], [1, 20], [2, 10]]
    (axons,) = [check for check in document["checks"] if check["name"] == "core_in_axons"]
    assert (axons["needed"], axons["limit"], axons["margin"], axons["status"]) == (41 + 25 + 21, 4096, 4009, "fits")
    assert axons["source"]["kind"] == "source code"
    failing = run_cli("fit", str(policy), "--chip", "xylo-a3", "--format", "json")
    document = json.loads(failing.stdout)
    assert failing.returncode == 1 and document["worst"] == "inputs" and not document["fits"]
    assert {check["status"] for check in document["checks"]} == {"fits", "exceeds", "not checked"}


def test_a_float_policy_is_told_to_quantize(tmp_path: Path) -> None:
    save_policy(random_policy(), tmp_path / "float.nir")
    done = run_cli("fit", "float.nir", "--chip", "loihi1", cwd=tmp_path)
    assert_error(done, 1, "weight bits 32, the chip has 8", "spikerl quantize float.nir --bits 8 -o policy-8bit.nir")
    assert "counted at the chip's weight width" in done.stdout


def test_a_chip_of_ones_own(policy: Path, tmp_path: Path) -> None:
    (tmp_path / "lab.toml").write_text(CHIP)
    done = run_cli("fit", str(policy), "--chip", "lab", "--chip-file", "lab.toml", cwd=tmp_path)
    assert_error(done, 1, "does not fit Lab chip: output neurons 10, the chip has 9", "--list")
    assert "lab notebook" in done.stdout and "0 left" in done.stdout
    (tmp_path / "lab.toml").write_text(CHIP.replace("= 9", "= -9"))
    done = run_cli("fit", str(policy), "--chip", "lab", "--chip-file", "lab.toml", cwd=tmp_path)
    assert_error(done, 2, "'lab.toml': lab.limits.output_neurons.value = -9 must be positive", "docs/fit.md")


def test_a_chip_that_states_energy_alone_has_no_limits_to_check(policy: Path, tmp_path: Path) -> None:
    number = '{ value = 2, unit = "pJ", kind = "measured", source = "notes" }'
    sources = '[watt.sources]\nnotes = { name = "notes 2025", kind = "secondary" }\n'
    energy = f'[watt]\ntitle = "Watt"\n{sources}[watt.energy]\nsynaptic_operation = {number}\n'
    (tmp_path / "lab.toml").write_text(energy)
    done = run_here("fit", str(policy), "--chip", "watt", "--chip-file", "lab.toml", cwd=tmp_path)
    assert_error(done, 2, "chip 'watt' of 'lab.toml' states energy alone, no limits to check", "docs/fit.md")
    listed = run_here("fit", "--list", "--chip-file", "lab.toml", cwd=tmp_path)
    assert listed.returncode == 0 and "Watt" not in listed.stdout and "loihi1" in listed.stdout


def test_the_list_names_chips_and_sources() -> None:
    done = run_cli("fit", "--list")
    assert done.returncode == 0
    for name, chip in load_chips().items():
        assert f"{name}: {chip.title}\n" in done.stdout
        assert all(limit.source.name in done.stdout for limit in chip.limits.values())
    document = json.loads(run_cli("fit", "--list", "--format", "json").stdout)
    assert document["schema"] == "spikerl.chips/1"
    assert document["chips"][0]["limits"]["core_neurons"]["value"] == 1024


@pytest.mark.parametrize(
    ("arguments", "message", "hint"),
    [
        (["policy.nir", "--chip", "loihi3"], "unknown chip 'loihi3'; there is: loihi1", "did you mean 'loihi"),
        (["policy.nir"], "no chip was named", "--chip NAME, one of: loihi1"),
        (["--chip", "loihi1"], "no policy was given", "policy file"),
        (["none.nir", "--chip", "loihi1"], "nothing at 'none.nir'", "give a run folder"),
        (["policy.nir", "--chip", "lab", "--chip-file", "none.toml"], "cannot read chip file 'none.toml'", "schema"),
    ],
)
def test_an_input_error_exits_2_with_a_hint(policy: Path, arguments: list[str], message: str, hint: str) -> None:
    done = run_here("fit", *arguments, cwd=policy.parent)
    assert_error(done, 2, message, hint)
    assert done.stdout == ""


def test_chip_names_complete_in_the_shell() -> None:
    done = run_cli(_SPIKERL_COMPLETE="complete_bash", COMP_WORDS="spikerl fit --chip xylo", COMP_CWORD="3")
    assert done.stdout.split() == ["xylo-a2", "xylo-a3", "xylo-imu"]
