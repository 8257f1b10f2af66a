"""Lowered networks against the definition of NIR, exactly: all numbers are short binary fractions."""

from __future__ import annotations

import nir
import numpy as np
from hypothesis import given
from network_runs import run_floats
from nir_definition import run_definition
from nir_graphs import DT, Case, fuzz, graph_cases

from spikerl_deploy.network import INPUT, ONE, FloatNetwork
from spikerl_deploy.nir_lowering import lower_graph
from spikerl_deploy.nir_order import order_graph


@fuzz(60)
@given(graph_cases())
def test_populations_and_connections_compute_what_the_graph_means(case: Case) -> None:
    defined = run_definition(case.graph, case.spikes, case.dt)
    network = lower_graph(order_graph(case.graph, case.dt))
    output, spikes, voltages = run_floats(network, case.spikes)
    np.testing.assert_array_equal(output, defined.output)
    for name, expected in defined.spikes.items():
        np.testing.assert_array_equal(spikes[name], expected, err_msg=name)
    for name, expected in defined.voltages.items():
        np.testing.assert_array_equal(voltages[name], expected, err_msg=name)
    for name, population in network.populations.items():
        before = [c.source for c in network.connections if c.target == name and c.delay == 0]
        levels = [network.populations[source].level for source in before if source in network.populations]
        assert population.level == 1 + max(levels, default=0)


def neuron() -> nir.IF:
    return nir.IF(r=np.ones(2) / DT, v_threshold=np.ones(2))


def lowered(nodes: dict[str, nir.NIRNode], edges: list[tuple[str, str]]) -> FloatNetwork:
    """The network of the nodes and `fire`, which gives the output; it runs as defined."""
    ends = {"in": nir.Input(np.array([2])), "fire": neuron(), "out": nir.Output(np.array([2]))}
    graph = nir.NIRGraph(ends | nodes, [*edges, ("fire", "out")], type_check=False)
    network = lower_graph(order_graph(graph, DT))
    spikes = np.array([[1, 0], [0, 0], [1, 1], [0, 0], [0, 1], [0, 0]])
    np.testing.assert_array_equal(
        run_floats(network, spikes)[2]["fire"], run_definition(graph, spikes, DT).voltages["fire"]
    )
    return network


def weights(network: FloatNetwork) -> dict[tuple[str, str, int], list[list[float]]]:
    return {(c.source, c.target, c.delay): c.weight.toarray().tolist() for c in network.connections}


def test_a_path_of_linear_nodes_is_one_connection_a_delay_and_its_biases_are_delayed_along() -> None:
    nodes = {
        "fc": nir.Affine(np.array([[1.0, 2], [3, 4]]), np.array([5.0, 6])),
        "wait": nir.Delay(np.array([0, 2]) * DT),
        "half": nir.Scale(np.full(2, 0.5)),
    }
    network = lowered(nodes, [("in", "fc"), ("fc", "wait"), ("wait", "half"), ("half", "fire")])
    assert weights(network) == {
        (INPUT, "fire", 0): [[0.5, 1], [0, 0]],
        (INPUT, "fire", 2): [[0, 0], [1.5, 2]],
        (ONE, "fire", 0): [[2.5], [0]],
        (ONE, "fire", 2): [[0], [3]],
    }


def test_feedback_is_one_time_step_late_but_not_its_bias() -> None:
    nodes = {"back": nir.Affine(np.eye(2), np.array([1.0, 0]))}
    network = lowered(nodes, [("in", "fire"), ("fire", "back"), ("back", "fire")])
    assert weights(network) == {
        (INPUT, "fire", 0): [[1, 0], [0, 1]],
        ("fire", "fire", 1): [[1, 0], [0, 1]],
        (ONE, "fire", 0): [[1], [0]],
    }


def test_a_delayed_bias_that_feedback_carries_is_late_as_well() -> None:
    """A bias that a Delay holds back is silent at first, so feedback brings it one time step after that."""
    nodes = {
        "fc": nir.Affine(np.zeros((2, 2)), np.ones(2)), "wait": nir.Delay(np.full(2, 2 * DT)),
        "back": nir.Scale(np.ones(2)), "second": neuron(),
    }  # fmt: skip
    edges = [("in", "fire"), ("fire", "second"), ("second", "back"), ("back", "fire")]
    network = lowered(nodes, [*edges, ("in", "fc"), ("fc", "wait"), ("wait", "back")])
    assert (ONE, "fire", 3) in weights(network) and (ONE, "fire", 2) not in weights(network)
    assert [p.level for p in network.populations.values()] == [1, 2]


def test_a_node_that_several_neurons_read_is_not_changed_by_a_gain_of_zero() -> None:
    nodes = {"fc": nir.Linear(np.array([[1.0, 2], [3, 4]])), "deaf": nir.IF(np.array([0, 1]) / DT, np.ones(2))}
    network = lowered(nodes, [("in", "fc"), ("fc", "deaf"), ("fc", "fire")])
    assert weights(network) == {(INPUT, "deaf", 0): [[0, 0], [3, 4]], (INPUT, "fire", 0): [[1, 2], [3, 4]]}
