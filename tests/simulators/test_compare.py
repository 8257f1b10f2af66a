"""The report document against the rollouts that it was made from."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from support import quantized_policy, random_policy

from simulators.compare import report_document
from simulators.protocol import Backend
from simulators.registry import make_backend
from simulators.rollout import Rollout, rollout
from spikerl_deploy.energy import load_energy_chips
from spikerl_deploy.policy import Policy
from spikerl_deploy.policy_file import save_policy
from spikerl_deploy.report.document import validate

ENV = "InvertedPendulum-v5"


def played(policy: Policy, names: tuple[str, ...], seeds: range = range(4)) -> list[tuple[Backend, Rollout]]:
    runs = []
    for name in names:
        backend = make_backend(name, device="cpu")
        with backend.open(policy, 2) as session:
            runs.append((backend, rollout(session, ENV, seeds, record=3)))
    return runs


def test_the_report_says_what_happened(tmp_path: Path) -> None:
    policy = quantized_policy()
    save_policy(policy, tmp_path / "p.nir")
    runs = played(policy, ("fixed", "torch"))
    made = report_document(policy, tmp_path / "p.nir", ENV, 0.04, runs, load_energy_chips())
    document = json.loads(json.dumps(made, allow_nan=False))
    validate(document, "made")
    assert (document["schema"], document["title"]) == ("spikerl.report/2", f"{ENV} on fixed")
    (deployment,) = document["deployments"]
    assert (deployment["id"], deployment["title"], deployment["backend"]) == ("p-fixed", "p.nir on fixed", "fixed")
    environment = {"id": ENV, "seeds": [0, 1, 2, 3], "control_step_s": 0.04, "perturbation": None}
    assert deployment["environment"] == environment
    assert deployment["policy"]["sha256"] == hashlib.sha256((tmp_path / "p.nir").read_bytes()).hexdigest()
    assert deployment["policy"]["coding"] == "regular"
    for backend, result in runs:
        entry = deployment["backends"][backend.name]
        assert entry["returns"] == list(result.returns)
        low, high = entry["return_interval"]
        assert min(result.returns) <= low < np.mean(result.returns) < high <= max(result.returns)
        fan_out = [np.count_nonzero(weight, axis=0) for weight in backend.layer_weights(policy)]
        for index, layer in enumerate(entry["workload"]["layers"]):
            operations = result.spike_totals[index] @ fan_out[index] / result.control_steps
            assert layer["effective_acs"] == pytest.approx(operations)
            assert layer["spikes"] == pytest.approx(result.spike_totals[index + 1].sum() / result.control_steps)
        counts = entry["workload"]["per_inference"]
        assert entry["workload"]["per_second"]["spikes"] == pytest.approx(counts["spikes"] / 0.04)
        assert sum(entry["workload"]["per_episode"]["spikes"]) == pytest.approx(counts["spikes"] * result.control_steps)
        assert entry["wall_time"]["p99"] >= entry["wall_time"]["median"] > 0
        assert {figure["kind"] for figure in entry["energy"]["figures"]} == {"modelled"}
    bits = [deployment["backends"][name]["workload"]["footprint"]["weight_bits"] for name in ("fixed", "torch")]
    assert bits == [8, 32]
    comparison = deployment["comparison"]
    assert (comparison["backend"], comparison["baseline"]) == ("fixed", "torch")
    assert comparison["retention"] == pytest.approx(np.mean(runs[0][1].returns) / np.mean(runs[1][1].returns))
    assert deployment["backends"]["torch"]["runs"] == "float32 weights as trained"


def test_without_a_baseline_and_a_control_rate_there_is_no_comparison_and_nothing_per_second(tmp_path: Path) -> None:
    policy = quantized_policy()
    save_policy(policy, tmp_path / "p.nir")
    runs = played(policy, ("fixed",), range(1))
    document = report_document(policy, tmp_path / "p.nir", ENV, None, runs, load_energy_chips())
    validate(document, "made")
    (deployment,) = document["deployments"]
    entry = deployment["backends"]["fixed"]
    assert deployment["comparison"] is None
    assert entry["std_return"] is entry["return_interval"] is entry["workload"]["per_second"] is None
    assert any("1 seed:" in line for line in document["warnings"])
    assert any("control rate is unknown" in line for line in document["warnings"])


def test_the_same_runs_make_the_same_report_but_for_the_manifest(tmp_path: Path) -> None:
    policy = quantized_policy()
    save_policy(policy, tmp_path / "p.nir")
    runs = played(policy, ("fixed", "torch"))
    chips = load_energy_chips()
    first, second = (report_document(policy, tmp_path / "p.nir", ENV, 0.04, runs, chips) for _ in range(2))
    for document in (first, second):
        document["manifest"] = document["deployments"][0]["manifest"] = {}
    assert json.dumps(first) == json.dumps(second)


def test_a_silent_layer_is_warned_of(tmp_path: Path) -> None:
    policy = random_policy()
    mute = replace(policy.layers[1], bias=np.full(20, -50.0))
    policy = replace(policy, layers=(policy.layers[0], mute, policy.layers[2]))
    save_policy(policy, tmp_path / "p.nir")
    runs = played(policy, ("torch",), range(2))
    document = report_document(policy, tmp_path / "p.nir", ENV, 0.04, runs, load_energy_chips())
    assert any("layer 2 never spiked" in line for line in document["warnings"])
    assert not any("layer 1 never spiked" in line for line in document["warnings"])


def test_the_ann_of_the_same_task_goes_from_observation_to_action(tmp_path: Path) -> None:
    """And so do the break-evens: the core itself is 40-24-20-10."""
    policy, file = quantized_policy(), tmp_path / "p.nir"
    assert policy.ann_sizes() == (4, 24, 20, 1)
    save_policy(policy, file)
    chips = load_energy_chips()
    document = report_document(policy, file, ENV, 0.04, played(policy, ("fixed",), range(1)), chips)
    energy = document["deployments"][0]["backends"]["fixed"]["energy"]
    ours = [one for one in energy["baselines"] if one["target"].startswith("ann-")]
    assert len(ours) > 3 and all("the dense ANN 4-24-20-1 of the same task" in one["what"] for one in ours)
    (fp32,) = [one for one in ours if one["id"] == "ann-fp32/synops"]
    macs = 4 * 24 + 24 * 20 + 20 * 1
    assert (fp32["low"], fp32["high"]) == pytest.approx((macs * 4.6e-6, macs * 4.6e-6))  # 0.9 + 3.7 pJ, Horowitz 2014
    (rival,) = [one for one in ours if one["id"] == "ann-int3/synops"]
    (flat,) = [one for one in energy["sweep"]["figures"] if one["id"] == "ann-int3/synops"]
    assert set(flat["low"]) == {rival["low"]} and set(flat["high"]) == {rival["high"]}
