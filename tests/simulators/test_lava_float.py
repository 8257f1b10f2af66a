"""Lava's floating-point models: policies as `fixed` runs them where no bit is lost, graphs as NIR defines them."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import nir
import numpy as np
import pytest
from hypothesis import given
from nir_definition import run_definition
from nir_graphs import DT, Case, fuzz, graph_cases
from support import naive_core, quantized_policy, random_layers, random_policy, random_spikes

from simulators.conformance import compare_sessions
from simulators.fixed import FixedBackend
from simulators.graph_run import float_run, integer_run
from simulators.lava.backend import LavaBackend
from simulators.lava.client import WorkerClient
from simulators.lava.float_backend import LavaFloatBackend
from simulators.lava.graph_client import run_on
from simulators.protocol import GraphRecord
from simulators.registry import make_backend
from simulators.rollout import rollout
from spikerl_deploy.errors import SpikerlError
from spikerl_deploy.loihi import is_lossless
from spikerl_deploy.policy import Policy
from spikerl_deploy.policy_file import load_policy, policy_to_graph

pytestmark = pytest.mark.usefixtures("lava_folder")


@pytest.fixture(scope="module")
def worker(lava_folder: Path) -> Iterator[WorkerClient]:
    """One worker for many graphs."""
    client = WorkerClient(lava_folder, 120)
    yield client
    client.close()


def test_a_trained_lossless_policy_spikes_as_its_integers_do(double_pendulum: Path) -> None:
    """Two hundred control steps of a policy that balances; the loop is closed on `fixed`."""
    policy = load_policy(double_pendulum)
    assert policy.integers is not None
    assert all(is_lossless(layer, policy.time_steps) for layer in policy.integers)
    with FixedBackend().open(policy) as fixed:
        played = rollout(fixed, "InvertedDoublePendulum-v5", [0], record=200)
        assert played.inputs is not None
        with LavaFloatBackend().open(policy) as lava:
            result = compare_sessions(fixed, lava, played.inputs)
    assert result.control_steps == 200
    assert result.mismatches == (0, 0, 0)
    assert result.spikes > 50_000


@pytest.mark.parametrize("batch", [1, 3])
def test_every_layer_spikes_as_the_equations_say(batch: int) -> None:
    """Neurons that differ from layer to layer, and a window longer than the injector's buffer holds rows."""
    rng = np.random.default_rng(0)
    sizes = (30, 20, 12, 7)
    layers = tuple(
        replace(layer, current_decay=0.25 * index, voltage_decay=0.875 - 0.25 * index, v_threshold=0.25 * (index + 1))
        for index, layer in enumerate(random_layers(rng, sizes))
    )
    policy = Policy(layers=layers, time_steps=60)
    spikes = random_spikes(1, (3, batch, 60, 30), 0.4)
    with LavaFloatBackend().open(policy, batch) as session:
        for step in spikes:
            rasters = session.infer(step, rasters=True).rasters
            assert rasters is not None
            for b in range(batch):
                for ours, naive in zip(rasters, naive_core(layers, step[b]), strict=True):
                    np.testing.assert_array_equal(ours[b], naive)
                    assert naive.any()


def test_it_runs_the_weights_of_the_file_and_not_those_before_quantization() -> None:
    policy, spikes = quantized_policy(bits=2), random_spikes(0, (1, 5, 40))
    backend = LavaFloatBackend()
    for ours, layer in zip(backend.layer_weights(policy), policy.layers, strict=True):
        np.testing.assert_array_equal(ours, layer.weight)
    with backend.open(policy) as session:
        rasters = session.infer(spikes, rasters=True).rasters
    assert rasters is not None
    for ours, naive in zip(rasters, naive_core(policy.layers, spikes[0]), strict=True):
        np.testing.assert_array_equal(ours[0], naive)
    assert not np.array_equal(naive_core(random_policy().layers, spikes[0])[0], rasters[0][0])


def test_a_session_that_ran_nothing_closes_at_once(caplog: pytest.LogCaptureFixture) -> None:
    session = LavaFloatBackend().open(random_policy())
    session.close()
    assert session.client.process.returncode == 0  # it ended by itself
    assert caplog.records == []


def same(record: GraphRecord, case: Case) -> None:
    """Hold a record of everything against NIR's definition; the numbers are such that float64 is exact."""
    defined = run_definition(case.graph, case.spikes, case.dt)
    np.testing.assert_array_equal(record.output, defined.output.astype(np.float32))
    assert record.spikes.keys() == defined.spikes.keys()
    assert record.voltages.keys() == defined.voltages.keys()
    for name, raster in record.spikes.items():
        np.testing.assert_array_equal(raster, defined.spikes[name], err_msg=name)
    for name, voltage in record.voltages.items():
        np.testing.assert_allclose(voltage, defined.voltages[name], rtol=1e-6, atol=1e-9, err_msg=name)


def neurons_of(case: Case) -> list[str]:
    defined = run_definition(case.graph, case.spikes, case.dt)
    return list(dict.fromkeys((*defined.spikes, *defined.voltages)))


@fuzz(10)
@given(case=graph_cases())
def test_random_graphs_mean_in_lava_what_nir_defines(worker: WorkerClient, case: Case) -> None:
    record = run_on(float_run(case.graph, case.spikes, case.dt, neurons_of(case)), worker, shared=True)
    same(record, case)


@fuzz(8)
@given(case=graph_cases(whole=True))
def test_lava_and_fixed_give_the_same_record_of_random_graphs(worker: WorkerClient, case: Case) -> None:
    names, fixed = neurons_of(case), FixedBackend(rounding=True)
    expected = fixed.run_graph(case.graph, case.spikes, case.dt, names)
    run = integer_run(case.graph, case.spikes, case.dt, names, rounding=True)
    record = run_on(run, worker, shared=True)
    assert run.rounded == fixed.rounded
    for ours, theirs in ((record.spikes, expected.spikes), (record.voltages, expected.voltages)):
        assert ours.keys() == theirs.keys()
        for name in ours:
            assert ours[name].dtype == theirs[name].dtype
            np.testing.assert_array_equal(ours[name], theirs[name], err_msg=name)
    assert record.output.dtype == expected.output.dtype
    np.testing.assert_array_equal(record.output, expected.output)


def counter(v_threshold: float = 3.0) -> nir.NIRGraph:
    """Neurons that count their input, and one behind them that has a voltage only."""
    ones = np.ones(2)
    nodes = {
        "in": nir.Input(np.array([2])),
        "count": nir.IF(r=ones / DT, v_threshold=ones * v_threshold, v_reset=-ones),
        "sum": nir.Affine(np.array([[1.0, 2.0]]), np.array([0.25])),
        "out": nir.I(r=np.array([1 / DT])),
        "output": nir.Output(np.array([1])),
    }
    return nir.NIRGraph(nodes, [("in", "count"), ("count", "sum"), ("sum", "out"), ("out", "output")])


@pytest.mark.parametrize("name", ["lava", "lava-float"])
def test_a_backend_runs_a_graph_from_file_to_record_in_a_worker_of_its_own(name: str) -> None:
    spikes = np.array([[1, 0]] * 5 + [[1, 1]] * 5)
    record = make_backend(name, timeout=60.0).run_graph(counter(), spikes, DT, ["out", "count", "count"])
    first = [0, 0, 0, 1, 0, 0, 0, 0, 1, 0]  # beyond 3, then from -1 on
    second = [0, 0, 0, 0, 0, 0, 0, 0, 1, 0]
    assert list(record.spikes) == ["count"]
    assert list(record.voltages) == ["out", "count"]
    np.testing.assert_array_equal(record.spikes["count"], np.array([first, second]).T)
    np.testing.assert_allclose(record.voltages["count"][:, 0], [1, 2, 3, -1, 0, 1, 2, 3, -1, 0])
    steps = np.arange(1, 11)
    np.testing.assert_allclose(record.output[:, 0], 0.25 * steps + np.cumsum(first) + 2 * np.cumsum(second))
    assert record.output.dtype == np.float32


def test_floats_take_any_numbers_and_integers_only_spikes(worker: WorkerClient) -> None:
    values = np.array([[1.5, -0.5], [2.0, 4.25]])
    record = run_on(float_run(counter(), values, DT, ["count"]), worker, shared=True)
    np.testing.assert_allclose(record.voltages["count"], [[1.5, -0.5], [-1, -1]])
    with pytest.raises(SpikerlError, match="0 and 1"):
        integer_run(counter(), values, DT)


@pytest.mark.parametrize("name", ["lava", "lava-float"])
@pytest.mark.parametrize(
    ("record", "shape", "message"),
    [(["cnt"], (3, 2), "unknown node to record 'cnt'"), (["sum"], (3, 2), "'sum'"), ([], (3, 3), r"\(3, 3\)")],
)
def test_what_cannot_run_is_refused_before_a_worker_starts(
    name: str, record: list[str], shape: tuple[int, ...], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("simulators.lava.client.subprocess.Popen", lambda *_, **__: pytest.fail("a worker started"))
    with pytest.raises(SpikerlError, match=message):
        make_backend(name).run_graph(counter(), np.zeros(shape), DT, record)


def test_decays_that_no_integer_stands_for_want_rounding_which_is_reported() -> None:
    nodes = {
        "in": nir.Input(np.array([2])),
        "leaky": nir.LIF(*(np.full(2, value) for value in (3 * DT, 3.0, 0.0, 2.5)), v_reset=np.zeros(2)),
        "out": nir.Output(np.array([2])),
    }
    graph, spikes = nir.NIRGraph(nodes, [("in", "leaky"), ("leaky", "out")]), np.ones((9, 2))
    with pytest.raises(SpikerlError, match="'leaky'"):
        make_backend("lava").run_graph(graph, spikes, DT)
    backend = LavaBackend(rounding=True)
    record = backend.run_graph(graph, spikes, DT, ["leaky"])
    np.testing.assert_array_equal(record.output, run_definition(graph, spikes, DT).output > 0)
    assert record.output.any()
    assert 0 < backend.rounded["leaky"] < 1e-3


def test_a_voltage_that_clips_unrecorded_is_refused_as_by_fixed(worker: WorkerClient) -> None:
    one = np.ones(1)
    nodes = {
        "in": nir.Input(np.array([1])),
        "before": nir.Threshold(0.5 * one),
        "fc": nir.Linear(np.array([[-1.0], [-127.0]])),
        "held": nir.IF(r=np.ones(2) / DT, v_threshold=np.full(2, 0.125)),
        "join": nir.Linear(np.ones((1, 2))),
        "last": nir.Threshold(0.5 * one),
        "out": nir.Output(np.array([1])),
    }
    graph, spikes = nir.NIRGraph(nodes, list(itertools.pairwise(nodes)), type_check=False), np.ones((140, 1))
    with pytest.raises(SpikerlError, match="'held': its voltage leaves the chip's 24 bits at time step 1") as fixed:
        FixedBackend().run_graph(graph, spikes, DT)
    with pytest.raises(SpikerlError) as refused:
        run_on(integer_run(graph, spikes, DT, ["before"]), worker, shared=True)
    assert refused.value.message == fixed.value.message
    assert not run_on(float_run(graph, spikes, DT), worker, shared=True).output.any()


def test_a_policys_own_integers_clip_in_lava_as_on_the_chip(worker: WorkerClient) -> None:
    policy = quantized_policy(8)
    assert policy.integers is not None
    first, *others = policy.integers
    first = replace(first, weight=np.full_like(first.weight, -256), weight_exp=7, dv=0)
    spikes, given = np.ones((9, policy.n_in), dtype=bool), (first, *others)
    run = integer_run(policy_to_graph(policy), spikes, policy.dt, ["lif1"], integers=given)
    found = run_on(run, worker, shared=True).voltages["lif1"]
    expected = FixedBackend().run_graph(policy_to_graph(policy), spikes, policy.dt, ["lif1"], given)
    np.testing.assert_array_equal(found, expected.voltages["lif1"])


def test_a_policys_own_integers_are_run_where_they_are_given(double_pendulum: Path) -> None:
    policy = load_policy(double_pendulum)
    graph = nir.read(double_pendulum)
    names = [name for name, node in graph.nodes.items() if isinstance(node, nir.CubaLIF)]
    spikes = random_spikes(0, (policy.time_steps, policy.n_in), 0.3)
    record = make_backend("lava").run_graph(graph, spikes, policy.dt, names, policy.integers)
    with FixedBackend().open(policy) as session:
        rasters = session.infer(spikes[None], rasters=True).rasters
    assert rasters is not None
    for name, raster in zip(names, rasters, strict=True):
        np.testing.assert_array_equal(record.spikes[name], raster[0])
        assert raster.any()
