"""The steps of the workflow in docs/ run as they stand; training is shortened by environment variables."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from support import ROOT

yaml = pytest.importorskip("yaml")

SHORT = {"STEPS": "300", "EVAL_EPISODES": "2", "HIDDEN": "16", "CARBON": "false"}
TRAINED = ROOT / "tests" / "assets" / "inverted-double-pendulum.nir"
WORDS = ["train", "export", "verify", "simulate", "report", "check"]


def steps() -> dict[str, str]:
    document: dict[str, Any] = yaml.safe_load((ROOT / "docs" / "github-actions.yml").read_text(encoding="utf-8"))
    return {step["name"]: step["run"] for step in document["jobs"]["policy"]["steps"] if "run" in step}


def run_step(command: str, folder: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    return subprocess.run(
        ["bash", "--noprofile", "--norc", "-eo", "pipefail", "-c", command],  # as GitHub runs a step
        cwd=folder,
        env=os.environ | {"PATH": path, "OMP_NUM_THREADS": "1", "GITHUB_STEP_SUMMARY": "summary.md"} | environment,
        capture_output=True,
        text=True,
        timeout=250,
        check=False,
    )


def test_the_steps_are_the_words_of_the_tool_in_order() -> None:
    assert list(steps()) == ["install", *WORDS]
    assert [steps()[name].split()[:2] for name in WORDS] == [["spikerl", name] for name in WORDS]


def test_every_step_runs_as_written_and_the_check_can_fail(tmp_path: Path) -> None:
    short = {f"SPIKERL_TRAIN_{name}": value for name, value in SHORT.items()}
    for name in ("train", "export"):
        done = run_step(steps()[name], tmp_path, **short)
        assert done.returncode == 0, done.stderr
    # What 300 steps taught is no policy to hold to a bound: a trained one takes its place.
    shutil.copy(TRAINED, tmp_path / "policy.nir")
    for name in ("verify", "simulate", "report", "check"):
        done = run_step(steps()[name], tmp_path)
        assert done.returncode == 0, f"{name}: {done.stdout}{done.stderr}"
    assert "InvertedDoublePendulum-v5" in (tmp_path / "summary.md").read_text(encoding="utf-8")
    report = json.loads((tmp_path / "report" / "report.json").read_text(encoding="utf-8"))
    assert [deployment["backend"] for deployment in report["deployments"]] == ["lava"]
    assert len(report["training"]) == len(report["conformance"]) == 1
    assert (tmp_path / "report" / "report.html").stat().st_size > 10_000
    tighter = steps()["check"].replace("--max-synops 80000", "--max-synops 1")
    done = run_step(tighter, tmp_path)
    assert done.returncode == 1
    assert "synaptic operations" in done.stderr
