"""A NIR graph as what a spiking substrate runs: populations of neurons, and sparse connections between them.

Everything linear between two neurons (Affine, Conv, pooling, Scale, Flatten, Delay) is one connection here. Forms:
`FloatNetwork` in NIR's real numbers, `IntegerNetwork` in Loihi's integers.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array

# No node can be called so: names are printable.
INPUT = "\0input"  # source of a connection: the network's input
ONE = "\0one"  # source of a connection: one value that is 1 at every time step, which carries biases

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class FloatPopulation:
    """Neurons that step together.

    A time step: u = u * keep_u + input; v = v * keep_v + u; a spike where v > v_threshold; there v = v_reset.

    NIR's voltage is v + v_offset: voltages here are counted from the leak potential.

    Attributes:
        name: name of the NIR node (`subgraph.node` within one).
        shape: shape of the node's output; the arrays are flat, [n].
        keep_u, keep_v: fractions of current and voltage kept each time step.
        v_threshold: infinite for neurons that do not spike (LI, CubaLI, I); their output is v.
        v_reset: voltage after a spike. v_initial: voltage before the first time step.
        level: 1 + the most populations that lie before it within one time step.
    """

    name: str
    shape: tuple[int, ...]
    keep_u: Floats
    keep_v: Floats
    v_threshold: Floats
    v_reset: Floats
    v_initial: Floats
    v_offset: Floats
    spiking: bool
    level: int

    @property
    def size(self) -> int:
        return int(self.keep_u.size)


@dataclass(frozen=True, eq=False)
class Connection:
    """Weights from a source's output, `delay` time steps ago, into the current of a population.

    Attributes:
        source: `INPUT`, `ONE` or the key of a population. target: key of a population.
        delay: in time steps; 0 reads what the source gives in the same time step. Before it has passed, 0 flows.
        weight: [n_target, n_source], float64; or even mantissas in [-256, 254] as integers.
        weight_exp: of integers: the sum is shifted left by it (right where negative); 0 for floats.
    """

    source: str
    target: str
    delay: int
    weight: csr_array
    weight_exp: int = 0


@dataclass(frozen=True, eq=False)
class FloatNetwork:
    """Populations in the order in which a time step visits them, by key, which is their node's name.

    Attributes:
        input_shape: shape of one time step's input. output: key of the population whose output the network's is.
        dt: seconds a time step.
    """

    input_shape: tuple[int, ...]
    populations: dict[str, FloatPopulation]
    connections: tuple[Connection, ...]
    output: str
    dt: float


@dataclass(frozen=True, eq=False)
class IntegerPopulation:
    """The same in Loihi's integers; all arrays [n], in state units where not said otherwise.

    Attributes:
        decay_u, decay_v: in [0, 4096]; a time step keeps (4096 - decay) / 4096 of the state, truncated towards zero.
        v_threshold: a neuron spikes where v > v_threshold; a multiple of 64 and at most THRESHOLD_MAX * 64.
        v_reset, v_initial: below 2^23.
        unit: float voltage of one state unit, [n]. v_offset: NIR's voltage is v * unit + v_offset.
    """

    name: str
    shape: tuple[int, ...]
    decay_u: Ints
    decay_v: Ints
    v_threshold: Ints
    v_reset: Ints
    v_initial: Ints
    spiking: bool
    level: int
    unit: Floats
    v_offset: Floats

    @property
    def size(self) -> int:
        return int(self.decay_u.size)


@dataclass(frozen=True, eq=False)
class IntegerNetwork:
    """As `FloatNetwork`, in integers."""

    input_shape: tuple[int, ...]
    populations: dict[str, IntegerPopulation]
    connections: tuple[Connection, ...]
    output: str
    dt: float
