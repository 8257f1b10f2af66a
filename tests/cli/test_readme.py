"""The commands of the README run as they stand; only the run is shorter, by environment variables."""

from __future__ import annotations

import hashlib
import json
import os
import re
import subprocess
import sys
from pathlib import Path

from support import ROOT

from benchmarks.publish_pages import BEGIN, END
from benchmarks.tables import (
    backends_table,
    energy_table,
    quantization_table,
    training_table,
    variants_table,
    verify_table,
)
from spikerl_deploy import zoo
from spikerl_deploy.model_card import policies_table, read_card
from spikerl_deploy.report.document import read_report

SHORT = {"STEPS": "300", "EVAL_EPISODES": "2", "HIDDEN": "16", "CARBON": "false"}


def test_the_three_words_run_as_the_readme_writes_them(tmp_path: Path) -> None:
    (block,) = re.findall(r"```sh\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    assert [line.split()[1] for line in block.splitlines()] == ["train", "export", "simulate"]
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    short = {f"SPIKERL_TRAIN_{name}": value for name, value in SHORT.items()}
    done = subprocess.run(
        ["bash", "-euc", block],
        cwd=tmp_path,
        env=os.environ | short | {"PATH": path, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=250,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    (report,) = json.loads((tmp_path / "report" / "report.json").read_text())["deployments"]
    assert set(report["backends"]) == {"lava", "torch"}
    assert [len(entry["returns"]) for entry in report["backends"].values()] == [5, 5]


def test_links_and_pictures_of_the_documents_exist() -> None:
    for document in [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").glob("*.md")]:
        for target in re.findall(r"\]\(([^)#]+)\)", document.read_text()):
            if not target.startswith("http"):
                assert (document.parent / target).exists(), f"{document.name} links to {target}"


def test_make_knows_the_targets_that_the_readme_names() -> None:
    makefile = (ROOT / "Makefile").read_text()
    for target in set(re.findall(r"(?:`|    |\* )make ([a-z-]+)", (ROOT / "README.md").read_text())):
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), target


def test_every_policy_that_readme_and_docs_simulate_or_list_is_shipped() -> None:
    for name in ("README.md", "docs/policies.md"):
        text = (ROOT / name).read_text(encoding="utf-8")
        named = re.findall(r"spikerl (?:simulate|policies) ([A-Za-z0-9]+-v5)\b", text)
        missing = sorted(set(named) - set(zoo.names()))
        assert named and not missing, f"{name} names {', '.join(missing)}, shipped are {', '.join(zoo.names())}"


def test_the_energy_table_is_that_of_the_committed_report_of_a_trained_policy_on_lava() -> None:
    report = read_report(ROOT / "benchmarks" / "results" / "half-cheetah.json")
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert energy_table(report) in readme
    (deployment,) = report["deployments"]
    assert deployment["backend"] == "lava"
    lava, torch = (deployment["backends"][name] for name in ("lava", "torch"))
    retention, (low, high) = deployment["comparison"]["retention"], deployment["comparison"]["retention_interval"]
    kept = f"{retention:.2%} [{low:.2%}, {high:.2%}]"
    assert f"| {torch['mean_return']:.1f} | {lava['mean_return']:.1f} on `lava` | {kept} |" in readme


def test_the_training_table_is_that_of_the_committed_results() -> None:
    results = json.loads((ROOT / "benchmarks" / "results" / "training.json").read_text(encoding="utf-8"))
    assert training_table(results) in (ROOT / "README.md").read_text(encoding="utf-8")
    assert results["kind"] == "measured" and results["machine"]["processor"]


def test_the_table_of_what_kinds_of_actors_cost_is_that_of_the_committed_results() -> None:
    results = json.loads((ROOT / "benchmarks" / "results" / "training-variants.json").read_text(encoding="utf-8"))
    assert variants_table(results) in (ROOT / "docs" / "training.md").read_text(encoding="utf-8")
    assert results["kind"] == "measured" and results["machine"]["processor"]


def test_the_quantization_table_is_that_of_the_committed_results() -> None:
    results = json.loads((ROOT / "benchmarks" / "results" / "quantization.json").read_text(encoding="utf-8"))
    assert quantization_table(results) in (ROOT / "README.md").read_text(encoding="utf-8")
    assert results["kind"] == "measured"
    policy = ROOT / "benchmarks" / "policies" / results["policy"]["file"]
    assert hashlib.sha256(policy.read_bytes()).hexdigest() == results["policy"]["sha256"]


def test_the_tables_of_the_backends_are_those_of_the_committed_results() -> None:
    folder, readme = ROOT / "benchmarks" / "results", (ROOT / "README.md").read_text(encoding="utf-8")
    speeds = json.loads((folder / "backends.json").read_text(encoding="utf-8"))
    assert backends_table(speeds) in readme
    assert speeds["kind"] == "measured"
    assert speeds["same_episodes"]["same_returns"]
    verified = json.loads((folder / "verify.json").read_text(encoding="utf-8"))
    assert verify_table(verified) in readme
    assert verified["passed"]
    assert {row["name"] for row in verified["rows"] if row["status"] == "passed"} >= {
        *("lava", "lava-stock", "lava-float", "netx", "torch", "snntorch", "norse", "spikingjelly")
    }


def test_the_table_of_policies_is_that_of_the_cards() -> None:
    cards = [read_card(path) for path in sorted((ROOT / "policies").glob("*.json"))]
    table = policies_table(cards, "policies/")
    assert f"{BEGIN}\n{table}{END}" in (ROOT / "README.md").read_text(encoding="utf-8")
    assert all(f"](policies/{card['name']}.md)" in table for card in cards)
