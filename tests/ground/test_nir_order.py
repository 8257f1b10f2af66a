"""Order, loops, shapes and subgraphs of NIR graphs; what has no meaning, or is hostile, is refused by name."""

from __future__ import annotations

import itertools
import time

import nir
import numpy as np
import pytest
from hypothesis import given
from nir_graphs import Case, fuzz, graph_cases
from scipy.sparse import csr_array

from spikerl_deploy import nir_matrices
from spikerl_deploy.errors import SpikerlError
from spikerl_deploy.nir_lowering import _linear_order, lower_graph
from spikerl_deploy.nir_order import check_input, check_record, order_graph
from spikerl_deploy.nir_unroll import dissolve

DT = 1e-4
Nodes = dict[str, nir.NIRNode]
Edges = list[tuple[str, str]]


class Odd(nir.Scale):
    """A kind of node that nobody knows."""


def lif(shape: int | tuple[int, ...] = 2, **values: object) -> nir.LIF:
    ones = np.ones(shape)
    fields = {"tau": 4e-4 * ones, "r": ones, "v_leak": 0 * ones, "v_threshold": ones, "v_reset": 0 * ones} | values
    return nir.LIF(**fields)


def ends(first: tuple[int, ...] = (2,), last: tuple[int, ...] = (2,)) -> Nodes:
    return {"in": nir.Input(np.array(first)), "out": nir.Output(np.array(last))}


def graph(nodes: Nodes, edges: Edges) -> nir.NIRGraph:
    return nir.NIRGraph(nodes, edges, type_check=False)


def loop(through: Nodes, edges: Edges) -> nir.NIRGraph:
    """in -> fire -> out, and what else goes around."""
    return graph(ends() | {"fire": lif()} | through, [("in", "fire"), ("fire", "out"), *edges])


def one(node: nir.NIRNode, given: tuple[int, ...] = (2,), last: tuple[int, ...] = (2,)) -> nir.NIRGraph:
    return graph(ends(given, last) | {"it": node}, [("in", "it"), ("it", "out")])


def refusal(bad: nir.NIRGraph, dt: float = DT) -> str:
    with pytest.raises(SpikerlError) as refused:
        order_graph(bad, dt)
    assert "\n" not in refused.value.message
    return refused.value.message


@fuzz(40)
@given(graph_cases(lowerable=False))
def test_each_node_comes_after_what_it_sums_in_the_same_time_step(case: Case) -> None:
    ordered = order_graph(case.graph, case.dt)
    names = list(ordered.nodes)
    assert (names[0], names[-1]) == (ordered.input, ordered.output)
    for name, sources in ordered.sources.items():
        holds = name in ordered.delays and (ordered.delays[name] > 0).all()
        for source, feedback in sources:
            assert feedback or holds or names.index(source) < names.index(name)
    assert ordered.input_shape == case.spikes.shape[1:]


def test_in_a_loop_only_the_edge_that_leads_back_towards_the_input_is_feedback() -> None:
    ordered = order_graph(
        loop({"a": nir.Scale(np.ones(2)), "b": lif()}, [("fire", "a"), ("a", "b"), ("b", "fire")]), DT
    )
    assert ordered.sources == {
        "in": (), "fire": (("in", False), ("b", True)), "a": (("fire", False),), "b": (("a", False),),
        "out": (("fire", False),),
    }  # fmt: skip


def test_a_delay_opens_its_loop_and_nothing_else_in_it_is_late() -> None:
    ordered = order_graph(loop({"d": nir.Delay(np.array([1e-4, 3e-4]))}, [("fire", "d"), ("d", "fire")]), DT)
    assert not any(late for sources in ordered.sources.values() for _, late in sources)
    assert ordered.delays["d"].tolist() == [1, 3]


def test_a_delay_of_no_time_steps_does_not_open_a_loop() -> None:
    ordered = order_graph(loop({"d": nir.Delay(np.zeros(2))}, [("fire", "d"), ("d", "fire")]), DT)
    assert ordered.sources["fire"] == (("in", False), ("d", True))


def test_two_nodes_of_equal_depth_feed_each_other_back_both_ways() -> None:
    nodes = ends() | {"a": lif(), "b": lif()}
    edges = [("in", "a"), ("in", "b"), ("a", "b"), ("b", "a"), ("a", "out"), ("b", "out")]
    ordered = order_graph(graph(nodes, edges), DT)
    assert ordered.sources["a"] == (("in", False), ("b", True))
    assert ordered.sources["b"] == (("in", False), ("a", True))
    assert ordered.sources["out"] == (("a", False), ("b", False))


def test_subgraphs_are_unrolled_and_their_ends_dissolve() -> None:
    inner = graph(ends() | {"fire": lif()}, [("in", "fire"), ("fire", "out"), ("fire", "fire")])
    middle = graph(ends() | {"net": inner}, [("in", "net"), ("net", "out"), ("in", "out")])
    ordered = order_graph(graph(ends() | {"sub": middle}, [("in", "sub"), ("sub", "out")]), DT)
    assert list(ordered.nodes) == ["in", "sub.net.fire", "out"]
    assert set(ordered.sources["sub.net.fire"]) == {("in", False), ("sub.net.fire", True)}
    assert set(ordered.sources["out"]) == {("sub.net.fire", False), ("in", False)}


def test_what_arrives_along_two_ways_is_summed_twice() -> None:
    wire = graph(ends(), [("in", "out")])
    nodes = ends() | {"a": wire, "b": wire, "fire": lif()}
    ordered = order_graph(graph(nodes, [("in", "a"), ("in", "b"), ("a", "fire"), ("b", "fire"), ("fire", "out")]), DT)
    assert ordered.sources["fire"] == (("in", False), ("in", False))


@pytest.mark.parametrize(
    ("node", "given", "shape"),
    [
        (nir.Linear(np.ones((3, 4, 5))), (3, 5), (3, 4)),
        (nir.Flatten({"input": None}, 1, -1), (2, 3, 4), (2, 12)),
        (nir.Flatten({"input": np.array([2, 3, 4])}, 0, 1), (2, 3, 4), (6, 4)),
        (nir.Flatten({"input": None}, -2, -1), (2, 3, 4), (2, 12)),
        (nir.Conv1d(None, np.ones((4, 1, 3)), 2, 1, 1, 2, np.zeros(4)), (2, 9), (4, 5)),
        (nir.Conv1d(9, np.ones((4, 2, 4)), 1, "same", 2, 1, np.zeros(1)), (2, 9), (4, 9)),
        (nir.Conv2d(None, np.ones((4, 2, 3, 2)), (2, 1), "valid", 1, 1, np.zeros(4)), (2, 9, 8), (4, 4, 7)),
        (nir.SumPool2d(np.array(2), np.array([2, 1]), np.array(0)), (3, 5, 5), (3, 2, 4)),
        (nir.AvgPool2d(np.array([3, 2]), np.array([1, 1]), np.array([1, 0])), (1, 5, 5), (1, 5, 4)),
    ],
)
def test_shapes_follow_from_the_input(node: nir.NIRNode, given: tuple[int, ...], shape: tuple[int, ...]) -> None:
    assert order_graph(one(node, given, shape), DT).shapes["it"] == shape


def test_padding_is_read_as_bytes_too_as_hdf5_gives_it() -> None:
    node = nir.Conv1d(None, np.ones((1, 1, 3)), 1, "same", 1, 1, np.zeros(1))
    node.padding = b"same"
    assert order_graph(one(node, (1, 5), (1, 5)), DT).shapes["it"] == (1, 5)


UNFIT = {
    "a weight that does not suit its input": (nir.Linear(np.ones((2, 3))), "which takes (3,); (2,) arrives"),
    "a bias of another shape": (nir.Affine(np.ones((2, 2)), np.ones(3)), "has bias of shape (3,)"),
    "a scale of another shape": (nir.Scale(np.ones(3)), "has scale of shape (3,), (2,) or a single value"),
    "a parameter of another shape": (lif(3), "has tau of shape (3,)"),
    "NaN": (lif(v_threshold=np.array([1, np.nan])), "has v_threshold that is not made of finite real numbers"),
    "infinity": (nir.Linear(np.full((2, 2), np.inf)), "has weight that is not made of finite"),
    "complex numbers": (nir.Scale(np.ones(2) * 1j), "has scale that is not made of finite real numbers"),
    "text": (nir.Scale(np.array(["a", "b"])), "has scale that is not made of finite real numbers"),
    "a time constant below dt": (lif(tau=np.full(2, 0.9e-4)), "a time constant below dt"),
    "a time constant of zero": (lif(tau=np.zeros(2)), "a time constant below dt"),
    "no outputs": (nir.Linear(np.ones((0, 2))), "has a weight of shape (0, 2)"),
    "a negative delay": (nir.Delay(np.array([0, -1e-4])), "has a negative delay of -0.0001 s"),
    "half a time step": (nir.Delay(np.array([0, 1.5e-4])), "1.5 time steps"),
    "a delay without end": (nir.Delay(np.array([0, 1e300])), "too much to hold"),
    "an unknown node": (Odd(np.ones(2)), "is a Odd, which cannot be run"),
    "a convolution of a vector": (
        nir.Conv1d(None, np.ones((1, 1, 1)), 1, 0, 1, 1, np.zeros(1)),
        "takes an input of 2 dimensions, (2,) arrives",
    ),
    "dimensions that are not there": (nir.Flatten({"input": None}), "flattens dimensions 1 to -1 of (2,)"),
    "another input than stated": (nir.Flatten({"input": np.array([4])}, 0), "states an input of shape (4,)"),
}


@pytest.mark.parametrize("what", UNFIT)
def test_a_node_that_has_no_meaning_is_refused_by_name(what: str) -> None:
    node, said = UNFIT[what]
    message = refusal(one(node))
    assert "NIR node 'it'" in message and said in message


PLANES = {
    "stride of zero": (nir.SumPool2d(np.array(2), np.array(0), np.array(0)), "has stride 0"),
    "a negative padding": (nir.SumPool2d(np.array(2), np.array(1), np.array(-1)), "has padding -1"),
    "a kernel of no size": (nir.AvgPool2d(np.array([2, 0]), np.array(1), np.array(0)), "has kernel_size [2, 0]"),
    "half a stride": (nir.AvgPool2d(np.array(2), np.array(1.5), np.array(0)), "has stride 1.5"),
    "three numbers": (nir.AvgPool2d(np.array([1, 1, 1]), np.array(1), np.array(0)), "2 whole numbers"),
    "a kernel beyond the input": (nir.SumPool2d(np.array(9), np.array(1), np.array(1)), "does not fit"),
    "a padding that fills the memory": (nir.SumPool2d(np.array(1), np.array(1), np.array(1 << 30)), "pads its input"),
    "groups that do not divide": (
        nir.Conv2d(None, np.ones((3, 1, 1, 1)), 1, 0, 1, 2, np.zeros(3)),
        "in 2 groups, which does not suit 2 channels",
    ),
    "strides and padding same": (
        nir.Conv2d(None, np.ones((1, 2, 2, 2)), 2, "same", 1, 1, np.zeros(1)),
        "has padding 'same' with a stride of (2, 2)",
    ),
    "another input_shape than arrives": (
        nir.Conv2d((4, 4), np.ones((1, 2, 2, 2)), 1, 0, 1, 1, np.zeros(1)),
        "states an input_shape of (4, 4), (5, 5) arrives",
    ),
}


@pytest.mark.parametrize("what", PLANES)
def test_a_window_that_has_no_meaning_is_refused_by_name(what: str) -> None:
    node, said = PLANES[what]
    message = refusal(one(node, (2, 5, 5), (1,)))
    assert "NIR node 'it'" in message and said in message


def test_broken_structures_are_refused_by_name() -> None:
    fire = {"fire": lif()}
    chain = [("in", "fire"), ("fire", "out")]
    two = ends() | {"in2": nir.Input(np.array([2]))}
    for bad, said in (
        (graph(ends() | fire, [*chain, ("fire", "ghost")]), "there is no node 'ghost'"),
        (graph(ends() | fire, [*chain, ("in", "fire")]), "2 edges 'in' -> 'fire'"),
        (graph(two | fire, chain), "has 2 Input nodes ('in', 'in2')"),
        (graph({"in": nir.Input(np.array([2]))}, []), "has 0 Output nodes"),
        (graph({}, []), "has 0 Input nodes"),
        (graph(ends() | fire | {"lone": lif()}, chain), "'lone' cannot be reached from the Input 'in'"),
        (graph(ends() | fire, [*chain, ("fire", "in")]), "'in' is the graph's Input"),
        (graph(ends() | fire, [*chain, ("out", "fire")]), "'out' is the graph's Output"),
        (graph(ends((2,), (3,)) | fire, chain), "'out' states a shape of (3,), (2,) arrives"),
        (graph(ends() | fire | {"a\nb": lif()}, chain), r"'a\nb', which cannot be printed"),
        (graph(ends((0,)) | fire, chain), "'in' has shape [0]"),
        (graph(ends((1 << 40,)) | fire, chain), "'in' has shape [1099511627776]"),
        (graph(ends((1 << 15, 1 << 15)) | fire, chain), "takes the graph beyond"),
    ):
        assert said in refusal(bad)
    inner = graph(two, [("in", "out")])
    nested = graph(ends() | {"sub": inner}, [("in", "sub"), ("sub", "out")])
    assert "node 'sub' has 2 Input nodes" in refusal(nested)
    wide = graph(ends((3,), (3,)), [("in", "out")])
    assert "'sub.in' states a shape of (3,), (2,) arrives" in refusal(
        graph(ends() | {"sub": wide}, [("in", "sub"), ("sub", "out")])
    )
    same = graph(ends() | {"a.b": lif(), "a": graph(ends() | {"b": lif()}, [("in", "b"), ("b", "out")])}, [])
    assert "'a.b' is there twice" in refusal(same)


def test_sums_of_different_shapes_are_refused() -> None:
    nodes = ends() | {"wide": nir.Linear(np.ones((3, 2))), "fire": lif()}
    bad = graph(nodes, [("in", "fire"), ("in", "wide"), ("wide", "fire"), ("fire", "out")])
    assert refusal(bad) == "NIR node 'fire' sums (3,), from 'wide', and (2,)"


@pytest.mark.parametrize("middle", [nir.Scale(np.ones(2)), nir.Delay(np.zeros(2)), graph(ends(), [("in", "out")])])
def test_a_loop_without_a_neuron_is_refused(middle: nir.NIRNode) -> None:
    nodes = ends() | {"a": nir.Scale(np.ones(2)), "b": middle}
    message = refusal(graph(nodes, [("in", "a"), ("a", "b"), ("b", "a"), ("a", "out")]))
    assert "'a' lies in a loop without a neuron or a Delay" in message
    wire = graph(ends(), [("in", "out")])
    assert "in a loop" in refusal(graph(ends() | {"w": wire}, [("in", "w"), ("w", "w"), ("w", "out")]))


def test_a_delay_of_some_elements_in_a_loop_is_refused() -> None:
    message = refusal(loop({"d": nir.Delay(np.array([0, 1e-4]))}, [("fire", "d"), ("d", "fire")]))
    assert message.startswith("NIR node 'd' lies in a loop and delays some elements but not all")


@pytest.mark.parametrize("dt", [0.0, -1e-4, float("nan"), float("inf"), 1e-60])
def test_a_time_step_is_positive_and_finite(dt: float) -> None:
    assert "is not a positive time step" in refusal(one(lif()), dt)


def test_time_constants_may_be_the_time_step_in_float32() -> None:
    order_graph(one(lif(tau=np.full(2, np.float32(1e-4)))), DT)
    assert float(np.float32(3e-4)) > 3e-4 or float(np.float32(1e-4)) < 1e-4  # one of them is rounded down
    order_graph(one(lif(tau=np.full(2, 1e-4 * (1 - 9e-7)))), DT)


def test_hostile_structures_end_in_one_line_soon() -> None:
    started = time.monotonic()
    inside_itself = graph(ends(), [("in", "out")])
    inside_itself.nodes |= {"a": inside_itself, "b": inside_itself}
    assert "more than 32 graphs deep" in refusal(inside_itself)
    doubled = graph(ends(), [("in", "out")])
    for _ in range(20):  # a million nodes and more
        doubled = graph(ends() | {"a": doubled, "b": doubled}, [("in", "a"), ("a", "b"), ("b", "out")])
    assert "beyond 65536 nodes" in refusal(doubled)
    wire, nodes, edges, before = graph(ends(), [("in", "out")]), ends(), Edges(), ["in"]
    for stage in range(40):  # 2^40 ways from one end to the other
        pair = [f"a{stage}", f"b{stage}"]
        nodes |= dict.fromkeys(pair, wire)
        edges += [(source, target) for source in before for target in pair]
        before = pair
    assert "beyond 262144 edges" in refusal(graph(nodes | {"fire": lif()}, [*edges, ("a39", "fire"), ("fire", "out")]))
    assert time.monotonic() - started < 20


def test_what_leads_into_a_subgraph_times_what_leads_on_is_refused_before_it_is_counted_out() -> None:
    """4 million edges in place of 4000."""
    before, after = ([f"{side}{index}" for index in range(2000)] for side in "bd")
    edges = [(name, "sub.in") for name in before] + [("sub.in", name) for name in after]
    started = time.monotonic()
    with pytest.raises(SpikerlError, match=r"'sub.in' takes the graph beyond 262144 edges: 2000 lead in, 2000 out"):
        dissolve(["sub.in"], ["sub.in", *before, *after], edges)
    assert time.monotonic() - started < 1
    few = dissolve(["sub.in"], ["sub.in", *before, *after], [*edges[:500], *edges[2000:2500]])
    assert few["d499"] == dict.fromkeys(before[:500], 1)


def test_the_time_step_that_is_advised_for_a_short_time_constant_is_accepted() -> None:
    short = one(lif(tau=np.array([1.0000051e-4, 2e-4])))  # to 6 digits, it is rounded up
    with pytest.raises(SpikerlError, match="a time constant below dt") as refused:
        order_graph(short, 1e-3)
    order_graph(short, float((refused.value.hint or "").split("--dt ")[1]))


def test_a_long_chain_of_linear_nodes_is_lowered_soon() -> None:
    names = [f"n{index}" for index in range(24_000)]
    nodes = ends((1,), (1,)) | {"fire": lif(1)} | dict.fromkeys(names, nir.Scale(np.ones(1)))
    ordered = order_graph(graph(nodes, list(itertools.pairwise(["in", *names, "fire", "out"]))), DT)
    started = time.monotonic()
    assert _linear_order(ordered) == ["in", *names]
    assert time.monotonic() - started < 2


def test_a_pool_over_a_large_map_is_laid_out_at_once() -> None:
    pool = nir.SumPool2d(np.array([800, 800]), np.array([1, 1]), np.array([1, 0]))
    started = time.monotonic()
    matrix = nir_matrices.linear_matrix("pool", pool, (1, 800, 800), (1, 3, 1))[0]
    assert time.monotonic() - started < 3
    pixels = np.random.default_rng(0).random((800, 800))
    expected = [pixels[:-1].sum(), pixels.sum(), pixels[1:].sum()]
    np.testing.assert_allclose(matrix @ pixels.ravel(), expected)


def test_a_long_chain_is_no_matter_of_recursion() -> None:
    names = [f"n{index}" for index in range(3000)]
    nodes = ends() | {name: lif() for name in names}
    chain = ["in", *names, "out"]
    ordered = order_graph(graph(nodes, list(itertools.pairwise(chain))), DT)
    assert list(ordered.nodes) == chain


def test_matrices_too_large_to_lay_out_are_refused_before_they_are() -> None:
    def refused(node: nir.NIRNode, given: tuple[int, ...], last: tuple[int, ...]) -> str:
        nodes = ends(given, last) | {"big": node, "fire": nir.Threshold(np.array(1.0))}
        ordered = order_graph(graph(nodes, [("in", "big"), ("big", "fire"), ("fire", "out")]), DT)
        with pytest.raises(SpikerlError) as error:
            lower_graph(ordered)
        return error.value.message

    conv = nir.Conv2d(None, np.ones((64, 8, 5, 5)), 1, "same", 1, 1, np.zeros(64))
    assert "'big' takes up to" in refused(conv, (8, 100, 100), (64, 100, 100))
    pool = nir.SumPool2d(np.array(300), np.array(1), np.array(0))
    assert "'big' takes up to" in refused(pool, (1, 600, 600), (1, 301, 301))


def test_a_product_of_narrow_matrices_is_refused_before_it_is_formed(monkeypatch: pytest.MonkeyPatch) -> None:
    column, row = csr_array(np.ones((4, 1))), csr_array(np.ones((1, 5)))
    monkeypatch.setattr(nir_matrices, "NONZEROS_MAX", 20)
    assert nir_matrices.product("it", column, row).nnz == 20
    monkeypatch.setattr(nir_matrices, "NONZEROS_MAX", 19)
    with pytest.raises(SpikerlError, match="'it' takes up to 20 synapses"):
        nir_matrices.product("it", column, row)
    assert nir_matrices.product("it", row, csr_array(np.ones((5, 1)))).nnz == 1


def test_only_neurons_are_recorded() -> None:
    ordered = order_graph(graph(ends() | {"fc": nir.Linear(np.eye(2)), "fire": lif()},
                                [("in", "fc"), ("fc", "fire"), ("fire", "out")]), DT)  # fmt: skip
    assert check_record(ordered, ["fire", "fire"]) == ("fire",)
    with pytest.raises(SpikerlError, match="unknown node to record 'fier'; there is: fire"):
        check_record(ordered, ["fier"])
    with pytest.raises(SpikerlError, match="'fc' is a Linear, which has neither spikes nor a voltage"):
        check_record(ordered, ["fc"])


def test_input_is_checked() -> None:
    ordered = order_graph(one(lif()), DT)
    assert check_input(ordered, np.array([[0, 1], [1, 1]]), binary=True).dtype == bool
    for bad, said in (
        (np.zeros((3, 4)), r"shape \(3, 4\), 'in' takes \[T, 2\]"),
        (np.zeros((0, 2)), r"shape \(0, 2\)"),
        (np.full((1, 2), np.nan), "not finite"),
        (np.array([["a", "b"]]), "not finite"),
    ):
        with pytest.raises(SpikerlError, match=said):
            check_input(ordered, bad)
    with pytest.raises(SpikerlError, match="other than 0 and 1"):
        check_input(ordered, np.array([[0, 2]]), binary=True)
