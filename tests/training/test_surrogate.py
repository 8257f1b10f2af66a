"""Surrogate gradients against their formulas and the properties that make one usable."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from training.settings import Settings
from training.surrogate import SURROGATES, make_surrogate


def slope(name: str, distance: Tensor, half_width: float = 0.5) -> Tensor:
    d = distance.clone().requires_grad_()
    make_surrogate(name, half_width)(d).sum().backward()
    assert d.grad is not None
    return d.grad


@pytest.mark.parametrize("name", SURROGATES)
def test_forward_is_the_strict_step(name: str) -> None:
    spikes = make_surrogate(name, 0.5)(torch.tensor([-1.0, -1e-6, 0.0, 1e-6, 1.0]))
    assert spikes.tolist() == [0, 0, 0, 1, 1]


def test_rectangular_is_one_inside_its_half_width_and_zero_outside() -> None:
    distance = torch.tensor([-0.31, -0.3, -0.29, 0.0, 0.29, 0.3, 0.31])
    assert slope("rectangular", distance, 0.3).tolist() == [0, 0, 1, 1, 1, 0, 0]


@pytest.mark.parametrize(
    ("name", "formula"),
    [
        ("fast_sigmoid", lambda d: 1 / (1 + 25 * abs(d)) ** 2),
        ("triangular", lambda d: max(0.0, 1 - abs(d) / 0.5)),
        ("atan", lambda d: 1 / (1 + (math.pi * d) ** 2)),
        ("sigmoid", lambda d: 25 * math.exp(-25 * d) / (1 + math.exp(-25 * d)) ** 2),
    ],
)
def test_slope_is_the_published_formula(name: str, formula: object) -> None:
    points = [-0.7, -0.1, -0.01, 0.0, 0.02, 0.3, 0.9]
    expected = torch.tensor([formula(d) for d in points])  # type: ignore[operator]
    torch.testing.assert_close(slope(name, torch.tensor(points)), expected, rtol=1e-4, atol=1e-12)


@pytest.mark.parametrize("name", SURROGATES)
def test_slope_is_finite_however_far_from_the_threshold(name: str) -> None:
    # A neuron with inhibitory input lies many thresholds below its own; one NaN there ruins every weight.
    distance = torch.tensor([-1000.0, -50.0, -5.0, -3.0, 3.0, 5.0, 50.0, 1000.0])
    assert slope(name, distance).isfinite().all()


@pytest.mark.parametrize("name", SURROGATES)
def test_slope_is_never_negative_and_greatest_at_the_threshold(name: str) -> None:
    distance = torch.linspace(-3, 3, 601)
    slopes = slope(name, distance)
    assert (slopes >= 0).all()
    assert slope(name, torch.zeros(1))[0] >= 0.9999 * slopes.max() > slopes[0]


def test_every_surrogate_that_settings_offer_exists_and_no_other() -> None:
    choices = Settings.__dataclass_fields__["surrogate"].metadata["choices"]
    assert set(choices) == set(SURROGATES)
