"""A NIR graph in the form in which every foreign reader takes it, and the loops that their schedules run right."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import nir
import numpy as np

from simulators.foreign.rules import NEURONS, Neuron
from spikerl_deploy.nir_order import OrderedGraph

TIME_CONSTANTS = ("tau", "tau_syn", "tau_mem")
NEURON_FIELDS = (*TIME_CONSTANTS, "r", "w_in", "v_leak", "v_reset", "v_threshold")


def canonical_names(ordered: OrderedGraph) -> dict[str, str]:
    """A name that is legal in every runtime for each node: theirs become names of torch modules and of Python code."""
    return {name: f"n{index}" for index, name in enumerate(ordered.nodes)}


def canonical_graph(ordered: OrderedGraph, names: Mapping[str, str]) -> nir.NIRGraph:
    """The graph with subgraphs unrolled, nodes in order of evaluation, and parameters as readers take them."""
    nodes = {names[name]: _canonical(node, ordered, name) for name, node in ordered.nodes.items()}
    edges = [(names[source], names[name]) for name, pairs in ordered.sources.items() for source, _ in pairs]
    return nir.NIRGraph(nodes, edges, type_check=False)


def _canonical(node: nir.NIRNode, ordered: OrderedGraph, name: str) -> nir.NIRNode:
    shape = ordered.shapes[name]
    match node:
        case nir.Input():
            return nir.Input({"input": np.array(shape)})
        case nir.Output():
            return nir.Output({"output": np.array(shape)})
        case nir.LIF() | nir.CubaLIF() | nir.IF():
            return _neuron(node, shape, ordered.dt)
        case nir.Affine():
            return nir.Affine(np.array(node.weight, dtype=np.float32), np.array(node.bias, dtype=np.float32))
        case nir.Linear():
            return nir.Linear(np.array(node.weight, dtype=np.float32))
        case nir.Conv1d() | nir.Conv2d():
            dimensions = 1 if isinstance(node, nir.Conv1d) else 2
            padding = node.padding.decode() if isinstance(node.padding, bytes) else node.padding
            return replace(
                node,
                input_shape=None,
                weight=np.array(node.weight, dtype=np.float32),
                bias=np.array(node.bias, dtype=np.float32),
                stride=_integers(node.stride, dimensions),
                dilation=_integers(node.dilation, dimensions),
                padding=padding if isinstance(padding, str) else _integers(padding, dimensions),
                groups=int(node.groups),
            )
        case nir.Flatten():
            return nir.Flatten(node.input_type, int(node.start_dim), int(node.end_dim))
        case nir.SumPool2d() | nir.AvgPool2d():
            return type(node)(*(_integers(v, 2) for v in (node.kernel_size, node.stride, node.padding)))
    return node


def _neuron(node: Neuron, shape: tuple[int, ...], dt: float) -> Neuron:
    """Every parameter for every neuron; a time constant that is dt but for its rounding becomes dt."""
    fields = {}
    for field in NEURON_FIELDS:
        if hasattr(node, field):
            array = np.asarray(getattr(node, field))
            array = np.array(np.broadcast_to(array.reshape(()) if array.size == 1 else array, shape))
            if field in TIME_CONSTANTS and (array.astype(np.float64) < dt).any():
                array = np.maximum(array.astype(np.float64), dt)
            fields[field] = array
    return type(node)(**fields)


def _integers(value: object, dimensions: int) -> tuple[int, ...]:
    return tuple(int(one) for one in np.broadcast_to(np.asarray(value), (dimensions,)))


def schedule_refusal(ordered: OrderedGraph, order: Sequence[str]) -> tuple[str, str] | None:
    """(node, why) where a runtime that visits nodes in this order gives another value to an edge, or None.

    Both of nirtorch's executors let an edge from a node that comes later carry that node's last output, 0 at first.
    """
    position = {name: index for index, name in enumerate(order)}
    if order[-1] != ordered.output:
        return order[-1], f"would give its output for that of '{ordered.output}'"
    for name, pairs in ordered.sources.items():
        if len(set(pairs)) < len(pairs):
            return name, "counts two edges from one node once"
        for source, late in pairs:
            if late != (position[source] >= position[name]):
                when = "the previous" if not late else "the same"
                return name, f"would give it the output of '{source}' of {when} time step"
            if late and (biased := _bias_upstream(ordered, source)) is not None:
                return biased, "leaves out its bias at the first time step, since it feeds back"
    return None


def _bias_upstream(ordered: OrderedGraph, name: str) -> str | None:
    """A node that makes `name` give something while neurons and input are silent, or None."""
    pending, met = [name], {name}
    while pending:
        name = pending.pop()
        node = ordered.nodes[name]
        if isinstance(node, (*NEURONS, nir.Input)):
            continue
        if np.any(getattr(node, "bias", 0)):
            return name
        sources = {source for source, _ in ordered.sources[name]} - met
        met |= sources
        pending += sources
    return None
