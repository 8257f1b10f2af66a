"""Warnings of a report: what keeps a reader from believing or comparing its figures."""

from __future__ import annotations

from typing import Any

import pytest
from report_support import measurement, real_report

from spikerl_deploy.report.warnings import report_warnings


def first(report: dict[str, Any]) -> dict[str, Any]:
    return report["deployments"][0]


def two_alike() -> dict[str, Any]:
    """A report of two deployments that can be compared, of seeds enough."""
    report = real_report(*range(10))
    other = first(real_report(*range(10))) | {"id": "other", "title": "other"}
    return report | {"deployments": [first(report), other]}


def test_deployments_that_compare_and_have_seeds_enough_are_not_warned_of() -> None:
    assert report_warnings(two_alike()) == []


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("environment.seeds", list(range(1, 11)), "p.nir on fixed and other played different seeds"),
        ("environment.perturbation", {"words": "w", "backends": ["fixed"]}, "were not perturbed alike"),
        ("manifest.machine", {"system": "Plan 9"}, "ran on different machines"),
        ("backends.fixed.energy.constants_version", "0", "energies of different constants, versions 2 and 0"),
        ("environment.control_step_s", None, "other: its control rate is unknown"),
        ("comparison.retention", None, "other: retention is undefined"),
        ("backends.torch.runs", "float32 weights of the NIR graph", "torch, ran the weights of the NIR graph"),
        ("backends.fixed.workload.layers.1.spikes", 0, "other: layer 2 never spiked"),
    ],
)
def test_each_thing_that_differs_or_lacks_is_named(path: str, value: Any, message: str) -> None:
    report = two_alike()
    *parents, last = [int(part) if part.isdigit() else part for part in path.split(".")]
    place = report["deployments"][1]
    for part in parents:
        place = place[part]
    place[last] = value
    lines = report_warnings(report)
    assert any(message in line for line in lines), lines
    assert not any(line.startswith("p.nir on fixed: ") for line in lines)


@pytest.mark.parametrize(
    ("seeds", "message"),
    [
        (1, "1 seed: no interval, one episode says little"),
        (2, "2 seeds: intervals are only as wide as those episodes"),
        (9, "9 seeds: intervals are only as wide as those episodes"),
        (10, None),
    ],
)
def test_fewer_than_ten_seeds_are_warned_of(seeds: int, message: str | None) -> None:
    report = real_report(*range(10))
    first(report)["environment"]["seeds"] = list(range(seeds))
    assert report_warnings(report) == ([] if message is None else [f"p.nir on fixed: {message}"])


def test_deployments_of_different_environments_are_not_held_against_each_other() -> None:
    report = two_alike()
    report["deployments"][1]["environment"] |= {"id": "Ant-v5", "seeds": list(range(5, 15))}
    assert report_warnings(report) == []


def test_verifications_runs_and_measurements_speak_for_themselves() -> None:
    run = {"title": "r", "finished": False, "stopped": None, "energy": {"kind": "modelled"}}
    verification = {
        "title": "v",
        "passed": False,
        "rows": [{"name": "norse", "status": "failed"}, {"name": "lava", "status": "passed"}],
        "reference": {"spikes": [5, 0]},
    }
    measured = measurement() | {"warnings": ["the machine was not idle"]}
    parts = {"deployments": [], "training": [run], "conformance": [verification], "inference": [measured]}
    assert report_warnings(parts) == [
        "training r: not finished (no result.json)",
        "training r: its energy is modelled, at least in part",
        "verification v: not passed: norse",
        "verification v: layer 1 never spikes: agreement there says little",
        "energy of p.nir: the machine was not idle",
    ]
