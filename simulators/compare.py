"""The comparison of a policy on one backend with a baseline, as the document that report.json holds."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from simulators.protocol import Backend
from simulators.rollout import Rollout
from spikerl_deploy.energy import estimate_energy, measure_activity
from spikerl_deploy.files import sha256_file
from spikerl_deploy.manifest import build_manifest
from spikerl_deploy.policy import Policy
from spikerl_deploy.statistics import BOOTSTRAP_SEED, CONFIDENCE, RESAMPLES, compare_paired

SCHEMA = "spikerl.report/1"
INTERVAL = f"{CONFIDENCE:.0%} percentile bootstrap over seeds, {RESAMPLES} resamples, seed {BOOTSTRAP_SEED}"


def backend_document(
    backend: Backend, policy: Policy, result: Rollout, control_step_seconds: float | None
) -> dict[str, Any]:
    """What one backend did: returns, activity, modelled energy and wall time."""
    returns = np.array(result.returns)
    activity = measure_activity(
        result.spike_totals, backend.layer_weights(policy), result.control_steps, policy.time_steps
    )
    milliseconds = result.infer_seconds * 1e3
    return {
        "runs": backend.runs(policy),
        "exactness": backend.exactness,
        "returns": list(result.returns),
        "mean_return": float(returns.mean()),
        "std_return": float(returns.std(ddof=1)) if len(returns) > 1 else None,
        "lengths": list(result.lengths),
        "control_steps": result.control_steps,
        "per_control_step": {
            "unit": "events per control step, mean over all control steps",
            "input_spikes": activity.spikes[0],
            "spikes": list(activity.spikes[1:]),
            "synaptic_operations": list(activity.synaptic_operations),
            "total_synaptic_operations": sum(activity.synaptic_operations),
            "activity": list(activity.activity),
            "dense_multiply_accumulates": [macs * policy.time_steps for macs in activity.dense_macs],
        },
        "energy": estimate_energy(activity, control_step_seconds),
        "wall_time": {
            "kind": "measured",
            "what": f"backend's time for one control step of up to {result.batch} episodes side by side",
            "unit": "ms",
            "median": float(np.median(milliseconds)),
            "p99": float(np.percentile(milliseconds, 99)),
            "calls": len(milliseconds),
            "episodes_side_by_side": result.batch,
            "whole_rollout_s": result.wall_seconds,
        },
    }


def report_document(
    policy: Policy,
    policy_file: Path,
    env_id: str,
    control_step_seconds: float | None,
    runs: list[tuple[Backend, Rollout]],
    perturbation: dict[str, Any] | None = None,
) -> dict[str, Any]:
    """The whole report; the first run is the deployment, the second, if there is one, the baseline.

    Layout of `spikerl.report/1`: see docs/report.md.
    """
    names = [backend.name for backend, _ in runs]
    seeds = list(runs[0][1].seeds)
    document: dict[str, Any] = {
        "schema": SCHEMA,
        "manifest": build_manifest(seeds[0], {"policy": policy_file}),
        "policy": {
            "file": policy_file.name,
            "sha256": sha256_file(policy_file),
            "sizes": list(policy.sizes),
            "time_steps": policy.time_steps,
            "bits": policy.bits,
            "provenance": policy.provenance,
        },
        "environment": {
            "id": env_id,
            "seeds": seeds,
            "control_step_s": control_step_seconds,
            "perturbation": perturbation,
        },
        "backend": names[0],
        "backends": {b.name: backend_document(b, policy, r, control_step_seconds) for b, r in runs},
        "comparison": None,
    }
    if len(runs) > 1:
        paired = compare_paired(runs[0][1].returns, runs[1][1].returns)
        document["comparison"] = {
            "backend": names[0],
            "baseline": names[1],
            **{key: list(value) if isinstance(value, tuple) else value for key, value in asdict(paired).items()},
            "interval": INTERVAL,
            "seeds": len(seeds),
        }
    return document
