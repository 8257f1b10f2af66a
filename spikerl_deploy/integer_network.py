"""Integer networks: run bit by bit as Lava's fixed-point models compute, and made from a quantized policy's layers."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array

from spikerl_deploy.errors import SpikerlError
from spikerl_deploy.loihi import DECAY_BITS, DECAY_UNITY, STATE_LIMIT, STATE_SHIFT, IntegerLayer, bias_columns
from spikerl_deploy.network import INPUT, ONE, Connection, IntegerNetwork, IntegerPopulation, Ints
from spikerl_deploy.network_quantize import quantize_network, rounding_report
from spikerl_deploy.nir_lowering import lower_graph
from spikerl_deploy.nir_order import OrderedGraph
from spikerl_deploy.nir_shapes import NEURONS

__all__ = [
    "check_voltages",
    "integers_of_graph",
    "network_of_integers",
    "quantize_network",
    "rounding_report",
    "run_integers",
]
Spikes = NDArray[np.bool_]


def run_integers(
    network: IntegerNetwork, spikes: Spikes, record: Iterable[str] = ()
) -> tuple[NDArray[np.bool_ | np.int64], dict[str, Spikes], dict[str, Ints]]:
    """Run a network on input [T, n_in], states as the populations say at the start.

    Each connection's sum is shifted by its weight_exp and passes, as all that arrives together, through 32 bits; the
    current wraps once at 2^23 (`> 2^23` down, `<= -2^23` up), the voltage clips at 2^23 - 1: as `integrate_reference`.

    Returns:
        Output [T, n]: spikes, or the voltage where the population has none; spikes and voltages [T, n] of the recorded
        populations, in state units and after the reset.
    """
    incoming = defaultdict[str, list[Connection]](list)
    for connection in network.connections:
        if connection.delay < len(spikes):
            incoming[connection.target].append(connection)
    given: dict[str, NDArray[np.bool_]] = {INPUT: spikes, ONE: np.ones((len(spikes), 1), dtype=bool)}
    given |= {name: np.zeros((len(spikes), p.size), dtype=bool) for name, p in network.populations.items()}
    kept = set(record) | {network.output}
    voltages = {name: np.zeros((len(spikes), network.populations[name].size), dtype=np.int64) for name in kept}
    u = {name: np.zeros(p.size, dtype=np.int32) for name, p in network.populations.items()}
    v = {name: p.v_initial.astype(np.int32) for name, p in network.populations.items()}
    for t in range(len(spikes)):
        for name, p in network.populations.items():
            synaptic = np.zeros(p.size, dtype=np.int64)
            for c in incoming[name]:
                if t >= c.delay:
                    synaptic += _shifted(c.weight @ given[c.source][t - c.delay].astype(np.int64), c.weight_exp)
            u[name] = _wrapped(_kept(u[name], p.decay_u) + np.left_shift(synaptic.astype(np.int32), STATE_SHIFT))
            v[name] = np.clip(_kept(v[name], p.decay_v) + u[name], 1 - STATE_LIMIT, STATE_LIMIT - 1)
            if p.spiking:
                given[name][t] = fired = v[name] > p.v_threshold
                v[name] = np.where(fired, p.v_reset, v[name]).astype(np.int32)
            if name in kept:
                voltages[name][t] = v[name]
    spiking = network.populations[network.output].spiking
    output = given[network.output] if spiking else voltages[network.output]
    return output, {name: given[name] for name in record}, {name: voltages[name] for name in record}


def check_voltages(population: IntegerPopulation, voltages: Ints) -> None:
    """Refuse the voltages [T, n] of neurons without spikes where they clipped: they are the output, and would be wrong.

    Raises:
        SpikerlError: names the node and the time step.
    """
    clipped = (np.abs(voltages) >= STATE_LIMIT - 1).any(axis=1)
    if not population.spiking and clipped.any():
        raise SpikerlError(
            f"NIR node '{population.name}': its voltage leaves the chip's 24 bits at time step {clipped.argmax()}",
            "give it fewer time steps, or run it in floats: --backend torch",
        )


def _shifted(total: Ints, exponent: int) -> Ints:
    shifted = np.left_shift(total, exponent) if exponent > 0 else np.right_shift(total, -exponent)
    return shifted.astype(np.int32).astype(np.int64)


def _kept(state: NDArray[np.int32], decay: Ints) -> NDArray[np.int32]:
    product = state.astype(np.int64) * (DECAY_UNITY - decay)
    kept: NDArray[np.int32] = (np.sign(product) * (np.abs(product) >> DECAY_BITS)).astype(np.int32)
    return kept


def _wrapped(u: NDArray[np.int32]) -> NDArray[np.int32]:
    down = np.where(u > STATE_LIMIT, u - 2 * STATE_LIMIT, u)
    return np.where(down <= -STATE_LIMIT, down + 2 * STATE_LIMIT, down).astype(np.int32)


def integers_of_graph(
    ordered: OrderedGraph, rounding: bool = False, integers: Sequence[IntegerLayer] | None = None
) -> tuple[IntegerNetwork, dict[str, float]]:
    """A graph's network in integers, and the largest relative error of each node's; no errors of those that are given.

    Args:
        rounding: where there are no exact integers, take the nearest.
        integers: of a quantized policy, whose core the graph is.

    Raises:
        SpikerlError: the graph has no such network; names the node.
    """
    if integers is not None:
        names = [name for name, node in ordered.nodes.items() if isinstance(node, NEURONS)]
        return network_of_integers(integers, names, ordered.dt), {}
    network = lower_graph(ordered)
    quantized = quantize_network(network, rounding)
    return quantized, rounding_report(network, quantized)


def network_of_integers(layers: Sequence[IntegerLayer], names: Sequence[str], dt: float) -> IntegerNetwork:
    """A quantized policy's layers as a chain of populations with these names.

    Raises:
        SpikerlError: a layer whose bias cannot be shifted apart from its weights; names the node.
    """
    populations: dict[str, IntegerPopulation] = {}
    connections: list[Connection] = []
    source = INPUT
    for level, (name, layer) in enumerate(zip(names, layers, strict=True), start=1):
        if layer.weight_exp < 0 and (layer.bias & ((1 << -layer.weight_exp) - 1)).any():
            raise SpikerlError(
                f"NIR node '{name}' has a bias that its weight_exp of {layer.weight_exp} rounds apart from its input",
                "run the policy itself: spikerl simulate POLICY --backend fixed",
            )
        size = layer.bias.size
        weight = csr_array(layer.weight.astype(np.int64))
        connections.append(Connection(source, name, 0, weight, layer.weight_exp))
        for column in bias_columns(layer).T:
            if column.any():
                bias = csr_array(column[:, None].astype(np.int64))
                connections.append(Connection(ONE, name, 0, bias, layer.weight_exp))
        populations[name] = IntegerPopulation(
            name=name,
            shape=(size,),
            decay_u=np.full(size, layer.du + 1, dtype=np.int64),
            decay_v=np.full(size, layer.dv, dtype=np.int64),
            v_threshold=np.full(size, layer.vth << STATE_SHIFT, dtype=np.int64),
            v_reset=np.zeros(size, dtype=np.int64),
            v_initial=np.zeros(size, dtype=np.int64),
            spiking=True,
            level=level,
            unit=np.full(size, layer.scale * 2.0 ** -(layer.weight_exp + STATE_SHIFT)),
            v_offset=np.zeros(size),
        )
        source = name
    return IntegerNetwork((layers[0].weight.shape[1],), populations, tuple(connections), source, dt)
