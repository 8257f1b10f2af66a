"""Rows of sparse weights as even mantissas in [-256, 254] times powers of two, in units of each row's own."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array, hstack

from spikerl_deploy.loihi import BIAS_NEURONS_MAX, WEIGHT_EXP_MAX, WEIGHT_MAX, WEIGHT_MIN
from spikerl_deploy.network import ONE, Connection, Floats, Ints

HEAD = 8  # weights of a row that are looked at first
STORED_NOISE = 1e-6  # of what NIR stores in float32, multiplied up


def placed(connection: Connection, unit: Floats) -> Iterator[Connection]:
    """The connection in mantissas: one for each exponent that its rows need, and share of a bias."""
    share = BIAS_NEURONS_MAX if connection.source == ONE else 1
    multiples = scaled(connection.weight, 1 / unit)
    least, _ = _exponents(multiples, share)
    rows = np.repeat(np.arange(len(unit)), np.diff(multiples.indptr))
    grid = 2.0 ** (least + 1)
    halves = np.clip(np.rint(multiples.data / grid[rows]), share * WEIGHT_MIN // 2, share * WEIGHT_MAX // 2)
    whole = csr_array(
        ((halves * grid[rows]).astype(np.int64), multiples.indices, multiples.indptr), shape=multiples.shape
    )
    whole.eliminate_zeros()
    least, most = _exponents(whole, share)
    filled = np.diff(whole.indptr) > 0
    while filled.any():
        exponent = int(min(most[filled].min(), WEIGHT_EXP_MAX))
        taken = filled & (least <= exponent)
        part = scaled(whole, taken / 2.0**exponent)
        part.eliminate_zeros()
        left = part.astype(np.int64)
        while left.nnz:
            now = left.copy()
            now.data = np.clip(left.data, WEIGHT_MIN, WEIGHT_MAX)
            yield replace(connection, weight=now, weight_exp=exponent)
            left = csr_array(left - now)
            left.eliminate_zeros()
        filled &= ~taken


def fits(weights: csr_array, unit: Floats, noise: float, share: int) -> NDArray[np.bool_]:
    """Of which rows all weights are even mantissas, times a power of two that the row has in common."""
    rows = np.repeat(np.arange(len(unit)), np.diff(weights.indptr))
    halves = weights.data / (2 * unit[rows])
    low, high = _exponents(csr_array((halves * 2, weights.indices, weights.indptr), shape=weights.shape), share)
    bad = np.bincount(rows, ~is_whole(halves, noise, 1 << 40), minlength=len(unit)) > 0
    return ~bad & (low <= np.minimum(high, WEIGHT_EXP_MAX))


def _exponents(multiples: csr_array, share: int) -> tuple[Ints, Ints]:
    """Of a row of multiples of its unit, the exponents that its mantissas can have, of `share` synapses each.

    From the least at which they are within range to the largest at which they are even.
    """
    size, rows = multiples.shape[0], np.repeat(np.arange(multiples.shape[0]), np.diff(multiples.indptr))
    least = np.zeros(size, dtype=np.int64)
    for sign, limit in ((1, WEIGHT_MAX), (-1, -WEIGHT_MIN)):
        top = np.zeros(size)
        np.maximum.at(top, rows, sign * multiples.data)
        with np.errstate(divide="ignore"):
            needed = np.ceil(np.log2(top / (share * limit)) - STORED_NOISE)
        least = np.maximum(least, np.nan_to_num(needed, neginf=0.0)).astype(np.int64)
    whole = np.rint(multiples.data).astype(np.int64)
    used = np.zeros(size, dtype=np.int64)
    np.bitwise_or.at(used, rows, whole)
    zeros = np.log2(np.maximum(used & -used, 1)).astype(np.int64)  # below the lowest bit of all
    return least, np.where(used == 0, WEIGHT_EXP_MAX, zeros - 1)


def is_whole(values: Floats, noise: float, limit: int) -> NDArray[np.bool_]:
    """Which values are whole numbers up to relative noise, and at most the limit."""
    off = np.abs(values - np.rint(values))
    good: NDArray[np.bool_] = (off <= noise * np.abs(values)) & (np.abs(values) <= limit * (1 + noise))
    return good


def scaled(weights: csr_array, factors: Floats) -> csr_array:
    """Rows times factors."""
    data = weights.data * np.repeat(factors, np.diff(weights.indptr))
    return csr_array((data, weights.indices, weights.indptr), shape=weights.shape, copy=True)


def row_max(weights: csr_array) -> Floats:
    """Largest magnitude in each row, 0 in an empty one."""
    rows = np.repeat(np.arange(weights.shape[0]), np.diff(weights.indptr))
    largest = np.zeros(weights.shape[0])
    np.maximum.at(largest, rows, np.abs(weights.data))
    return largest


def kinds(parameters: Sequence[Floats], weights: Sequence[csr_array]) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Rows that differ, the first of each kind, and the kind of every row: a convolution has few."""
    numbers = np.column_stack(parameters)
    rows = [[numbers[row].tobytes() for row in range(len(numbers))]]
    for weight in weights:
        data, ends = weight.data, weight.indptr.tolist()
        rows.append([data[start:end].tobytes() for start, end in itertools.pairwise(ends)])
    seen: dict[tuple[bytes, ...], int] = {}
    kind = np.array([seen.setdefault(row, len(seen)) for row in zip(*rows, strict=True)], dtype=np.intp)
    return np.unique(kind, return_index=True)[1], kind


def stacked(weights: Sequence[csr_array], size: int) -> csr_array:
    """Weights side by side, [size, all sources]."""
    return csr_array(hstack([csr_array((size, 0)), *weights], format="csr"))


def positive_sum(weights: csr_array) -> Floats:
    """Sum of what is above 0 in each row."""
    rows = np.repeat(np.arange(weights.shape[0]), np.diff(weights.indptr))
    return np.bincount(rows, np.maximum(weights.data, 0), minlength=weights.shape[0]).astype(np.float64)


def head(weights: csr_array) -> Floats:
    """The first few weights of each row, zeros where it has fewer."""
    head = np.zeros((weights.shape[0], HEAD))
    counts = np.diff(weights.indptr)
    for column in range(HEAD):
        rows = np.flatnonzero(counts > column)
        head[rows, column] = weights.data[weights.indptr[rows] + column]
    return head
