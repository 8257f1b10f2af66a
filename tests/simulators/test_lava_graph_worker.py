"""Graphs on their way to Lava's worker: what is sent, what is too much, and a worker that dies."""

from __future__ import annotations

import itertools
import os
import signal
from collections.abc import Callable
from pathlib import Path

import nir
import numpy as np
import pytest
from hypothesis import given, settings
from nir_graphs import Case, IntegerCase, graph_cases, integer_cases

from simulators.fixed import FixedBackend
from simulators.lava import wire
from simulators.lava.backend import LavaBackend
from simulators.lava.client import WorkerClient
from simulators.lava.float_backend import LavaFloatBackend
from simulators.lava.graph_wire import Network, pack_network, unpack_network
from spikerl_deploy.errors import SpikerlError
from spikerl_deploy.nir_lowering import lower_graph
from spikerl_deploy.nir_order import order_graph

DT = 1e-4


def many_delays(count: int) -> nir.NIRGraph:
    """Each input has a delay of its own, hence a connection of its own."""
    ones = np.ones(count)
    nodes = {
        "in": nir.Input(np.array([count])),
        "wait": nir.Delay(DT * np.arange(count)),
        "fire": nir.LIF(tau=DT * ones, r=ones, v_leak=0 * ones, v_threshold=0.5 * ones),
        "out": nir.Output(np.array([count])),
    }
    return nir.NIRGraph(nodes, [("in", "wait"), ("wait", "fire"), ("fire", "out")])


def assert_same(first: Network, second: Network) -> None:
    assert (first.input_shape, first.output, first.dt) == (second.input_shape, second.output, second.dt)
    assert list(first.populations) == list(second.populations)
    for a, b in zip(first.populations.values(), second.populations.values(), strict=True):
        assert type(a) is type(b)
        for name, value in vars(a).items():
            np.testing.assert_array_equal(value, getattr(b, name))
    assert len(first.connections) == len(second.connections)
    for one, other in zip(first.connections, second.connections, strict=True):
        for name in ("source", "target", "delay", "weight_exp"):
            assert getattr(one, name) == getattr(other, name)
        assert one.weight.shape == other.weight.shape
        np.testing.assert_array_equal(one.weight.toarray(), other.weight.toarray())


@settings(max_examples=40, deadline=None)
@given(integer_cases())
def test_integers_arrive_as_they_were_sent(case: IntegerCase) -> None:
    network = case.network
    assert_same(unpack_network(*pack_network(network)), network)


@settings(max_examples=40, deadline=None)
@given(graph_cases(lowerable=True))
def test_floats_arrive_as_they_were_sent(case: Case) -> None:
    network = lower_graph(order_graph(case.graph, case.dt))
    assert_same(unpack_network(*pack_network(network)), network)


def test_the_message_does_not_grow_with_the_number_of_connections() -> None:
    sizes = []
    for count in (10, 1000):
        fields, arrays = pack_network(lower_graph(order_graph(many_delays(count), DT)))
        sizes.append((len(arrays), len(str(fields))))
    assert sizes[0][0] == sizes[1][0]
    assert sizes[1][1] < sizes[0][1] + 20


def test_many_connections_run(lava_folder: Path) -> None:
    graph, spikes = many_delays(700), np.zeros((8, 700))
    spikes[0] = 1
    output = LavaBackend().run_graph(graph, spikes, DT).output
    np.testing.assert_array_equal(output, FixedBackend().run_graph(graph, spikes, DT).output)
    np.testing.assert_array_equal(output, np.eye(8, 700, dtype=bool))


def test_what_is_too_large_for_a_message_is_one_line(lava_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wire, "_MAX_PAYLOAD", 1000)
    with pytest.raises(SpikerlError, match="this is too large for a lava worker: .* is out of bounds") as refused:
        LavaBackend().run_graph(many_delays(100), np.ones((2, 100)), DT)
    assert refused.value.hint == "run it on --backend fixed"


@pytest.mark.parametrize("kind", [LavaBackend, LavaFloatBackend])
@pytest.mark.parametrize("deaths", [1, 2])
def test_a_graph_whose_worker_dies_is_run_once_more(
    lava_folder: Path,
    kind: Callable[..., LavaBackend],
    deaths: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    request, said, left = WorkerClient.request, list[str](), [deaths]

    def dying(client: WorkerClient, fields: dict[str, object], *rest: object) -> object:
        if fields["op"] == "run_graph" and left[0]:
            left[0] -= 1
            os.killpg(client.process.pid, signal.SIGKILL)
        return request(client, fields, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(WorkerClient, "request", dying)
    graph, spikes = many_delays(3), np.ones((5, 3))
    backend = kind(say=said.append)
    if deaths == 2:
        with pytest.raises(SpikerlError, match="lava worker failed"):
            backend.run_graph(graph, spikes, DT)
        return
    output = backend.run_graph(graph, spikes, DT).output
    np.testing.assert_array_equal(output, FixedBackend().run_graph(graph, spikes, DT).output)
    assert len(said) == 1
    assert said[0].endswith("the graph is run again by a new one")


def test_infinities_that_meet_in_a_hidden_neuron_are_no_silence(lava_folder: Path) -> None:
    """Nobody records it; what it feeds is silent, which would pass for right."""
    one, huge = np.ones(1), np.finfo(np.float64).max
    neurons = {"r": 2 * one, "v_leak": 0 * one, "v_threshold": one, "w_in": 2 * one}
    nodes = {
        "in": nir.Input(np.array([4])),
        "up": nir.Linear(np.array([[huge, huge, -huge, -huge]])),
        "hidden": nir.CubaLIF(2 * DT * one, 2 * DT * one, **neurons),
        "on": nir.Linear(np.ones((1, 1))),
        "last": nir.CubaLIF(2 * DT * one, 2 * DT * one, **neurons),
        "out": nir.Output(np.array([1])),
    }
    names = list(nodes)
    graph = nir.NIRGraph(nodes, list(itertools.pairwise(names)))
    spikes = np.array([[1, 1, 0, 0]] + [[0, 0, 1, 1]] * 2)
    with pytest.raises(SpikerlError, match="'hidden': its state overflowed float64 by time step 1"):
        LavaFloatBackend().run_graph(graph, spikes, DT)
