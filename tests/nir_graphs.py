"""Hypothesis strategies of NIR graphs and of integer networks; all real numbers are short binary fractions.

So float64 sums are exact in any order, and float32 sums nearly always: what differs is a difference of meaning. The
environment variable SPIKERL_FUZZ=N multiplies the number of examples.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass

import nir
import numpy as np
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from scipy.sparse import csr_array

from spikerl_deploy.network import INPUT, ONE, Connection, IntegerNetwork, IntegerPopulation

DT = 2.0**-13  # seconds; a power of two, so that time constants are exact
FUZZ = int(os.environ.get("SPIKERL_FUZZ", "1"))
Draw = Callable[[st.SearchStrategy], object]
Tap = tuple[str, tuple[int, ...]]  # a node and the shape of its output
SPIKING = ("LIF", "CubaLIF", "IF", "Threshold")
SILENT = ("LI", "CubaLI", "I")
MATRICES = (nir.Affine, nir.Linear, nir.Conv1d, nir.Conv2d, nir.SumPool2d, nir.AvgPool2d)
OF_RANK = {
    1: ("Affine", "Linear"),
    2: ("Conv1d", "Flatten", "Affine"),
    3: ("Conv2d", "Flatten", "SumPool2d", "AvgPool2d"),
}


def fuzz(examples: int) -> settings:
    """Settings for so many examples, times SPIKERL_FUZZ."""
    return settings(
        max_examples=examples * FUZZ,
        deadline=None,
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much],
    )


@dataclass
class Case:
    """A graph and its input [T, ...input shape] at time steps of `dt` seconds."""

    graph: nir.NIRGraph
    spikes: np.ndarray
    dt: float = DT


def hasten(graph: nir.NIRGraph) -> None:
    """Make all time constants the time step, in place: no state then has more bits than what arrives."""
    for node in graph.nodes.values():
        if isinstance(node, nir.NIRGraph):
            hasten(node)
        for field in {"tau", "tau_syn", "tau_mem"} & set(vars(node)):
            setattr(node, field, 0 * np.asarray(getattr(node, field)) + DT)


@st.composite
def graph_cases(draw: Draw, lowerable: bool = True, whole: bool = False) -> Case:
    """A random graph of up to three blocks: a path of linear nodes and neurons, which may branch, merge and feed back.

    Args:
        lowerable: only what `lower_graph` takes; else voltages feed nodes, and the Output may be fed by anything.
        whole: only input of 0 and 1, and weights coarse enough that `quantize_network` finds exact integers.
    """
    build = _Builder(draw, lowerable, whole)
    shape = draw(_shapes(whole))
    first = build.add("input", nir.Input(np.array(shape)))
    tap: Tap = (first, shape)
    blocks = draw(st.integers(1, 3))
    for index in range(blocks):
        tap = build.subgraph(tap) if build.chance(4) else build.block(tap, index == blocks - 1)
    if not lowerable and draw(st.booleans()):
        tap = build.path(tap)
    last = build.add("output", nir.Output(np.array(tap[1])))
    build.edges.append((tap[0], last))
    if not lowerable and draw(st.booleans()):
        same = [name for name, shape in build.taps if shape == tap[1] and name != tap[0]]
        build.edges += [(name, last) for name in same[:1]]
    steps = draw(st.integers(1, 5))
    spikes = build.rng.random((steps, *shape)) < draw(st.sampled_from((0.2, 0.5, 0.9)))
    if not whole and draw(st.booleans()):
        spikes = build.rng.integers(-1, 3, spikes.shape) * spikes / 2
    return Case(build.graph(), spikes)


def _shapes(whole: bool) -> st.SearchStrategy[tuple[int, ...]]:
    size = st.integers(1, 4)
    vector = st.tuples(st.integers(1, 6))
    return st.one_of(
        vector, st.tuples(st.integers(1, 2), size), st.tuples(st.integers(1, 2), st.integers(1, 3), st.integers(1, 3))
    )


class _Builder:
    """Nodes and edges, added one after the other; structure is drawn, numbers come from a generator."""

    def __init__(self, draw: Draw, lowerable: bool, whole: bool, seed: int | None = None) -> None:
        self.draw, self.lowerable, self.whole = draw, lowerable, whole
        self.rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)) if seed is None else seed)
        self.nodes: dict[str, nir.NIRNode] = {}
        self.edges: list[tuple[str, str]] = []
        self.taps: list[Tap] = []  # neurons that later blocks may read

    def graph(self) -> nir.NIRGraph:
        return nir.NIRGraph(self.nodes, list(dict.fromkeys(self.edges)), type_check=False)

    def chance(self, of: int = 2) -> bool:
        return self.draw(st.integers(1, of)) == of

    def add(self, kind: str, node: nir.NIRNode, *sources: str) -> str:
        name = f"{kind.lower()}{len(self.nodes)}"
        self.nodes[name] = node
        self.edges += [(source, name) for source in dict.fromkeys(sources)]
        return name

    def halves(self, shape: tuple[int, ...], limit: int = 4) -> np.ndarray:
        return self.rng.integers(-limit, limit + 1, shape) / 2

    def one_or_each(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """Shape of a parameter: each neuron's, or a single value."""
        return self.draw(st.sampled_from((shape, shape, (1,), ())))

    def subgraph(self, tap: Tap) -> Tap:
        inner = _Builder(self.draw, self.lowerable, self.whole, int(self.rng.integers(2**32)))
        first = inner.add("input", nir.Input(np.array(tap[1])))
        name, shape = inner.block((first, tap[1]), False)
        if self.chance(4):
            name, shape = inner.subgraph((name, shape))
        inner.add("output", nir.Output(np.array(shape)), name)
        return self.add("sub", inner.graph(), tap[0]), shape

    def block(self, tap: Tap, last: bool) -> Tap:
        """Linear nodes and a neuron, perhaps with a second branch, a skip from an earlier neuron, and a loop."""
        name, shape = self.path(tap)
        silent = self.chance(3) if last or not self.lowerable else False
        kind = self.draw(st.sampled_from(SILENT if silent else SPIKING))
        neuron = self.add(kind, self.neuron(kind, shape), name)
        if self.chance(3):
            self.edges.append((self.same_shape(name, shape, 3, not self.whole), neuron))
        skips = [tap_name for tap_name, tap_shape in self.taps if tap_shape == shape]
        if skips and self.chance():
            self.edges.append((self.draw(st.sampled_from(skips)), neuron))
        if not silent or not self.lowerable:
            self.loop(neuron, shape, name)
            self.taps.append((neuron, shape))
        return neuron, shape

    def loop(self, neuron: str, shape: tuple[int, ...], side: str) -> None:
        """A way back to the neuron, which may also take in what the neuron takes."""
        kind = self.draw(st.sampled_from(("none", "direct", "linear", "delay", "two", "filter")))
        if kind == "direct":
            self.edges.append((neuron, neuron))
        elif kind == "linear":
            back = self.same_shape(neuron, shape)
            self.edges.append((back, neuron))
            if not self.whole and self.chance(3):
                self.edges.append((side, back))
        elif kind == "delay":
            delayed = self.add("delay", self.delay(shape, 1), self.same_shape(neuron, shape))
            self.edges.append((delayed, neuron))
        elif kind == "two":
            other = self.draw(st.sampled_from(SPIKING))
            second = self.add(other, self.neuron(other, shape), self.same_shape(neuron, shape))
            self.edges.append((self.same_shape(second, shape), neuron))
        elif kind == "filter" and not self.lowerable:
            scale = self.add("scale", nir.Scale(np.full(shape, 0.5)), neuron)
            delay = self.add("delay", self.delay(shape, 1), scale)
            self.edges += [(delay, scale), (delay, neuron)]

    def same_shape(self, source: str, shape: tuple[int, ...], longest: int = 0, matrix: bool = True) -> str:
        """A linear node that keeps the shape: a matrix, a Scale, or a Delay of at most `longest` time steps."""
        kind = self.draw(st.sampled_from(["Scale", "Delay"] + ["Affine", "Linear"] * (matrix and len(shape) == 1)))
        if kind == "Delay":
            return self.add(kind, self.delay(shape, 0, longest), source)
        if kind == "Scale":
            return self.add(kind, self.scale(shape), source)
        return self.add(kind, self.matrix(kind, (shape[0], shape[0])), source)

    def matrix(self, kind: str, shape: tuple[int, ...]) -> nir.NIRNode:
        weight = self.halves(shape) * (self.rng.random(shape) < 0.8)
        return nir.Linear(weight) if kind == "Linear" else nir.Affine(weight, self.halves(self.one_or_each(shape[:-1])))

    def scale(self, shape: tuple[int, ...]) -> nir.Scale:
        given = self.one_or_each(shape)
        return nir.Scale(self.rng.choice((-2.0, -0.5, 0.5, 1.0, 2.0), given) if self.whole else self.halves(given))

    def delay(self, shape: tuple[int, ...], least: int, most: int = 3) -> nir.Delay:
        return nir.Delay(self.rng.integers(least, most + 1, self.one_or_each(shape)) * DT)

    def path(self, tap: Tap) -> Tap:
        """Up to three linear nodes; with `whole`, at most one of them a matrix."""
        name, shape = tap
        matrices = 0
        for _ in range(self.draw(st.integers(0 if self.chance(3) else 1, 3))):
            name, shape = self.step(name, shape, not self.whole or matrices == 0)
            matrices += isinstance(self.nodes[name], MATRICES)
        return name, shape

    def step(self, name: str, shape: tuple[int, ...], matrix: bool) -> Tap:
        kinds = [kind for kind in OF_RANK[len(shape)] * 2 if matrix or kind == "Flatten"]
        kind = self.draw(st.sampled_from(["Scale", "Delay", *kinds]))
        if kind == "Scale":
            return self.add(kind, self.scale(shape), name), shape
        if kind == "Delay":
            return self.add(kind, self.delay(shape, 0), name), shape
        if kind in ("Affine", "Linear"):
            out = self.draw(st.integers(1, 6))
            return self.add(kind, self.matrix(kind, (*shape[:-1], out, shape[-1])), name), (*shape[:-1], out)
        if kind == "Flatten":
            start = self.draw(st.integers(0, len(shape) - 1))
            end = self.draw(st.sampled_from((-1, *range(start, len(shape)))))
            stop = len(shape) if end == -1 else end + 1
            flat = (*shape[:start], int(np.prod(shape[start:stop])), *shape[stop:])
            return self.add(kind, nir.Flatten({"input": np.array(shape)}, start, end), name), flat
        return self.convolution(name, shape) if kind.startswith("Conv") else self.pool(kind, name, shape)

    def convolution(self, name: str, shape: tuple[int, ...]) -> Tap:
        axes = len(shape) - 1
        groups = self.draw(st.sampled_from([g for g in (1, 2) if shape[0] % g == 0]))
        channels = groups * self.draw(st.integers(1, 2))
        kernel, stride, dilation, padding, spatial = self.geometry(shape[1:], dilates=True)
        weight = self.halves((channels, shape[0] // groups, *kernel))
        bias = self.halves((channels,) if self.chance() else (1,))
        stated = self.chance()
        if axes == 1:
            plain = padding if isinstance(padding, str) else padding[0]
            node = nir.Conv1d(None, weight, stride[0], plain, dilation[0], groups, bias)
            node.input_shape = shape[1] if stated else None
        else:
            node = nir.Conv2d(None, weight, stride, padding, dilation, groups, bias)
            node.input_shape = shape[1:] if stated else None
        return self.add(f"Conv{axes}d", node, name), (channels, *spatial)

    def pool(self, kind: str, name: str, shape: tuple[int, ...]) -> Tap:
        kernel, stride, _, padding, spatial = self.geometry(shape[1:], dilates=False)
        make = nir.SumPool2d if kind == "SumPool2d" else nir.AvgPool2d
        return self.add(kind, make(np.array(kernel), np.array(stride), np.array(padding)), name), (shape[0], *spatial)

    def geometry(self, spatial: tuple[int, ...], dilates: bool) -> tuple:
        """Kernel, stride, dilation and padding that fit; kernels of 1 and 2, so that averages are exact."""
        kernel = tuple(self.draw(st.integers(1, 3 if dilates else 2)) for _ in spatial)
        stride = tuple(self.draw(st.integers(1, 2)) for _ in spatial)
        dilation = tuple(self.draw(st.integers(1, 2)) if dilates else 1 for _ in spatial)
        reach = [d * (k - 1) for d, k in zip(dilation, kernel, strict=True)]
        if dilates and self.chance(3):
            return kernel, (1,) * len(spatial), dilation, "same", spatial
        padding = tuple(
            max(self.draw(st.integers(0, k // 2)), -(-max(r + 1 - size, 0) // 2))
            for k, r, size in zip(kernel, reach, spatial, strict=True)
        )
        kinds = zip(spatial, padding, reach, stride, strict=True)
        out = tuple((size + 2 * p - r - 1) // s + 1 for size, p, r, s in kinds)
        if dilates and not any(padding) and self.chance():
            return kernel, stride, dilation, "valid", out
        return kernel, stride, dilation, padding, out

    def neuron(self, kind: str, shape: tuple[int, ...]) -> nir.NIRNode:
        given, rng = self.one_or_each(shape), self.rng

        def pick(*values: float) -> np.ndarray:
            return np.asarray(rng.choice(values, given))

        def tau() -> np.ndarray:
            return DT * pick(1, 2, 4)

        r, leak = pick(0.5, 1, 2, -1), pick(0, 0, 0, 0.25, -0.5)
        if kind == "Threshold":
            return nir.Threshold(pick(-0.5, 0, 0.5, 1, 1.5))
        fires = {"v_threshold": pick(0.25, 0.5, 1, 1.5, -0.25), "v_reset": pick(0, 0, 0.25, -0.5)}
        if kind == "IF":
            return nir.IF(r=r / DT, **fires)
        if kind == "I":
            return nir.I(r=r / DT)
        if kind == "LIF":
            return nir.LIF(tau=tau(), r=r, v_leak=leak, **fires)
        if kind == "LI":
            return nir.LI(tau=tau(), r=r, v_leak=leak)
        current = {"tau_syn": tau(), "tau_mem": tau(), "r": r, "v_leak": leak, "w_in": pick(0.5, 1, 2)}
        return nir.CubaLI(**current) if kind == "CubaLI" else nir.CubaLIF(**current, **fires)


@dataclass
class IntegerCase:
    """A network and its input [T, n_in], booleans."""

    network: IntegerNetwork
    spikes: np.ndarray


@st.composite
def integer_cases(draw: Draw, extreme: bool = True) -> IntegerCase:
    """A random network of up to three populations of up to twelve neurons, with loops, skips and delays.

    Args:
        extreme: also weights and exponents at which currents wrap and voltages clip, and thresholds at their limits.
    """
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    n_in, count = draw(st.integers(1, 6)), draw(st.integers(1, 3))
    names = [f"p{index}" for index in range(count)]
    sizes = {INPUT: n_in, ONE: 1} | {name: draw(st.integers(1, 12)) for name in names}
    connections: list[Connection] = []
    levels: dict[str, int] = {}
    for index, name in enumerate(names):
        sources = [INPUT if index == 0 else names[index - 1]]
        sources += draw(st.lists(st.sampled_from((INPUT, ONE, *names)), max_size=3))
        for source in sources:
            instant = source in (INPUT, ONE) or source in names[:index]
            delay = draw(st.integers(0, 3)) if instant else draw(st.integers(1, 3))
            low, high = (-128, 127) if extreme and draw(st.booleans()) else (-10, 10)
            shape = (sizes[name], sizes[source])
            weight = 2 * rng.integers(low, high + 1, shape) * (rng.random(shape) < 0.8)
            exponent = draw(st.integers(-8, 7)) if extreme else draw(st.integers(0, 2))
            connections.append(Connection(source, name, delay, csr_array(weight), exponent))
        before = [levels[c.source] for c in connections if c.target == name and c.delay == 0 and c.source in levels]
        levels[name] = 1 + max(before, default=0)
    populations = {name: draw(_populations(name, sizes[name], levels[name], rng, extreme)) for name in names}
    spikes = rng.random((draw(st.integers(1, 12)), n_in)) < draw(st.sampled_from((0.2, 0.5, 1.0)))
    network = IntegerNetwork((n_in,), populations, tuple(connections), draw(st.sampled_from(names)), DT)
    return IntegerCase(network, spikes)


@st.composite
def _populations(
    draw: Draw, name: str, size: int, level: int, rng: np.random.Generator, extreme: bool
) -> IntegerPopulation:
    top = (1 << 17) - 1

    def pick(limits: tuple[int, int], edges: tuple[int, ...]) -> np.ndarray:
        if draw(st.booleans()):
            return np.full(size, draw(st.sampled_from(edges)), dtype=np.int64)
        return rng.integers(*limits, size, endpoint=True)

    threshold = pick((0, top), (0, 1, top, -1)) if extreme else pick((1, 200), (0, 1, 64))
    start = (1 << 23) - 1 if extreme else 4096
    return IntegerPopulation(
        name=name,
        shape=(size,),
        decay_u=pick((0, 4096), (0, 1, 2048, 4095, 4096)),
        decay_v=pick((0, 4096), (0, 1, 1024, 4095, 4096)),
        v_threshold=threshold * 64,
        v_reset=pick((-start, start), (0, 0, start, -start)),
        v_initial=pick((-start, start), (0, 0, start, -start)),
        spiking=draw(st.integers(1, 5)) < 5,
        level=level,
        unit=np.full(size, 2.0**-10),
        v_offset=np.zeros(size),
    )
