"""Reading reports: a real one is valid, and whatever is broken in it is refused in one line that names the place."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from report_support import measurement, real_report
from support import ROOT

from spikerl_deploy.errors import SpikerlError
from spikerl_deploy.report import document as reading
from spikerl_deploy.report.document import read_report, report_schema, validate, validate_provenance

OPEN = ("manifest", "provenance")  # what the schema leaves open


def places(value: Any, path: tuple[str | int, ...] = ()) -> Iterator[tuple[str | int, ...]]:
    """Every place that the schema describes; of long lists the first two entries."""
    if isinstance(value, dict):
        for key, inner in value.items():
            yield (*path, key)
            if key not in OPEN:
                yield from places(inner, (*path, key))
    elif isinstance(value, list):
        for index, inner in enumerate(value[:2]):
            yield (*path, index)
            yield from places(inner, (*path, index))


@cache
def all_places() -> list[tuple[str | int, ...]]:
    return list(places(real_report()))


@cache
def places_of_objects() -> list[tuple[str | int, ...]]:
    document = real_report()
    return [place for place in all_places() if isinstance(at(document, place), dict)]


ANYWHERE = st.deferred(lambda: st.sampled_from(all_places()))
OBJECTS = st.deferred(lambda: st.sampled_from(places_of_objects()))
KEYS = ANYWHERE.filter(lambda place: isinstance(place[-1], str) and place[-2:-1] != ("backends",))


def at(document: Any, path: tuple[str | int, ...]) -> Any:
    for part in path:
        document = document[part]
    return document


def json_path(path: tuple[str | int, ...]) -> str:
    return "$" + "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in path)


def refused(document: dict[str, Any]) -> str:
    with pytest.raises(SpikerlError) as caught:
        validate(document, "r.json")
    assert "\n" not in caught.value.message and len(caught.value.message) < 400
    assert caught.value.hint and caught.value.exit_code == 2
    return caught.value.message


def test_a_real_report_is_valid_and_reads_back_from_file_and_folder(tmp_path: Path) -> None:
    document = real_report()
    validate(document, "real")
    (tmp_path / "report.json").write_text(json.dumps(document))
    assert read_report(tmp_path) == read_report(tmp_path / "report.json") == document


def test_the_schema_is_one_and_closes_every_object_but_the_open_ones() -> None:
    from jsonschema import Draft202012Validator

    schema = report_schema()
    Draft202012Validator.check_schema(schema)
    assert schema == json.loads((ROOT / "spikerl_deploy" / "data" / "report.schema.json").read_text())

    def objects(value: Any, name: str) -> Iterator[tuple[str, dict[str, Any]]]:
        if isinstance(value, dict):
            if "properties" in value and isinstance(value["properties"], dict):
                yield name, value
            for key, inner in value.items():
                yield from objects(inner, key) if key not in OPEN else ()
        elif isinstance(value, list):
            for inner in value:
                yield from objects(inner, name)

    found = list(objects(schema, "report"))
    assert len(found) > 30
    for name, one in found:
        assert one.get("additionalProperties") is False, name
        left_out = set(one["properties"]) - set(one["required"])
        assert left_out <= ({"runs"} if name == "reference" else {"sweep", "bits", "lossless"}), name


@settings(max_examples=40, deadline=None)
@given(KEYS)
def test_a_missing_key_is_refused_with_its_place(place: tuple[str | int, ...]) -> None:
    document = real_report()
    del at(document, place[:-1])[place[-1]]
    if place[-1] == "sweep":
        validate(document, "r.json")
    else:
        assert f"at {json_path(place[:-1])}: '{place[-1]}' is a required property" in refused(document)


@settings(max_examples=60, deadline=None)
@given(ANYWHERE, st.sampled_from([{"x": 1}, [["x"]], "\x00<b>", True, -1.5]))
def test_a_value_of_another_type_is_refused(place: tuple[str | int, ...], value: Any) -> None:
    document = real_report()
    old = at(document, place)
    kinds = {dict: "object", list: "array", str: "string", bool: "boolean", int: "number", float: "number"}
    assume(old is not None and kinds[type(old)] != kinds[type(value)])
    at(document, place[:-1])[place[-1]] = value
    assert json_path(place) in refused(document)


@settings(max_examples=40, deadline=None)
@given(OBJECTS)
def test_a_key_too_many_is_refused_but_where_the_document_is_open(place: tuple[str | int, ...]) -> None:
    document = real_report()
    at(document, place)["surplus"] = 1
    if place[-1] in OPEN:
        validate(document, "r.json")
    else:
        assert "surplus" in refused(document)


@pytest.mark.parametrize("text", ["NaN", "Infinity", "-Infinity", "1e999", "-1e400", "1" + "0" * 400])
def test_a_number_that_is_not_finite_is_refused(tmp_path: Path, text: str) -> None:
    document = real_report()
    document["deployments"][0]["backends"]["fixed"]["mean_return"] = math.pi
    (tmp_path / "r.json").write_text(json.dumps(document).replace("3.141592653589793", text))
    with pytest.raises(SpikerlError, match="cannot read '.*r.json': .*no (JSON|finite) number"):
        read_report(tmp_path / "r.json")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "Expecting value"),
        ('{"schema": ', "Expecting value"),
        ("[1, 2]", "holds no JSON object"),
        ('{"schema": "a", "schema": "b"}', "'schema' comes twice"),
        ("[" * 100_000, "recursion|Expecting"),
        ('{"a": ' + "9" * 5000 + "}", "no finite number"),
        ('{"schema": "spikerl.verify/1"}', 'is no report: its schema is "spikerl.verify/1"'),
        ('{"schema": 7}', "is no report: its schema is 7"),
        ('{"schema": "spikerl.report/1"}', '"spikerl.report/1", which this version does not read'),
        ('{"schema": "spikerl.report/2"}', r"at \$: '.*' is a required property"),
    ],
)
def test_what_is_no_report_is_named(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "r.json").write_text(text)
    with pytest.raises(SpikerlError, match=message) as caught:
        read_report(tmp_path / "r.json")
    assert str(tmp_path / "r.json") in caught.value.message and "\n" not in caught.value.message


def test_an_old_report_is_to_be_simulated_again(tmp_path: Path) -> None:
    (tmp_path / "r.json").write_text('{"schema": "spikerl.report/1"}')
    with pytest.raises(SpikerlError) as caught:
        read_report(tmp_path / "r.json")
    assert caught.value.hint == "simulate again: spikerl simulate POLICY -o DIR"


def test_no_file_no_utf8_and_a_file_too_large_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(SpikerlError, match="No such file"):
        read_report(tmp_path)
    (tmp_path / "r.json").write_bytes(b'{"schema": "\xff"}')
    with pytest.raises(SpikerlError, match="can't decode"):
        read_report(tmp_path / "r.json")
    monkeypatch.setattr(reading, "BYTES_MAX", 100)
    (tmp_path / "r.json").write_text(json.dumps(real_report()))
    with pytest.raises(SpikerlError, match="more than 100 bytes"):
        read_report(tmp_path / "r.json")


def test_reading_and_merging_load_nothing_heavy() -> None:
    modules = "spikerl_deploy.report.document, spikerl_deploy.report.merge, spikerl_deploy.report.check"
    heavy = ("torch", "gymnasium", "matplotlib", "jsonschema", "numpy")
    code = f"import sys, {modules}, training.run_document; print([m for m in {heavy!r} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout.strip() == "[]"


def change(path: str, value: Any) -> dict[str, Any]:
    """The report with the value at a path such as `deployments.0.id`."""
    document = real_report()
    parts = [int(part) if part.isdigit() else part for part in path.split(".")]
    at(document, tuple(parts[:-1]))[parts[-1]] = value
    return document


BACKEND = "deployments.0.backends.fixed"


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("deployments.0.backend", "loihi", "$.deployments[0]: backend: no backend 'loihi'"),
        ("deployments.0.environment.seeds", [0, 1, 1], "environment.seeds: '1' comes twice"),
        ("deployments.0.comparison.backend", "torch", "comparison.backend: 'torch', the deployment is 'fixed'"),
        ("deployments.0.comparison.baseline", "fixed", "comparison.baseline: 'fixed' is the deployment itself"),
        ("deployments.0.comparison.seeds", 5, "comparison.seeds is 5, its parts give 3"),
        ("deployments.0.comparison.differences.2", 1e6, "comparison.differences is 1000000, its parts give "),
        ("deployments.0.comparison.mean_difference", 1e6, "comparison.mean_difference is 1000000, its parts give "),
        ("deployments.0.comparison.retention", 0.99, "comparison.retention is 0.99, its parts give "),
        ("deployments.0.comparison.retention", None, "comparison.retention is None, and the baseline's mean return"),
        (f"{BACKEND}.mean_return", 1e9, "backends.fixed.mean_return is 1000000000, its parts give "),
        (f"{BACKEND}.control_steps", 7, "backends.fixed.control_steps is 7, its parts give "),
        (f"{BACKEND}.workload.control_steps", 7, "workload.control_steps is 7, its parts give "),
        *((f"{BACKEND}.workload.per_inference.{key}", 1, f"per_inference.{key} is 1, its parts give ")
          for key in ("synaptic_operations", "effective_acs", "effective_macs", "dense", "spikes", "input_spikes",
                      "updates_active", "updates_inactive")),
        *((f"{BACKEND}.workload.{part}.overhead_updates", 1, f"{part}.overhead_updates is 1, its parts give ")
          for part in ("per_second", "per_episode.mean")),
        (f"{BACKEND}.workload.layers.1.name", "layer 1", "workload.layers: 'layer 1' comes twice"),
        (f"{BACKEND}.energy.figures.1.id", "loihi1/synops", "backends.fixed.energy: 'loihi1/synops' comes twice"),
        (f"{BACKEND}.energy.baselines.0.id", "loihi1/synops", "backends.fixed.energy: 'loihi1/synops' comes twice"),
        ("deployments.0.spikes.layers.1.name", "input", "spikes.layers: 'input' comes twice"),
        ("deployments.0.membranes.layers.1.name", "layer 1", "membranes.layers: 'layer 1' comes twice"),
        ("deployments.0.firing_rates.1.name", "input", "firing_rates: 'input' comes twice"),
        ("deployments.0.comparison.baseline", "loihi", "comparison.baseline: no backend 'loihi'"),
        ("deployments.0.comparison.differences", [1.0], "comparison.differences: 1 values, 3 were expected"),
        (f"{BACKEND}.returns", [1.0, 2.0], "backends.fixed.returns: 2 values, 3 were expected"),
        (f"{BACKEND}.lengths", [1, 2], "backends.fixed.lengths: 2 values"),
        (f"{BACKEND}.workload.per_episode.spikes", [1], "backends.fixed.spikes: 1 values"),
        (f"{BACKEND}.energy.headline.id", "x/y", "energy.headline: no figure 'x/y'"),
        (f"{BACKEND}.energy.figures.0.low", 1e9, "is lowest at 1000000000.0 and highest at"),
        (f"{BACKEND}.energy.sweep.figures.0.low", [1.0], "low: 1 values"),
        ("deployments.0.spikes.layers.0.time", [], "spikes 'input'"),
        ("deployments.0.spikes.layers.1.neuron.0", 24, "spikes 'layer 1' neuron: 24 is beyond 23"),
        ("deployments.0.spikes.layers.1.time.0", 10**6, "spikes 'layer 1' time: 1000000 is beyond"),
        ("deployments.0.membranes.layers.0.threshold", [], "membranes 'layer 1' threshold: 0 values"),
        ("deployments.0.membranes.layers.0.traces.0.voltage", [0.0], "1 values, "),
        ("deployments.0.membranes.layers.0.traces.0.spikes", [10**6], "spikes: 1000000 is beyond"),
        ("speedups", [dict.fromkeys(("baseline", "run"), "a") | {"speedup": 1.0, "greenup": None, "powerup": None,
                      "quadrant": None, "kind": "unmeasured", "what": ""}], "$.speedups[0].baseline: no training run"),
    ],
)  # fmt: skip
def test_parts_that_disagree_are_named(path: str, value: Any, message: str) -> None:
    assert message in refused(change(path, value))


def test_an_id_that_comes_twice_is_refused() -> None:
    document = change("deployments", real_report()["deployments"] * 2)
    assert "$.deployments: 'p-fixed' comes twice" in refused(document)


def test_sums_are_held_to_their_parts_but_for_rounding() -> None:
    document = real_report()
    entry = document["deployments"][0]["backends"]["fixed"]
    entry["mean_return"] *= 1 + 1e-13
    entry["workload"]["per_inference"]["dense"] *= 1 - 1e-13
    validate(document, "rounded")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"kind": "unmeasured"}, "$.inference[0].rows[0]: kind is 'unmeasured', and its energy is there"),
        ({"kind": "measured", "energy_uj": None}, "kind is 'measured', and its energy is null"),
        ({"energy_uj": {"total": None, "above_idle": None}}, "kind is 'modelled', and its energy is null"),
        ({"energy_uj": {"total": {"mean": 5.0, "low": 6.0, "high": 7.0}, "above_idle": None}}, "total: 5.0 is not"),
        ({"energy_uj": {"total": None, "above_idle": {"mean": -5.0, "low": 3.0, "high": -9.0}}}, "above_idle: -5.0"),
    ],
)
def test_a_measurement_that_disagrees_with_itself_is_refused(changes: dict[str, Any], message: str) -> None:
    measured = measurement()
    measured["rows"][0] |= changes
    assert message in refused(real_report() | {"inference": [measured]})


def test_an_unmeasured_energy_and_a_mean_that_is_rounded_are_valid() -> None:
    measured, third = measurement(), 0.1 + 0.2
    row = measured["rows"][0]
    constant = {"mean": third, "low": 0.3, "high": 0.3}
    rows = [
        row | {"kind": "unmeasured", "energy_uj": None},
        row | {"energy_uj": {"total": constant, "above_idle": None}},
    ]
    validate(real_report() | {"inference": [measured | {"rows": rows}]}, "measured")


def nested(depth: int) -> dict[str, Any]:
    value: dict[str, Any] = {}
    for _ in range(depth):
        value = {"origin": value}
    return value


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        (f"{BACKEND}.energy.figures.0.high", 1e308, "figures[0].high: 1e+308 is not between -1e+100 and 1e+100"),
        (f"{BACKEND}.energy.figures.0.high", 10**400, "figures[0].high: 1000"),
        ("deployments.0.manifest", {"seed": math.inf}, "manifest.seed: Infinity is not between"),
        ("deployments.0.title", "a\ud800", '$.deployments[0].title: "a\\ud800" is no Unicode text'),
        ("deployments.0.manifest", {"\udfff": 1}, '$.deployments[0].manifest: "\\udfff" is no Unicode text'),
        ("deployments.0.policy.provenance", nested(300), "nested more than 64 deep"),
        ("deployments.0.manifest", nested(600), "nested more than 64 deep"),
    ],
)
def test_what_no_file_or_plot_can_hold_is_refused(path: str, value: Any, message: str) -> None:
    assert message in refused(change(path, value))


def test_a_policy_that_was_exported_often_is_valid() -> None:
    document = change("deployments.0.policy.provenance", nested(55))
    validate(document, "often")
    assert json.loads(json.dumps(document, indent=2)) == document


@pytest.mark.parametrize(
    ("provenance", "message"),
    [
        ([], r"at \$: \[\], where type \"object\" was expected"),
        ({"origin": {"training_energy": {"joule": -5}}}, r"at \$.origin.training_energy.joule: -5, where minimum 0"),
        ({"training_energy": {"kind": "magic"}}, r'at \$.training_energy.kind: "magic", where enum'),
        ({"training_energy": {"intensity": {"value": math.nan}}}, r"at \$.training_energy.intensity.value: NaN is not"),
        (nested(300), "nested more than 64 deep"),
    ],
)
def test_a_provenance_that_no_report_holds_is_refused(provenance: Any, message: str) -> None:
    with pytest.raises(SpikerlError, match=message) as caught:
        validate_provenance(provenance, "p.nir")
    assert caught.value.message.startswith("'p.nir' has a provenance") and "\n" not in caught.value.message
    validate_provenance({"origin": None, "seed": 1}, "p.nir")
