"""Bounds on a report for CI: each is judged on its own line, and what cannot be judged is never passed."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from spikerl_deploy.errors import SpikerlError, unknown
from spikerl_deploy.report.tables import deployed

Status = Literal["ok", "FAILED", "unknown"]
Deployment = Mapping[str, Any]


@dataclass(frozen=True)
class Bounds:
    """What is asked for, None where nothing is.

    Attributes:
        min_retention: of the baseline's mean return. min_return: mean return.
        max_synops, max_spikes: per inference; spikes of the layers, without the input's.
        max_energy_uj: per inference, of the high end of the figure of `chip` and `energy_model`; either defaults to
            that of the report's headline.
        require_conformance: the deployment's policy was verified on its backend, with these weights, and passed.
    """

    min_retention: float | None = None
    min_return: float | None = None
    max_synops: float | None = None
    max_spikes: float | None = None
    max_energy_uj: float | None = None
    chip: str | None = None
    energy_model: str | None = None
    require_conformance: bool = False


@dataclass(frozen=True)
class Line:
    """One bound on one deployment; `value`: a number, or words. `reason`, `hint`: why it is unknown, what mends it."""

    status: Status
    deployment: str
    quantity: str
    value: float | str | None
    bound: str
    unit: str
    kind: str | None = None
    reason: str | None = None
    hint: str | None = None


def check_bounds(bounds: Bounds) -> None:
    """Refuse bounds with which nothing can be compared.

    Raises:
        SpikerlError: none is given, one is not finite, or a figure is named but no energy is bounded.
    """
    numbers = {
        f"--{name.replace('_', '-')}": getattr(bounds, name)
        for name in ("min_retention", "min_return", "max_synops", "max_spikes", "max_energy_uj")
    }
    for flag, value in numbers.items():
        if value is not None and not math.isfinite(value):
            raise SpikerlError(f"{flag} {value:g} is no number to compare with", f"{flag} 1")
    if bounds.max_energy_uj is None and (bounds.chip or bounds.energy_model):
        flag = f"--chip {bounds.chip}" if bounds.chip else f"--energy-model {bounds.energy_model}"
        raise SpikerlError(f"{flag} says which energy, and none is bounded", "add --max-energy-uj 5")
    if all(value is None for value in numbers.values()) and not bounds.require_conformance:
        raise SpikerlError("no bound is given", "spikerl check DIR --min-retention 0.98 --max-synops 70000")


def check_report(report: Mapping[str, Any], bounds: Bounds, only: str | None = None) -> list[Line]:
    """Judge every bound on every deployment, or on the one of the id `only`.

    Raises:
        SpikerlError: the report has no deployment, none of that id, or not the chip or model.
    """
    deployments = report["deployments"]
    if only is not None:
        deployments = [one for one in deployments if one["id"] == only]
        if not deployments:
            raise unknown("deployment", only, [one["id"] for one in report["deployments"]], "leave --deployment out")
    if not deployments:
        raise SpikerlError("the report has no deployment to judge", "spikerl simulate POLICY -o DIR")
    return [line for deployment in deployments for line in _lines(deployment, bounds, report["conformance"])]


def _lines(deployment: Deployment, bounds: Bounds, verifications: Sequence[Mapping[str, Any]]) -> list[Line]:
    entry, comparison = deployed(deployment), deployment["comparison"]
    counts, name = entry["workload"]["per_inference"], deployment["id"]
    lines = []
    if bounds.min_retention is not None:
        retention = comparison["retention"] if comparison is not None else None
        reason = "it has no baseline" if comparison is None else "the baseline's mean return is not positive"
        lines.append(_at_least(name, "retention", retention, bounds.min_retention, "of the baseline", reason))
    if bounds.min_return is not None:
        lines.append(_at_least(name, "mean return", entry["mean_return"], bounds.min_return, ""))
    for quantity, key, bound in (
        ("synaptic operations", "synaptic_operations", bounds.max_synops),
        ("spikes", "spikes", bounds.max_spikes),
    ):
        if bound is not None:
            lines.append(_at_most(name, quantity, counts[key], bound, "per inference", "counted"))
    if bounds.max_energy_uj is not None:
        figure = _figure(entry["energy"], bounds)
        what = f"energy {figure['id']}"
        lines.append(_at_most(name, what, figure["high"], bounds.max_energy_uj, "uJ per inference", figure["kind"]))
    if bounds.require_conformance:
        lines.append(_conformance(deployment, verifications))
    return lines


def _at_least(deployment: str, what: str, value: float | None, bound: float, unit: str, reason: str = "") -> Line:
    return _judged(deployment, what, value, bound, f">= {bound:,.6g}", unit, None, lambda a, b: a >= b, reason)


def _at_most(deployment: str, what: str, value: float, bound: float, unit: str, kind: str) -> Line:
    return _judged(deployment, what, value, bound, f"<= {bound:,.6g}", unit, kind, lambda a, b: a <= b, "")


def _judged(
    deployment: str,
    quantity: str,
    value: float | None,
    bound: float,
    words: str,
    unit: str,
    kind: str | None,
    holds: Callable[[float, float], bool],
    reason: str,
) -> Line:
    if value is None:
        hint = "give it a baseline that earns: spikerl simulate POLICY --compare torch -o DIR"
        return Line("unknown", deployment, quantity, None, words, unit, kind, reason, hint)
    return Line("ok" if holds(value, bound) else "FAILED", deployment, quantity, value, words, unit, kind)


def _figure(energy: Mapping[str, Any], bounds: Bounds) -> Mapping[str, Any]:
    """The figure that is bounded."""
    figures = energy["figures"]
    headline = next(figure for figure in figures if figure["id"] == energy["headline"]["id"])
    chip, model = bounds.chip or headline["target"], bounds.energy_model or headline["model"]
    here: dict[str, Mapping[str, Any]] = {figure["model"]: figure for figure in figures if figure["target"] == chip}
    if not here:
        raise unknown("chip", chip, {figure["target"] for figure in figures}, f"--chip {headline['target']}")
    if model not in here:
        raise unknown(f"energy model of {chip}", model, here, f"--energy-model {next(iter(here))}")
    return here[model]


def _conformance(deployment: Deployment, verifications: Sequence[Mapping[str, Any]]) -> Line:
    """Whether this very policy was verified on this backend with these weights; every such verification must pass."""
    digest, backend = deployment["policy"]["sha256"], deployment["backend"]
    ran = deployment["backends"][backend]["runs"]
    of_policy = [one for one in verifications if one["policy"]["sha256"] == digest]
    verified = [
        (side.get("runs"), one["passed"] and row["status"] == "passed")
        for one in of_policy
        for row in one["rows"]
        if row["status"] not in ("skipped", "informational")
        for side in (row, one["reference"])
        if side["name"] == backend
    ]
    line = (deployment["id"], f"conformance of {backend}")
    judged = [passed for runs, passed in verified if runs == ran]
    if not judged:
        of_backend = f"of '{backend}' " if of_policy else ""
        reason, hint = f"the report has no verification {of_backend}with this policy", "spikerl report DIR VERIFY.json"
        if verified:
            others = " and ".join(dict.fromkeys(str(runs or "unknown weights") for runs, _ in verified))
            reason = f"it ran {ran}, and verified were {others}"
            hint = "verify or simulate again, so that both run the same weights"
        return Line("unknown", *line, None, "passed", "", None, reason, hint)
    passed = all(judged)
    return Line("ok" if passed else "FAILED", *line, "passed" if passed else "not passed", "passed", "")
