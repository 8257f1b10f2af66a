"""Integer networks: run bit by bit as Lava's fixed-point models compute, and made from a quantized policy's layers."""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array

from spikerl_deploy.errors import SpikerlError
from spikerl_deploy.integer_lif import kept, shifted, wrapped
from spikerl_deploy.loihi import STATE_LIMIT, STATE_SHIFT, IntegerLayer, bias_columns
from spikerl_deploy.network import INPUT, ONE, Connection, IntegerNetwork, IntegerPopulation, Ints
from spikerl_deploy.network_quantize import quantize_network, rounding_report
from spikerl_deploy.nir_lowering import lower_graph
from spikerl_deploy.nir_order import OrderedGraph
from spikerl_deploy.nir_shapes import NEURONS

__all__ = [
    "clip_error",
    "integers_of_graph",
    "network_of_integers",
    "quantize_network",
    "rounding_report",
    "run_integers",
]
KEPT_MAX = 1 << 30  # bytes of spikes and voltages
ROUNDING_WARNED = 0.05  # relative error
_LOG = logging.getLogger("spikerl")
Spikes = NDArray[np.bool_]


def run_integers(
    network: IntegerNetwork, spikes: Spikes, record: Iterable[str] = (), clips: bool = True
) -> tuple[NDArray[np.bool_ | np.int64], dict[str, Spikes], dict[str, Ints]]:
    """Run a network on input [T, n_in], states as the populations say at the start.

    Each connection's sum is shifted by its weight_exp and passes, as all that arrives together, through 32 bits; the
    current wraps once at 2^23 (`> 2^23` down, `<= -2^23` up), the voltage clips at 2^23 - 1: as `integrate_reference`.

    Args:
        clips: whether a voltage may clip, as it is right for integers that were given.

    Returns:
        Output [T, n]: spikes, or the voltage where the population has none; spikes and voltages [T, n] of the recorded
        populations, in state units and after the reset.

    Raises:
        SpikerlError: there is more to keep than `KEPT_MAX`, or a voltage clips; names the node.
    """
    steps, populations = len(spikes), network.populations
    incoming = defaultdict[str, list[Connection]](list)
    held = dict.fromkeys(populations, 1)  # time steps of spikes that are still read
    for connection in network.connections:
        if connection.delay < steps:
            incoming[connection.target].append(connection)
            if connection.source in held:
                held[connection.source] = max(held[connection.source], connection.delay + 1)
    recorded = dict.fromkeys(record)
    spiking = populations[network.output].spiking
    traced = {*recorded, network.output} if spiking else {*recorded}
    measured = {*recorded} if spiking else {*recorded, network.output}
    _check_kept(populations, steps, {name: steps if name in traced else held[name] for name in held}, measured)
    # Of what is not traced, time step t lies in row t modulo the rows there are.
    given = {name: np.zeros((steps if name in traced else held[name], p.size), bool) for name, p in populations.items()}
    given |= {INPUT: spikes, ONE: np.ones((1, 1), dtype=bool)}
    voltages = {name: np.zeros((steps, populations[name].size), dtype=np.int64) for name in measured}
    u = {name: np.zeros(p.size, dtype=np.int32) for name, p in populations.items()}
    v = {name: p.v_initial.astype(np.int32) for name, p in populations.items()}
    for t in range(steps):
        for name, p in populations.items():
            synaptic = np.zeros(p.size, dtype=np.int64)
            for c in incoming[name]:
                if t >= c.delay:
                    source = given[c.source]
                    fired = source[(t - c.delay) % len(source)].astype(np.int64)
                    synaptic += shifted(c.weight @ fired, c.weight_exp)
            u[name] = wrapped(kept(u[name], p.decay_u) + np.left_shift(synaptic.astype(np.int32), STATE_SHIFT))
            v[name] = np.clip(kept(v[name], p.decay_v) + u[name], 1 - STATE_LIMIT, STATE_LIMIT - 1)
            if p.spiking:
                given[name][t % len(given[name])] = fires = v[name] > p.v_threshold
                v[name] = np.where(fires, p.v_reset, v[name]).astype(np.int32)
            if not clips and _has_clipped(p, v[name]):
                raise clip_error(name, t)
            if name in voltages:
                voltages[name][t] = v[name]
    output = given[network.output] if spiking else voltages[network.output]
    return output, {name: given[name] for name in recorded}, {name: voltages[name] for name in recorded}


def _check_kept(
    populations: Mapping[str, IntegerPopulation], steps: int, rows: Mapping[str, int], measured: Iterable[str]
) -> None:
    sizes = {name: rows[name] * p.size for name, p in populations.items()}
    for name in measured:
        sizes[name] += steps * populations[name].size * np.dtype(np.int64).itemsize
    if sum(sizes.values()) > KEPT_MAX:
        name = max(sizes, key=sizes.__getitem__)
        raise SpikerlError(
            f"NIR node '{name}': spikes and voltages of {populations[name].size} neurons in {steps} time steps take "
            f"{sizes[name] / 2**30:.3g} GiB, {KEPT_MAX / 2**30:.3g} GiB are kept of all nodes together",
            "give fewer time steps, or record fewer nodes",
        )


def _has_clipped(population: IntegerPopulation, v: NDArray[np.int32]) -> bool:
    """Whether a voltage [n] after the reset lies where it clips; at the upper end a neuron that spikes was reset."""
    return bool((v <= 1 - STATE_LIMIT).any() or (not population.spiking and (v >= STATE_LIMIT - 1).any()))


def clip_error(name: str, step: int) -> SpikerlError:
    """Error that names the node whose voltage clipped, and when."""
    return SpikerlError(
        f"NIR node '{name}': its voltage leaves the chip's 24 bits at time step {step}",
        "give it fewer time steps, or run it in floats: --backend torch",
    )


def integers_of_graph(
    ordered: OrderedGraph, rounding: bool = False, integers: Sequence[IntegerLayer] | None = None
) -> tuple[IntegerNetwork, dict[str, float]]:
    """A graph's network in integers, and the largest relative error of each node's; no errors of those that are given.

    Args:
        rounding: where there are no exact integers, take the nearest; a warning is logged where they are far off.
        integers: of a quantized policy, whose core the graph is.

    Raises:
        SpikerlError: the graph has no such network; names the node.
    """
    if integers is not None:
        names = [name for name, node in ordered.nodes.items() if isinstance(node, NEURONS)]
        return network_of_integers(integers, names, ordered.dt), {}
    network = lower_graph(ordered)
    quantized = quantize_network(network, rounding)
    errors = rounding_report(network, quantized)
    for name, error in errors.items():
        if error > ROUNDING_WARNED:
            _LOG.warning("NIR node '%s': the nearest integers are off by up to %.3g %%", name, 100 * error)
    return quantized, errors


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
