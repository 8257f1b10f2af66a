"""Surrogate gradients: the slope that stands for the derivative of the spike, by name.

Plain functions of the distance to the threshold, so that compiled and hand-written backward passes use the same one.
The tests hold those that snnTorch has right against snnTorch's; its sigmoid (1.0.0) overflows to NaN some 3.5 below the
threshold, and its triangular slope does not fall off.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

Slope = Callable[[Tensor], Tensor]
"""ds/dv from v - v_threshold, elementwise."""

SIGMOID_STEEPNESS = 25.0  # snnTorch's default
FAST_SIGMOID_STEEPNESS = 25.0  # snnTorch's default
ARCTAN_ALPHA = 2.0  # snnTorch's and SpikingJelly's default


def rectangular(width: float) -> Slope:
    """1 within `width` of the threshold, 0 elsewhere (PopSAN, Tang et al. 2020)."""
    return lambda distance: (distance.abs() < width).to(distance.dtype)


def triangular(width: float) -> Slope:
    """1 at the threshold, falling linearly to 0 at `width` on both sides (Esser et al. 2016)."""
    return lambda distance: (1.0 - distance.abs() / width).clamp_min(0.0)


def gaussian(width: float) -> Slope:
    """1 at the threshold, a Gaussian of standard deviation `width` (the shape of Yin et al. 2021)."""
    return lambda distance: torch.exp(-0.5 * (distance / width).square())


def sigmoid(_width: float) -> Slope:
    """Derivative of a logistic function of steepness 25, in a form that cannot overflow."""

    def slope(distance: Tensor) -> Tensor:
        scaled = SIGMOID_STEEPNESS * distance
        return SIGMOID_STEEPNESS * torch.sigmoid(scaled) * torch.sigmoid(-scaled)

    return slope


def fast_sigmoid(_width: float) -> Slope:
    """Derivative of x / (1 + 25 |x|) (Zenke and Ganguli 2018)."""
    return lambda distance: (1.0 + FAST_SIGMOID_STEEPNESS * distance.abs()).square().reciprocal()


def arctan(_width: float) -> Slope:
    """Derivative of arctan(pi x) / pi (Fang et al. 2021)."""
    scale = math.pi / 2 * ARCTAN_ALPHA
    return lambda distance: (ARCTAN_ALPHA / 2) / (1.0 + (scale * distance).square())


SURROGATES: dict[str, Callable[[float], Slope]] = {
    "rectangular": rectangular,
    "triangular": triangular,
    "gaussian": gaussian,
    "sigmoid": sigmoid,
    "fast_sigmoid": fast_sigmoid,
    "arctan": arctan,
}


def make_surrogate(name: str, width: float) -> Slope:
    """Slope by name; `width` matters to `rectangular`, `triangular` and `gaussian` only."""
    return SURROGATES[name](width)
