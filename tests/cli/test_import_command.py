"""`spikerl import` as a user runs it: from a foreign checkpoint to a simulation on Lava, and every refusal."""

from __future__ import annotations

import json
import os
import pickle
import subprocess
from pathlib import Path
from typing import Any

import h5py
import nir
import numpy as np
import pytest
import torch
from import_support import HALF_CHEETAH, PENDULUM, popsan_actions, popsan_state, popsan_stats, write_popsan
from support import run_cli, run_here

from simulators.torch_backend import TorchBackend
from spikerl_deploy.codec import decode, encode
from spikerl_deploy.files import sha256_file
from spikerl_deploy.policy_file import load_policy


def error_of(done: subprocess.CompletedProcess[str]) -> str:
    """The error line of a command that must have failed by the rules: nothing on stdout, an error, a hint, exit 2."""
    assert (done.returncode, done.stdout) == (2, ""), done
    lines = done.stderr.splitlines()
    assert [line.split(":")[0] for line in lines] == ["Error", "Hint"], done.stderr
    return lines[0]


def popsan(model: Path, stats: Path, env: str, out: Path, *more: str) -> subprocess.CompletedProcess[str]:
    return run_cli("import", "popsan", str(model), "--stats", str(stats), "--env", env, "-o", str(out), *more)


def test_a_popsan_checkpoint_goes_all_the_way_to_lava(tmp_path: Path) -> None:
    state, stats = popsan_state(*PENDULUM), popsan_stats(4)
    model, mean_var = write_popsan(tmp_path, PENDULUM, {f"module.{key}": value for key, value in state.items()}, stats)
    out = tmp_path / "policy.nir"
    done = popsan(model, mean_var, "InvertedPendulum-v5", out, "--format", "json")
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    assert document["schema"] == "spikerl.import/1"
    assert (document["file"], document["env"]) == (str(out), "InvertedPendulum-v5")
    assert (document["sizes"], document["time_steps"], document["notes"]) == ([40, 64, 48, 7], 5, [])
    assert document["sha256"] == sha256_file(out)
    assert "spikerl export" in done.stderr

    policy = load_policy(out)
    made_from = policy.provenance["made_from"]
    assert made_from["model"] == {"name": "model.pt", "sha256": sha256_file(model)}
    assert made_from["stats"] == {"name": "mean_var.p", "sha256": sha256_file(mean_var)}
    assert policy.provenance["command"][:3] == ["spikerl", "import", "popsan"]
    observations = np.random.default_rng(0).normal(0, 1, (50, 4)).astype(np.float32)
    with TorchBackend("cpu").open(policy, 50) as session:
        assert policy.decoder is not None
        counts = session.infer(encode(policy, observations, [])).output_counts
        actions = decode(counts, policy.time_steps, policy.decoder)
    np.testing.assert_allclose(actions, popsan_actions(state, stats, observations, 3.0), atol=1e-5)

    quantized, report = tmp_path / "policy-8bit.nir", tmp_path / "report"
    assert run_cli("export", str(out), "--bits", "8", "-o", str(quantized)).returncode == 0
    done = run_cli("simulate", str(quantized), "--backend", "lava", "--episodes", "1", "-o", str(report))
    assert done.returncode == 0, done.stderr


def test_constants_and_raw_observations_can_be_given(tmp_path: Path) -> None:
    model, _ = write_popsan(tmp_path, PENDULUM)
    done = run_cli(
        *("import", "popsan", str(model), "--unnormalised", "--env", "InvertedPendulum-v5", "--time-steps", "7"),
        *("--current-decay", "0.25", "--voltage-decay", "0.5", "--v-threshold", "0.75", "--encoder-threshold", "0.9"),
        *("--coding", "poisson", "-o", "p.nir"),
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("40-64-48-7, policy for InvertedPendulum-v5, T 7: p.nir")
    policy = load_policy(tmp_path / "p.nir")
    layer, encoder = policy.layers[0], policy.encoder
    assert (layer.current_decay, layer.voltage_decay, layer.v_threshold) == (0.25, 0.5, 0.75)
    assert encoder is not None and (encoder.coding, encoder.threshold) == ("poisson", 0.9)
    assert (policy.time_steps, policy.normalization) == (7, None)


def test_a_dry_run_checks_and_writes_nothing(tmp_path: Path) -> None:
    model, stats = write_popsan(tmp_path, PENDULUM)
    before = sorted(tmp_path.iterdir())
    done = popsan(model, stats, "InvertedPendulum-v5", tmp_path / "p.nir", "--dry-run")
    assert done.returncode == 0 and "nothing written (dry run)" in done.stdout
    assert sorted(tmp_path.iterdir()) == before
    assert "HalfCheetah-v5" in error_of(popsan(model, stats, "HalfCheetah-v5", tmp_path / "p.nir", "--dry-run"))


def test_nothing_is_overwritten_without_force(tmp_path: Path) -> None:
    model, stats = write_popsan(tmp_path, PENDULUM)
    out = tmp_path / "p.nir"
    out.write_text("mine")
    assert "not overwritten" in error_of(popsan(model, stats, "InvertedPendulum-v5", out))
    assert out.read_text() == "mine"
    assert popsan(model, stats, "InvertedPendulum-v5", out, "--force").returncode == 0
    assert load_policy(out).closed_loop_ready


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--env", "InvertedPendulum-v5"], "the statistics are missing"),
        (["--env", "InvertedPendulum-v5", "--stats", "mean_var.p", "--unnormalised"], "both given"),
        (["--env", "InvertedPendulum-v5", "--stats", "none.p"], "cannot read 'none.p'"),
        (["--env", "InvertedPendulum-v9", "--stats", "mean_var.p"], "unknown environment 'InvertedPendulum-v9'"),
        (["--env", "Ant-v5", "--stats", "mean_var.p"], "'Ant-v5' has 105 and 8"),
        (["--env", "InvertedPendulum-v5", "--stats", "mean_var.p", "--voltage-decay", "1"], "voltage_decay 1.0 is not"),
        (["--env", "InvertedPendulum-v5", "--stats", "mean_var.p", "--epsilon", "-1"], "epsilon -1.0"),
        (["--env", "InvertedPendulum-v5", "--stats", "mean_var.p", "--epsilon", "inf"], "epsilon inf"),
        *(
            (
                ["--env", "InvertedPendulum-v5", "--stats", "mean_var.p", option, value],
                f"'{option}': not positive and finite, 1.18e-38 to 3.4e+38 (given: {value})",
            )
            for option, value in (
                *(("--v-threshold", value) for value in ("inf", "nan", "0.0", "1e-60", "1e+300")),
                *(("--encoder-threshold", value) for value in ("inf", "1e-60")),
                *(("--clip", value) for value in ("inf", "nan")),
            )
        ),
    ],
)
def test_usage_errors_say_what_is_wrong(tmp_path: Path, arguments: list[str], message: str) -> None:
    write_popsan(tmp_path, PENDULUM)
    done = run_here("import", "popsan", "model.pt", *arguments, "-o", "out.nir", cwd=tmp_path)
    assert message in error_of(done)
    assert not (tmp_path / "out.nir").exists()


class Payload:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return os.system, (f"touch {self.path}",)


@pytest.mark.parametrize("victim", ["model", "stats"])
def test_code_in_either_file_does_not_run(tmp_path: Path, victim: str) -> None:
    model, stats = write_popsan(tmp_path, HALF_CHEETAH)
    payload = Payload(tmp_path / "ran")
    if victim == "model":
        torch.save(popsan_state(*HALF_CHEETAH) | {"snn.out_pop_layer.bias": payload}, model)
    else:
        stats.write_bytes(pickle.dumps([np.array([payload], dtype=object), payload]))
    done = popsan(model, stats, "HalfCheetah-v5", tmp_path / "out.nir")
    assert "system', which" in error_of(done)
    assert not (tmp_path / "ran").exists() and not (tmp_path / "out.nir").exists()


def lif_graph(dt: float = 1e-4) -> nir.NIRGraph:
    rng, ones = np.random.default_rng(0), np.ones(6)
    nodes = {
        "input": nir.Input(input_type={"input": np.array([8])}),
        "fc": nir.Affine(rng.normal(0, 0.5, (6, 8)), np.zeros(6)),
        "lif": nir.LIF(4 * dt * ones, 4 * ones, 0 * ones, ones, 0 * ones),
        "output": nir.Output(output_type={"output": np.array([6])}),
    }
    return nir.NIRGraph(nodes, [("input", "fc"), ("fc", "lif"), ("lif", "output")])


@pytest.mark.parametrize("verb", [["nir"], ["nir", "--made-by", "snntorch"], ["snntorch"]])
def test_a_nir_file_becomes_a_core_that_exports(tmp_path: Path, verb: list[str]) -> None:
    nir.write(tmp_path / "graph.nir", lif_graph())
    done = run_cli("import", verb[0], "graph.nir", *verb[1:], "--time-steps", "8", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("8-6, core, dt 0.0001 s, T 8: core.nir")
    assert ("do not say how its neurons reset" in done.stderr) == ("snntorch" in verb)
    core = load_policy(tmp_path / "core.nir")
    assert (core.time_steps, core.layers[0].current_decay, core.layers[0].voltage_decay) == (8, 0.0, 0.75)
    assert core.provenance["made_from"]["graph"]["sha256"] == sha256_file(tmp_path / "graph.nir")
    assert run_cli("export", "core.nir", "--bits", "8", "-o", "core-8bit.nir", cwd=tmp_path).returncode == 0


@pytest.mark.parametrize("verb", ["nir", "snntorch"])
def test_a_time_step_that_no_file_can_hold_is_refused_by_option(tmp_path: Path, verb: str) -> None:
    nir.write(tmp_path / "graph.nir", lif_graph())
    done = run_cli("import", verb, "graph.nir", "--dt", "1e-60", "-o", "out.nir", "--format", "json", cwd=tmp_path)
    assert "'--dt': not positive and finite, 1.18e-38 to 3.4e+38 (given: 1e-60)" in error_of(done)
    assert not (tmp_path / "out.nir").exists()


def test_a_neuron_without_voltage_decay_is_noted(tmp_path: Path) -> None:
    graph = lif_graph()
    graph.nodes["lif"].tau = graph.nodes["lif"].tau / 4
    nir.write(tmp_path / "graph.nir", graph)
    done = run_cli("import", "nir", "graph.nir", "--format", "json", cwd=tmp_path)
    (note,) = json.loads(done.stdout)["notes"]
    assert "voltage_decay 0 " in note and "keep 1/4096 of the voltage" in note
    assert f"note: {note}" in done.stderr.splitlines()


def test_a_small_file_of_a_large_dataset_is_refused(tmp_path: Path) -> None:
    nir.write(tmp_path / "graph.nir", lif_graph())
    with h5py.File(tmp_path / "graph.nir", "r+") as file:
        del file["node/nodes/fc/weight"]
        file.create_dataset("node/nodes/fc/weight", (40000, 40000), "f4", chunks=(1000, 1000), compression="gzip")
    for command in (["import", "nir", "graph.nir"], ["inspect", "graph.nir"]):
        assert "'graph.nir': '/node/nodes/fc/weight'" in error_of(run_cli(*command, cwd=tmp_path))


def test_a_nir_file_that_is_no_core_is_refused_by_node(tmp_path: Path) -> None:
    graph = lif_graph()
    graph.nodes["lif"].v_reset = graph.nodes["lif"].v_reset - 0.5
    nir.write(tmp_path / "graph.nir", graph)
    done = run_cli("import", "nir", "graph.nir", cwd=tmp_path)
    assert "'graph.nir': NIR node 'lif' has v_reset other than 0" in error_of(done)
    nir.write(tmp_path / "graph.nir", lif_graph(1e-5))
    assert "time constant below dt" in error_of(run_cli("import", "snntorch", "graph.nir", cwd=tmp_path))
    assert run_cli("import", "snntorch", "graph.nir", "--dt", "1e-5", cwd=tmp_path).returncode == 0
    done = run_cli("import", "nir", "graph.nir", "--made-by", "nores", "--force", cwd=tmp_path)
    assert "unknown maker of NIR files 'nores'; there is: nir, norse" in error_of(done)
