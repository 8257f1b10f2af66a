"""A lowered NIR network on Lava. Runs in the worker only.

`Axons -> Sparse -> Neurons -> Axons`: stock `Sparse` processes hold the weights of all connections, one for each
exponent; two processes of our own hold the delays and the neurons. Lava's time goes into messages between processes,
so that few large ones are several times faster than one for each NIR node.

A `Sparse` delays by one Lava step, so a time step of a network with D levels of populations takes P = D + 1 Lava steps:
the input of time step t is sent at Lava step t P (from 0), and populations of level d update at t P + d with what
arrived since their last update. What a source of level d1 (0 for the input) sends reaches a population of level d2 with
a delay of k time steps if it is held for h Lava steps, so that it arrives after the update of time step t + k - 1, and
not after that of t + k:

    (t + k - 1) P + d2 < t P + d1 + h + 1 <= (t + k) P + d2,    hence h = max(0, (k - 1) P + d2 - d1).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
from lava.magma.core.run_conditions import RunSteps
from lava.magma.core.run_configs import Loihi2SimCfg
from lava.proc.sparse.process import Sparse
from lava.utils.weightutils import SignMode
from scipy.sparse import coo_array, csr_matrix

from simulators.lava.graph_wire import Network, unpack_network
from simulators.lava.processes.axons import Axons, Bundle
from simulators.lava.processes.neurons import Neurons
from simulators.lava.wire import Arrays
from spikerl_deploy.loihi import STATE_SHIFT
from spikerl_deploy.network import INPUT, ONE, Connection, IntegerNetwork

_GRADED = 1  # message bits; above 0 a float connection hands on any number as it is


class GraphNetwork:
    """The network and its runtime; its state goes on from one `run` to the next.

    Args:
        recorded: keys of the populations whose states `run` gives.
    """

    def __init__(self, network: Network, recorded: Sequence[str]) -> None:
        self.integers = isinstance(network, IntegerNetwork)
        self.period = 1 + max(population.level for population in network.populations.values())
        n_in = int(np.prod(network.input_shape, dtype=int))
        sizes = {INPUT: n_in, ONE: 1} | {key: population.size for key, population in network.populations.items()}
        ends = np.cumsum(list(sizes.values()))
        self.n_driven = n_in + 1
        self.sources = {key: (int(end) - size, int(end)) for (key, size), end in zip(sizes.items(), ends, strict=True)}
        self.levels = {INPUT: 0, ONE: 0} | {key: p.level for key, p in network.populations.items()}
        n_neurons = int(ends[-1]) - self.n_driven
        bundles, matrices = self._synapses(network.connections, n_neurons)
        self.axons = Axons(self.n_driven, n_neurons, not self.integers, bundles, self.period)
        self.neurons = self._neurons(network, recorded)
        self.neurons.s_out.connect(self.axons.s_in)
        for exponent, weight in matrices:
            sparse = self._sparse(weight, exponent)
            self.axons.s_out.connect(sparse.s_in)
            sparse.a_out.connect(self.neurons.a_in)
        self.parts = np.cumsum([sizes[key] for key in recorded])[:-1]
        tag = "fixed_pt" if self.integers else "floating_pt"
        self.config = Loihi2SimCfg(select_tag=tag)
        self.axons.create_runtime(run_cfg=self.config)
        self.has_run = False

    def run(self, values: np.ndarray) -> Arrays:
        """States [T, 2, n] of the recorded populations, `states0`, ..., for input values [T, n_in], T >= 1.

        A state is the spikes, and the voltages after the reset. And `untrue` [T]: the first neuron, counted over all
        populations, whose voltage clipped, or whose state is NaN; -1 for none.
        """
        self.has_run = True
        # Started first, and read one time step behind: pipes into Lava and out of it are finite.
        self.axons.run(condition=RunSteps(len(values) * self.period, blocking=False), run_cfg=self.config)
        rows = []
        for t, row in enumerate(values):
            self.axons.send(np.append(row, 1.0))
            if t > 0:
                rows.append(self.neurons.receive())
        rows.append(self.neurons.receive())
        self.axons.wait()
        states = np.stack(rows)
        parts = np.split(states[:, :, :-1], self.parts, axis=2)
        return {f"states{i}": part for i, part in enumerate(parts)} | {"untrue": states[:, 0, -1]}

    def close(self) -> None:
        """Stop Lava's runtime and its processes."""
        if not self.has_run:  # Lava waits for ever for processes that it never told to run
            self.run(np.zeros((1, self.n_driven - 1)))
        self.axons.stop()

    def _bundle(self, connection: Connection) -> Bundle:
        levels = self.levels[connection.target] - self.levels[connection.source]
        return Bundle(*self.sources[connection.source], max(0, (connection.delay - 1) * self.period + levels))

    def _synapses(
        self, connections: Sequence[Connection], n_neurons: int
    ) -> tuple[list[Bundle], list[tuple[int, csr_matrix]]]:
        """Bundles of sources, and all connections as few matrices [neurons, bundled sources], each with its exponent.

        Connections that lie in the same place have a copy of the bundle each, since their mantissas may not be added.
        What a negative exponent rounds down for each connection of a neuron is not summed before, but has matrices of
        its own.
        """
        seen: Counter[object] = Counter()
        places = []
        for connection in connections:
            bundle, exponent = self._bundle(connection), connection.weight_exp
            place = (connection.target, exponent, bundle if exponent >= 0 else None)
            nth = seen[place]
            seen[place] += 1
            kept_apart = ((bundle, nth), (exponent, 0)) if exponent >= 0 else ((bundle, 0), (exponent, nth))
            places.append((connection, *kept_apart))
        copies = sorted({copy for _, copy, _ in places}) or [(Bundle(0, 1, 0), 0)]
        starts = np.cumsum([0, *(bundle.stop - bundle.start for bundle, _ in copies)])
        columns = dict(zip(copies, starts[:-1], strict=True))
        shape = (n_neurons, int(starts[-1]))
        groups: dict[tuple[int, int], csr_matrix] = {} if places else {(0, 0): csr_matrix(shape)}
        for connection, copy, group in places:
            weight, row = coo_array(connection.weight), self.sources[connection.target][0] - self.n_driven
            moved = csr_matrix((weight.data, (weight.row + row, weight.col + columns[copy])), shape=shape)
            groups[group] = groups[group] + moved if group in groups else moved
        return [bundle for bundle, _ in copies], [(exponent, weight) for (exponent, _), weight in groups.items()]

    def _sparse(self, weight: csr_matrix, exponent: int) -> Sparse:
        if self.integers:
            # Mixed signs by name: Lava would take weights that are all negative for inhibitory, and clip -256 to -255.
            return Sparse(weights=weight.astype(np.int32), weight_exp=exponent, sign_mode=SignMode.MIXED)
        return Sparse(weights=weight.astype(np.float64), num_message_bits=_GRADED)

    def _neurons(self, network: Network, recorded: Sequence[str]) -> Neurons:
        def joined(of: Any) -> np.ndarray:
            return np.concatenate([np.broadcast_to(of(p), p.size) for p in network.populations.values()])

        if self.integers:
            losses = {
                "du": lambda p: p.decay_u,
                "dv": lambda p: p.decay_v,
                "vth": lambda p: p.v_threshold >> STATE_SHIFT,
            }
        else:
            losses = {"du": lambda p: 1 - p.keep_u, "dv": lambda p: 1 - p.keep_v, "vth": lambda p: p.v_threshold}
        kept = [np.arange(*self.sources[key]) - self.n_driven for key in recorded]
        return Neurons(
            **{name: joined(of) for name, of in losses.items()},
            v_reset=joined(lambda p: p.v_reset),
            v=joined(lambda p: p.v_initial),
            spiking=joined(lambda p: p.spiking),
            phase=joined(lambda p: p.level),
            recorded=np.concatenate(kept),
            period=self.period,
        )


def open_graph(fields: dict[str, Any], arrays: Arrays) -> GraphNetwork:
    """Network of a packed message."""
    return GraphNetwork(unpack_network(fields, arrays), fields["recorded"])
