"""`spikerl run --count`: the plan of what is counted, and the table of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from spikerl_deploy.cli.common import console
from spikerl_deploy.errors import SpikerlError

if TYPE_CHECKING:
    from simulators.protocol import Backend, GraphRecord
    from spikerl_deploy.graph_workload import CountPlan
    from spikerl_deploy.loihi import IntegerLayer
    from spikerl_deploy.network import FloatNetwork, IntegerNetwork
    from spikerl_deploy.nir_order import OrderedGraph

HINT = "leave --count out: it counts the synapses of a graph that is laid out (docs/counting.md)"


def make_plan(
    backend: Backend, ordered: OrderedGraph, rounding: bool, integers: Sequence[IntegerLayer] | None
) -> CountPlan:
    """What there is to count of the network that the backend will run.

    Raises:
        SpikerlError: the graph cannot be laid out as populations and connections; names the node.
    """
    from spikerl_deploy.graph_workload import plan_count
    from spikerl_deploy.integer_network import network_of_integers, quantize_network
    from spikerl_deploy.nir_lowering import lower_graph
    from spikerl_deploy.nir_shapes import NEURONS

    network: FloatNetwork | IntegerNetwork | None = None
    if backend.exactness == "integer" and integers is not None:
        names = [name for name, node in ordered.nodes.items() if isinstance(node, NEURONS)]
        network = network_of_integers(integers, names, ordered.dt)
    elif backend.exactness == "integer":
        network = quantize_network(lower_graph(ordered), rounding)
    try:
        return plan_count(ordered, lower_graph(ordered) if network is None else network)
    except SpikerlError as error:  # the backend may run the graph all the same
        error.hint = HINT
        raise


def count_record(
    plan: CountPlan, inputs: Any, record: GraphRecord, names: Sequence[str]
) -> tuple[GraphRecord, dict[str, Any]]:
    """The record of those nodes that were asked for, and the document of the operations."""
    from spikerl_deploy.graph_workload import count_graph, graph_document

    document = graph_document(count_graph(plan, inputs, record.spikes))
    spikes = {name: raster for name, raster in record.spikes.items() if name in names}
    voltages = {name: voltage for name, voltage in record.voltages.items() if name in names}
    return replace(record, spikes=spikes, voltages=voltages), document


def print_operations(operations: dict[str, Any]) -> None:
    """A line for each connection, and the sum."""
    from rich.table import Table

    table = Table("connection", "synapses", "events in", "ACs", "MACs", "dense", box=None, pad_edge=False)
    for column in table.columns[1:]:
        column.justify = "right"
    for row in operations["connections"]:
        late = f", {row['delay']} late" if row["delay"] else ""
        cells = [row[key] for key in ("synapses", "input_events", "effective_acs", "effective_macs", "dense")]
        table.add_row(f"{row['source']} -> {row['target']}{late}", *map(str, cells))
    total = operations["total"]
    sums = [total[key] for key in ("synapses", "effective_acs", "effective_macs", "dense")]
    table.add_row("total", str(sums[0]), "", *map(str, sums[1:]))
    console().print(table)
    updates = total["updates_active"] + total["updates_inactive"]
    console().print(
        f"{total['synaptic_operations']} synaptic operations, {total['spikes']} spikes, {updates} neuron updates "
        f"in {operations['time_steps']} time steps",
        soft_wrap=True,
    )
