"""A core as a NIR graph and back: a chain of Affine and CubaLIF nodes, forward-Euler at dt.

The values are those on which snnTorch, Norse and SpikingJelly agree spike for spike: for the step
u = u * a + W s + b; v = v * c + u they follow from tau_syn = dt / (1 - a), tau_mem = dt / (1 - c),
w_in = tau_syn / dt, r = tau_mem / dt. Exponential time constants would not give this step.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, replace

import nir
import numpy as np
from numpy.typing import NDArray

from spikerl_deploy.errors import SpikerlError
from spikerl_deploy.nir_chain import chain_nodes
from spikerl_deploy.policy import SpikingLayer, is_positive_scalar

RELATIVE_TOLERANCE = 1e-6  # float32 rounding of the time constants
DECAY_NOISE = 2e-7  # what that rounding can do to a decay


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
    """The threshold that a NIR node holds: the next float32 above; float32's largest itself."""
    return float(np.nextafter(np.float32(v_threshold), np.finfo(np.float32).max))


def chain_edges(nodes: dict[str, nir.NIRNode]) -> list[tuple[str, str]]:
    """Edges that join the nodes in their order."""
    names = list(nodes)
    return list(itertools.pairwise(names))


@np.errstate(over="ignore", divide="ignore", invalid="ignore")  # what overflows is refused as what it then is
def layers_from_graph(graph: nir.NIRGraph, dt: float, fires_at_threshold: bool = False) -> tuple[SpikingLayer, ...]:
    """Layers of a graph Input -> (Affine | Linear -> CubaLIF | LIF)* -> Output at time step dt (seconds).

    Scale nodes beside an Affine or Linear, the neurons' input gains (w_in, r) and a LIF's leak voltage are folded
    into weights and bias; thresholds that differ are made one by scaling each neuron's row. Flatten passes
    through: a core's input is flat. A LIF is a layer without current memory (current_decay 0).

    Args:
        fires_at_threshold: the graph's maker spikes on v >= v_threshold, not on v > v_threshold as NIR says.

    Raises:
        SpikerlError: another topology, another node, or semantics that a core cannot honour; names the node.
    """
    layers: list[SpikingLayer] = []
    synapses: _Synapses | None = None
    scale: tuple[str, NDArray[np.float64]] | None = None  # a Scale that waits for its Affine
    for name, node in chain_nodes(graph):
        if isinstance(node, nir.Flatten):
            continue
        if isinstance(node, nir.Scale) and synapses is not None:
            synapses = synapses.scaled(_vector(name, "scale", node.scale, synapses.n_out))
        elif isinstance(node, nir.Scale):
            factor = _vector(name, "scale", node.scale, np.size(node.scale))
            scale = (name, factor if scale is None else scale[1] * factor)
        elif isinstance(node, nir.Affine | nir.Linear) and synapses is None:
            synapses, scale = _synapses(name, node, scale), None
        elif isinstance(node, nir.CubaLIF | nir.LIF) and synapses is not None:
            layers.append(_layer(synapses, name, node, dt, fires_at_threshold))
            synapses = None
        elif scale is not None:
            raise SpikerlError(f"NIR node '{scale[0]}' is a Scale without an Affine or Linear beside it")
        else:
            raise _misplaced(name, node, synapses is not None)
    if synapses is not None or scale is not None or not layers:
        last = synapses.name if synapses is not None else scale[0] if scale is not None else "input"
        raise SpikerlError(f"NIR node '{last}' has no spiking neurons after it; a core ends in spikes")
    return tuple(layers)


def _misplaced(name: str, node: nir.NIRNode, neuron_expected: bool) -> SpikerlError:
    wanted = "CubaLIF or LIF" if neuron_expected else "Affine or Linear"
    message = f"NIR node '{name}' is a {type(node).__name__}, {wanted} was expected"
    if isinstance(node, nir.IF):
        return SpikerlError(message + ": a core's voltage decays, an IF's does not", "train with a leaky neuron")
    return SpikerlError(message)


@dataclass(frozen=True, eq=False)
class _Synapses:
    """An affine map in float64: weight [n_out, n_in], bias [n_out], and the node that it came from."""

    name: str
    weight: NDArray[np.float64]
    bias: NDArray[np.float64]

    @property
    def n_out(self) -> int:
        return int(self.bias.size)

    def scaled(self, factor: NDArray[np.float64]) -> _Synapses:
        """The map with each row times its factor [n_out]; where all are 1 up to float32 rounding, as it was."""
        if np.allclose(factor, 1.0, rtol=RELATIVE_TOLERANCE, atol=0):
            return self
        return replace(self, weight=self.weight * factor[:, None], bias=self.bias * factor)


def _synapses(name: str, node: nir.Affine | nir.Linear, scale: tuple[str, NDArray[np.float64]] | None) -> _Synapses:
    weight = np.asarray(node.weight, dtype=np.float64)
    if weight.ndim != 2 or not weight.size:
        raise SpikerlError(f"NIR node '{name}' has a weight of shape {weight.shape}, [n_out, n_in] was expected")
    if scale is not None:
        weight = weight * _vector(scale[0], "scale", scale[1], weight.shape[1])
    bias = np.zeros(len(weight)) if isinstance(node, nir.Linear) else _vector(name, "bias", node.bias, len(weight))
    return _Synapses(name, weight, bias)


def _layer(
    synapses: _Synapses, name: str, neuron: nir.CubaLIF | nir.LIF, dt: float, fires_at_threshold: bool
) -> SpikingLayer:
    """The layer of synapses and neurons: v <- v (1 - dt/tau) + dt/tau (v_leak + r i), its current likewise."""
    has_current = isinstance(neuron, nir.CubaLIF)

    def values(field: str) -> NDArray[np.float64]:
        return _vector(name, field, getattr(neuron, field), synapses.n_out)

    for field in ("v_leak", "v_reset") if has_current else ("v_reset",):
        if values(field).any():
            raise SpikerlError(f"NIR node '{name}' has {field} other than 0, which a core cannot honour")
    mem = dt / _time_constant(name, neuron, "tau_mem" if has_current else "tau", dt)
    syn = dt / _time_constant(name, neuron, "tau_syn", dt) if has_current else 1.0
    synapses = synapses.scaled(values("r") * mem * (values("w_in") * syn if has_current else 1.0))
    leak = values("v_leak") * mem
    if leak.any():
        synapses = replace(synapses, bias=synapses.bias + leak)
    thresholds = values("v_threshold")
    for extreme in (thresholds.min(), thresholds.max()):
        if not is_positive_scalar(extreme):
            raise SpikerlError(f"NIR node '{name}' has v_threshold {extreme:g}, a core's is positive and a float32")
    synapses = synapses.scaled(thresholds.max() / thresholds)
    threshold = np.float32(thresholds.max())
    if fires_at_threshold:
        threshold = np.nextafter(threshold, np.float32(0))  # v >= th and v > this are the same for any float32 v
    try:
        return SpikingLayer(
            synapses.weight.astype(np.float32),
            synapses.bias.astype(np.float32),
            _decay(1.0 - syn),
            _decay(1.0 - mem),
            float(threshold),
        )
    except SpikerlError as error:
        raise SpikerlError(f"NIR nodes '{synapses.name}', '{name}': {error.message}") from error


def _time_constant(name: str, neuron: nir.CubaLIF | nir.LIF, field: str, dt: float) -> float:
    """A time constant in seconds, one for all neurons since a chip's decays are, and at least dt."""
    values = np.asarray(getattr(neuron, field), dtype=np.float64).ravel()
    if values.size == 0 or not np.isfinite(values).all() or not np.all(values == values[0]):
        raise SpikerlError(f"NIR node '{name}' has {field} that is not one finite value for all neurons")
    if not values[0] >= dt * (1 - RELATIVE_TOLERANCE):
        raise SpikerlError(
            f"NIR node '{name}' has {field} {values[0]:g} s, a time constant below dt = {dt:g} s",
            "give the time step that it was made for: spikerl import nir FILE --dt SECONDS "
            "(Norse writes its time constants times dt: --made-by norse)",
        )
    return float(values[0])


def _vector(name: str, field: str, value: object, size: int) -> NDArray[np.float64]:
    """A parameter [size] of a node, given for every neuron or once for all."""
    values = np.asarray(value, dtype=np.float64).ravel()
    if values.size not in (1, size) or not np.isfinite(values).all():
        raise SpikerlError(f"NIR node '{name}' has {field} that is not {size} finite values, one a neuron")
    return np.broadcast_to(values, (size,))


def _decay(decay: float) -> float:
    """A decay in [0, 1), without the noise that a time constant's float32 rounding left in it."""
    rounded = round(decay, 6)
    decay = rounded if abs(decay - rounded) < DECAY_NOISE else decay
    return float(min(max(decay, 0.0), np.nextafter(np.float32(1), np.float32(0))))
