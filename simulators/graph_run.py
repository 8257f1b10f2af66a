"""A NIR graph lowered to populations and connections, ready to run, and the record of what they did in NIR's units."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import nir
import numpy as np
from numpy.typing import NDArray

from simulators.protocol import GraphRecord
from spikerl_deploy.integer_network import integers_of_graph
from spikerl_deploy.loihi import IntegerLayer
from spikerl_deploy.network import FloatNetwork, IntegerNetwork, IntegerPopulation
from spikerl_deploy.nir_lowering import lower_graph
from spikerl_deploy.nir_order import OrderedGraph, check_input, check_record, order_graph

Rows = Mapping[str, NDArray[Any]]


@dataclass(frozen=True, eq=False)
class GraphRun:
    """A graph that was found fit to run, and its input.

    Attributes:
        values: input [T, n_in]: booleans for integers, else float64. record: names of neurons.
        stateless: those of `record` that have spikes only.
        rounded: largest relative error of each population's integers, where they had to be found.
        clips: whether a voltage may clip, as for `run_integers`.
    """

    network: IntegerNetwork | FloatNetwork
    values: NDArray[Any]
    record: tuple[str, ...]
    stateless: frozenset[str]
    rounded: dict[str, float] = field(default_factory=dict)
    clips: bool = True

    def record_of(self, spikes: Rows, voltages: Rows) -> GraphRecord:
        """The record of what the populations did.

        Args:
            spikes: [T, n] of those that spike, voltages: [T, n] after the reset, in the network's own units; of each
                recorded population, and of the last one whichever its output is.
        """
        last = self.network.output
        fired = {key: self._shaped(key, rows.astype(np.bool_)) for key, rows in spikes.items()}
        measured = {key: self._in_volts(key, rows) for key, rows in voltages.items()}
        return GraphRecord(
            output=fired[last] if self.network.populations[last].spiking else measured[last],
            spikes={key: fired[key] for key in self.record if self.network.populations[key].spiking},
            voltages={key: measured[key] for key in self.record if key not in self.stateless},
        )

    def _in_volts(self, key: str, rows: NDArray[Any]) -> NDArray[np.float32]:
        population = self.network.populations[key]
        unit = population.unit if isinstance(population, IntegerPopulation) else 1.0
        return self._shaped(key, (rows * unit + population.v_offset).astype(np.float32))

    def _shaped(self, key: str, rows: NDArray[Any]) -> NDArray[Any]:
        return rows.reshape(len(rows), *self.network.populations[key].shape)


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


def check_integers(graph: nir.NIRGraph, dt: float, rounding: bool, integers: Sequence[IntegerLayer] | None) -> None:
    """Find out whether `integer_run` would refuse the graph.

    Raises:
        SpikerlError: it would; names the node.
    """
    integers_of_graph(order_graph(graph, dt), rounding, integers)


def _flat(values: NDArray[Any]) -> NDArray[Any]:
    return values.reshape(len(values), -1)


def _stateless(ordered: OrderedGraph) -> frozenset[str]:
    return frozenset(name for name, node in ordered.nodes.items() if isinstance(node, nir.Threshold))
