"""The report document against the rollouts that it was made from."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from support import quantized_policy

from simulators.compare import report_document
from simulators.registry import make_backend
from simulators.rollout import rollout
from spikerl_deploy.policy_file import save_policy

ENV = "InvertedPendulum-v5"


def test_the_report_says_what_happened(tmp_path: Path) -> None:
    policy, runs = quantized_policy(), []
    save_policy(policy, tmp_path / "p.nir")
    for name in ("fixed", "torch"):
        backend = make_backend(name, device="cpu")
        with backend.open(policy, 2) as session:
            runs.append((backend, rollout(session, ENV, range(4))))
    document = json.loads(json.dumps(report_document(policy, tmp_path / "p.nir", ENV, 0.04, runs), allow_nan=False))
    assert document["schema"] == "spikerl.report/1"
    environment = {"id": ENV, "seeds": [0, 1, 2, 3], "control_step_s": 0.04, "perturbation": None}
    assert document["environment"] == environment
    for backend, result in runs:
        entry = document["backends"][backend.name]
        assert entry["returns"] == list(result.returns)
        step = entry["per_control_step"]
        fan_out = [np.count_nonzero(weight, axis=0) for weight in backend.layer_weights(policy)]
        for index, operations in enumerate(step["synaptic_operations"]):
            assert operations == pytest.approx(result.spike_totals[index] @ fan_out[index] / result.control_steps)
        assert step["spikes"][-1] == pytest.approx(result.spike_totals[-1].sum() / result.control_steps)
        assert entry["wall_time"]["p99"] >= entry["wall_time"]["median"] > 0
        assert {figure["kind"] for figure in entry["energy"]["figures"]} == {"modelled"}
    comparison = document["comparison"]
    assert (comparison["backend"], comparison["baseline"]) == ("fixed", "torch")
    assert comparison["retention"] == pytest.approx(np.mean(runs[0][1].returns) / np.mean(runs[1][1].returns))
    assert document["backends"]["torch"]["runs"] == "float32 weights as trained"


def test_without_a_baseline_there_is_no_comparison(tmp_path: Path) -> None:
    policy = quantized_policy()
    save_policy(policy, tmp_path / "p.nir")
    backend = make_backend("fixed")
    with backend.open(policy) as session:
        runs = [(backend, rollout(session, ENV, [0]))]
    document = report_document(policy, tmp_path / "p.nir", ENV, None, runs)
    assert document["comparison"] is None
    assert document["backends"]["fixed"]["std_return"] is None
