"""A network's real numbers as Loihi's integers: exactly, or to the nearest where that is asked for.

Only ratios matter to a neuron, so each has a unit of its own: the weight that one unit of accumulated input stands for.
Weights, biases and the threshold are whole multiples of it, voltages whole multiples of a 64th.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array, hstack

from spikerl_deploy.errors import SpikerlError
from spikerl_deploy.loihi import (
    BIAS_NEURONS_MAX,
    DECAY_UNITY,
    STATE_LIMIT,
    STATE_SHIFT,
    THRESHOLD_MAX,
    WEIGHT_EXP_MAX,
    WEIGHT_MAX,
    WEIGHT_MIN,
)
from spikerl_deploy.mantissas import (
    HEAD,
    STORED_NOISE,
    fits,
    head,
    is_whole,
    kinds,
    placed,
    positive_sum,
    row_max,
    scaled,
    stacked,
)
from spikerl_deploy.network import (
    ONE,
    Connection,
    FloatNetwork,
    FloatPopulation,
    Floats,
    IntegerNetwork,
    IntegerPopulation,
    Ints,
)

ROUNDING_NOISE = 1e-12  # of float64
BLOCK = 1 << 20  # candidates that are looked at together
VOLTAGE_MAX = THRESHOLD_MAX << STATE_SHIFT  # of v_reset and v_initial, with room for noise below where it clips
ALIGN = 1 << STATE_SHIFT
ROUND_HINT = "take the nearest integers, which may change spikes: --round"
# What a neuron's largest weight can be in its unit: an even mantissa times a power of two; the finest unit first.
LARGEST = np.unique([m << e for m in range(2, 257, 2) for e in range(WEIGHT_EXP_MAX + 1)])[::-1].astype(np.float64)


def quantize_network(network: FloatNetwork, rounding: bool = False) -> IntegerNetwork:
    """The network in integers that equal its numbers up to 1e-6 relative, float32's rounding of what NIR stores.

    Args:
        rounding: take the nearest integers where there are none such (`rounding_report` says how far off they are).

    Raises:
        SpikerlError: a node has no exact integers, or its current can leave the chip's 24 bits; names the node.
    """
    populations: dict[str, IntegerPopulation] = {}
    connections: list[Connection] = []
    for name, population in network.populations.items():
        incoming = [c for c in network.connections if c.target == name]
        populations[name], unit = _population(population, incoming, rounding)
        for connection in incoming:
            connections += placed(connection, unit)
    return IntegerNetwork(network.input_shape, populations, tuple(connections), network.output, network.dt)


def rounding_report(network: FloatNetwork, integers: IntegerNetwork) -> dict[str, float]:
    """Largest relative error of each population's decays, threshold, voltages and weights.

    Errors are relative to the number itself; of a weight to the largest of its neuron, of a voltage to the threshold
    where that is larger.
    """
    report = {}
    for name, p in network.populations.items():
        q = integers.populations[name]
        scale = np.abs(p.v_threshold) if p.spiking else np.zeros(p.size)
        triples = [
            (q.decay_u / DECAY_UNITY, 1 - p.keep_u, 1 - p.keep_u),
            (q.decay_v / DECAY_UNITY, 1 - p.keep_v, 1 - p.keep_v),
            (q.v_initial * q.unit, p.v_initial, np.maximum(scale, np.abs(p.v_initial))),
        ]
        if p.spiking:
            triples += [
                (q.v_threshold * q.unit, p.v_threshold, scale),
                (q.v_reset * q.unit, p.v_reset, np.maximum(scale, np.abs(p.v_reset))),
            ]
        errors = [np.abs(got - meant)[size > 0] / size[size > 0] for got, meant, size in triples]
        given: dict[tuple[str, int], csr_array] = {}
        for c in integers.connections:
            if c.target == name:
                weight = scaled(c.weight, q.unit * ALIGN * 2.0**c.weight_exp)
                key = (c.source, c.delay)
                given[key] = given[key] + weight if key in given else weight
        meant = {(c.source, c.delay): c.weight for c in network.connections if c.target == name}
        if meant:
            largest = row_max(hstack(list(meant.values()), format="csr"))
            for key, weight in meant.items():
                difference = weight - given[key] if key in given else weight
                errors.append(row_max(difference)[largest > 0] / largest[largest > 0])
        report[name] = max((float(e.max()) for e in errors if e.size), default=0.0)
    return report


def _population(p: FloatPopulation, incoming: Sequence[Connection], rounding: bool) -> tuple[IntegerPopulation, Floats]:
    """The population in integers, and its units [n]: weight of one unit of accumulated input."""
    decay_u = _decay(p.name, "current", 1 - p.keep_u, rounding)
    decay_v = _decay(p.name, "voltage", 1 - p.keep_v, rounding)
    first, kind = kinds([p.keep_u, p.keep_v, p.v_threshold, p.v_reset, p.v_initial], [c.weight for c in incoming])
    search = _Search(p, incoming, decay_u, decay_v, first)
    unit = search.exact(ROUNDING_NOISE, np.ones(len(first), dtype=bool))
    unit = np.where(np.isnan(unit), search.exact(STORED_NOISE, np.isnan(unit)), unit)
    wraps = search.current(unit) >= STATE_LIMIT
    if rounding and (wraps | np.isnan(unit)).any():
        unit = np.where(wraps | np.isnan(unit), search.nearest(), unit)
        wraps = ~(search.current(unit) < STATE_LIMIT)
    unit, wraps = unit[kind], wraps[kind]
    if wraps.any():
        raise SpikerlError(
            f"NIR node '{p.name}' has a current that can leave the chip's 24 bits, where it wraps (neuron "
            f"{wraps.argmax()})",
            None if rounding else ROUND_HINT,
        )
    if np.isnan(unit).any():
        raise SpikerlError(
            f"NIR node '{p.name}': weights and threshold of neuron {np.isnan(unit).argmax()} have no exact integers",
            ROUND_HINT,
        )
    state = unit / ALIGN
    threshold = np.rint(p.v_threshold / unit) if p.spiking else np.full(p.size, THRESHOLD_MAX)
    integers = IntegerPopulation(
        name=p.name,
        shape=p.shape,
        decay_u=decay_u,
        decay_v=decay_v,
        v_threshold=threshold.astype(np.int64) * ALIGN,
        v_reset=np.rint(p.v_reset / state).astype(np.int64),
        v_initial=np.rint(p.v_initial / state).astype(np.int64),
        spiking=p.spiking,
        level=p.level,
        unit=state,
        v_offset=p.v_offset,
    )
    return integers, unit


def _decay(name: str, kind: str, lost: Floats, rounding: bool) -> Ints:
    """Shares lost each time step, in 4096ths; never none where something is lost."""
    codes = np.rint(lost * DECAY_UNITY)
    codes = np.where((lost > 0) & (codes == 0), 1, codes)
    off = np.abs(codes - lost * DECAY_UNITY) > STORED_NOISE * codes
    if off.any() and not rounding:
        share = lost[off.argmax()] * DECAY_UNITY
        raise SpikerlError(
            f"NIR node '{name}' loses {share:.6g} / {DECAY_UNITY} of its {kind} a time step, a whole number is needed",
            ROUND_HINT,
        )
    return codes.astype(np.int64)


class _Search:
    """Neurons of a population, `rows` of it, and what bounds their units; arrays are in the order of `rows`."""

    def __init__(
        self,
        p: FloatPopulation,
        incoming: Sequence[Connection],
        decay_u: Ints,
        decay_v: Ints,
        rows: NDArray[np.intp],
    ) -> None:
        size, decay_u, decay_v = len(rows), decay_u[rows], decay_v[rows]
        self.synapses = [csr_array(c.weight[rows]) for c in incoming if c.source != ONE]
        self.biases = [csr_array(c.weight[rows]) for c in incoming if c.source == ONE]
        self.head = np.zeros((size, HEAD))
        self.threshold = p.v_threshold[rows] if p.spiking else np.zeros(size)
        self.voltages = np.column_stack([p.v_reset[rows], p.v_initial[rows]])
        self.start = np.abs(self.voltages).max(axis=1)
        with np.errstate(divide="ignore", invalid="ignore"):
            everything = stacked([*self.synapses, *self.biases], size)
            up, down = (positive_sum(sign * everything) for sign in (1, -1))
            self.largest_current = np.nan_to_num(np.maximum(up, down) * DECAY_UNITY / decay_u, nan=0.0, posinf=np.inf)
            # A spike stops a voltage on its way up; without spikes it goes as far up as down.
            one_way = np.nan_to_num(down * DECAY_UNITY / decay_u, nan=0.0, posinf=np.inf)
            reach = one_way if p.spiking else self.largest_current
            self.largest_voltage = np.nan_to_num(reach * DECAY_UNITY / decay_v, nan=0.0, posinf=np.inf) + self.start
        self.lossless = np.isin(decay_u, (0, DECAY_UNITY)) & np.isin(decay_v, (0, DECAY_UNITY))
        self.bias = row_max(stacked(self.biases, size)) / BIAS_NEURONS_MAX
        self.anchor = np.zeros(size)
        for synapses in self.synapses:
            largest = row_max(synapses)
            self.head = np.where((largest > self.anchor)[:, None], head(synapses), self.head)
            self.anchor = np.maximum(self.anchor, largest)
        for other in (self.bias, np.abs(self.threshold), self.start, np.ones(size)):
            self.anchor = np.where(self.anchor > 0, self.anchor, other)

    def current(self, unit: Floats) -> Floats:
        """Bound of each neuron's current in state units."""
        with np.errstate(invalid="ignore"):
            return self.largest_current * ALIGN / unit

    def overflows(self, units: Floats, rows: NDArray[np.intp]) -> NDArray[np.bool_]:
        """Whether at units of these rows a current can wrap, or inhibition take a voltage to where it clips."""
        largest = np.maximum(self.largest_current, self.largest_voltage)[rows]
        over: NDArray[np.bool_] = largest * ALIGN / units >= STATE_LIMIT
        return over

    def exact(self, noise: float, wanted: NDArray[np.bool_]) -> Floats:
        """A unit for each wanted neuron, NaN where none makes whole numbers of all its own, up to relative noise.

        The finest at which nothing overflows, so that decay truncates least; or the coarsest, if all overflow, or if
        the decays truncate nothing.
        """
        unit = np.full(len(self.anchor), np.nan)
        neurons, at_once = np.flatnonzero(wanted), BLOCK // len(LARGEST)
        for start in range(0, len(neurons), at_once):
            rows, largest = self._plausible(neurons[start : start + at_once], noise)
            units = self.anchor[rows] / largest
            fine = ~self.lossless[rows] & ~self.overflows(units, rows)
            order = np.lexsort((np.where(fine, -largest, largest), rows))  # fine ones first
            rows, units = rows[order], units[order]
            while rows.size:
                best = np.diff(rows, prepend=-1) > 0  # of what is left of each row
                taken = np.flatnonzero(best)
                taken = taken[self._holds_weights(rows[taken], units[taken], noise)]
                unit[rows[taken]] = units[taken]
                left = ~best & np.isnan(unit[rows])
                rows, units = rows[left], units[left]
        return unit

    def _plausible(self, neurons: NDArray[np.intp], noise: float) -> tuple[NDArray[np.intp], Floats]:
        """Neurons and what their largest weights can be, where threshold, voltages and the first weights are whole."""
        with np.errstate(over="ignore"):
            ratio = self.threshold[neurons] / self.anchor[neurons]
            row, column = np.nonzero(is_whole(ratio[:, None] * LARGEST, noise, THRESHOLD_MAX))
            rows, largest = neurons[row], LARGEST[column]
            for voltages in self.voltages.T:
                good = is_whole(voltages[rows] * ALIGN * largest / self.anchor[rows], noise, VOLTAGE_MAX)
                rows, largest = rows[good], largest[good]
            for weights in self.head.T:
                exponent = np.maximum(np.ceil(np.log2(largest / -WEIGHT_MIN)), 0)  # at least; the largest weight's
                halves = weights[rows] * largest / (self.anchor[rows] * 2 ** (exponent + 1))
                good = is_whole(halves, noise, -WEIGHT_MIN)
                rows, largest = rows[good], largest[good]
        return rows, largest

    def _holds_weights(self, rows: NDArray[np.intp], unit: Floats, noise: float) -> NDArray[np.bool_]:
        """Which of these neurons have all weights in mantissas at their units."""
        good = np.ones(len(rows), dtype=bool)
        for weights, share in [(w, 1) for w in self.synapses] + [(b, BIAS_NEURONS_MAX) for b in self.biases]:
            left = np.flatnonzero(good)
            good[left] = fits(weights[rows[left]], unit[left], noise, share)
        return good

    def nearest(self) -> Floats:
        """A unit for each neuron at which its threshold is whole and its largest weight has all the bits there are."""
        bounds = np.maximum(np.abs(self.threshold), np.maximum(self.start, self.largest_current))
        least = bounds / THRESHOLD_MAX * (1 + STORED_NOISE)
        unit = np.full(len(self.anchor), np.nan)
        for exponent in range(WEIGHT_EXP_MAX, -1, -1):
            candidate = np.maximum(self.anchor, self.bias) / (WEIGHT_MAX << exponent)
            out_of_reach = (candidate < least) & (exponent > 0)
            candidate = np.maximum(candidate, least)
            whole = np.floor(np.abs(self.threshold) / candidate)
            candidate = np.where(whole > 0, np.abs(self.threshold) / np.maximum(whole, 1), candidate)
            overflows = self.overflows(unit, np.arange(len(unit)))
            unit = np.where((np.isnan(unit) | overflows) & ~out_of_reach, candidate, unit)
        return unit
