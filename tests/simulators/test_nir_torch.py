"""Graphs on the `torch` backend: NIR's definition on random graphs, and what a definition alone would not catch."""

from __future__ import annotations

import itertools
import time
from typing import Any

import nir
import numpy as np
import pytest
import torch
from hypothesis import given
from nir_definition import run_definition
from nir_graphs import Case, fuzz, graph_cases
from support import naive_core, random_layers, random_policy, random_spikes

from simulators.nir_torch_nodes import Delay
from simulators.registry import make_backend
from simulators.torch_backend import TorchBackend
from spikerl_deploy.errors import SpikerlError
from spikerl_deploy.nir_core import chain_edges, layers_to_nodes
from spikerl_deploy.policy_file import policy_to_graph

DT = 1e-4
TORCH = TorchBackend(device="cpu")


def chain(**nodes: nir.NIRNode) -> nir.NIRGraph:
    """The nodes one after the other, an Input of the first's shape before them."""
    return nir.NIRGraph(nodes, list(itertools.pairwise(nodes)), type_check=False)


def ends(*shape: int) -> dict[str, nir.NIRNode]:
    return {"input": nir.Input(np.array(shape)), "output": nir.Output(np.array(shape))}


def one(*values: float) -> np.ndarray:
    return np.array(values, dtype=np.float64)


def assert_as_defined(case: Case) -> None:
    defined = run_definition(case.graph, case.spikes, case.dt)
    record = TORCH.run_graph(case.graph, case.spikes, case.dt, (*defined.spikes, *defined.voltages))
    np.testing.assert_allclose(record.output, defined.output, rtol=1e-5, atol=1e-6)
    assert set(record.spikes) == set(defined.spikes) and set(record.voltages) == set(defined.voltages)
    for name, raster in record.spikes.items():
        assert raster.dtype == bool
        np.testing.assert_array_equal(raster, defined.spikes[name])
    for name, voltage in record.voltages.items():
        assert voltage.dtype == np.float32
        np.testing.assert_allclose(voltage, defined.voltages[name], rtol=1e-5, atol=1e-6)


@fuzz(60)
@given(graph_cases(lowerable=False))
def test_random_graphs_are_as_nir_defines_them(case: Case) -> None:
    assert_as_defined(case)


def lif(v_threshold: float = 1.0, **changes: Any) -> nir.LIF:
    """v = v / 2 + i; one neuron."""
    values = {"tau": 2 * DT, "r": 2.0, "v_leak": 0.0, "v_threshold": v_threshold, "v_reset": 0.0} | changes
    return nir.LIF(**{name: one(value) for name, value in values.items()})


def looped(back: dict[str, nir.NIRNode], first: nir.NIRNode) -> nir.NIRGraph:
    nodes = {**ends(1), "first": first, **back}
    way = ["first", *back, "first"]
    return nir.NIRGraph(nodes, [("input", "first"), *itertools.pairwise(way), ("first", "output")], type_check=False)


def test_a_bias_in_a_loop_counts_from_the_first_time_step_and_a_spike_from_the_second() -> None:
    graph = looped({"rec": nir.Affine(one(4.0)[None], one(0.25))}, lif(10.0))
    record = TORCH.run_graph(graph, np.array([[8.0], [8.0], [0.0]]), DT, ["first"])
    # 8.25; 4.125 + 8.25 spikes; 0 + 4.25: the spike of the step before
    np.testing.assert_array_equal(record.voltages["first"].ravel(), [8.25, 0.0, 4.25])


def test_a_delay_in_a_loop_delays_a_spike_by_itself_only() -> None:
    graph = looped({"delay": nir.Delay(one(2 * DT)), "rec": nir.Linear(one(0.75)[None])}, lif())
    record = TORCH.run_graph(graph, np.array([[1.5], [0.0], [0.0], [0.0]]), DT, ["first"])
    np.testing.assert_array_equal(record.output.ravel(), [True, False, False, False])
    np.testing.assert_array_equal(record.voltages["first"].ravel(), [0.0, 0.0, 0.75, 0.375])


def test_two_neurons_side_by_side_see_each_other_one_step_late_both() -> None:
    nodes = {**ends(1), "a": lif(), "b": lif()}
    edges = [("input", "a"), ("input", "b"), ("a", "b"), ("b", "a"), ("a", "output")]
    graph = nir.NIRGraph(nodes, edges, type_check=False)
    record = TORCH.run_graph(graph, np.array([[0.75], [0.75], [0.0]]), DT, ["a", "b"])
    for name in ("a", "b"):  # 0.75; 1.125 spikes; 0 + 1 does not
        np.testing.assert_array_equal(record.voltages[name].ravel(), [0.75, 0.0, 1.0])


def test_a_delay_longer_than_the_run_gives_nothing_and_holds_no_more_than_the_run() -> None:
    graph = chain(input=nir.Input(np.array([2])), delay=nir.Delay(one(1e6, 2) * DT), output=nir.Output(np.array([2])))
    record = TORCH.run_graph(graph, np.arange(1, 9).reshape(4, 2), DT)
    np.testing.assert_array_equal(record.output, [[0, 0], [0, 0], [0, 2], [0, 4]])
    assert Delay(np.array([10**6, 2]), 4, torch.device("cpu")).held.shape == (4, 2)


def test_factors_are_rounded_to_float32_once() -> None:
    # dt / tau r is 1, though neither dt / tau nor r is a float32: the neurons of a policy file are such.
    tau = np.linspace(2e-4, 1e-3, 300, dtype=np.float32).astype(np.float64)
    node = nir.LI(tau, tau / DT, np.zeros(300))
    graph = chain(input=nir.Input(np.array([300])), node=node, output=nir.Output(np.array([300])))
    values = np.full((1, 300), 2**23 + 1)
    np.testing.assert_array_equal(TORCH.run_graph(graph, values, DT).output, values)


def test_a_policy_runs_as_training_has_it() -> None:
    policy = random_policy(hidden=(40, 30))
    spikes = random_spikes(2, (60, policy.n_in))
    record = TORCH.run_graph(policy_to_graph(policy), spikes, policy.dt, ["lif1", "lif2"])
    rasters = naive_core(policy.layers, spikes)
    for given_raster, raster in zip(
        (record.spikes["lif1"], record.spikes["lif2"], record.output), rasters, strict=True
    ):
        np.testing.assert_array_equal(given_raster, raster)


def test_a_thousand_time_steps_of_a_large_core_take_less_than_a_second() -> None:
    nodes = layers_to_nodes(random_layers(np.random.default_rng(0), (170, 256, 256, 60)), DT)
    graph = nir.NIRGraph(nodes, chain_edges(nodes))
    spikes = random_spikes(1, (1000, 170))
    times, threads = [], torch.get_num_threads()
    torch.set_num_threads(1)  # and time of this process alone: other work on the machine does not count
    try:
        for _ in range(3):
            start = time.process_time()
            TORCH.run_graph(graph, spikes, DT)
            times.append(time.process_time() - start)
    finally:
        torch.set_num_threads(threads)
    assert min(times) < 1


@pytest.mark.parametrize(
    ("node", "message"),
    [
        (nir.Scale(one(1e300)), "'node' has scale beyond float32"),
        (nir.LIF(one(2 * DT), one(1e300), one(0), one(1)), "'node' has r beyond float32"),
        (nir.Affine(one(1.0)[None], one(-1e39)), "'node' has bias beyond float32"),
    ],
)
def test_what_float32_cannot_hold_is_refused_by_name(node: nir.NIRNode, message: str) -> None:
    graph = chain(input=nir.Input(np.array([1])), node=node, output=nir.Output(np.array([1])))
    with pytest.raises(SpikerlError, match=message):
        TORCH.run_graph(graph, np.ones((2, 1)), DT)


def test_input_beyond_float32_is_refused() -> None:
    with pytest.raises(SpikerlError, match="'input'.*beyond float32"):
        TORCH.run_graph(chain(**ends(1)), np.full((2, 1), 1e300), DT)


def test_bf16_is_refused_not_ignored() -> None:
    with pytest.raises(SpikerlError, match="float32, BF16 was asked for"):
        TorchBackend(device="cpu", bf16=True).run_graph(chain(**ends(1)), np.ones((2, 1)), DT)


def test_too_little_memory_is_one_line_with_the_node(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory:\n you tried")

    monkeypatch.setattr(torch, "matmul", fail)
    graph = chain(input=nir.Input(np.array([1])), fc=nir.Linear(one(1.0)[None]), output=nir.Output(np.array([1])))
    with pytest.raises(SpikerlError, match="'fc': torch cannot run it: .* memory: you tried") as caught:
        TORCH.run_graph(graph, np.ones((2, 1)), DT)
    assert "\n" not in caught.value.message


def test_the_output_is_spikes_where_one_spiking_node_feeds_it_else_a_sum() -> None:
    nodes = {**ends(1), "a": lif(), "b": lif(2.0)}
    edges = [("input", "a"), ("input", "b"), ("a", "output")]
    assert TORCH.run_graph(nir.NIRGraph(nodes, edges, type_check=False), np.full((2, 1), 3.0), DT).output.dtype == bool
    both = nir.NIRGraph(nodes, [*edges, ("b", "output")], type_check=False)
    output = TORCH.run_graph(both, np.full((2, 1), 3.0), DT).output
    assert output.dtype == np.float32
    np.testing.assert_array_equal(output, [[2], [2]])


def test_a_run_leaves_no_state_behind() -> None:
    graph = looped({"rec": nir.Linear(one(0.5)[None])}, lif(5.0))
    spikes = np.ones((6, 1))
    first, second = (TORCH.run_graph(graph, spikes, DT, ["first"]).voltages["first"] for _ in range(2))
    np.testing.assert_array_equal(first, second)


@pytest.mark.parametrize("weight", [1e300, 1e-60])
@pytest.mark.parametrize("backend", ["torch", "snntorch", "norse", "spikingjelly"])
def test_a_number_that_float32_does_not_hold_is_refused_by_name(backend: str, weight: float) -> None:
    made = make_backend(backend)
    if not made.availability().ready:
        pytest.skip(made.availability().detail)
    one = np.ones(1)
    nodes = {
        "in": nir.Input(np.array([1])),
        "fc": nir.Linear(np.array([[weight]])),
        "fire": nir.CubaLIF(*(2e-4 * one, 2e-4 * one), r=2 * one, v_leak=0 * one, v_threshold=one, w_in=2 * one),
        "out": nir.Output(np.array([1])),
    }
    graph = nir.NIRGraph(nodes, [("in", "fc"), ("fc", "fire"), ("fire", "out")])
    with pytest.raises(SpikerlError, match="'fc' has weight (beyond float32|so small that float32)") as refused:
        made.run_graph(graph, one[:, None], 1e-4)
    assert refused.value.hint == "use --backend lava-float, which runs float64"


def test_infinities_that_meet_are_no_silence() -> None:
    """Float32's largest numbers add up to infinity, and infinity less infinity is above no threshold."""
    one, huge = np.ones(1), np.float64(np.finfo(np.float32).max)
    nodes = {
        "in": nir.Input(np.array([4])),
        "up": nir.Linear(np.array([[huge, huge, -huge, -huge]])),
        "fire": nir.CubaLIF(*(2e-4 * one, 2e-4 * one), r=2 * one, v_leak=0 * one, v_threshold=huge * one, w_in=2 * one),
        "out": nir.Output(np.array([1])),
    }
    graph = nir.NIRGraph(nodes, [("in", "up"), ("up", "fire"), ("fire", "out")])
    spikes = np.array([[1, 1, 0, 0]] + [[0, 0, 1, 1]] * 2)
    with pytest.raises(SpikerlError, match="'fire': its state overflowed float32"):
        make_backend("torch", device="cpu").run_graph(graph, spikes, 1e-4)
