"""`spikerl measure`: the plan, the table, the document, and what is refused before anything is measured."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from support import quantized_policy, random_policy, run_here

from simulators import inference_run
from spikerl_deploy.policy_file import save_policy


class Watts:
    """A meter of 10 W by the real clock."""

    name, kind, scope, note = "glass", "modelled", "CPU package", "by the clock"

    def joules(self) -> float:
        return 10.0 * inference_run.time.perf_counter()

    def close(self) -> None: ...


@pytest.fixture
def policy(tmp_path: Path) -> str:
    save_policy(quantized_policy(), tmp_path / "policy.nir")
    return str(tmp_path / "policy.nir")


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inference_run, "cpu_meter", Watts)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    for name in ("WARM_UP_S", "SETTLE_S", "LATENCY_S"):
        monkeypatch.setattr(inference_run, name, 0.01)


def test_a_measurement_prints_its_rows_and_writes_its_document(tmp_path: Path, policy: str, quick: None) -> None:
    out = tmp_path / "energy.json"
    done = run_here("measure", policy, "--batch", "8", "--window", "1", "--repeats", "1", "-o", str(out))
    assert done.returncode == 0, done.stderr
    document = json.loads(out.read_text())
    assert [(row["workload"], row["batch"], row["mode"]) for row in document["rows"]] == [
        ("spiking policy", 8, "eager"),
        ("dense ANN", 8, "eager"),
    ]
    assert document["manifest"]["made_from"]["policy"]["name"] == "policy.nir"
    for word in ("spiking ", "dense ANN", "modelled", "10 W idle", "device cuda is left out"):
        assert word in done.stdout
    common = "by the clock; windows of 1 s, 10 s are recommended"
    for row, runs in zip(document["rows"], ("float32 weights as trained, no 8-bit integers; ", ""), strict=True):
        assert row["note"].startswith(runs + common)
    notes = list(dict.fromkeys(row["note"] for row in document["rows"]))
    printed = [line for line in done.stdout.splitlines() if line.startswith("note ")]
    assert printed == [f"note {number}: {note}" for number, note in enumerate(notes, start=1)]
    cells = [line.split()[-1] for line in done.stdout.splitlines() if line.startswith(("spiking ", "dense ANN "))]
    assert cells == [str(notes.index(row["note"]) + 1) for row in document["rows"]]
    assert "windows of 1 s" in done.stderr and f"spikerl report {out}" in done.stderr
    again = run_here("measure", policy, "-o", str(out))
    assert again.returncode == 2 and "exists and is not overwritten" in again.stderr


def test_a_dry_run_prints_the_plan_and_measures_and_writes_nothing(
    tmp_path: Path, policy: str, quick: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(inference_run, "measure", None)
    out = tmp_path / "energy.json"
    done = run_here("measure", policy, "--dry-run", "--bf16", "--format", "json", "-o", str(out))
    assert done.returncode == 0, done.stderr
    plan = json.loads(done.stdout)
    assert plan["schema"] == "spikerl.measure-plan/1" and plan["out"] == str(out) and not out.exists()
    assert [(row["dtype"], row["batch"]) for row in plan["rows"][::2]] == [
        ("float32", 1), ("float32", 64), ("bfloat16", 1), ("bfloat16", 64),
    ]  # fmt: skip
    assert plan["seconds"] > 8 * 30 and plan["left_out"] == ["device cuda is left out: torch finds none"]
    human = run_here("measure", policy, "--dry-run")
    assert "would measure 4 rows" in human.stdout and "not written (no -o)" in human.stdout


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--window", "0.5"], "--window 0.5 is not in 1 to 120 s"),
        (["--window", "nan"], "--window nan is not in"),
        (["--window", "121"], "--window 121 is not in"),
        (["--device", "cuda"], "device 'cuda' asked for, torch finds none"),
        (["--device", "tpu"], "unknown device 'tpu'; there is: all-available, cpu, cuda"),
        (["--mode", "eagre"], "unknown mode 'eagre'"),
        (["--batch", "0"], "'--batch': Input should be greater than or equal to 1"),
        (["--batch", "65537"], "less than or equal to 65536"),
        (["--repeats", "0"], "'--repeats': Input should be greater"),
        (["--threads", "0"], "'--threads': Input should be greater"),
        (["-o", "policy.nir"], "which is the policy"),
    ],
)
def test_what_cannot_be_measured_is_refused_in_a_line(
    tmp_path: Path, policy: str, quick: None, arguments: list[str], message: str
) -> None:
    done = run_here("measure", policy, *arguments, "--dry-run", cwd=tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    assert message in done.stderr and "Traceback" not in done.stderr


def test_a_core_alone_and_a_missing_file_are_refused(tmp_path: Path, quick: None) -> None:
    core = replace(random_policy(env_id=None), encoder=None, decoder=None, normalization=None)
    save_policy(core, tmp_path / "core.nir")
    for dry in ((), ("--dry-run",)):
        done = run_here("measure", str(tmp_path / "core.nir"), *dry)
        assert (done.returncode, done.stdout) == (2, "") and "core alone" in done.stderr
    done = run_here("measure", str(tmp_path / "nothing.nir"))
    assert done.returncode == 2 and "nothing.nir" in done.stderr
