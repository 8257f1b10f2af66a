"""A policy on one backend, beside a baseline: the deployment of a report, and the report of that one deployment."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from simulators.protocol import Backend
from simulators.rollout import Rollout
from simulators.traces import membranes_document, rates_document, spikes_document
from spikerl_deploy.energy import EnergyChips, estimate_energy
from spikerl_deploy.manifest import build_manifest, identify_policy
from spikerl_deploy.policy import Policy
from spikerl_deploy.report.merge import empty_report, slug
from spikerl_deploy.report.warnings import report_warnings
from spikerl_deploy.statistics import BOOTSTRAP_SEED, CONFIDENCE, RESAMPLES, compare_paired, mean_interval
from spikerl_deploy.workload import FLOAT_BITS, count_episodes, count_workload, workload_document

INTERVAL = f"{CONFIDENCE:.0%} percentile bootstrap over seeds, {RESAMPLES} resamples, seed {BOOTSTRAP_SEED}"


def report_document(
    policy: Policy,
    policy_file: Path,
    env_id: str,
    control_step_s: float | None,
    runs: list[tuple[Backend, Rollout]],
    chips: EnergyChips,
    perturbation: dict[str, Any] | None = None,
) -> dict[str, Any]:
    """The report of one deployment, `spikerl.report/2`: see docs/report.md.

    Args:
        control_step_s: seconds of control between two inferences, None if unknown.
        runs: the deployment, then its baseline, if there is one; with equal seeds.
        chips: constants of the energy.
    """
    deployment = deployment_document(policy, policy_file, env_id, control_step_s, runs, chips, perturbation)
    document = empty_report() | {
        "manifest": deployment["manifest"],
        "title": f"{env_id} on {deployment['backend']}",
        "deployments": [deployment],
    }
    return document | {"warnings": report_warnings(document)}


def deployment_document(
    policy: Policy,
    policy_file: Path,
    env_id: str,
    control_step_s: float | None,
    runs: list[tuple[Backend, Rollout]],
    chips: EnergyChips,
    perturbation: dict[str, Any] | None = None,
) -> dict[str, Any]:
    """What the first of the runs did, beside the second, if there is one; arguments as of `report_document`."""
    (backend, deployed), *_ = runs
    return {
        "id": slug(f"{policy_file.stem} {backend.name}"),
        "title": f"{policy_file.name} on {backend.name}",
        "manifest": build_manifest(deployed.seeds[0], {"policy": policy_file}),
        "policy": {
            **identify_policy(policy, policy_file),
            "coding": None if policy.encoder is None else policy.encoder.coding,
            "provenance": policy.provenance,
        },
        "environment": {
            "id": env_id,
            "seeds": list(deployed.seeds),
            "control_step_s": control_step_s,
            "perturbation": perturbation,
        },
        "backend": backend.name,
        "backends": {one.name: backend_document(one, policy, result, control_step_s, chips) for one, result in runs},
        "comparison": _comparison(runs),
        "spikes": spikes_document(deployed),
        "membranes": membranes_document(policy, backend, deployed),
        "firing_rates": rates_document(deployed, policy.time_steps),
    }


def backend_document(
    backend: Backend, policy: Policy, result: Rollout, control_step_s: float | None, chips: EnergyChips
) -> dict[str, Any]:
    """What one backend did: returns, operations, modelled energy and wall time."""
    returns, weights = np.array(result.returns), backend.layer_weights(policy)
    bits = policy.bits if backend.exactness == "integer" and policy.bits is not None else FLOAT_BITS
    workload = count_workload(
        result.spike_totals,
        weights,
        result.control_steps,
        policy.time_steps,
        weight_bits=bits,
        control_step_s=control_step_s,
    )
    several = len(returns) > 1
    return {
        "runs": backend.runs(policy),
        "exactness": backend.exactness,
        "returns": list(result.returns),
        "mean_return": float(returns.mean()),
        "std_return": float(returns.std(ddof=1)) if several else None,
        "return_interval": list(mean_interval(result.returns)) if several else None,
        "lengths": list(result.lengths),
        "control_steps": result.control_steps,
        "workload": workload_document(workload, count_episodes(result.episode_spikes, weights)),
        "energy": estimate_energy(workload, policy.ann_sizes(), chips),
        "wall_time": _wall_time(result),
    }


def _wall_time(result: Rollout) -> dict[str, Any]:
    milliseconds = result.infer_seconds * 1e3
    return {
        "kind": "measured",
        "what": f"backend's time for one control step of up to {result.batch} episodes side by side",
        "unit": "ms",
        "median": float(np.median(milliseconds)),
        "p99": float(np.percentile(milliseconds, 99)),
        "calls": len(milliseconds),
        "episodes_side_by_side": result.batch,
        "whole_rollout_s": result.wall_seconds,
    }


def _comparison(runs: list[tuple[Backend, Rollout]]) -> dict[str, Any] | None:
    if len(runs) < 2:
        return None
    (backend, deployed), (baseline, reference), *_ = runs
    paired = asdict(compare_paired(deployed.returns, reference.returns))
    return {
        "backend": backend.name,
        "baseline": baseline.name,
        **{key: list(value) if isinstance(value, tuple) else value for key, value in paired.items()},
        "interval": INTERVAL,
        "seeds": len(deployed.seeds),
    }
