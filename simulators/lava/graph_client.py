"""NIR graphs on Lava, from the user's side: a lowered graph is run in a worker, and its states are read back."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from simulators.graph_run import GraphRun
from simulators.lava.client import WorkerClient, WorkerFailed
from simulators.lava.graph_wire import Network, pack_network
from simulators.protocol import GraphRecord
from spikerl_deploy.errors import SpikerlError
from spikerl_deploy.integer_network import clip_error
from spikerl_deploy.network import IntegerNetwork

LEVELS_PER_REQUEST = 256  # of neurons, times time steps: what must fit into the worker's time limit
VALUES_PER_REQUEST = 1 << 24  # states of one answer

States = dict[str, NDArray[Any]]


def run_on(run: GraphRun, client: WorkerClient, shared: bool = False) -> GraphRecord:
    """Run a graph in a worker, as `run_network` does."""
    network = run.network
    states = run_network(client, network, run.values, (network.output, *run.record), shared, run.clips)
    spikes = {key: rows[:, 0] for key, rows in states.items() if network.populations[key].spiking}
    return run.record_of(spikes, {key: rows[:, 1] for key, rows in states.items()})


def run_in_worker(run: GraphRun, start: Callable[[], WorkerClient], say: Callable[[str], None]) -> GraphRecord:
    """Run a graph in a worker of its own; where that fails, once more in another.

    Raises:
        SpikerlError: the second one failed, too.
    """
    try:
        with closing(start()) as client:
            return run_on(run, client)
    except WorkerFailed as failure:
        say(f"{failure.message}: the graph is run again by a new one")
    with closing(start()) as client:
        return run_on(run, client)


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
