"""Networks with a known activity, for the tests of the energy models."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np

from spikerl_deploy.workload import Workload, count_workload

POLICY, ANN = (170, 256, 256, 60), (17, 256, 256, 6)


def even_workload(
    sizes: Sequence[int], rate: float, time_steps: int, *, bits: int = 8, control_step_s: float | None = 0.05
) -> Workload:
    """A fully connected network, each input and neuron of which fires in `rate` of the time steps."""
    control_steps = 1000
    totals = [np.full(size, round(rate * time_steps * control_steps), dtype=np.int64) for size in sizes]
    weights = [np.ones((n_out, n_in)) for n_in, n_out in itertools.pairwise(sizes)]
    return count_workload(totals, weights, control_steps, time_steps, weight_bits=bits, control_step_s=control_step_s)


def uneven_workload(*, bits: int = 8, control_step_s: float | None = 0.05) -> Workload:
    """A small network with zero weights and a silent neuron: 3-4-2, T = 5, two control steps."""
    first = np.array([[1, 0, 2], [3, 0, 0], [0, 0, 4], [5, 6, 7]])  # fan-outs 3, 1, 3
    second = np.array([[1, 0, 2, 3], [0, 0, 4, 5]])  # fan-outs 1, 0, 2, 2
    totals = [np.array([6, 10, 2]), np.array([4, 0, 8, 2]), np.array([3, 7])]
    return count_workload(totals, [first, second], 2, 5, weight_bits=bits, control_step_s=control_step_s)
