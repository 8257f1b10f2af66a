"""Bounds on a report: each holds and fails on its own side of the value, and what cannot be judged is never passed."""

from __future__ import annotations

from typing import Any

import pytest
from report_support import real_report

from spikerl_deploy.errors import SpikerlError
from spikerl_deploy.report.check import Bounds, Line, check_bounds, check_report


def deployed(report: dict[str, Any]) -> dict[str, Any]:
    (deployment,) = report["deployments"]
    return deployment["backends"][deployment["backend"]]


def judged(report: dict[str, Any], **bounds: Any) -> Line:
    (line,) = check_report(report, Bounds(**bounds))
    return line


def value_of(report: dict[str, Any], name: str) -> float:
    entry = deployed(report)
    counts, energy = entry["workload"]["per_inference"], entry["energy"]
    return {
        "min_retention": report["deployments"][0]["comparison"]["retention"],
        "min_return": entry["mean_return"],
        "max_synops": counts["synaptic_operations"],
        "max_spikes": counts["spikes"],
        "max_energy_uj": next(one["high"] for one in energy["figures"] if one["id"] == energy["headline"]["id"]),
    }[name]


@pytest.mark.parametrize("name", ["min_retention", "min_return", "max_synops", "max_spikes", "max_energy_uj"])
def test_a_bound_holds_at_the_value_and_fails_just_beyond_it(name: str) -> None:
    report = real_report()
    value, side = value_of(report, name), 1 if name.startswith("min") else -1
    line = judged(report, **{name: value})
    assert (line.status, line.value, line.deployment) == ("ok", value, "p-fixed")
    assert judged(report, **{name: value * (1 - side * 1e-9)}).status == "ok"
    assert judged(report, **{name: value * (1 + side * 1e-9)}).status == "FAILED"


def test_the_energy_that_is_bounded_is_the_high_end_of_the_figure_of_chip_and_model() -> None:
    report = real_report()
    figures = {figure["id"]: figure for figure in deployed(report)["energy"]["figures"]}
    for options in ({"chip": "loihi1", "energy_model": "chip-total"}, {"energy_model": "chip-total"}):
        line = judged(report, max_energy_uj=1.0, **options)
        assert (line.quantity, line.value) == ("energy loihi1/chip-total", figures["loihi1/chip-total"]["high"])
        assert (line.status, line.kind) == ("FAILED", "modelled")
    line = judged(report, max_energy_uj=1e9, chip="spinnaker")
    assert (line.quantity, line.value) == ("energy spinnaker/chip-dynamic", figures["spinnaker/chip-dynamic"]["high"])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"chip": "loihi9"}, "unknown chip 'loihi9'; there is: .*loihi1"),
        ({"energy_model": "guess"}, "unknown energy model of loihi1 'guess'; there is: chip-dynamic"),
    ],
)
def test_a_figure_that_is_not_there_is_refused(options: dict[str, str], message: str) -> None:
    with pytest.raises(SpikerlError, match=message):
        judged(real_report(), max_energy_uj=1.0, **options)


def test_retention_without_a_baseline_or_of_one_that_earns_nothing_is_unknown() -> None:
    report = real_report()
    report["deployments"][0]["comparison"]["retention"] = None
    line = judged(report, min_retention=0.0)
    assert (line.status, line.value) == ("unknown", None) and "not positive" in line.reason
    report["deployments"][0]["comparison"] = None
    line = judged(report, min_retention=-1.0)
    assert line.status == "unknown" and "no baseline" in line.reason and "--compare" in line.hint


RUNS = "8-bit integers"


def verification(report: dict[str, Any], status: str = "passed", **changes: Any) -> dict[str, Any]:
    """A verification of the report's policy against `lava`, with a row for `fixed`, both of its integers."""
    row = {"name": "fixed", "runs": RUNS, "status": status}
    policy = {"sha256": report["deployments"][0]["policy"]["sha256"]}
    whole = {
        "policy": policy,
        "reference": {"name": "lava", "runs": RUNS},
        "rows": [row],
        "passed": status not in ("failed", "error"),
    }
    return whole | changes


def conformance(report: dict[str, Any], *verifications: dict[str, Any]) -> str:
    report["conformance"] = list(verifications)
    return judged(report, require_conformance=True).status


@pytest.mark.parametrize(
    ("status", "verdict"),
    [("passed", "ok"), ("failed", "FAILED"), ("error", "FAILED"), ("skipped", "unknown"), ("informational", "unknown")],
)
def test_conformance_is_that_of_the_deployments_backend(status: str, verdict: str) -> None:
    report = real_report()
    assert conformance(report, verification(report, status)) == verdict


def test_conformance_holds_for_the_reference_where_another_backend_was_compared_with_it() -> None:
    report = real_report()
    of_reference = {"reference": {"name": "fixed", "runs": RUNS}}
    compared, skipped = ({"name": "lava", "runs": RUNS, "status": status} for status in ("passed", "skipped"))
    assert conformance(report, verification(report, **of_reference, rows=[compared])) == "ok"
    assert conformance(report, verification(report, **of_reference, rows=[skipped])) == "unknown"


def test_conformance_of_another_policy_or_backend_or_none_is_unknown() -> None:
    report = real_report()
    assert conformance(report) == "unknown"
    assert conformance(report, verification(report, policy={"sha256": "0" * 64})) == "unknown"
    assert (
        conformance(report, verification(report, rows=[{"name": "norse", "runs": RUNS, "status": "passed"}]))
        == "unknown"
    )


def test_conformance_of_other_weights_than_those_that_ran_is_unknown() -> None:
    report = real_report()
    report["deployments"][0]["backend"] = "torch"  # which ran the weights as trained
    graph, trained = "float32 weights of the NIR graph", "float32 weights as trained"
    assert deployed(report)["runs"] == trained
    judged_graph, as_trained = ({"name": "torch", "runs": runs, "status": "passed"} for runs in (graph, trained))
    of_graph = verification(report, rows=[judged_graph])
    assert conformance(report, of_graph) == "unknown"
    line = judged(report, require_conformance=True)
    assert line.reason == f"it ran {trained}, and verified were {graph}" and "the same weights" in line.hint
    assert conformance(report, of_graph, verification(report, rows=[as_trained])) == "ok"
    referred = [{"name": "torch", "runs": graph}, {"name": "torch", "runs": trained}, {"name": "torch"}]
    compared = [{"name": "norse", "runs": graph, "status": "passed"}]
    verdicts = [conformance(report, verification(report, reference=one, rows=compared)) for one in referred]
    assert verdicts == ["unknown", "ok", "unknown"]


def test_one_verification_that_failed_is_not_made_good_by_another() -> None:
    report = real_report()
    assert conformance(report, verification(report), verification(report, "failed")) == "FAILED"
    assert conformance(report, verification(report, passed=False)) == "FAILED"


def test_every_deployment_is_judged_or_the_named_one() -> None:
    report = real_report()
    report["deployments"].append(report["deployments"][0] | {"id": "other"})
    assert [line.deployment for line in check_report(report, Bounds(min_return=0.0))] == ["p-fixed", "other"]
    assert [line.deployment for line in check_report(report, Bounds(min_return=0.0), "other")] == ["other"]
    with pytest.raises(SpikerlError, match="unknown deployment 'othe'; there is: other, p-fixed"):
        check_report(report, Bounds(min_return=0.0), "othe")


def test_a_report_without_a_deployment_cannot_be_judged() -> None:
    with pytest.raises(SpikerlError, match="no deployment to judge"):
        check_report(real_report() | {"deployments": []}, Bounds(min_return=0.0))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "no bound is given"),
        ({"min_retention": float("nan")}, "--min-retention nan is no number"),
        ({"max_synops": float("inf")}, "--max-synops inf is no number"),
        ({"max_energy_uj": float("-inf")}, "--max-energy-uj -inf is no number"),
        ({"min_return": 1.0, "chip": "loihi1"}, "--chip loihi1 says which energy, and none is bounded"),
        ({"energy_model": "synops"}, "--energy-model synops says which energy"),
    ],
)
def test_bounds_that_say_nothing_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(SpikerlError, match=message):
        check_bounds(Bounds(**options))
    check_bounds(Bounds(require_conformance=True))
