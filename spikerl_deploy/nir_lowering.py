"""An ordered NIR graph as populations and sparse connections: everything linear between two neurons becomes one.

What reaches a neuron is a sum of matrices times what a source gave some time steps ago. Biases come from a source that
is always 1, so that a Delay of a bias begins when it should.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from graphlib import CycleError, TopologicalSorter

import nir
import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array, eye_array

from spikerl_deploy.network import INPUT, ONE, Connection, FloatNetwork, FloatPopulation
from spikerl_deploy.nir_matrices import check_nonzeros, linear_matrix, product
from spikerl_deploy.nir_order import OrderedGraph
from spikerl_deploy.nir_shapes import NEURON_FIELDS, NEURONS, SPIKING, Floats, parameter, refused

Terms = dict[tuple[str, int], csr_array]
"""By source and delay, the matrix [n, n_source] of its part in a node's value."""
HINT = "the nodes as they are, one by one: --backend torch"


def lower_graph(ordered: OrderedGraph) -> FloatNetwork:
    """Populations and connections that compute what the graph means.

    Raises:
        SpikerlError: a neuron whose voltage feeds other nodes, an Output of anything but one neuron, a loop of linear
            nodes around a Delay, or connections too large to lay out; names the node.
    """
    _check_ends(ordered)
    values: dict[str, Terms] = {}
    stored = 0
    for name in _linear_order(ordered):
        values[name] = _value(ordered, name, values)
        stored += _size(values[name])
        check_nonzeros(name, stored)
    populations: dict[str, FloatPopulation] = {}
    connections: list[Connection] = []
    stored = 0
    for name, node in ordered.nodes.items():
        if isinstance(node, NEURONS):
            arriving = _arriving(ordered, name, values)
            stored += _size(arriving)
            check_nonzeros(name, stored)
            population, gain = _dynamics(ordered, name)
            incoming = _connections(name, arriving, gain)
            before = [populations[c.source].level for c in incoming if c.delay == 0 and c.source in populations]
            populations[name] = replace(population, level=1 + max(before, default=0))
            connections += incoming
    ((last, _),) = ordered.sources[ordered.output]
    return FloatNetwork(ordered.input_shape, populations, tuple(connections), last, ordered.dt)


def _check_ends(ordered: OrderedGraph) -> None:
    for name, sources in ordered.sources.items():
        for source, _ in sources:
            node = ordered.nodes[source]
            if isinstance(node, NEURONS) and not isinstance(node, SPIKING) and name != ordered.output:
                kind = type(node).__name__
                raise refused(source, f"is a {kind} whose voltage feeds '{name}', only spikes are passed on", HINT)
    last = ordered.sources[ordered.output]
    if len(last) != 1 or not isinstance(ordered.nodes[last[0][0]], NEURONS):
        listed = ", ".join(f"'{source}'" for source, _ in last[:4])
        raise refused(ordered.output, f"is fed by {listed}, exactly one node of neurons is needed", HINT)


def _linear_order(ordered: OrderedGraph) -> list[str]:
    """Nodes that are no neurons, so that each comes after those that it sums, however late."""
    kinds = (*NEURONS, nir.Output)
    linear = {name: None for name, node in ordered.nodes.items() if not isinstance(node, kinds)}  # ordered, and quick
    try:
        graph = {name: [s for s, _ in ordered.sources[name] if s in linear] for name in linear}
        return list(TopologicalSorter(graph).static_order())
    except CycleError as error:
        raise refused(min(error.args[1]), "lies in a loop without a neuron, around a Delay", HINT) from error


def _size(terms: Terms) -> int:
    return sum(matrix.nnz + matrix.shape[0] for matrix in terms.values())


def _identity(ordered: OrderedGraph, name: str) -> csr_array:
    return csr_array(eye_array(math.prod(ordered.shapes[name])))


def _arriving(ordered: OrderedGraph, name: str, values: Mapping[str, Terms]) -> Terms:
    """Sum of what arrives at a node.

    Feedback is one time step late; but a bias that holds in silence is there from the first time step on.
    """
    arriving: Terms = {}
    for source, feedback in ordered.sources[name]:
        is_neuron = isinstance(ordered.nodes[source], NEURONS)
        terms = {(source, 0): _identity(ordered, source)} if is_neuron else values[source]
        for (origin, delay), matrix in terms.items():
            key = (origin, delay + 1 if feedback and (origin, delay) != (ONE, 0) else delay)
            arriving[key] = arriving[key] + matrix if key in arriving else matrix
    return arriving


def _value(ordered: OrderedGraph, name: str, values: Mapping[str, Terms]) -> Terms:
    """A linear node's output."""
    if name == ordered.input:
        return {(INPUT, 0): _identity(ordered, name)}
    arriving = _arriving(ordered, name, values)
    if name in ordered.delays:
        return _delayed(name, arriving, ordered.delays[name].ravel())
    given = ordered.shapes[ordered.sources[name][0][0]]
    matrix, bias = linear_matrix(name, ordered.nodes[name], given, ordered.shapes[name])
    terms = {key: product(name, matrix, part) for key, part in arriving.items()}
    if bias is not None:
        column = csr_array(bias[:, None])
        terms[ONE, 0] = terms[ONE, 0] + column if (ONE, 0) in terms else column
    return terms


def _delayed(name: str, arriving: Terms, steps: NDArray[np.int64]) -> Terms:
    """What arrives, each row so many time steps later."""
    delays = np.unique(steps)
    check_nonzeros(name, _size(arriving) * len(delays))
    terms: Terms = {}
    for delay in delays:
        rows = np.flatnonzero(steps == delay)
        for (origin, before), matrix in arriving.items():
            chosen, counts = matrix[rows], np.zeros(len(steps) + 1, dtype=np.int64)
            counts[rows + 1] = np.diff(chosen.indptr)
            part = csr_array((chosen.data, chosen.indices, np.cumsum(counts)), shape=matrix.shape)
            key = (origin, before + int(delay))
            terms[key] = terms[key] + part if key in terms else part
    return terms


def _connections(name: str, arriving: Terms, gain: Floats) -> list[Connection]:
    """What arrives at a neuron, times its gains [n]; without what is zero."""
    connections = []
    for (source, delay), matrix in sorted(arriving.items(), key=lambda item: item[0]):
        with np.errstate(over="ignore", invalid="ignore"):
            data = matrix.data * np.repeat(gain, np.diff(matrix.indptr))
        if not np.isfinite(data).all():
            raise refused(name, "has input weights that overflow, with its gains or without")
        weight = csr_array((data, matrix.indices, matrix.indptr), shape=matrix.shape, copy=True)
        weight.eliminate_zeros()
        weight.sort_indices()
        if weight.nnz:
            connections.append(Connection(source, name, delay, weight))
    return connections


def _dynamics(ordered: OrderedGraph, name: str) -> tuple[FloatPopulation, Floats]:
    """A neuron node by what a time step keeps and adds; and the gain [n] of its input, in voltage.

    The current is held in voltage, as what one time step adds: r dt / tau_mem times NIR's.
    """
    node, dt, shape = ordered.nodes[name], ordered.dt, ordered.shapes[name]
    p = {field: parameter(name, node, field, shape).ravel() for field in NEURON_FIELDS[type(node)]}
    none = np.zeros(math.prod(shape))
    keep_u, keep_v, leak, threshold = none, none, none, none + np.inf
    with np.errstate(over="ignore", invalid="ignore"):
        if isinstance(node, nir.Threshold):
            gain, threshold = none + 1, p["threshold"]
        elif isinstance(node, nir.IF | nir.I):
            gain, keep_v = dt * p["r"], none + 1
        else:
            leak, rate = p["v_leak"], dt / p["tau" if "tau" in p else "tau_mem"]
            gain, keep_v = rate * p["r"], np.maximum(1 - rate, 0)
        if "tau_syn" in p:
            rate = dt / p["tau_syn"]
            gain, keep_u = gain * rate * p["w_in"], np.maximum(1 - rate, 0)
        if "v_threshold" in p:
            threshold = p["v_threshold"] - leak
        reset = p.get("v_reset", leak) - leak
    spiking = isinstance(node, SPIKING)
    if not all(np.isfinite(values).all() for values in (gain, reset, *([threshold] if spiking else []))):
        raise refused(name, "has parameters that overflow together")
    population = FloatPopulation(name, shape, keep_u, keep_v, threshold, reset, 0 - leak, leak, spiking, level=1)
    return population, gain
