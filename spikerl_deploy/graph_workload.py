"""Operations of a NIR graph on given input: counted for each connection of the network that it is lowered to.

docs/counting.md says what is counted, and where it differs from what NeuroBench counts.
"""

from __future__ import annotations

from collections.abc import Mapping
from copy import copy
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from spikerl_deploy.network import INPUT, ONE, FloatNetwork, IntegerNetwork
from spikerl_deploy.nir_lowering import lower_graph
from spikerl_deploy.nir_order import OrderedGraph

UNIT = "whole run: all time steps together"
ONES = ("weight", "scale", "r", "w_in")  # fields of NIR nodes that what arrives is multiplied with
Key = tuple[str, str, int]
"""Source, target and delay in time steps."""


@dataclass(frozen=True)
class ConnectionCounts:
    """Operations of one connection in all T time steps.

    Attributes:
        source, target: nodes. delay: time steps from one to the other.
        synapses: weights that are not zero. weights: with those that are.
        input_events: values that arrived and are not zero.
        effective_acs: input events times their synapses, of the time steps in which all values are -1, 0 or 1.
        effective_macs: the same of the others.
        dense: all weights, T times.
    """

    source: str
    target: str
    delay: int
    n_in: int
    n_out: int
    synapses: int
    weights: int
    input_events: int
    effective_acs: int
    effective_macs: int
    dense: int


@dataclass(frozen=True)
class PopulationCounts:
    """Updates of one node's neurons; `spikes` and `activation_sparsity` are None where they do not spike."""

    name: str
    neurons: int
    spikes: int | None
    updates_active: int
    updates_inactive: int
    activation_sparsity: float | None


@dataclass(frozen=True)
class GraphWorkload:
    """Operations of a graph in T time steps."""

    time_steps: int
    connections: tuple[ConnectionCounts, ...]
    populations: tuple[PopulationCounts, ...]


@dataclass(frozen=True, eq=False)
class CountPlan:
    """What of a graph is needed to count its operations.

    Attributes:
        sizes: neurons of each population. spiking: those whose spikes are counted.
        fan_out: of each connection [n_source], synapses of each input.
        shapes: of each, (n_target, n_source). weights: of each, those that are zero among them.
        input: how the input is called.
    """

    sizes: dict[str, int]
    spiking: tuple[str, ...]
    fan_out: dict[Key, NDArray[np.int64]]
    shapes: dict[Key, tuple[int, int]]
    weights: dict[Key, int]
    input: str


def plan_count(ordered: OrderedGraph, network: FloatNetwork | IntegerNetwork) -> CountPlan:
    """What is there to count, before anything runs.

    Args:
        network: what is to be run: the graph lowered, or its integers.

    Raises:
        SpikerlError: with every weight there, the graph cannot be laid out; names the node.
    """
    weights, shapes, fan_out = dict[Key, int](), dict[Key, tuple[int, int]](), dict[Key, NDArray[np.int64]]()
    for connection in _all_ones(ordered).connections:
        if connection.source != ONE:
            key = connection.source, connection.target, connection.delay
            n_out, n_in = (int(size) for size in connection.weight.shape)
            weights[key], shapes[key] = int(connection.weight.nnz), (n_out, n_in)
            fan_out[key] = np.zeros(n_in, dtype=np.int64)
    for connection in network.connections:
        if connection.source != ONE:
            used = connection.weight.indices[connection.weight.data != 0]
            key = connection.source, connection.target, connection.delay
            fan_out[key] += np.bincount(used, minlength=fan_out[key].size)
    return CountPlan(
        sizes={name: population.size for name, population in network.populations.items()},
        spiking=tuple(name for name, population in network.populations.items() if population.spiking),
        fan_out=fan_out,
        shapes=shapes,
        weights=weights,
        input=ordered.input,
    )


def count_graph(plan: CountPlan, inputs: NDArray[Any], spikes: Mapping[str, NDArray[Any]]) -> GraphWorkload:
    """Count what a run did.

    Args:
        inputs: [T, ...input shape]. spikes: of every population that spikes, [T, ...]; numbers are graded spikes.
    """
    values = {INPUT: inputs.reshape(len(inputs), -1)}
    values |= {name: spikes[name].reshape(len(inputs), -1) for name in plan.spiking}
    return GraphWorkload(
        len(inputs),
        tuple(_connection(plan, key, values[key[0]]) for key in plan.weights),
        tuple(_population(name, size, len(inputs), values.get(name)) for name, size in plan.sizes.items()),
    )


def graph_document(workload: GraphWorkload) -> dict[str, Any]:
    """The counts as `spikerl run --count --format json` prints them."""
    connections, populations = workload.connections, workload.populations
    totals: dict[str, int] = {
        key: sum(getattr(connection, key) for connection in connections)
        for key in ("synapses", "weights", "effective_acs", "effective_macs", "dense")
    }
    return {
        "unit": UNIT,
        "time_steps": workload.time_steps,
        "connections": [vars(connection) for connection in connections],
        "populations": [vars(population) for population in populations],
        "total": {
            "synaptic_operations": totals["effective_acs"] + totals["effective_macs"],
            **totals,
            "spikes": sum(population.spikes or 0 for population in populations),
            "updates_active": sum(population.updates_active for population in populations),
            "updates_inactive": sum(population.updates_inactive for population in populations),
        },
    }


def _connection(plan: CountPlan, key: Key, values: NDArray[Any]) -> ConnectionCounts:
    """Count one connection from its source's values [T, n_source]: before a delay has passed, nothing arrives."""
    source, target, delay = key
    steps, fan_out, (n_out, n_in) = len(values), plan.fan_out[key], plan.shapes[key]
    arrived = values[: max(steps - delay, 0)]
    events = arrived != 0
    operations = events @ fan_out
    unit = (~events | (abs(arrived) == 1)).all(axis=1) if arrived.dtype != np.bool_ else np.ones(len(arrived), bool)
    return ConnectionCounts(
        source=plan.input if source == INPUT else source,
        target=target,
        delay=delay,
        n_in=n_in,
        n_out=n_out,
        synapses=int(fan_out.sum()),
        weights=plan.weights[key],
        input_events=int(events.sum()),
        effective_acs=int(operations[unit].sum()),
        effective_macs=int(operations[~unit].sum()),
        dense=plan.weights[key] * steps,
    )


def _population(name: str, size: int, steps: int, raster: NDArray[Any] | None) -> PopulationCounts:
    fired, updates = 0 if raster is None else int(np.count_nonzero(raster)), size * steps
    return PopulationCounts(
        name=name,
        neurons=size,
        spikes=None if raster is None else fired,
        updates_active=fired,
        updates_inactive=updates - fired,
        activation_sparsity=None if raster is None else (updates - fired) / updates,
    )


def _all_ones(ordered: OrderedGraph) -> FloatNetwork:
    """The graph lowered as if no weight and no gain were zero: every weight that it has is then in a connection."""
    nodes = {}
    for name, node in ordered.nodes.items():
        nodes[name] = full = copy(node)
        for field in ONES:
            if field in vars(node):
                setattr(full, field, np.ones_like(np.asarray(getattr(node, field), dtype=np.float64)))
    return lower_graph(replace(ordered, nodes=nodes))
