"""A NIR graph put in the order in which a time step visits its nodes: subgraphs unrolled, loops opened, shapes checked.

docs/semantics.md says what the graph then means; what has no meaning is refused here, by the node's name.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from graphlib import CycleError, TopologicalSorter
from typing import Any

import nir
import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from spikerl_deploy.errors import SpikerlError, unknown
from spikerl_deploy.nir_shapes import (
    NEURONS,
    VALUES_MAX,
    Shape,
    check_time_constants,
    declared_shape,
    output_shape,
    parameter,
    refused,
)
from spikerl_deploy.nir_unroll import dissolve, unroll
from spikerl_deploy.policy import is_positive_scalar

DELAYED_MAX = 1 << 24  # values that the longest delay of a node holds back
DELAY_TOLERANCE = 1e-3  # of a time step


@dataclass(frozen=True, eq=False)
class OrderedGraph:
    """A graph whose every node is defined at time step dt.

    Attributes:
        nodes: in the order of evaluation, the Input first, the Output last; `subgraph.node` within a subgraph, whose
            own Input and Output are gone. A Delay of at least one time step in every element gives what it holds before
            its sources are evaluated: they may come after it.
        sources: of each node, what it sums, and whether that is feedback: the source's output of the time step before.
            A source may be there twice.
        shapes: of each node's output. delays: time steps of each Delay, in its shape.
        input, output: names. dt: seconds a time step.
    """

    nodes: dict[str, nir.NIRNode]
    sources: dict[str, tuple[tuple[str, bool], ...]]
    shapes: dict[str, Shape]
    delays: dict[str, NDArray[np.int64]]
    input: str
    output: str
    dt: float

    @property
    def input_shape(self) -> Shape:
        return self.shapes[self.input]


def order_graph(graph: nir.NIRGraph, dt: float) -> OrderedGraph:
    """Order a graph for time steps of dt seconds.

    Raises:
        SpikerlError: something in it has no meaning at this dt, or is too large; names the node.
    """
    if not is_positive_scalar(dt):
        raise SpikerlError(f"dt {dt} s is not a positive time step", "NIR's time constants are in seconds: --dt 1e-4")
    nodes, edges, first, last = unroll(graph)
    shapes = _shapes(nodes, edges, first, dt)
    delays = {name: _steps(name, node, shapes[name], dt) for name, node in nodes.items() if isinstance(node, nir.Delay)}
    ports = [name for name, node in nodes.items() if isinstance(node, nir.Input | nir.Output)]
    sources = dissolve([name for name in ports if name not in (first, last)], nodes, edges)
    feedback = _feedback(nodes, sources, delays, first)
    now = {name: () if _holds(name, delays) else set(sources[name]) - feedback[name] for name in sources}
    order = list(TopologicalSorter(now).static_order())
    order = [first, *(name for name in order if name not in (first, last)), last]
    return OrderedGraph(
        nodes={name: nodes[name] for name in order},
        sources={name: tuple((s, s in feedback[name]) for s in sources[name].elements()) for name in order},
        shapes={name: shapes[name] for name in order},
        delays=delays,
        input=first,
        output=last,
        dt=dt,
    )


def check_record(ordered: OrderedGraph, record: Iterable[str]) -> tuple[str, ...]:
    """Names of neurons to record, each once.

    Raises:
        SpikerlError: there is no such node, or it is no neuron.
    """
    names = tuple(dict.fromkeys(record))
    neurons = [name for name, node in ordered.nodes.items() if isinstance(node, NEURONS)]
    for name in names:
        if name not in ordered.nodes:
            raise unknown("node to record", name, neurons)
        if name not in neurons:
            kind = type(ordered.nodes[name]).__name__
            raise refused(name, f"is a {kind}, which has neither spikes nor a voltage to record")
    return names


def check_input(ordered: OrderedGraph, spikes: NDArray[Any], binary: bool = False) -> NDArray[Any]:
    """Input [T, ...input shape] that the graph can be run on: as it is, or as booleans with `binary`.

    Raises:
        SpikerlError: another shape, no time steps, values that are not finite numbers, or not 0 and 1 with `binary`.
    """
    wanted = ordered.input_shape
    if spikes.ndim != len(wanted) + 1 or spikes.shape[1:] != wanted or not len(spikes):
        expected = ", ".join(("T", *map(str, wanted)))
        raise SpikerlError(f"input spikes have shape {spikes.shape}, '{ordered.input}' takes [{expected}]")
    if spikes.dtype.kind not in "biuf" or not np.isfinite(spikes).all():
        raise SpikerlError(f"input spikes of type {spikes.dtype} are not finite numbers")
    if not binary:
        return spikes
    if not np.isin(spikes, (0, 1)).all():
        raise SpikerlError(
            f"NIR node '{ordered.input}' is given spikes other than 0 and 1, which integers cannot take",
            "run it in floats: --backend torch",
        )
    return spikes.astype(bool)


def _shapes(
    nodes: Mapping[str, nir.NIRNode], edges: Sequence[tuple[str, str]], first: str, dt: float
) -> dict[str, Shape]:
    """Shape of each node's output, from the Input on; the nodes' parameters are checked on the way."""
    targets: dict[str, list[str]] = {name: [] for name in nodes}
    for source, target in edges:
        targets[source].append(target)
    given = declared_shape(first, nodes[first].input_type["input"])
    if given is None:
        raise refused(first, "states no shape of its input")
    taken, shapes, total = {first: given}, dict[str, Shape](), 0
    pending = [first]
    for name in pending:  # grows: breadth first
        check_time_constants(name, nodes[name], dt)
        shapes[name] = output_shape(name, nodes[name], taken[name])
        total += math.prod(shapes[name])
        if total > VALUES_MAX:
            raise refused(name, f"of shape {shapes[name]} takes the graph beyond {VALUES_MAX} values a time step")
        for target in targets[name]:
            if target not in taken:
                taken[target] = shapes[name]
                pending.append(target)
    for name in nodes:
        if name not in shapes:
            raise refused(name, f"cannot be reached from the Input '{first}'")
    for source, target in edges:
        if shapes[source] != taken[target]:
            raise refused(target, f"sums {shapes[source]}, from '{source}', and {taken[target]}")
    return shapes


def _steps(name: str, node: nir.Delay, shape: Shape, dt: float) -> NDArray[np.int64]:
    """Whole time steps of a Delay, element by element."""
    delay = parameter(name, node, "delay", shape)
    if (delay < 0).any():
        raise refused(name, f"has a negative delay of {delay.min():g} s")
    ratio = delay / dt
    if float(ratio.max()) * delay.size > DELAYED_MAX:
        raise refused(
            name, f"delays {delay.size} values by up to {ratio.max():.4g} time steps, which is too much to hold"
        )
    steps = np.rint(ratio)
    worst = np.unravel_index(int(np.abs(ratio - steps).argmax()), shape)
    if abs(ratio[worst] - steps[worst]) > DELAY_TOLERANCE:
        raise refused(
            name,
            f"has a delay of {delay[worst]:g} s, {ratio[worst]:.6g} time steps of {dt:g} s",
            "give a time step that delays are multiples of: --dt SECONDS",
        )
    return steps.astype(np.int64)


def _holds(name: str, delays: Mapping[str, NDArray[np.int64]]) -> bool:
    """Whether a node is a Delay that nothing passes within the time step."""
    return name in delays and bool((delays[name] > 0).all())


def _feedback(
    nodes: Mapping[str, nir.NIRNode],
    sources: Mapping[str, Counter[str]],
    delays: Mapping[str, NDArray[np.int64]],
    first: str,
) -> dict[str, set[str]]:
    """Of each node, the sources that it reads one time step late, since they close a loop."""
    instant = {name: [] if _holds(name, delays) else list(sources[name]) for name in sources}
    silent = {
        name: [s for s in given if not isinstance(nodes[s], NEURONS)]
        for name, given in instant.items()
        if not isinstance(nodes[name], NEURONS)
    }
    try:
        TopologicalSorter(silent).prepare()
    except CycleError as error:
        raise refused(min(error.args[1]), "lies in a loop without a neuron or a Delay") from error
    loop = _components(instant)
    depth = _depths(sources, first)
    feedback: dict[str, set[str]] = {name: set() for name in sources}
    for name, given in instant.items():
        inside = [source for source in given if loop[source] == loop[name]]
        if inside and name in delays and delays[name].any():
            raise refused(
                name, "lies in a loop and delays some elements but not all, so that it opens half of the loop"
            )
        feedback[name] = {source for source in inside if depth[name] <= depth[source]}
    return feedback


def _components(sources: Mapping[str, Iterable[str]]) -> dict[str, int]:
    """Label of each node's strongly connected component."""
    index = {name: i for i, name in enumerate(sources)}
    pairs = [(index[source], index[target]) for target, given in sources.items() for source in given]
    rows, columns = np.array(pairs, dtype=np.int32).reshape(-1, 2).T
    adjacency = coo_array((np.ones(len(rows), dtype=bool), (rows, columns)), shape=(len(index), len(index)))
    _, labels = connected_components(adjacency, directed=True, connection="strong")
    return {name: int(labels[i]) for name, i in index.items()}


def _depths(sources: Mapping[str, Iterable[str]], first: str) -> dict[str, int]:
    """Least number of edges from the Input."""
    targets: dict[str, list[str]] = {name: [] for name in sources}
    for target, given in sources.items():
        for source in given:
            targets[source].append(target)
    depth, pending = {first: 0}, [first]
    for name in pending:
        for target in targets[name]:
            if target not in depth:
                depth[target] = depth[name] + 1
                pending.append(target)
    return depth
