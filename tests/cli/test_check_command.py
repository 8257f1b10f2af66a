"""`spikerl check` as CI runs it: a line each, exit codes, and an error that names what failed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from report_support import real_report
from support import run_here


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "report").mkdir()
    (tmp_path / "report" / "report.json").write_text(json.dumps(real_report()))
    return tmp_path


def test_bounds_that_hold_exit_0_with_a_line_each(folder: Path) -> None:
    for source in ("report", "report/report.json"):
        done = run_here("check", source, "--min-return", "1", "--max-synops", "70000", cwd=folder)
        assert (done.returncode, done.stderr) == (0, "")
        lines = [line.split() for line in done.stdout.splitlines()]
        assert [line[:2] for line in lines] == [["ok", "p-fixed"]] * 2
        assert lines[1][-3:] == ["per", "inference,", "counted"] and "70,000" in lines[1]


def test_all_lines_are_printed_and_all_that_fail_are_named(folder: Path) -> None:
    bounds = ["--min-return", "1e6", "--max-synops", "1", "--max-energy-uj", "1e6"]
    done = run_here("check", "report", *bounds, cwd=folder)
    assert done.returncode == 1
    assert [line.split()[0] for line in done.stdout.splitlines()] == ["FAILED", "FAILED", "ok"]
    error, hint = done.stderr.splitlines()
    assert "p-fixed: mean return" in error and "is not >= 1e+06" in error and "is not <= 1" in error
    assert "energy" not in error and hint.startswith("Hint: spikerl report report")


def test_what_cannot_be_judged_exits_2_even_beside_what_fails(folder: Path) -> None:
    done = run_here("check", "report", "--require-conformance", "--min-return", "1e6", cwd=folder)
    assert done.returncode == 2
    assert sorted(line.split()[0] for line in done.stdout.splitlines()) == ["FAILED", "unknown"]
    assert "conformance of fixed of p-fixed cannot be judged: the report has no verification" in done.stderr


def test_json_says_the_same(folder: Path) -> None:
    done = run_here("check", "report", "--max-spikes", "1", "--min-return", "0", "--format", "json", cwd=folder)
    document = json.loads(done.stdout)
    assert (done.returncode, document["schema"], document["passed"]) == (1, "spikerl.check/1", False)
    assert [line["status"] for line in document["checks"]] == ["ok", "FAILED"]
    counts = real_report()["deployments"][0]["backends"]["fixed"]["workload"]["per_inference"]
    assert document["checks"][1]["value"] == counts["spikes"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["report"], "no bound is given"),
        (["report", "--min-return", "nan"], "--min-return nan is no number to compare with"),
        (["report", "--min-return", "many"], "(given: many)"),
        (["gone", "--min-return", "1"], "cannot read 'gone': No such file"),
        (["report", "--min-return", "1", "--deployment", "x"], "unknown deployment 'x'; there is: p-fixed"),
        (["report", "--max-energy-uj", "1", "--chip", "x"], "unknown chip 'x'"),
        (["broken.json", "--min-return", "1"], "'broken.json' is no valid spikerl.report/2: at $.deployments[0]"),
        (["old.json", "--min-return", "1"], "which this version does not read"),
    ],
)
def test_what_is_wrong_exits_2_with_a_line_and_a_hint(folder: Path, arguments: list[str], message: str) -> None:
    broken = real_report()
    del broken["deployments"][0]["comparison"]["retention"]
    (folder / "broken.json").write_text(json.dumps(broken))
    (folder / "old.json").write_text('{"schema": "spikerl.report/1"}')
    done = run_here("check", *arguments, cwd=folder)
    assert (done.returncode, done.stdout) == (2, "")
    error, hint = done.stderr.splitlines()
    assert message in error and hint.startswith("Hint: ")
