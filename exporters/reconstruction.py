"""Rounding that keeps a layer's synaptic input, not its weights: each rounding error is made up for by later weights.

The method is GPTQ (Frantar et al. 2023, https://arxiv.org/abs/2210.17323), after Optimal Brain Surgeon (Hassibi and
Stork 1993): of a quadratic loss, one column is rounded after the other, and the rest of the row moves to where the
loss is least. The loss here is the error of a neuron's current, over all recorded time steps.
"""

from __future__ import annotations

from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from exporters.grid import Grid
from spikerl_deploy.codec import Spikes

Array = NDArray[np.float64]
DAMPING = 0.01  # of the Hessian's mean diagonal, as GPTQ has it: inputs that never spike stay where they are
TRUST = 0.1  # pull towards the trained weights where the inputs of the layer have changed, in the same unit
CHUNK = 1_000  # control steps at a time, to bound memory


class InputStatistics:
    """Second moments of a layer's inputs, as its currents see them.

    A current is a weighted sum of input traces, spikes filtered by the current's decay, and a constant's trace for the
    bias. `hessian` [n_in + 1, n_in + 1] is the mean of q q' over control and time steps, q the traces in the quantized
    network; `shift` that of (f - q) q', f the traces in the float network, where they differ.
    """

    def __init__(self, floats: Spikes, quantized: Spikes, keep_float: float, keep_quantized: float) -> None:
        """Of input spikes [T, N, n_in] in the float and in the quantized network, and the current decay in each."""
        steps, count, n_in = floats.shape
        self.hessian = np.zeros((n_in + 1, n_in + 1))
        self.shift = np.zeros_like(self.hessian)
        same = floats is quantized and keep_float == keep_quantized
        for start in range(0, count, CHUNK):
            q = _traces(quantized[:, start : start + CHUNK], keep_quantized)
            self.hessian += q.T @ q
            if not same:
                self.shift += (_traces(floats[:, start : start + CHUNK], keep_float) - q).T @ q
        self.hessian /= steps * count
        self.shift /= steps * count

    def reachable(self, rows: Array) -> Array:
        """Weights and bias [n_out, n_in + 1] that give the float network's currents from the quantized one's inputs.

        Least squares, pulled towards `rows`, the trained ones.
        """
        if not self.shift.any():
            return rows
        damped = self.hessian + TRUST * self.hessian.diagonal().mean() * np.eye(len(self.hessian))
        return rows + np.linalg.solve(damped, (rows @ self.shift).T).T

    def round(self, rows: Array, grid: Grid) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
        """Mantissas of weights [n_out, n_in] and bias [n_out] for `rows` [n_out, n_in + 1] in mantissa units.

        The busiest inputs are rounded first, while most others can still make up for them; the bias, which has the
        finest grid, last.
        """
        order, factor = self._elimination
        left, mantissas = rows[:, order].copy(), np.empty(rows.shape, np.int32)
        for j, column in enumerate(order[:-1]):
            rounded = grid.round(left[:, j])
            mantissas[:, column] = rounded
            left[:, j + 1 :] -= np.outer((left[:, j] - rounded) / factor[j, j], factor[j, j + 1 :])
        return mantissas[:, :-1], grid.round_bias(left[:, -1])

    @cached_property
    def _elimination(self) -> tuple[NDArray[np.intp], Array]:
        """Order of the columns, and how each column's error moves those after it."""
        order = np.append(np.argsort(-self.hessian.diagonal()[:-1], kind="stable"), len(self.hessian) - 1)
        damped = self.hessian[np.ix_(order, order)]
        damped = damped + DAMPING * damped.diagonal().mean() * np.eye(len(damped))
        # upper Cholesky factor of the inverse: row j holds how columns after j follow an error in column j
        return order, np.linalg.cholesky(np.linalg.inv(damped)).T


def _traces(spikes: Spikes, keep_u: float) -> NDArray[np.float32]:
    """Filtered spikes [T * N, n_in + 1], a constant input of 1 appended."""
    steps, count, n_in = spikes.shape
    out = np.ones((steps, count, n_in + 1), np.float32)
    out[:, :, :-1] = spikes
    for t in range(1, steps):
        out[t] += np.float32(keep_u) * out[t - 1]
    return out.reshape(steps * count, n_in + 1)
