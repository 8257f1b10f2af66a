"""What a NIR graph means at a time step dt, in NumPy and float64, written node by node from docs/semantics.md.

Shares no code with the package: a value is asked for by node and time step, and asks in turn for what it needs.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cache

import nir
import numpy as np

NEURONS = (nir.CubaLIF, nir.LIF, nir.IF, nir.CubaLI, nir.LI, nir.I, nir.Threshold)


@dataclass
class Defined:
    """What a graph gives: output [T, ...]; spikes and voltages [T, ...] of every neuron that has them."""

    output: np.ndarray
    spikes: dict[str, np.ndarray] = field(default_factory=dict)
    voltages: dict[str, np.ndarray] = field(default_factory=dict)


def run_definition(graph: nir.NIRGraph, spikes: np.ndarray, dt: float) -> Defined:
    """Run a well-formed graph on input [T, ...input shape], all states starting at zero."""
    meaning = _Meaning(graph, np.asarray(spikes, dtype=np.float64), dt)
    steps = range(len(spikes))
    for t in steps:
        for name in meaning.nodes:
            meaning.value(name, t)
    (last,) = (name for name, node in meaning.nodes.items() if isinstance(node, nir.Output))
    defined = Defined(np.stack([meaning.value(last, t) for t in steps]))
    for name, node in meaning.nodes.items():
        if isinstance(node, nir.CubaLIF | nir.LIF | nir.IF | nir.Threshold):
            defined.spikes[name] = np.stack([meaning.value(name, t) > 0 for t in steps])
        if isinstance(node, NEURONS) and not isinstance(node, nir.Threshold):
            defined.voltages[name] = np.stack([meaning.states[name, t][1] for t in steps])
    return defined


class _Meaning:
    """Values and states by node and time step."""

    def __init__(self, graph: nir.NIRGraph, spikes: np.ndarray, dt: float) -> None:
        self.spikes, self.dt = spikes, dt
        everything: dict[str, nir.NIRNode] = {}
        edges: list[tuple[str, str]] = []
        self.first, last = _spread(graph, "", everything, edges)
        inner = {
            name
            for name, node in everything.items()
            if isinstance(node, nir.Input | nir.Output) and name not in (self.first, last)
        }

        def real_sources(name: str) -> list[str]:
            sources = [source for source, target in edges if target == name]
            return [real for source in sources for real in (real_sources(source) if source in inner else [source])]

        self.nodes = {name: node for name, node in everything.items() if name not in inner}
        self.sources = {name: real_sources(name) for name in self.nodes}
        self.depth = self._depths()
        self.late = self._feedback()
        self.states: dict[tuple[str, int], tuple[np.ndarray, np.ndarray]] = {}
        self.shape = cache(self._shape)
        self.silent = cache(self._silent)
        self.value = cache(self._value)

    def _depths(self) -> dict[str, float]:
        depth = dict.fromkeys(self.nodes, np.inf)
        depth[self.first] = 0
        for _ in self.nodes:
            for name, sources in self.sources.items():
                depth[name] = min([depth[name], *(depth[source] + 1 for source in sources)])
        return depth

    def _feedback(self) -> set[tuple[str, str]]:
        """Edges that carry the output of the time step before."""
        instant = {(source, name) for name in self.nodes if not self._holds(name) for source in self.sources[name]}
        reaches = set(instant)
        for middle in self.nodes:  # Warshall's closure
            before = [a for a, b in reaches if b == middle]
            after = [b for a, b in reaches if a == middle]
            reaches |= {(a, b) for a in before for b in after}
        return {(a, b) for a, b in instant if (b, a) in reaches and self.depth[b] <= self.depth[a]}

    def _holds(self, name: str) -> bool:
        return isinstance(self.nodes[name], nir.Delay) and bool((self._steps(name) >= 1).all())

    def _steps(self, name: str) -> np.ndarray:
        return np.rint(_f64(self.nodes[name].delay) / self.dt).astype(int)

    def _shape(self, name: str) -> tuple[int, ...]:
        """Shape of a node's output, along the shortest way from the Input."""
        if name == self.first:
            return self.spikes.shape[1:]
        given = self.shape(min(self.sources[name], key=self.depth.__getitem__))
        if isinstance(self.nodes[name], (*NEURONS, nir.Delay)):
            return given
        return linear(self.nodes[name], np.zeros(given)).shape

    def _silent(self, name: str) -> np.ndarray:
        """What a node gives when the input and all neurons are silent at that time step."""
        node = self.nodes[name]
        if name == self.first or isinstance(node, NEURONS) or self._holds(name):
            return np.zeros(self.shape(name))
        arriving = np.asarray(sum(self.silent(source) for source in self.sources[name]))
        if isinstance(node, nir.Delay):
            return np.where(self._steps(name) == 0, arriving, 0.0)
        return linear(node, arriving)

    def arrives(self, name: str, t: int) -> np.ndarray:
        """Sum of what arrives at a node."""
        parts = []
        for source in self.sources[name]:
            late = (source, name) in self.late
            parts.append(self.silent(source) if late and t == 0 else self.value(source, t - late))
        return np.asarray(sum(parts))

    def _value(self, name: str, t: int) -> np.ndarray:
        """A node's output at a time step."""
        node = self.nodes[name]
        if name == self.first:
            return self.spikes[t]
        if isinstance(node, nir.Delay):
            out = np.zeros(self.shape(name))
            steps = np.broadcast_to(self._steps(name), out.shape)
            for index in np.ndindex(out.shape):
                if t >= steps[index]:
                    out[index] = self.arrives(name, t - int(steps[index]))[index]
            return out
        if isinstance(node, NEURONS):
            return self._neuron(name, self.arrives(name, t), t)
        return linear(node, self.arrives(name, t))

    def _neuron(self, name: str, i: np.ndarray, t: int) -> np.ndarray:
        node, dt = self.nodes[name], self.dt
        p = {field: _f64(value) for field, value in vars(node).items() if isinstance(value, np.ndarray | np.number)}
        if isinstance(node, nir.Threshold):
            return np.where(i > p["threshold"], 1.0, 0.0)
        u, v = self.states[name, t - 1] if t else (np.zeros(i.shape), np.zeros(i.shape))
        if isinstance(node, nir.CubaLIF | nir.CubaLI):
            u = u + dt / p["tau_syn"] * (-u + p["w_in"] * i)
            v = v + dt / p["tau_mem"] * (p["v_leak"] - v + p["r"] * u)
        elif isinstance(node, nir.LIF | nir.LI):
            v = v + dt / p["tau"] * (p["v_leak"] - v + p["r"] * i)
        else:
            v = v + dt * p["r"] * i
        if isinstance(node, nir.CubaLI | nir.LI | nir.I):
            self.states[name, t] = (u, v)
            return v
        z = v > p["v_threshold"]
        self.states[name, t] = (u, np.where(z, p["v_reset"], v))
        return np.where(z, 1.0, 0.0)


def linear(node: nir.NIRNode, x: np.ndarray) -> np.ndarray:
    """Output of a node without state for input x."""
    if isinstance(node, nir.Output):
        return x
    if isinstance(node, nir.Affine | nir.Linear):
        y = np.einsum("...oi,...i->...o", np.asarray(node.weight, dtype=np.float64), x)
        return y + _f64(node.bias) if isinstance(node, nir.Affine) else y
    if isinstance(node, nir.Scale):
        return x * _f64(node.scale)
    if isinstance(node, nir.Flatten):
        last = len(x.shape) - 1 if node.end_dim == -1 else int(node.end_dim)
        return x.reshape(*x.shape[: int(node.start_dim)], -1, *x.shape[last + 1 :])
    if isinstance(node, nir.Conv1d):
        lift = nir.Conv2d(
            None,
            np.asarray(node.weight)[:, :, None, :],
            (1, int(node.stride)),
            node.padding if isinstance(node.padding, str) else (0, int(node.padding)),
            (1, int(node.dilation)),
            int(node.groups),
            node.bias,
        )
        return linear(lift, x[:, None, :])[:, 0, :]
    if isinstance(node, nir.Conv2d):
        return _convolve(node, x)
    kernel, stride, padding = (_pair(value) for value in (node.kernel_size, node.stride, node.padding))
    x = np.pad(x, ((0, 0), (padding[0],) * 2, (padding[1],) * 2))
    pool = np.sum if isinstance(node, nir.SumPool2d) else np.mean
    rows = range(0, x.shape[1] - kernel[0] + 1, stride[0])
    columns = range(0, x.shape[2] - kernel[1] + 1, stride[1])
    return np.array(
        [[[pool(plane[r : r + kernel[0], c : c + kernel[1]]) for c in columns] for r in rows] for plane in x]
    )


def _convolve(node: nir.Conv2d, x: np.ndarray) -> np.ndarray:
    """Cross-correlation, output by output, as torch's Conv2d documents it."""
    weight, bias = np.asarray(node.weight, dtype=np.float64), _f64(node.bias)
    (sy, sx), (dy, dx) = _pair(node.stride), _pair(node.dilation)
    c_out, c_group, ky, kx = weight.shape
    total = (dy * (ky - 1), dx * (kx - 1))
    if isinstance(node.padding, str):
        borders = [(t // 2, t - t // 2) if node.padding == "same" else (0, 0) for t in total]
    else:
        borders = [(p, p) for p in _pair(node.padding)]
    x = np.pad(x, [(0, 0), *borders])
    rows, columns = range(0, x.shape[1] - total[0], sy), range(0, x.shape[2] - total[1], sx)
    out = np.zeros((c_out, len(rows), len(columns)))
    for o in range(c_out):
        group = o // (c_out // int(node.groups))
        seen = x[group * c_group : (group + 1) * c_group]
        for i, r in enumerate(rows):
            for j, c in enumerate(columns):
                patch = seen[:, r : r + total[0] + 1 : dy, c : c + total[1] + 1 : dx]
                out[o, i, j] = (patch * weight[o]).sum() + np.broadcast_to(bias, (c_out,))[o]
    return out


def _spread(
    graph: nir.NIRGraph, prefix: str, nodes: dict[str, nir.NIRNode], edges: list[tuple[str, str]]
) -> tuple[str, str]:
    """Nodes and edges of a graph and of the graphs in it; names of its Input and Output."""
    (first,) = (prefix + name for name, node in graph.nodes.items() if isinstance(node, nir.Input))
    (last,) = (prefix + name for name, node in graph.nodes.items() if isinstance(node, nir.Output))
    ends = {}
    for name, node in graph.nodes.items():
        if isinstance(node, nir.NIRGraph):
            ends[name] = _spread(node, f"{prefix}{name}.", nodes, edges)
        else:
            nodes[prefix + name], ends[name] = node, (prefix + name, prefix + name)
    edges += [(ends[source][1], ends[target][0]) for source, target in graph.edges]
    return first, last


def _f64(value: object) -> np.ndarray:
    """A parameter in float64; one value for all as a scalar."""
    array = np.asarray(value, dtype=np.float64)
    return array.reshape(()) if array.size == 1 else array


def _pair(value: object) -> tuple[int, int]:
    first, second = np.broadcast_to(np.asarray(value), (2,))
    return int(first), int(second)
