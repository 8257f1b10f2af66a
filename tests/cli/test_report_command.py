"""`spikerl report` over inputs of every kind: what it writes, what it prints, what it refuses before it writes."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from report_support import measurement, real_report, write_run
from support import ROOT, run_here

from spikerl_deploy.errors import SpikerlError
from spikerl_deploy.report.document import read_report

VERIFIED = ROOT / "benchmarks" / "results" / "verify.json"
INPUTS = ["deployed", "run-a", "run-b", "verify.json", "energy.json"]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "deployed").mkdir()
    (tmp_path / "deployed" / "report.json").write_text(json.dumps(real_report()))
    write_run(tmp_path / "run-a", 100.0, 3000.0, ((1.0, 4.0), (3.0, 2.0)))
    write_run(tmp_path / "run-b", 40.0, 2000.0)
    (tmp_path / "verify.json").write_bytes(VERIFIED.read_bytes())
    (tmp_path / "energy.json").write_text(json.dumps(measurement()))
    return tmp_path


def test_all_inputs_make_a_valid_report_a_page_and_plots(folder: Path) -> None:
    done = run_here("report", *INPUTS, "-o", "all", "--svg", "--title", "A <b> title", cwd=folder)
    assert done.returncode == 0, done.stderr
    document = read_report(folder / "all")
    parts = ("deployments", "training", "speedups", "conformance", "inference")
    assert [len(document[part]) for part in parts] == [1, 2, 1, 1, 1]
    assert document["deployments"] == real_report()["deployments"]
    made_from = document["manifest"]["made_from"]
    assert {entry["name"] for entry in made_from.values()} >= {"report.json", "verify.json", "emissions.json"}
    page = (folder / "all" / "report.html").read_text()
    assert "A &lt;b&gt; title" in page and "A <b> title" not in page
    plots = sorted(path.suffix for path in (folder / "all" / "plots").iterdir())
    assert plots.count(".png") == plots.count(".svg") >= 5
    assert done.stderr.splitlines()[-1] == "report: all/report.html"
    assert "InvertedPendulum-v5" in done.stdout and "Warning: " in done.stdout


def test_the_same_inputs_give_the_same_files_but_for_the_manifest(folder: Path) -> None:
    documents = []
    for name in ("first", "second"):
        done = run_here("report", *INPUTS, "--format", "json", cwd=folder)
        documents.append(json.loads(done.stdout) | {"manifest": {}})
        assert run_here("report", "run-a", "run-b", "-o", name, cwd=folder).returncode == 0
    assert json.dumps(documents[0]) == json.dumps(documents[1])
    first, second = (
        {path.name: path.read_bytes() for path in (folder / name / "plots").iterdir()} for name in ("first", "second")
    )
    assert first == second


def test_nothing_is_overwritten_without_force(folder: Path) -> None:
    arguments = ["report", "run-a", "-o", "all"]
    assert run_here(*arguments, cwd=folder).returncode == 0
    before = (folder / "all" / "report.json").read_bytes()
    done = run_here(*arguments, cwd=folder)
    assert (done.returncode, done.stdout) == (2, "") and "not overwritten" in done.stderr
    for name in ("report.json", "report.html"):
        (folder / "all" / name).unlink()
    done = run_here(*arguments, cwd=folder)
    assert "'all/plots' exists and is not overwritten" in done.stderr and not (folder / "all" / "report.json").exists()
    assert run_here(*arguments, "--force", cwd=folder).returncode == 0
    assert json.loads((folder / "all" / "report.json").read_text())["training"] == json.loads(before)["training"]


def test_markdown_and_json_go_to_stdout_and_write_nothing_without_a_folder(folder: Path) -> None:
    before = sorted(path.name for path in folder.rglob("*"))
    summary = run_here("report", *INPUTS, "--format", "markdown", cwd=folder)
    assert summary.returncode == 0 and summary.stdout.startswith("# ") and "| --- |" in summary.stdout
    printed = run_here("report", *INPUTS, "--format", "json", cwd=folder)
    assert json.loads(printed.stdout)["deployments"] == real_report()["deployments"]
    assert sorted(path.name for path in folder.rglob("*")) == before
    both = run_here("report", "run-a", "--format", "json", "-o", "all", cwd=folder)
    assert json.loads((folder / "all" / "report.json").read_text()) == json.loads(both.stdout)


def test_carbon_is_restated_at_the_given_intensity(folder: Path) -> None:
    done = run_here("report", "run-b", "--format", "json", "--carbon-intensity", "100", cwd=folder)
    (run,) = json.loads(done.stdout)["training"]
    assert run["carbon"]["kg_co2eq"] == pytest.approx(2000.0 / 3.6e6 * 0.1)
    assert run["carbon"]["intensity"]["source"] == "given by the user"


def test_the_folder_that_is_written_is_not_read_again(folder: Path) -> None:
    for _ in range(2):
        done = run_here("report", ".", "-o", "all", "--force", cwd=folder)
        assert done.returncode == 0, done.stderr
        document = json.loads((folder / "all" / "report.json").read_text())
        assert (len(document["conformance"]), len(document["inference"])) == (1, 1)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["run-a"], "no folder was given for the page"),
        (["run-a", "--format", "markdown", "--svg"], "no folder was given"),
        (["gone", "-o", "all"], "nothing at 'gone'"),
        (["empty", "-o", "all"], "'empty' holds none of: a report"),
        (["broken.json", "-o", "all"], "cannot read 'broken.json'"),
        (["run-a/config.toml", "-o", "all"], "cannot read 'run-a/config.toml'"),
        (["run-a/manifest.json", "-o", "all"], "'run-a/manifest.json' is none of"),
        (["run-a", "--carbon-intensity", "nan", "-o", "all"], "--carbon-intensity nan is no intensity"),
        (["run-a", "--carbon-intensity", "-1", "-o", "all"], "--carbon-intensity -1 is no intensity"),
        (["run-a", "-o", "verify.json"], "'verify.json' is a file, a folder for the report was expected"),
        (["deployed", "-o", "deployed", "--force"], "-o names 'deployed/report.json', which is the input"),
        (["run-a", "--format", "pdf", "-o", "all"], "'pdf' is not one of"),
    ],
)
def test_what_is_wrong_is_refused_before_anything_is_written(folder: Path, arguments: list[str], message: str) -> None:
    (folder / "empty").mkdir()
    (folder / "broken.json").write_text('{"schema": "spikerl.report/2"')
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    done = run_here("report", *arguments, cwd=folder)
    assert (done.returncode, done.stdout) == (2, "")
    error, hint = done.stderr.splitlines()
    assert message in error and hint.startswith("Hint: ")
    assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before


def test_files_are_there_though_nobody_reads_what_is_printed(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def gone(_: object) -> None:
        raise SpikerlError("the reader is gone")

    monkeypatch.setattr("spikerl_deploy.cli.report.print_json", gone)
    done = run_here("report", "run-a", "--format", "json", "-o", "all", cwd=folder)
    assert "the reader is gone" in done.stderr and (folder / "all" / "report.html").is_file()


def test_pictures_of_the_report_that_was_there_before_go_with_it(folder: Path) -> None:
    assert run_here("report", "deployed", "run-a", "-o", "all", "--svg", cwd=folder).returncode == 0
    (folder / "all" / "plots" / "notes.txt").write_text("mine")
    before = {path.name for path in (folder / "all" / "plots").iterdir()}
    assert run_here("report", "run-a", "-o", "all", "--force", cwd=folder).returncode == 0
    assert run_here("report", "run-a", "-o", "fresh", cwd=folder).returncode == 0
    fresh = {path.name for path in (folder / "fresh" / "plots").iterdir()}
    left = {path.name for path in (folder / "all" / "plots").iterdir()}
    assert fresh and left == fresh | {"notes.txt"} < before


def test_two_copies_of_a_run_are_one(folder: Path) -> None:
    write_run(folder / "run-c", 30.0, None)  # which any comparison warns of
    shutil.copytree(folder / "run-c", folder / "copy" / "run-c")
    done = run_here("report", "run-c", "copy/run-c", "--format", "json", cwd=folder)
    document = json.loads(done.stdout)
    assert (len(document["training"]), document["speedups"]) == (1, [])
    assert not any("runs A" in line for line in document["warnings"])


def test_chips_of_one_title_have_rows_of_their_own_with_their_names(folder: Path) -> None:
    report = real_report()
    energy = report["deployments"][0]["backends"]["fixed"]["energy"]
    (headline,) = (figure for figure in energy["figures"] if figure["id"] == energy["headline"]["id"])
    other = {"id": "mychip/chip-dynamic", "target": "mychip", "low": 765.0, "high": 765.0}
    energy["figures"].append(headline | other)
    (folder / "deployed" / "report.json").write_text(json.dumps(report))
    done = run_here("report", "deployed", "-o", "all", cwd=folder)
    ours, mine = (line for line in done.stdout.splitlines() if line.strip().startswith("Loihi 1"))
    assert "*" in ours and "*" not in mine and "765" in mine and "765" not in ours
    assert "(loihi1)" in done.stdout and "(mychip)" in done.stdout and "(spinnaker)" not in done.stdout


def test_numbers_as_large_as_a_report_may_hold_are_drawn(folder: Path) -> None:
    report = real_report()
    for entry in report["deployments"][0]["backends"].values():
        for figure in (*entry["energy"]["figures"], *entry["energy"]["baselines"]):
            figure |= {"low": 1e100, "high": 1e100}
    (folder / "deployed" / "report.json").write_text(json.dumps(report))
    assert run_here("report", "deployed", "-o", "all", cwd=folder).returncode == 0
    assert (folder / "all" / "report.html").is_file()


@pytest.mark.parametrize(
    ("file", "text", "message"),
    [
        ("result.json", '{"seconds": 1, "steps": ' + "9" * 400 + "}", "run-b/result.json' has steps = 999"),
        ("result.json", '{"seconds": true, "steps": 1}', "has seconds = True, a number"),
        ("result.json", '{"steps": ' + "[" * 100_000, "cannot read 'run-b/result.json'"),
        ("metrics.csv", f"step,seconds,kind,name,value\n{'9' * 400},1.0,eval,return_mean,1.0\n", "too large"),
    ],
)
def test_a_broken_run_is_refused_in_one_line(folder: Path, file: str, text: str, message: str) -> None:
    (folder / "run-b" / file).write_text(text)
    done = run_here("report", "run-b", "-o", "all", cwd=folder)
    assert done.returncode == 2 and message in done.stderr
    assert len(done.stderr.splitlines()[0]) < 250 and not (folder / "all").exists()
