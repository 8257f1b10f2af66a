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
from spikerl_deploy.mantissas import STORED_NOISE, fits, is_whole, placed, row_max, scaled
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
HEAD = 8  # weights of a neuron, of the connection with its largest, that are looked at first
BLOCK = 1 << 20  # candidates that are looked at together
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
    search = _Search(p, incoming, decay_u, decay_v)
    unit = search.exact(ROUNDING_NOISE, np.ones(p.size, dtype=bool))
    unit = np.where(np.isnan(unit), search.exact(STORED_NOISE, np.isnan(unit)), unit)
    if rounding:
        unit = np.where(np.isnan(unit), search.nearest(), unit)
    if np.isnan(unit).any():
        raise SpikerlError(
            f"NIR node '{p.name}': weights and threshold of neuron {np.isnan(unit).argmax()} have no exact integers",
            ROUND_HINT,
        )
    if (search.current(unit) >= STATE_LIMIT).any():
        raise SpikerlError(f"NIR node '{p.name}' has a current that can leave the chip's 24 bits, where it wraps")
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
    """The neurons of a population and what bounds their units."""

    def __init__(self, p: FloatPopulation, incoming: Sequence[Connection], decay_u: Ints, decay_v: Ints) -> None:
        self.p = p
        self.synapses = [c.weight for c in incoming if c.source != ONE]
        self.biases = [c.weight for c in incoming if c.source == ONE]
        self.head = np.zeros((p.size, HEAD))
        self.threshold = p.v_threshold if p.spiking else np.zeros(p.size)
        self.start = np.maximum(np.abs(p.v_reset), np.abs(p.v_initial))
        with np.errstate(divide="ignore", invalid="ignore"):
            everything = _stacked([*self.synapses, *self.biases], p.size)
            up, down = (_positive_sum(sign * everything) for sign in (1, -1))
            self.largest_current = np.nan_to_num(np.maximum(up, down) * DECAY_UNITY / decay_u, nan=0.0, posinf=np.inf)
            # A spike stops a voltage on its way up; without spikes it goes as far up as down.
            one_way = np.nan_to_num(down * DECAY_UNITY / decay_u, nan=0.0, posinf=np.inf)
            reach = one_way if p.spiking else self.largest_current
            self.largest_voltage = np.nan_to_num(reach * DECAY_UNITY / decay_v, nan=0.0, posinf=np.inf) + self.start
        self.lossless = np.isin(decay_u, (0, DECAY_UNITY)) & np.isin(decay_v, (0, DECAY_UNITY))
        self.bias = row_max(_stacked(self.biases, p.size)) / BIAS_NEURONS_MAX
        self.anchor = np.zeros(p.size)
        for synapses in self.synapses:
            largest = row_max(synapses)
            self.head = np.where((largest > self.anchor)[:, None], _head(synapses), self.head)
            self.anchor = np.maximum(self.anchor, largest)
        for other in (self.bias, np.abs(self.threshold), self.start, np.ones(p.size)):
            self.anchor = np.where(self.anchor > 0, self.anchor, other)

    def current(self, unit: Floats) -> Floats:
        """Bound of each neuron's current in state units."""
        return self.largest_current * ALIGN / unit

    def overflows(self, units: Floats, rows: NDArray[np.intp]) -> NDArray[np.bool_]:
        """Whether at units [rows, candidates] a current can wrap, or inhibition take a voltage to where it clips."""
        largest = np.maximum(self.largest_current, self.largest_voltage)[rows, None]
        over: NDArray[np.bool_] = largest * ALIGN / units >= STATE_LIMIT
        return over

    def exact(self, noise: float, wanted: NDArray[np.bool_]) -> Floats:
        """A unit for each wanted neuron, NaN where none makes whole numbers of all its own, up to relative noise.

        The finest at which nothing overflows, so that decay truncates least; or the coarsest, if all overflow, or if
        the decays truncate nothing.
        """
        unit = np.full(self.p.size, np.nan)
        at_once = max(BLOCK // self.p.size, 1)
        for first, order, may_overflow in ((wanted & ~self.lossless, LARGEST, False), (wanted, LARGEST[::-1], True)):
            for start in range(0, len(order), at_once):
                rows = np.flatnonzero(first & np.isnan(unit))
                largest = order[start : start + at_once]
                units = self.anchor[rows, None] / largest
                plausible = self._plausible(rows, units, largest, noise)
                plausible &= may_overflow | ~self.overflows(units, rows)
                for column in np.flatnonzero(plausible.any(axis=0)):
                    taken = plausible[:, column] & np.isnan(unit[rows])
                    if not taken.any():
                        continue
                    taken[taken] = self._holds_weights(rows[taken], units[taken, column], noise)
                    unit[rows[taken]] = units[taken, column]
        return unit

    def _plausible(self, rows: NDArray[np.intp], units: Floats, largest: Floats, noise: float) -> NDArray[np.bool_]:
        """Which units [rows, candidates] make threshold, voltages and the first weights beside the largest whole."""
        good = is_whole(self.threshold[rows, None] / units, noise, THRESHOLD_MAX)
        for voltage in (self.p.v_reset, self.p.v_initial):
            good &= is_whole(voltage[rows, None] * ALIGN / units, noise, STATE_LIMIT - 1)
        exponent = np.maximum(np.ceil(np.log2(largest / -WEIGHT_MIN)), 0)  # at least; that of the largest weight
        for weight in self.head[rows].T:
            good &= is_whole(weight[:, None] / (units * 2 ** (exponent + 1)), noise, -WEIGHT_MIN)
        return good

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
        unit = np.full(self.p.size, np.nan)
        for exponent in range(WEIGHT_EXP_MAX, -1, -1):
            candidate = np.maximum(self.anchor, self.bias) / (WEIGHT_MAX << exponent)
            out_of_reach = (candidate < least) & (exponent > 0)
            candidate = np.maximum(candidate, least)
            whole = np.floor(np.abs(self.threshold) / candidate)
            candidate = np.where(whole > 0, np.abs(self.threshold) / np.maximum(whole, 1), candidate)
            overflows = self.overflows(unit[:, None], np.arange(self.p.size))[:, 0]
            unit = np.where((np.isnan(unit) | overflows) & ~out_of_reach, candidate, unit)
        return unit


def _stacked(weights: Sequence[csr_array], size: int) -> csr_array:
    return csr_array(hstack([csr_array((size, 0)), *weights], format="csr"))


def _positive_sum(weights: csr_array) -> Floats:
    rows = np.repeat(np.arange(weights.shape[0]), np.diff(weights.indptr))
    return np.bincount(rows, np.maximum(weights.data, 0), minlength=weights.shape[0]).astype(np.float64)


def _head(weights: csr_array) -> Floats:
    """The first few weights of each row, zeros where it has fewer."""
    head = np.zeros((weights.shape[0], HEAD))
    counts = np.diff(weights.indptr)
    for column in range(HEAD):
        rows = np.flatnonzero(counts > column)
        head[rows, column] = weights.data[weights.indptr[rows] + column]
    return head
