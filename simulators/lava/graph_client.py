"""NIR graphs on Lava, from the user's side: lowered here, run in a worker, states read back in NIR's units."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from typing import Any

import nir
import numpy as np
from numpy.typing import NDArray

from simulators.lava.client import WorkerClient, WorkerFailed
from simulators.lava.graph_wire import Network, pack_network
from simulators.protocol import GraphRecord
from spikerl_deploy.codec import Spikes
from spikerl_deploy.errors import SpikerlError
from spikerl_deploy.integer_network import clip_error, integers_of_graph
from spikerl_deploy.loihi import IntegerLayer
from spikerl_deploy.network import IntegerNetwork, IntegerPopulation
from spikerl_deploy.nir_lowering import lower_graph
from spikerl_deploy.nir_order import OrderedGraph, check_input, check_record, order_graph

LEVELS_PER_REQUEST = 256  # of neurons, times time steps: what must fit into the worker's time limit
VALUES_PER_REQUEST = 1 << 24  # states of one answer

States = dict[str, NDArray[Any]]


@dataclass(frozen=True, eq=False)
class GraphRun:
    """A graph that was found fit to run, and its input.

    Attributes:
        values: input [T, n_in]: booleans for integers, else float64. record: names of neurons.
        stateless: those of `record` that have spikes only.
        rounded: largest relative error of each population's integers, where they had to be found.
        clips: whether a voltage may clip, as for `run_integers`.
    """

    network: Network
    values: NDArray[Any]
    record: tuple[str, ...]
    stateless: frozenset[str]
    rounded: dict[str, float] = field(default_factory=dict)
    clips: bool = True

    def on(self, client: WorkerClient, shared: bool = False) -> GraphRecord:
        """Run it in a worker, as `run_network` does."""
        last = self.network.output
        states = run_network(client, self.network, self.values, (last, *self.record), shared, self.clips)
        spikes = {key: self._spikes(states, key) for key in states if self.network.populations[key].spiking}
        voltages = {key: self._voltages(states, key) for key in states}
        return GraphRecord(
            output=spikes[last] if last in spikes else voltages[last],
            spikes={key: spikes[key] for key in self.record if key in spikes},
            voltages={key: voltages[key] for key in self.record if key not in self.stateless},
        )

    def in_worker(self, start: Callable[[], WorkerClient], say: Callable[[str], None]) -> GraphRecord:
        """Run it in a worker of its own; where that fails, once more in another.

        Raises:
            SpikerlError: the second one failed, too.
        """
        try:
            with closing(start()) as client:
                return self.on(client)
        except WorkerFailed as failure:
            say(f"{failure.message}: the graph is run again by a new one")
        with closing(start()) as client:
            return self.on(client)

    def _spikes(self, states: States, key: str) -> Spikes:
        rows = states[key][:, 0]
        return rows.astype(np.bool_).reshape(len(rows), *self.network.populations[key].shape)

    def _voltages(self, states: States, key: str) -> NDArray[np.float32]:
        population, rows = self.network.populations[key], states[key][:, 1]
        unit = population.unit if isinstance(population, IntegerPopulation) else 1.0
        return (rows * unit + population.v_offset).astype(np.float32).reshape(len(rows), *population.shape)


def float_run(graph: nir.NIRGraph, spikes: NDArray[Any], dt: float, record: Sequence[str] = ()) -> GraphRun:
    """A graph to run in float64.

    Raises:
        SpikerlError: as `Backend.run_graph` does.
    """
    ordered = order_graph(graph, dt)
    names = check_record(ordered, record)
    values = check_input(ordered, spikes).astype(np.float64)
    return GraphRun(lower_graph(ordered), _flat(values), names, _stateless(ordered))


def integer_run(
    graph: nir.NIRGraph,
    spikes: NDArray[Any],
    dt: float,
    record: Sequence[str] = (),
    rounding: bool = False,
    integers: Sequence[IntegerLayer] | None = None,
) -> GraphRun:
    """A graph to run in integers; `rounding` and `integers` as for `integers_of_graph`.

    Raises:
        SpikerlError: as `Backend.run_graph` does.
    """
    ordered = order_graph(graph, dt)
    names = check_record(ordered, record)
    values = check_input(ordered, spikes, binary=True)
    network, rounded = integers_of_graph(ordered, rounding, integers)
    return GraphRun(network, _flat(values), names, _stateless(ordered), rounded, clips=integers is not None)


def _flat(values: NDArray[Any]) -> NDArray[Any]:
    return values.reshape(len(values), -1)


def _stateless(ordered: OrderedGraph) -> frozenset[str]:
    return frozenset(name for name, node in ordered.nodes.items() if isinstance(node, nir.Threshold))


def run_network(
    client: WorkerClient,
    network: Network,
    values: NDArray[Any],
    recorded: Sequence[str],
    shared: bool = False,
    clips: bool = True,
) -> States:
    """Run a lowered network from its start.

    Args:
        values: input [T, n_in], booleans or float64. recorded: keys of populations.
        shared: whether the worker runs other networks after this one; its processes are not watched then.
        clips: whether a voltage of integers may clip; floats may never be NaN.

    Returns:
        Of each recorded population, spikes and voltages after the reset, [T, 2, n], in the network's own units.

    Raises:
        SpikerlError: the worker fails, or a voltage of any population clips; names the node.
    """
    keys = list(dict.fromkeys(recorded))
    # A delay beyond the last time step gives nothing, however long it is: it need not be held so long.
    within = tuple(replace(c, delay=min(c.delay, len(values))) for c in network.connections)
    fields, arrays = pack_network(replace(network, connections=within))
    client.request({"op": "open_graph", "recorded": keys, **fields}, "opened", arrays)
    if not shared:
        client.remember_processes()
    parts: list[list[NDArray[Any]]] = [[] for _ in keys]
    levels = 1 + max(population.level for population in network.populations.values())
    states = 2 * sum(network.populations[key].size for key in keys)
    at_once = max(1, min(LEVELS_PER_REQUEST // levels, VALUES_PER_REQUEST // states))
    for start in range(0, len(values), at_once):
        chunk = values[start : start + at_once]
        answer = client.request({"op": "run_graph"}, "states", {"values": chunk})
        _check_states(network, answer["untrue"], start, clips)
        for index, part in enumerate(parts):
            part.append(answer[f"states{index}"])
    return {key: np.concatenate(part) for key, part in zip(keys, parts, strict=True)}


def _check_states(network: Network, untrue: NDArray[Any], start: int, clips: bool) -> None:
    """Refuse what ran from time step `start` on, where a neuron [T] has a state that is no longer true; -1 is none."""
    if (untrue >= 0).any() and not (clips and isinstance(network, IntegerNetwork)):
        step = int((untrue >= 0).argmax())
        ends = np.cumsum([p.size for p in network.populations.values()])
        name = list(network.populations)[int(np.searchsorted(ends, untrue[step], side="right"))]
        if isinstance(network, IntegerNetwork):
            raise clip_error(name, start + step)
        raise SpikerlError(f"NIR node '{name}': its state overflowed float64 by time step {start + step}")
