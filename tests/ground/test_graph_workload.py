"""Operations of graphs, counted for each connection, against loops over the nodes' own definitions."""

from __future__ import annotations

import itertools

import nir
import numpy as np
import pytest
from hypothesis import given
from nir_graphs import DT, Case, fuzz, graph_cases

from simulators.graph_run import float_run
from spikerl_deploy.errors import SpikerlError
from spikerl_deploy.graph_workload import GraphWorkload, count_graph, graph_document, plan_count
from spikerl_deploy.network import INPUT, ONE
from spikerl_deploy.nir_lowering import lower_graph
from spikerl_deploy.nir_order import order_graph


def threshold(*shape: int) -> nir.Threshold:
    return nir.Threshold(np.full(shape, 0.5))


def chain(shape: tuple[int, ...], **nodes: nir.NIRNode) -> nir.NIRGraph:
    names = ["in", *nodes, "out"]
    ends = {"in": nir.Input(np.array(shape)), "out": nir.Output(None)}
    return nir.NIRGraph({**ends, **nodes}, list(itertools.pairwise(names)), type_check=False)


def counted(graph: nir.NIRGraph, inputs: np.ndarray, **spikes: np.ndarray) -> GraphWorkload:
    ordered = order_graph(graph, DT)
    return count_graph(plan_count(ordered, lower_graph(ordered)), inputs, spikes)


def test_a_padded_convolution_counts_what_lies_on_the_image() -> None:
    weight = np.array([[[[0.0, 1, 2], [3, 0, 4], [5, 6, 7]]]])
    graph = chain((1, 3, 3), conv=nir.Conv2d((3, 3), weight, 1, 1, 1, 1, np.zeros(1)), n=threshold(1, 3, 3))
    image = np.zeros((2, 1, 3, 3), dtype=bool)
    image[0, 0, 0, 0] = image[1, 0, 1, 1] = True
    (row,) = counted(graph, image, n=np.zeros((2, 1, 3, 3), dtype=bool)).connections
    # A corner reaches the four outputs around it, through the weights 0, 3, 1 and 0; the centre reaches all nine.
    assert (row.source, row.target, row.delay) == ("in", "n", 0)
    assert row.effective_acs == 2 + 7
    assert row.weights == 4 * 4 + 4 * 6 + 9  # places of the kernel on the image, at corners, edges and centre
    assert row.dense == 2 * row.weights
    assert row.input_events == 2


def test_values_other_than_spikes_are_multiplied_time_step_by_time_step() -> None:
    graph = chain((2,), fc=nir.Linear(np.array([[1.0, 2.0], [0.0, 3.0], [4.0, 0.0]])), n=threshold(3))
    inputs = np.array([[1.0, -1.0], [0.5, 0.0], [1.0, 2.0], [0.0, 0.0]])
    (row,) = counted(graph, inputs, n=np.zeros((4, 3), dtype=bool)).connections
    assert (row.effective_acs, row.effective_macs, row.dense) == (2 + 2, 2 + 2 + 2, 4 * 6)
    assert (row.synapses, row.weights, row.input_events) == (4, 6, 5)


def test_pooling_is_folded_into_the_synapses() -> None:
    """Two inputs of a pool, each of which reaches both outputs of the Affine behind it."""
    pool = nir.AvgPool2d(np.array([1, 2]), np.array([1, 2]), np.array([0, 0]))
    graph = chain(
        (1, 1, 4),
        pool=pool, flat=nir.Flatten({"input": np.array([1, 1, 2])}, 0, -1),
        fc=nir.Affine(np.array([[1.0, 0.0], [1.0, 1.0]]), np.ones(2)), n=threshold(2),
    )  # fmt: skip
    (row,) = counted(graph, np.ones((1, 1, 1, 4), dtype=bool), n=np.zeros((1, 2), dtype=bool)).connections
    assert (row.effective_acs, row.effective_macs, row.dense) == (2 * 2 + 2 * 1, 0, 8)


def test_what_a_delay_holds_back_at_the_end_never_arrives() -> None:
    graph = chain((2,), fc=nir.Linear(np.ones((2, 2))), wait=nir.Delay(np.array([0, 2]) * DT), n=threshold(2))
    inputs = np.array([[1, 0], [1, 1], [0, 1], [1, 1]], dtype=bool)
    rows = {row.delay: row for row in counted(graph, inputs, n=np.zeros((4, 2), dtype=bool)).connections}
    assert {delay: row.effective_acs for delay, row in rows.items()} == {0: 6, 2: 3}
    assert {delay: row.dense for delay, row in rows.items()} == {0: 4 * 2, 2: 4 * 2}


def test_neurons_that_drive_each_other_count_from_the_second_time_step_on() -> None:
    nodes = {
        "in": nir.Input(np.array([2])), "n": threshold(2), "back": nir.Linear(np.array([[0.0, 1.0], [1.0, 1.0]])),
        "out": nir.Output(np.array([2])),
    }  # fmt: skip
    graph = nir.NIRGraph(nodes, [("in", "n"), ("n", "back"), ("back", "n"), ("n", "out")])
    fired = np.array([[0, 1], [1, 0], [1, 1]], dtype=bool)
    workload = counted(graph, fired, n=fired)
    rows = {row.source: row for row in workload.connections}
    assert (rows["n"].delay, rows["n"].effective_acs, rows["n"].dense) == (
        1,
        2 + 1,
        3 * 4,
    )  # the last spikes arrive late
    (neurons,) = workload.populations
    assert (neurons.updates_active, neurons.updates_inactive, neurons.activation_sparsity) == (4, 2, 2 / 6)


def test_a_neuron_without_spikes_has_updates_only() -> None:
    graph = chain((1,), n=threshold(1), fc=nir.Linear(np.ones((2, 1))), li=nir.LI(*np.full((3, 2), 2 * DT)))
    silent = counted(graph, np.ones((3, 1), dtype=bool), n=np.ones((3, 1), dtype=bool)).populations[1]
    assert (silent.name, silent.spikes, silent.activation_sparsity, silent.updates_inactive) == ("li", None, None, 6)


@pytest.mark.parametrize("field", ["r", "w_in"])
def test_a_gain_of_zero_leaves_weights_but_no_synapses(field: str) -> None:
    ones = {name: np.full(2, DT) for name in ("tau_syn", "tau_mem", "v_threshold")} | {"v_leak": np.zeros(2)}
    gains = {"r": np.ones(2), "w_in": np.ones(2)} | {field: np.array([0.0, 1.0])}
    neuron = nir.CubaLIF(**ones, **gains, v_reset=np.zeros(2))
    graph = chain((3,), fc=nir.Linear(np.ones((2, 3))), n=neuron)
    (row,) = counted(graph, np.ones((1, 3), dtype=bool), n=np.zeros((1, 2), dtype=bool)).connections
    assert (row.synapses, row.weights, row.effective_acs, row.dense) == (3, 6, 3, 6)


@fuzz(60)
@given(graph_cases())
def test_a_random_graph_counts_what_a_loop_over_its_synapses_does(case: Case) -> None:
    ordered = order_graph(case.graph, case.dt)
    network, steps = lower_graph(ordered), len(case.spikes)
    rng = np.random.default_rng(0)
    fired = {
        name: rng.random((steps, *population.shape)) < 0.4
        for name, population in network.populations.items()
        if population.spiking
    }
    workload = count_graph(plan_count(ordered, network), case.spikes, fired)
    flat = {name: raster.reshape(steps, -1) for name, raster in fired.items()}
    flat[INPUT] = case.spikes.reshape(steps, -1)
    acs = macs = synapses = 0
    for connection in network.connections:
        if connection.source == ONE:
            continue
        synapses += connection.weight.nnz
        for step in range(connection.delay, steps):
            values = flat[connection.source][step - connection.delay].astype(float)
            crossed = sum(bool(values[column]) for column in connection.weight.indices)
            if set(values) <= {-1.0, 0.0, 1.0}:
                acs += crossed
            else:
                macs += crossed
    total = graph_document(workload)["total"]
    assert (total["effective_acs"], total["effective_macs"], total["synapses"]) == (acs, macs, synapses)
    assert total["synaptic_operations"] == acs + macs <= total["dense"]
    assert all(row.synapses <= row.weights <= row.n_in * row.n_out for row in workload.connections)
    assert total["updates_active"] == total["spikes"] == sum(raster.sum() for raster in fired.values())
    assert total["updates_active"] + total["updates_inactive"] == steps * sum(
        p.size for p in network.populations.values()
    )


def test_weights_that_are_not_zero_do_not_change_what_there_is() -> None:
    """Two ways that cancel are still two ways: the weight is there, its synapse is not."""
    nodes = {
        "in": nir.Input(np.array([1])), "a": nir.Linear(np.array([[1.0]])), "b": nir.Linear(np.array([[-1.0]])),
        "n": threshold(1), "out": nir.Output(np.array([1])),
    }  # fmt: skip
    graph = nir.NIRGraph(nodes, [("in", "a"), ("in", "b"), ("a", "n"), ("b", "n"), ("n", "out")])
    (row,) = counted(graph, np.ones((2, 1), dtype=bool), n=np.zeros((2, 1), dtype=bool)).connections
    assert (row.weights, row.synapses, row.effective_acs, row.dense) == (1, 0, 0, 2)


def test_the_graph_itself_is_left_as_it_is() -> None:
    graph = chain((2,), fc=nir.Linear(np.array([[1.0, 0.0]])), n=threshold(1))
    counted(graph, np.ones((1, 2), dtype=bool), n=np.zeros((1, 1), dtype=bool))
    np.testing.assert_array_equal(graph.nodes["fc"].weight, [[1.0, 0.0]])
    assert float_run(graph, np.ones((1, 2)), DT).network.connections[0].weight.nnz == 1


def test_a_graph_that_cannot_be_laid_out_is_refused_by_its_node() -> None:
    graph = chain((1,), li=nir.LI(*np.full((3, 1), 2 * DT)), fc=nir.Linear(np.ones((1, 1))), n=threshold(1))
    with pytest.raises(SpikerlError, match="'li' is a LI whose voltage feeds"):
        counted(graph, np.ones((1, 1), dtype=bool), n=np.zeros((1, 1), dtype=bool))
