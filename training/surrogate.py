"""Surrogate gradients of the spike: snnTorch's, and the rectangular one of PopSAN through snnTorch's hook."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from snntorch import surrogate as snntorch_surrogate
from torch import Tensor

SpikeFunction = Callable[[Tensor], Tensor]


def rectangular(half_width: float) -> SpikeFunction:
    """Heaviside step of v - v_threshold whose gradient is 1 within `half_width` of the threshold, 0 elsewhere."""

    def gradient(distance: Tensor, grad_spikes: Tensor, _spikes: Tensor) -> Tensor:
        return grad_spikes * (distance.abs() < half_width)

    return snntorch_surrogate.custom_surrogate(gradient)  # type: ignore[no-any-return]


SURROGATES: dict[str, Callable[[float], Any]] = {
    "rectangular": rectangular,
    "fast_sigmoid": lambda _: snntorch_surrogate.fast_sigmoid(),
    "sigmoid": lambda _: snntorch_surrogate.sigmoid(),
    "atan": lambda _: snntorch_surrogate.atan(),
    "triangular": lambda _: snntorch_surrogate.triangular(),
}


def make_surrogate(name: str, half_width: float) -> SpikeFunction:
    """Spike function by name; `half_width` matters to `rectangular` only."""
    function: SpikeFunction = SURROGATES[name](half_width)
    return function
