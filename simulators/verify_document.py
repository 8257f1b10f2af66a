"""A verification as documents: `spikerl.verify/1` for programs, JUnit XML for CI. docs/verify.md has the layouts."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from simulators.verify import Reference, Row, Tolerance, lossless_layers
from spikerl_deploy.manifest import build_manifest, identify_policy
from spikerl_deploy.policy import Policy

SCHEMA = "spikerl.verify/1"
NOT_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")  # XML 1.0, production [2]


def policy_document(policy: Policy, policy_file: Path) -> dict[str, Any]:
    """Which policy was verified."""
    return {**identify_policy(policy, policy_file), "lossless": list(lossless_layers(policy))}


def tolerance_document(tolerance: Tolerance | None) -> dict[str, Any] | None:
    """A tolerance; None where there is none."""
    if tolerance is None:
        return None
    return {
        "exact": tolerance.exact,
        "mismatch_share": tolerance.mismatch_share,
        "action_error": tolerance.action_error,
    }


def verify_document(policy_file: Path, reference: Reference, rows: Sequence[Row]) -> dict[str, Any]:
    """The whole verification."""
    recording, policy = reference.recording, reference.policy
    first_seed = recording.episodes[0][0]
    spikes = [int(raster.sum()) for raster in reference.rasters]
    return {
        "schema": SCHEMA,
        "manifest": build_manifest(first_seed, {"policy": policy_file}),
        "policy": policy_document(policy, policy_file),
        "environment": reference.env_id,
        "control_steps": len(recording.observations),
        "recorded": [{"seed": seed, "control_steps": steps} for seed, steps in recording.episodes],
        "seeds": list(reference.seeds),
        "reference": {
            "name": reference.name,
            "runs": reference.runs,
            "spikes": spikes,
            "returns": list(reference.returns),
        },
        "warnings": [
            f"layer {layer} never spikes in these control steps: agreement there says little"
            for layer, count in enumerate(spikes)
            if count == 0
        ],
        "passed": not any(row.status in ("failed", "error") for row in rows),
        "rows": [_row(row, reference) for row in rows],
    }


def _row(row: Row, reference: Reference) -> dict[str, Any]:
    document: dict[str, Any] = {
        "name": row.name,
        "runs": row.runs,
        "status": row.status,
        "reasons": list(row.reasons),
        "hint": row.hint,
        "tolerance": tolerance_document(row.tolerance),
        "spikes": None,
        "first_divergence": None,
        "action_error": None,
        "returns": None if row.returns is None else list(row.returns),
        "seconds": row.seconds,
    }
    if row.conformance is not None:
        document["spikes"] = {
            "either": list(row.conformance.either),
            "mismatches": list(row.conformance.mismatches),
            "mismatch_share": row.conformance.mismatch_share,
        }
        document["first_divergence"] = _divergence(row, reference)
    if row.action_error is not None:
        error = row.action_error
        document["action_error"] = {
            "share_of_range": error.share,
            "value": error.value,
            "control_step": error.control_step,
            "dimension": error.dimension,
        }
    return document


def _divergence(row: Row, reference: Reference) -> dict[str, Any] | None:
    assert row.conformance is not None
    if row.conformance.first is None:
        return None
    first = row.conformance.first
    seed, step = reference.recording.locate(first.control_step)
    return {**first._asdict(), "seed": seed, "episode_step": step, "reference_spiked": row.first_spiked}


def divergence_text(row: dict[str, Any], reference: str) -> str:
    """The first divergence of a document's row, in words; all counted from 0."""
    first = row["first_divergence"]
    who = reference if first["reference_spiked"] else row["name"]
    return (
        f"first divergence in layer {first['layer']}, control step {first['control_step']} (step "
        f"{first['episode_step']} of seed {first['seed']}), time step {first['time_step']}, "
        f"neuron {first['neuron']}, where only {who} spikes"
    )


def verdict_text(row: dict[str, Any], reference: str) -> str:
    """Why a document's row failed, in one line, with the first divergence."""
    text = "; ".join(row["reasons"])
    return f"{text}; {divergence_text(row, reference)}" if row["first_divergence"] else text


def junit_xml(document: dict[str, Any]) -> bytes:
    """JUnit XML of a verification document: one testcase for each row that is judged or skipped."""
    rows = [row for row in document["rows"] if row["status"] != "informational"]
    counts = {status: sum(row["status"] == status for row in rows) for status in ("failed", "error", "skipped")}
    totals: dict[str, str] = {
        "tests": str(len(rows)),
        "failures": str(counts["failed"]),
        "errors": str(counts["error"]),
        "skipped": str(counts["skipped"]),
        "time": f"{sum(row['seconds'] for row in rows):.3f}",
    }
    root = ElementTree.Element("testsuites", {"name": "spikerl verify", **totals})
    about = {"timestamp": document["manifest"]["created"], "name": _xml(document["policy"]["file"])}
    suite = ElementTree.SubElement(root, "testsuite", about | totals)
    reference = document["reference"]["name"]
    for row in rows:
        case = ElementTree.SubElement(
            suite, "testcase", classname="spikerl.verify", name=_xml(row["name"]), time=f"{row['seconds']:.3f}"
        )
        text = _xml(verdict_text(row, reference))
        if row["status"] == "failed":
            ElementTree.SubElement(case, "failure", type="mismatch", message=text).text = text
        elif row["status"] == "error":
            ElementTree.SubElement(case, "error", type="error", message=text).text = text
        elif row["status"] == "skipped":
            ElementTree.SubElement(case, "skipped", message=text)
    ElementTree.indent(root)
    encoded: bytes = ElementTree.tostring(root, encoding="utf-8", xml_declaration=True)
    return encoded + b"\n"


def _xml(text: str) -> str:
    """Text without the characters that XML cannot hold."""
    return NOT_XML.sub("\N{REPLACEMENT CHARACTER}", text)
