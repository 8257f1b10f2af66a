"""A core as a NIR graph and back: a chain of Affine and CubaLIF nodes, forward-Euler at dt.

The values are those on which snnTorch, Norse and SpikingJelly agree spike for spike: for the step
u = u * a + W s + b; v = v * c + u they follow from tau_syn = dt / (1 - a), tau_mem = dt / (1 - c),
w_in = tau_syn / dt, r = tau_mem / dt. Exponential time constants would not give this step.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import nir
import numpy as np

from spikerl_deploy.errors import SpikerlError
from spikerl_deploy.policy import SpikingLayer

RELATIVE_TOLERANCE = 1e-6  # float32 rounding of the time constants


def layers_to_nodes(layers: Sequence[SpikingLayer], dt: float) -> dict[str, nir.NIRNode]:
    """Nodes `input`, `fc1`, `lif1`, ..., `output` in their order.

    The stored threshold is the next float32 above v_threshold: no float32 lies between, so runtimes that
    fire on v > th and those that fire on v >= th (SpikingJelly) spike alike, exact ties included.
    """
    nodes: dict[str, nir.NIRNode] = {"input": nir.Input(input_type={"input": np.array([layers[0].n_in])})}
    for index, layer in enumerate(layers, start=1):
        vector = np.ones(layer.n_out, dtype=np.float32)
        tau_syn, tau_mem = dt / (1.0 - layer.current_decay), dt / (1.0 - layer.voltage_decay)
        nodes[f"fc{index}"] = nir.Affine(weight=np.array(layer.weight), bias=np.array(layer.bias))
        nodes[f"lif{index}"] = nir.CubaLIF(
            tau_syn=vector * np.float32(tau_syn),
            tau_mem=vector * np.float32(tau_mem),
            r=vector * np.float32(tau_mem / dt),
            v_leak=0 * vector,
            v_reset=0 * vector,
            v_threshold=vector * np.float32(stored_threshold(layer.v_threshold)),
            w_in=vector * np.float32(tau_syn / dt),
        )
    nodes["output"] = nir.Output(output_type={"output": np.array([layers[-1].n_out])})
    return nodes


def stored_threshold(v_threshold: float) -> float:
    """The threshold that a NIR node holds: the next float32 above."""
    return float(np.nextafter(np.float32(v_threshold), np.float32(np.inf)))


def chain_edges(nodes: dict[str, nir.NIRNode]) -> list[tuple[str, str]]:
    """Edges that join the nodes in their order."""
    names = list(nodes)
    return list(itertools.pairwise(names))


def layers_from_graph(graph: nir.NIRGraph, dt: float) -> tuple[SpikingLayer, ...]:
    """Layers of a graph Input -> (Affine | Linear -> CubaLIF)* -> Output at time step dt (seconds).

    Factors w_in dt / tau_syn and r dt / tau_mem are folded into weights and bias where they are not 1.

    Raises:
        SpikerlError: another topology, another node, or semantics that a core cannot honour; names the node.
    """
    chain = [name for name in _chain(graph) if not isinstance(graph.nodes[name], nir.Input | nir.Output)]
    if len(chain) % 2 or not chain:
        raise SpikerlError("NIR graph is not a chain of Affine and CubaLIF pairs", "see docs/policy-file.md")
    layers = []
    for affine_name, neuron_name in zip(chain[::2], chain[1::2], strict=True):
        affine, neuron = graph.nodes[affine_name], graph.nodes[neuron_name]
        if not isinstance(affine, nir.Affine | nir.Linear):
            raise SpikerlError(f"NIR node '{affine_name}' is a {type(affine).__name__}, Affine or Linear was expected")
        if not isinstance(neuron, nir.CubaLIF):
            raise SpikerlError(f"NIR node '{neuron_name}' is a {type(neuron).__name__}, CubaLIF was expected")
        layers.append(_layer(affine_name, affine, neuron_name, neuron, dt))
    return tuple(layers)


def _chain(graph: nir.NIRGraph) -> list[str]:
    following: dict[str, str] = {}
    for source, target in graph.edges:
        if source in following:
            raise SpikerlError(f"NIR node '{source}' branches; a core is a chain")
        following[source] = target
    inputs = [name for name, node in graph.nodes.items() if isinstance(node, nir.Input)]
    if len(inputs) != 1:
        raise SpikerlError(f"NIR graph has {len(inputs)} Input nodes, one is needed")
    names = [inputs[0]]
    while names[-1] in following:
        if following[names[-1]] in names:
            raise SpikerlError(f"NIR node '{following[names[-1]]}' closes a loop; a core is a chain")
        names.append(following[names[-1]])
    left = set(graph.nodes) - set(names)
    if left:
        raise SpikerlError(f"NIR node '{sorted(left)[0]}' is not on the chain from '{inputs[0]}'")
    return names


def _layer(
    affine_name: str, affine: nir.Affine | nir.Linear, neuron_name: str, neuron: nir.CubaLIF, dt: float
) -> SpikingLayer:
    for name in ("v_leak", "v_reset"):
        if np.any(getattr(neuron, name)):
            raise SpikerlError(f"NIR node '{neuron_name}' has {name} other than 0, which a core cannot honour")
    tau_syn, tau_mem = (
        _uniform(neuron_name, "tau_syn", neuron.tau_syn),
        _uniform(neuron_name, "tau_mem", neuron.tau_mem),
    )
    if not (tau_syn >= dt * (1 - RELATIVE_TOLERANCE) and tau_mem >= dt * (1 - RELATIVE_TOLERANCE)):
        raise SpikerlError(
            f"NIR node '{neuron_name}' has a time constant below dt = {dt}",
            "state the dt it was made for in the graph's metadata",
        )
    weight = np.asarray(affine.weight, dtype=np.float64)
    bias = np.asarray(getattr(affine, "bias", np.zeros(weight.shape[0])), dtype=np.float64)
    factor = (neuron.w_in.astype(np.float64) * dt / tau_syn) * (neuron.r.astype(np.float64) * dt / tau_mem)
    if not np.allclose(factor, 1.0, rtol=RELATIVE_TOLERANCE, atol=0):
        weight, bias = weight * factor[:, None], bias * factor
    threshold = np.float32(_uniform(neuron_name, "v_threshold", neuron.v_threshold))
    try:
        return SpikingLayer(
            weight.astype(np.float32),
            bias.astype(np.float32),
            _rounded(1.0 - dt / tau_syn),
            _rounded(1.0 - dt / tau_mem),
            float(threshold),
        )
    except SpikerlError as error:
        raise SpikerlError(f"NIR nodes '{affine_name}', '{neuron_name}': {error.message}") from error


def _uniform(node: str, name: str, values: np.ndarray) -> float:
    values = np.asarray(values, dtype=np.float64).ravel()
    if values.size == 0 or not np.isfinite(values).all() or not np.all(values == values[0]):
        raise SpikerlError(f"NIR node '{node}' has {name} that is not one finite value for all neurons")
    return float(values[0])


def _rounded(decay: float) -> float:
    """Take float32 noise off a decay, and keep it in [0, 1)."""
    return float(min(max(round(decay, 6), 0.0), 1.0 - 1e-6))
