"""Surrogate gradients of the spike: snnTorch's own, and slopes of ours through its `custom_surrogate` hook.

Two of snnTorch 1.0.0's are replaced: its sigmoid overflows to NaN some 3.5 below the threshold, and its
triangular slope is constant and changes sign at the threshold instead of falling to zero on both sides.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from snntorch import surrogate as snntorch_surrogate
from torch import Tensor

SpikeFunction = Callable[[Tensor], Tensor]
SIGMOID_SLOPE = 25.0  # snnTorch's default


def _with_slope(slope: Callable[[Tensor], Tensor]) -> SpikeFunction:
    """Heaviside step of v - v_threshold with the given derivative."""

    def gradient(distance: Tensor, grad_spikes: Tensor, _spikes: Tensor) -> Tensor:
        return grad_spikes * slope(distance)

    return snntorch_surrogate.custom_surrogate(gradient)  # type: ignore[no-any-return]


def rectangular(half_width: float) -> SpikeFunction:
    """Slope 1 within `half_width` of the threshold, 0 elsewhere (PopSAN, Tang et al. 2020)."""
    return _with_slope(lambda distance: distance.abs() < half_width)


def triangular(half_width: float) -> SpikeFunction:
    """Slope 1 at the threshold, falling linearly to 0 at `half_width` on both sides (Esser et al. 2016)."""
    return _with_slope(lambda distance: (1.0 - distance.abs() / half_width).clamp_min(0.0))


def sigmoid(_half_width: float) -> SpikeFunction:
    """Slope of a logistic function with steepness 25, in a form that cannot overflow."""

    def slope(distance: Tensor) -> Tensor:
        scaled = SIGMOID_SLOPE * distance
        return SIGMOID_SLOPE * torch.sigmoid(scaled) * torch.sigmoid(-scaled)

    return _with_slope(slope)


SURROGATES: dict[str, Callable[[float], Any]] = {
    "rectangular": rectangular,
    "triangular": triangular,
    "sigmoid": sigmoid,
    "fast_sigmoid": lambda _: snntorch_surrogate.fast_sigmoid(),
    "atan": lambda _: snntorch_surrogate.atan(),
}


def make_surrogate(name: str, half_width: float) -> SpikeFunction:
    """Spike function by name; `half_width` matters to `rectangular` and `triangular` only."""
    function: SpikeFunction = SURROGATES[name](half_width)
    return function
