"""Merging: every kind of input is found by its content, is in the report once, and under a name of its own."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest
from report_support import ENV, measurement, real_report, write_run
from support import ROOT

from spikerl_deploy.errors import SpikerlError
from spikerl_deploy.report.document import validate
from spikerl_deploy.report.merge import find_sources, merge_reports, slug
from spikerl_deploy.report.warnings import report_warnings
from training.run_document import training_parts
from training.run_reader import read_run

VERIFIED = ROOT / "benchmarks" / "results" / "verify.json"


def put(path: Path, document: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(document))
    return path


def merged(*paths: Path, skip: Path | None = None, **options: Any) -> dict[str, Any]:
    sources = find_sources(paths, skip)
    runs = training_parts([read_run(source.path) for source in sources if source.parts is None])
    report = merge_reports(sources, runs, {}, **options)
    validate(report, "merged")
    return report


def test_a_report_of_one_report_says_the_same(tmp_path: Path) -> None:
    report = real_report()
    assert merged(put(tmp_path / "report.json", report)) == report | {"manifest": {}}


def test_inputs_of_every_kind_are_found_by_content(tmp_path: Path) -> None:
    write_run(tmp_path / "run", 100.0, 3000.0)
    put(tmp_path / "run" / "odd name.json", real_report())
    put(tmp_path / "run" / "energy.json", measurement())
    put(tmp_path / "run" / "other.json", {"schema": "something/1"})
    (tmp_path / "run" / "verify.json").write_bytes(VERIFIED.read_bytes())
    report = merged(tmp_path / "run")
    assert [len(report[part]) for part in ("deployments", "training", "conformance", "inference")] == [1, 1, 1, 1]
    assert report["inference"] == [measurement()]
    (verification,), original = report["conformance"], json.loads(VERIFIED.read_text())
    assert verification["passed"] and verification["policy"]["sha256"] == original["policy"]["sha256"]
    for row, source in zip(verification["rows"], original["rows"], strict=True):
        assert (row["name"], row["status"]) == (source["name"], source["status"])
        assert (row["mismatches"], row["either"]) == (source["spikes"]["mismatches"], source["spikes"]["either"])
        assert row["action_error"] == source["action_error"]["share_of_range"]


def test_a_folder_without_inputs_of_its_own_is_searched_one_level_deep_but_not_where_the_report_goes(
    tmp_path: Path,
) -> None:
    put(tmp_path / "a" / "report.json", real_report())
    put(tmp_path / "b" / "report.json", real_report(5, 6))
    put(tmp_path / "new" / "report.json", real_report(7))
    put(tmp_path / "c" / "deep" / "report.json", real_report(8))
    report = merged(tmp_path, skip=tmp_path / "new")
    assert [one["environment"]["seeds"] for one in report["deployments"]] == [[0, 1, 2], [5, 6]]


def test_what_is_given_twice_is_in_the_report_once_and_names_stay_unique(tmp_path: Path) -> None:
    first, other = put(tmp_path / "a" / "report.json", real_report()), put(tmp_path / "b.json", real_report(5, 6))
    third = put(tmp_path / "c.json", real_report(7, 8))
    copied = put(tmp_path / "copy.json", real_report())
    report = merged(first, first.parent, copied, other, third)
    assert [one["id"] for one in report["deployments"]] == [
        "p-fixed",
        "p-nir-on-fixed-invertedpendulum-v5-2-seeds",
        "p-nir-on-fixed-invertedpendulum-v5-2-seeds-2",
    ]
    titles = [one["title"] for one in report["deployments"]]
    assert titles[:2] == ["p.nir on fixed", f"p.nir on fixed, {ENV}, 2 seeds"] and len(set(titles)) == 3
    assert any("played different seeds" in line for line in report["warnings"])


def test_merging_a_merged_report_with_its_inputs_changes_nothing(tmp_path: Path) -> None:
    write_run(tmp_path / "run-a", 100.0, 3000.0)
    write_run(tmp_path / "run-b", 40.0, 2000.0)
    inputs = [tmp_path / "run-a", tmp_path / "run-b", put(tmp_path / "report.json", real_report()), VERIFIED,
              put(tmp_path / "energy.json", measurement())]  # fmt: skip
    once = merged(*inputs)
    again = merged(put(tmp_path / "merged" / "report.json", once), *inputs)
    assert merged(*inputs) == once == again
    assert len(once["speedups"]) == 1 and len(once["training"]) == 2


def test_speedups_follow_the_ids_of_their_runs(tmp_path: Path) -> None:
    for name, seconds in (("x", 40.0), ("y", 30.0)):
        write_run(tmp_path / name / "run-a", 100.0, 3000.0 + seconds)
        write_run(tmp_path / name / "run-b", seconds, 2000.0)
    reports = [
        put(tmp_path / f"{name}.json", merged(tmp_path / name / "run-a", tmp_path / name / "run-b"))
        for name in ("x", "y")
    ]
    report = merged(*reports)
    ids = [run["id"] for run in report["training"]]
    assert len(set(ids)) == 4
    assert [(one["baseline"], one["run"]) for one in report["speedups"]] == [(ids[0], ids[1]), (ids[2], ids[3])]
    assert [one["speedup"] for one in report["speedups"]] == pytest.approx([100 / 40, 100 / 30])


def test_a_run_is_the_same_whatever_its_carbon_is_stated_at(tmp_path: Path) -> None:
    write_run(tmp_path / "run", 100.0, 3.6e6)
    restated = put(tmp_path / "restated" / "report.json", merged(tmp_path / "run", carbon_intensity=50.0))
    (run,) = merged(restated, tmp_path / "run")["training"]
    assert run["carbon"]["intensity"]["value"] == 400.0
    write_run(tmp_path / "other" / "run", 100.0, 3.7e6)
    assert len(merged(restated, tmp_path / "other" / "run")["training"]) == 2


def test_copies_of_one_run_are_not_compared_with_each_other(tmp_path: Path) -> None:
    for name in ("a", "b"):
        write_run(tmp_path / name / "run", 100.0, 3000.0)
    report = merged(tmp_path / "a" / "run", tmp_path / "b" / "run")
    assert (len(report["training"]), report["speedups"]) == (1, [])


def test_warnings_name_deployments_as_the_merged_report_does(tmp_path: Path) -> None:
    plain, perturbed = real_report(), real_report()
    perturbation = {"noise": 0.05, "delay": 0, "drop": 0, "noise_unit": "", "delay_unit": "", "drop_unit": ""}
    environment = perturbed["deployments"][0]["environment"]
    environment["perturbation"] = perturbation | {"words": "noise 0.05", "backends": ["fixed"]}
    for report in (plain, perturbed):
        report["warnings"] = report_warnings(report)
    assert "p.nir on fixed: perturbed on fixed: noise 0.05" in perturbed["warnings"]
    both = merged(put(tmp_path / "plain.json", plain), put(tmp_path / "perturbed.json", perturbed))
    assert [one["title"] for one in both["deployments"]] == ["p.nir on fixed", f"p.nir on fixed, {ENV}, 3 seeds"]
    said = [line for line in both["warnings"] if "perturbed on fixed" in line]
    assert said == [f"p.nir on fixed, {ENV}, 3 seeds: perturbed on fixed: noise 0.05"]


def test_a_longer_name_of_one_seed_counts_it(tmp_path: Path) -> None:
    report = merged(put(tmp_path / "a.json", real_report(1)), put(tmp_path / "b.json", real_report(2)))
    assert report["deployments"][1]["title"] == f"p.nir on fixed, {ENV}, 1 seed"


def test_warnings_of_training_follow_the_titles_of_their_runs(tmp_path: Path) -> None:
    reports = []
    for name, seconds in (("x", 40.0), ("y", 30.0)):
        runs = [tmp_path / name / "run-a", tmp_path / name / "run-b"]
        for number, run in enumerate(runs, start=1):
            write_run(run, seconds * number, 3000.0)
            (run / "config.toml").write_text(f'env = "{ENV}"\nsteps = 2000\nhidden = [{number}]\n')
        reports.append(put(tmp_path / f"{name}.json", merged(*runs)))
    first, second = (json.loads(path.read_text()) for path in reports)
    own = [line for line in first["warnings"] if line.startswith("training runs A, ")]
    assert own and own == [line for line in second["warnings"] if line.startswith("training runs A, ")]
    renamed = [line.replace("run-a,", "run-a (2),").replace("run-b:", "run-b (2):") for line in own]
    both = merged(*reports)
    assert [run["title"] for run in both["training"]] == [
        *(run["title"] for run in first["training"]),
        *(f"{run['title']} (2)" for run in second["training"]),
    ]
    assert [line for line in both["warnings"] if line.startswith("training runs A, ")] == own + renamed


@pytest.mark.parametrize("content", ["[]", '{"loss": NaN}', "{", '"text"', "\xff", '{"steps": ' + "9" * 400 + "}"])
def test_json_that_is_not_ours_does_not_keep_a_folder_from_being_read(tmp_path: Path, content: str) -> None:
    put(tmp_path / "report.json", real_report())
    (tmp_path / "other.json").write_text(content, encoding="latin-1")
    (tmp_path / "folder.json").mkdir()
    assert len(merged(tmp_path)["deployments"]) == 1
    with pytest.raises(SpikerlError, match=r"other.json"):
        find_sources([tmp_path / "other.json"])


def test_a_report_in_a_folder_that_is_broken_is_not_passed_over(tmp_path: Path) -> None:
    write_run(tmp_path / "run", 100.0, 3000.0)
    (tmp_path / "run" / "report.json").write_text(json.dumps(real_report())[:-1])
    with pytest.raises(SpikerlError, match="cannot read '.*report.json'"):
        find_sources([tmp_path / "run"])


def test_carbon_follows_the_given_intensity_where_energy_is_known(tmp_path: Path) -> None:
    write_run(tmp_path / "run", 100.0, 3.6e6)
    write_run(tmp_path / "untracked", 100.0, None)
    own = merged(tmp_path / "run", tmp_path / "untracked")["training"]
    assert own[0]["carbon"]["kg_co2eq"] == pytest.approx(0.4) and own[1]["carbon"] is None
    assert own[0]["carbon"]["intensity"] == {"value": 400.0, "unit": "g CO2eq/kWh", "source": "by hand"}
    given = merged(tmp_path / "run", tmp_path / "untracked", carbon_intensity=50.0)["training"]
    assert given[0]["carbon"] == {
        "kg_co2eq": pytest.approx(0.05),
        "kind": "modelled",
        "intensity": {"value": 50.0, "unit": "g CO2eq/kWh", "source": "given by the user"},
    }
    assert given[1]["carbon"] is None


def test_titles_say_what_is_in_the_report(tmp_path: Path) -> None:
    first, other = put(tmp_path / "a.json", real_report()), put(tmp_path / "b.json", real_report(5, 6))
    write_run(tmp_path / "run", 100.0, None)
    assert merged(first, tmp_path / "run")["title"] == f"{ENV} on fixed"
    assert merged(first, other)["title"] == f"{ENV}: 2 deployments"
    assert merged(tmp_path / "run")["title"] == f"{ENV}: training"
    assert merged(VERIFIED)["title"] == "Conformance"
    assert merged(first, title="mine")["title"] == "mine"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('{"schema": "spikerl.bench-quantization/1"}', "is none of: a report, a training run"),
        ("{}", "its schema is 'None'"),
        ("[]", "holds no JSON object"),
        ("{", "cannot read"),
        ('{"schema": "spikerl.report/1"}', "which this version does not read"),
        ('{"schema": "spikerl.verify/1"}', "is no whole spikerl.verify/1: 'policy' is missing"),
        ('{"schema": "spikerl.verify/1", "policy": 1, "reference": 2}', "a part is no object"),
        ('{"schema": "spikerl.inference-energy/1"}', r"at \$.inference\[0\]"),
    ],
)
def test_a_file_that_is_nothing_known_is_named(tmp_path: Path, content: str, message: str) -> None:
    (tmp_path / "x.json").write_text(content)
    with pytest.raises(SpikerlError, match=message) as caught:
        find_sources([tmp_path / "x.json"])
    assert str(tmp_path / "x.json") in caught.value.message


def test_a_verification_of_wrong_types_is_refused_and_named(tmp_path: Path) -> None:
    document = json.loads(VERIFIED.read_text())
    document["rows"][0]["spikes"]["mismatches"][1] = -1
    for key, value in (("spikes", [1]), ("action_error", "x")):
        broken = copy.deepcopy(document)
        broken["rows"][0][key] = value
        with pytest.raises(SpikerlError, match="v.json' is no whole spikerl.verify/1: a part is no object"):
            find_sources([put(tmp_path / "v.json", broken)])
    with pytest.raises(SpikerlError, match=r"v.json.*\$.conformance\[0\].rows\[0\].mismatches\[1\]: -1"):
        find_sources([put(tmp_path / "v.json", document)])


def test_empty_folders_and_missing_paths_are_named(tmp_path: Path) -> None:
    put(tmp_path / "sub" / "other.json", {"schema": "other/1"})
    with pytest.raises(SpikerlError, match="holds none of: a report"):
        find_sources([tmp_path])
    with pytest.raises(SpikerlError, match="nothing at '.*gone'"):
        find_sources([tmp_path / "gone"])


@pytest.mark.parametrize(("text", "name"), [("A b_C.nir", "a-b-c-nir"), ("--", "unnamed"), ("<ü>", "unnamed")])
def test_slugs_are_letters_digits_and_hyphens(text: str, name: str) -> None:
    assert slug(text) == name
