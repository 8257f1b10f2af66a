"""NIR graphs in other projects' runtimes: what a backend runs is what NIR defines, all else is refused by node name."""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable
from typing import Any

import nir
import numpy as np
import pytest
from foreign_support import RUNTIMES, installed
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from nir_definition import run_definition

from simulators.foreign import backend as foreign
from simulators.foreign.backend import ForeignBackend
from simulators.protocol import GraphRecord
from spikerl_deploy.errors import SpikerlError

DT = 1e-4
STEPS = 6  # so few that decays in quarters stay exact in float32
EXAMPLES = 40 * int(os.environ.get("SPIKERL_FUZZ", "1"))
N = 3

Nodes = dict[str, nir.NIRNode]
Edges = list[tuple[str, str]]


def vector(value: object, *shape: int) -> np.ndarray:
    """In float64, so that the definition's dt / tau is the fraction that it is meant to be."""
    return np.array(np.broadcast_to(np.asarray(value, dtype=np.float64), shape or (N,)))


def weights(*shape: int, low: int = -4, high: int = 9) -> np.ndarray:
    """Multiples of 1/8, the same ones for a shape each time."""
    return (np.random.default_rng(shape).integers(low, high, shape) / 8).astype(np.float32)


def cuba(*shape: int, dt: float = DT, **changes: Any) -> nir.CubaLIF:
    """u = u / 2 + i; v = 3/4 v + u."""
    values = {"tau_syn": 2 * dt, "tau_mem": 4 * dt, "r": 4.0, "w_in": 2.0, "v_leak": 0, "v_reset": 0, "v_threshold": 1}
    return nir.CubaLIF(**{name: vector(value, *shape) for name, value in (values | changes).items()})


def lif(*shape: int, dt: float = DT, **changes: Any) -> nir.LIF:
    """v = 3/4 v + 1/4 i."""
    values = {"tau": 4 * dt, "r": 1.0, "v_leak": 0, "v_reset": 0, "v_threshold": 0.25}
    return nir.LIF(**{name: vector(value, *shape) for name, value in (values | changes).items()})


def integrate(*shape: int, dt: float = DT, **changes: Any) -> nir.IF:
    values = {"r": 1 / dt, "v_reset": 0, "v_threshold": 1}
    return nir.IF(**{name: vector(value, *shape) for name, value in (values | changes).items()})


def chain(shape: tuple[int, ...], **nodes: nir.NIRNode) -> tuple[Nodes, Edges]:
    """Nodes one after the other between an Input of a shape and an Output of any."""
    every = {"in": nir.Input({"input": np.array(shape)}), **nodes, "out": nir.Output({"output": None})}
    return every, list(itertools.pairwise(every))


def neurons(node: nir.NIRNode) -> tuple[Nodes, Edges]:
    return chain((4,), fc=nir.Affine(weights(N, 4), weights(N)), node=node)


def loop(back: nir.NIRNode, first: nir.NIRNode | None = None) -> tuple[Nodes, Edges]:
    """Two populations, the second of which feeds back to the first through a node."""
    between = nir.Affine(weights(N, N), weights(N))
    nodes, edges = chain((4,), fc=nir.Linear(weights(N, 4)), one=first or cuba(), fc2=between, two=cuba())
    return nodes | {"node": back}, [*edges, ("two", "node"), ("node", "one")]


def own_loop(back: nir.NIRNode | None) -> tuple[Nodes, Edges]:
    nodes, edges = chain((4,), fc=nir.Linear(weights(N, 4)), lif=cuba())
    if back is None:
        return nodes, [*edges, ("lif", "lif")]
    return nodes | {"node": back}, [*edges, ("lif", "node"), ("node", "lif")]


def side_by_side(last: dict[str, nir.NIRNode], skip: bool = False) -> tuple[Nodes, Edges]:
    """A population and another, or the first one again through a matrix, that add up."""
    nodes: Nodes = {"in": nir.Input({"input": np.array([4])}), "fc": nir.Linear(weights(N, 4)), "one": cuba()}
    nodes |= {"fc2": nir.Linear(-weights(N, N if skip else 4)), "node": cuba(v_threshold=0.5), **last}
    target = next(iter(last))
    edges = [("in", "fc"), ("fc", "one"), ("one" if skip else "in", "fc2"), ("one", "node" if skip else target)]
    edges += [("fc2", "node"), ("node", target), *itertools.pairwise(last)]
    return nodes, edges


def subgraph() -> tuple[Nodes, Edges]:
    inner = nir.NIRGraph(*chain((4,), fc=nir.Affine(weights(N, 4), weights(N)), node=cuba()), type_check=False)
    return chain((4,), sub=inner, fc=nir.Linear(weights(2, N)), last=cuba(2))


def pool(kind: type[nir.NIRNode], padding: object = 0, kernel: object = 2) -> nir.NIRNode:
    return kind(*(np.array(np.broadcast_to(value, (2,))) for value in (kernel, 2, padding)))


def image(node: nir.NIRNode) -> tuple[Nodes, Edges]:
    return chain((2, 4, 5), node=node)


def conv2d(padding: Any = 0, groups: int = 1, **changes: Any) -> nir.Conv2d:
    options = {"stride": (1, 2), "padding": padding, "dilation": (2, 1), "groups": groups} | changes
    return nir.Conv2d(None, weights(4, 2 // groups, 2, 3), bias=weights(4), **options)


def conv1d(padding: Any = 0, groups: int = 1, stride: int = 1) -> tuple[Nodes, Edges]:
    return chain((2, 7), node=nir.Conv1d(None, weights(2, 2 // groups, 3), stride, padding, 2, groups, weights(2)))


OUT = {"out": nir.Output({"output": None})}
VARIED = np.array([0.5, 1, 2])
ALL, NONE = RUNTIMES, ()
BOTH_NIRTORCH = ("snntorch", "spikingjelly")

# A graph, and the runtimes that run it; the others refuse it, naming 'node' if nothing else is said.
CASES: dict[str, tuple[Callable[[], tuple[Nodes, Edges]], tuple[str, ...]]] = {
    "CubaLIF": (lambda: neurons(cuba()), ALL),
    "CubaLIF of several axes": (lambda: chain((2, 3, 4), node=cuba(2, 3, 4)), ALL),
    "CubaLIF, one value for all": (lambda: neurons(cuba(1)), ALL),
    "CubaLIF that keeps nothing": (lambda: neurons(cuba(tau_syn=DT, w_in=1, tau_mem=DT, r=1)), ALL),
    "CubaLIF with other gains": (lambda: neurons(cuba(w_in=1, v_threshold=0.5)), ("norse", "snntorch")),
    "CubaLIF with r of its own": (lambda: neurons(cuba(r=2)), ("norse",)),
    "CubaLIF, thresholds of their own": (lambda: neurons(cuba(v_threshold=VARIED)), ("norse",)),
    "CubaLIF, gains of their own": (lambda: neurons(cuba(w_in=VARIED)), ("norse",)),
    "CubaLIF, time constants of their own": (
        lambda: neurons(cuba(tau_mem=4 * DT * VARIED, r=4 * VARIED)),
        ("norse", "snntorch"),
    ),
    "CubaLIF with a gain of nearly 1": (lambda: neurons(cuba(w_in=2 + 1e-5)), ("norse",)),
    "CubaLIF, negative threshold": (lambda: neurons(cuba(v_threshold=-0.25)), ("norse", "spikingjelly")),
    "CubaLIF with v_leak": (lambda: neurons(cuba(v_leak=0.25)), NONE),
    "CubaLIF with v_reset": (lambda: neurons(cuba(v_reset=-1)), NONE),
    "LIF, r 1": (lambda: neurons(lif()), ALL),
    "LIF, r tau / dt": (lambda: neurons(lif(r=4, v_threshold=1)), BOTH_NIRTORCH),
    "LIF, another r": (lambda: neurons(lif(r=2)), ("snntorch",)),
    "LIF, tau dt": (lambda: neurons(lif(tau=DT)), ("norse", "snntorch")),
    "LIF, time constants of their own": (lambda: neurons(lif(tau=4 * DT * VARIED, r=VARIED)), ("snntorch",)),
    "LIF, r of their own": (lambda: neurons(lif(r=VARIED)), NONE),
    "LIF with v_leak": (lambda: neurons(lif(v_leak=0.25)), NONE),
    "LIF with v_reset": (lambda: neurons(lif(v_reset=-1)), NONE),
    "IF": (lambda: neurons(integrate()), ("norse", "spikingjelly")),
    "IF, thresholds of their own": (lambda: neurons(integrate(v_threshold=VARIED)), ("norse",)),
    "IF, another r": (lambda: neurons(integrate(r=0.5 / DT)), NONE),
    "IF with v_reset": (lambda: neurons(integrate(v_reset=-1)), NONE),
    "LI": (lambda: neurons(nir.LI(vector(4 * DT), vector(4), vector(0))), NONE),
    "CubaLI": (lambda: neurons(nir.CubaLI(vector(DT), vector(4 * DT), vector(4), vector(0), vector(1))), NONE),
    "I": (lambda: neurons(nir.I(vector(1 / DT))), NONE),
    "Threshold": (lambda: neurons(nir.Threshold(vector(0.5))), NONE),
    "Scale": (lambda: neurons(nir.Scale(vector(VARIED))), NONE),
    "Delay": (lambda: neurons(nir.Delay(vector(DT))), NONE),
    "Affine": (lambda: chain((4,), node=nir.Affine(weights(N, 4), weights(N))), ALL),
    "Linear": (lambda: chain((4,), node=nir.Linear(weights(N, 4))), ALL),
    "Affine over several axes": (lambda: chain((2, 4), node=nir.Affine(weights(2, N, 4), weights(2, N))), NONE),
    "Flatten": (lambda: image(nir.Flatten({"input": np.array([2, 4, 5])}, 0)), ALL),
    "Flatten of some axes": (lambda: image(nir.Flatten({"input": None})), ALL),
    "Flatten from behind": (lambda: image(nir.Flatten({"input": None}, -3, -2)), ALL),
    "Conv1d": (lambda: conv1d(2, stride=2), BOTH_NIRTORCH),
    "Conv1d, same": (lambda: conv1d("same"), BOTH_NIRTORCH),
    "Conv1d in groups": (lambda: conv1d(0, 2), NONE),
    "Conv2d": (lambda: image(conv2d((1, 2))), ALL),
    "Conv2d, same": (lambda: image(conv2d("same", stride=1)), ALL),
    "Conv2d, valid": (lambda: image(conv2d("valid")), ALL),
    "Conv2d in groups": (lambda: image(conv2d(groups=2)), NONE),
    "SumPool2d": (lambda: image(pool(nir.SumPool2d)), ALL),
    "SumPool2d with padding": (lambda: image(pool(nir.SumPool2d, 1)), NONE),
    "AvgPool2d": (lambda: image(pool(nir.AvgPool2d, (0, 1), (2, 4))), BOTH_NIRTORCH),
    "AvgPool2d with much padding": (lambda: image(pool(nir.AvgPool2d, (0, 2))), NONE),
    "subgraph": (subgraph, ALL),
    "skip": (lambda: side_by_side({"last": cuba(), **OUT}, skip=True), ALL),
    "branches that join": (lambda: side_by_side({"last": cuba(), **OUT}), BOTH_NIRTORCH),
    "Output of a sum": (lambda: side_by_side(OUT), NONE),
    "onto itself": (lambda: own_loop(None), ALL),
    "recurrent": (lambda: own_loop(nir.Linear(weights(N, N))), ("norse", "spikingjelly")),
    "recurrent with bias": (lambda: own_loop(nir.Affine(weights(N, N), vector(1))), NONE),
    "long loop": (lambda: loop(nir.Linear(weights(N, N, low=-8))), ALL),
    "long loop with bias": (lambda: loop(nir.Affine(weights(N, N, low=-8), vector(1))), NONE),
}
NAMED = {"Output of a sum": "out"}


def spikes_for(nodes: Nodes, steps: int = STEPS) -> np.ndarray:
    shape = tuple(int(size) for size in nodes["in"].input_type["input"])
    return np.random.default_rng(shape).random((steps, *shape)) < 0.5


def graph_of(nodes: Nodes, edges: Edges) -> nir.NIRGraph:
    return nir.NIRGraph(dict(nodes), list(edges), type_check=False)


def neurons_of(nodes: Nodes) -> list[str]:
    return [name for name, node in nodes.items() if isinstance(node, nir.CubaLIF | nir.LIF | nir.IF)]


def run_or_refusal(
    backend: ForeignBackend, nodes: Nodes, edges: Edges, spikes: np.ndarray, names: list[str]
) -> GraphRecord | str:
    """What the backend gives, or the message with which it refuses."""
    try:
        return backend.run_graph(graph_of(nodes, edges), spikes, DT, names)
    except SpikerlError as error:
        return error.message


def assert_as_defined(
    record: GraphRecord, graph: nir.NIRGraph, spikes: np.ndarray, dt: float, names: list[str]
) -> None:
    defined = run_definition(graph, spikes, dt)
    np.testing.assert_array_equal(record.output, defined.output)
    assert sorted(record.spikes) == sorted(record.voltages) == sorted(names)
    for name in names:
        np.testing.assert_array_equal(record.spikes[name], defined.spikes[name])
        np.testing.assert_allclose(record.voltages[name], defined.voltages[name], atol=1e-5)
        assert record.spikes[name].dtype == np.bool_
        assert record.voltages[name].dtype == np.float32


@pytest.mark.parametrize("runtime", RUNTIMES)
@pytest.mark.parametrize("case", CASES)
def test_a_node_is_run_as_nir_defines_it_or_refused_by_name(runtime: str, case: str) -> None:
    make, honoured = CASES[case]
    nodes, edges = make()
    backend, spikes, names = installed(runtime), spikes_for(nodes), neurons_of(nodes)
    if runtime in honoured:
        record = backend.run_graph(graph_of(nodes, edges), spikes, DT, names)
        assert_as_defined(record, graph_of(*make()), spikes, DT, names)
        assert record.output.dtype == (np.bool_ if edges and names and case != "Affine" else np.float32)
        assert record.output.any()
        return
    with pytest.raises(SpikerlError) as caught:
        backend.run_graph(graph_of(nodes, edges), spikes, DT)
    assert caught.value.hint is not None
    named = NAMED.get(case, "node")
    assert f"backend '{runtime}' cannot honour NIR node '{named}'" in caught.value.message


CAUTION = {("CubaLIF with a gain of nearly 1", "snntorch")}  # wrong by a 200,000th, which few steps do not show


# Refusals that are no mere caution: without them the runtime gives something else, or stops.
@pytest.mark.parametrize("runtime", RUNTIMES)
@pytest.mark.parametrize("case", [case for case, (_, honoured) in CASES.items() if honoured != ALL])
def test_what_is_refused_would_go_wrong(runtime: str, case: str, monkeypatch: pytest.MonkeyPatch) -> None:
    make, honoured = CASES[case]
    if runtime in honoured or (case, runtime) in CAUTION:
        return
    backend = installed(runtime)
    monkeypatch.setattr(type(backend), "refusal", lambda *_: None)
    monkeypatch.setattr(type(backend), "wiring_refusal", lambda *_: None)
    monkeypatch.setattr(foreign, "schedule_refusal", lambda *_: None)
    nodes, edges = make()
    spikes = spikes_for(nodes, 20)
    result = run_or_refusal(backend, nodes, edges, spikes, [])
    if isinstance(result, str):  # its reader, or the run of what it read, failed
        assert f"backend '{runtime}' " in result
        return
    defined = run_definition(graph_of(*make()), spikes, DT).output
    assert result.output.shape != defined.shape or not np.array_equal(result.output, defined)


@pytest.mark.parametrize(
    ("runtime", "make"),
    [pair for pair in itertools.product(RUNTIMES, (cuba, lif, integrate)) if pair != ("snntorch", integrate)],
)
def test_a_voltage_at_the_threshold_does_not_spike(runtime: str, make: Callable[..., nir.NIRNode]) -> None:
    backend = installed(runtime)
    threshold = 0.25
    arrives = {cuba: 1.0, lif: 4.0, integrate: 1.0}[make] * threshold
    above = np.nextafter(np.float32(arrives), np.float32(9))
    nodes, edges = chain(
        (2,), fc=nir.Linear(np.diag([arrives, above]).astype(np.float32)), node=make(2, v_threshold=0.25)
    )
    spikes = np.array([[1, 1], [0, 0]], dtype=bool)
    record = backend.run_graph(graph_of(nodes, edges), spikes, DT, ["node"])
    assert record.output[0].tolist() == [False, True]
    assert record.voltages["node"][0].tolist() == [threshold, 0.0]


@pytest.mark.parametrize("runtime", ["norse", "spikingjelly"])
@pytest.mark.parametrize("dt", [1e-5, 2.0**-10, 1e-3])
def test_time_constants_are_read_at_the_given_dt(runtime: str, dt: float) -> None:
    nodes, edges = chain(
        (4,), fc=nir.Linear(weights(N, 4)), one=cuba(dt=dt), fc2=nir.Linear(weights(N, N)), two=lif(dt=dt)
    )
    backend, spikes = installed(runtime), spikes_for(nodes)
    record = backend.run_graph(graph_of(nodes, edges), spikes, dt, ["one", "two"])
    assert_as_defined(record, graph_of(nodes, edges), spikes, dt, ["one", "two"])


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_names_that_no_runtime_would_take_and_numbers_as_input(runtime: str) -> None:
    nodes, _ = neurons(cuba())
    renamed = dict(zip(("forward", "a.b c", "class", "keys"), nodes.values(), strict=True))
    graph = graph_of(renamed, list(itertools.pairwise(renamed)))
    spikes = np.random.default_rng(0).integers(-8, 9, (STEPS, 4)) / 4
    record = installed(runtime).run_graph(graph, spikes, DT, ["class"])
    assert_as_defined(record, graph, spikes, DT, ["class"])
    assert record.output.any()


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_bad_input_and_unknown_names_are_one_line(runtime: str) -> None:
    nodes, edges = neurons(cuba())
    backend = installed(runtime)
    with pytest.raises(SpikerlError, match=r"input spikes have shape \(6, 5\)"):
        backend.run_graph(graph_of(nodes, edges), np.zeros((6, 5)), DT)
    with pytest.raises(SpikerlError, match="unknown node to record 'nod'"):
        backend.run_graph(graph_of(nodes, edges), np.zeros((6, 4)), DT, ["nod"])
    with pytest.raises(SpikerlError, match="'fc' is a Affine"):
        backend.run_graph(graph_of(nodes, edges), np.zeros((6, 4)), DT, ["fc"])


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_graphs_that_a_reader_would_be_lost_in_are_refused(runtime: str) -> None:
    nodes, edges = chain((4,), **{f"fc{index}": nir.Linear(np.eye(4, dtype=np.float32)) for index in range(1000)})
    with pytest.raises(SpikerlError, match="at most 1000 nodes, this one has 1002"):
        installed(runtime).run_graph(graph_of(nodes, edges), np.zeros((6, 4)), DT)


def test_snntorch_refuses_another_dt_by_node_name() -> None:
    nodes, edges = neurons(cuba(dt=1e-3))
    with pytest.raises(SpikerlError, match="NIR node 'node' .* takes dt = 0.0001 s only, not 0.001 s"):
        installed("snntorch").run_graph(graph_of(nodes, edges), np.zeros((6, 4)), 1e-3)


@st.composite
def neuron_nodes(draw: st.DrawFn, plain: bool) -> nir.NIRNode:
    """Neurons of any kind on a binary grid; `plain` ones are those that readers assume, or nearly so."""
    each = not plain and draw(st.booleans())

    def number(*values: float) -> np.ndarray:
        one = st.sampled_from(values)
        return vector([draw(one) for _ in range(N)] if each else draw(one))

    rest = (0.0,) if plain else (0.0, 0.0, 0.0, -0.25)
    options = {"v_threshold": number(0.25, 0.5, 1), "v_reset": number(*rest)}
    kind = draw(st.sampled_from(["cuba", "cuba", "lif", "if"]))
    if kind == "if":
        return integrate(**options, r=number(1 / DT, *(() if plain else (0.5 / DT,))))
    mem, syn = number(2, 4, *(() if plain else (1,))), number(1, 2)
    options["v_leak"] = number(*rest)
    if kind == "lif":
        return lif(**options, tau=mem * DT, r=draw(st.sampled_from([mem, vector(1)])) if plain else number(1, 2, 4))
    gains = {"r": mem, "w_in": syn} if plain else {"r": number(1, 2, 4), "w_in": number(1, 2)}
    return cuba(**options, **gains, tau_mem=mem * DT, tau_syn=syn * DT)


@st.composite
def graphs(draw: st.DrawFn) -> tuple[Nodes, Edges]:
    """Populations of N neurons in a row, with connections that skip, join and feed back."""
    rng, plain = np.random.default_rng(draw(st.integers(0, 2**16))), draw(st.integers(0, 3)) > 0

    def synapses(n_in: int, biased: bool) -> nir.NIRNode:
        weight = (rng.integers(-4, 9, (N, n_in)) / 8).astype(np.float32)
        return nir.Affine(weight, (rng.integers(-2, 3, N) / 8).astype(np.float32)) if biased else nir.Linear(weight)

    count = draw(st.integers(1, 3))
    nodes: Nodes = {"in": nir.Input({"input": np.array([4])})}
    edges: Edges = []
    for index in range(count):
        nodes |= {f"fc{index}": synapses(N if index else 4, draw(st.booleans()))}
        nodes[f"lif{index}"] = draw(neuron_nodes(plain))
        edges += [(f"lif{index - 1}" if index else "in", f"fc{index}"), (f"fc{index}", f"lif{index}")]
    place = st.integers(0, count - 1)
    for extra in range(draw(st.integers(0, 2))):
        source, target = f"lif{draw(place)}", f"lif{draw(place)}"
        if draw(st.booleans()):
            nodes[f"extra{extra}"] = synapses(N, not plain)
            edges += [(source, f"extra{extra}"), (f"extra{extra}", target)]
        elif (source, target) not in edges:
            edges.append((source, target))
    nodes["out"] = nir.Output({"output": None})
    edges.append((f"lif{draw(place)}", "out"))
    shuffled = draw(st.permutations(list(nodes)))
    return {name: nodes[name] for name in shuffled}, draw(st.permutations(edges))


@pytest.mark.parametrize("runtime", RUNTIMES)
@settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=list(HealthCheck))
@given(drawn=graphs(), data=st.data())
def test_any_graph_runs_as_defined_or_is_refused_by_name(
    runtime: str, drawn: tuple[Nodes, Edges], data: st.DataObject
) -> None:
    nodes, edges = drawn
    backend, names = installed(runtime), neurons_of(nodes)
    bits = data.draw(st.integers(0, 2 ** (4 * STEPS) - 1))
    spikes = (bits >> np.arange(4 * STEPS).reshape(STEPS, 4)) & 1 == 1
    result = run_or_refusal(backend, nodes, edges, spikes, names)
    if isinstance(result, str):
        assert any(f"cannot honour NIR node '{name}'" in result for name in nodes), result
    else:
        assert_as_defined(result, graph_of(nodes, edges), spikes, DT, names)
