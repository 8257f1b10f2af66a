"""Surrogate slopes against primitives that autograd differentiates, snnTorch's own, and literal points."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from snntorch import surrogate as snntorch_surrogate
from torch import Tensor

from training.settings import Settings
from training.surrogate import SURROGATES, make_surrogate

WIDTHS = [0.3, 0.5, 1.25]


def odd(distance: Tensor, width: float) -> Tensor:
    inside = distance.clamp(-width, width)
    return inside - inside * inside.abs() / (2 * width)


PRIMITIVES: dict[str, Callable[[Tensor, float], Tensor]] = {  # the derivative of each is the slope of that name
    "rectangular": lambda d, width: d.clamp(-width, width),
    "triangular": odd,
    "gaussian": lambda d, width: width * math.sqrt(math.pi / 2) * torch.erf(d / (width * math.sqrt(2))),
    "sigmoid": lambda d, width: torch.sigmoid(25 * d),
    "fast_sigmoid": lambda d, width: d / (1 + 25 * d.abs()),
    "arctan": lambda d, width: torch.atan(math.pi * d) / math.pi,
}
SNNTORCH: dict[str, Callable[[Tensor], Tensor]] = {  # those that it has right; its arctan is called atan
    "fast_sigmoid": snntorch_surrogate.fast_sigmoid(),
    "arctan": snntorch_surrogate.atan(),
    "sigmoid": snntorch_surrogate.sigmoid(),
}


def slope(name: str, distance: Tensor, width: float = 0.5) -> Tensor:
    return make_surrogate(name, width)(distance)


def derivative(function: Callable[[Tensor], Tensor], distance: Tensor) -> Tensor:
    d = distance.clone().requires_grad_()
    (result,) = torch.autograd.grad(function(d).sum(), d)
    return result


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("name", SURROGATES)
def test_slope_is_the_derivative_of_its_primitive(name: str, width: float) -> None:
    distance = torch.linspace(-2.9, 2.9, 777, dtype=torch.float64)  # none of these on an edge of a width
    expected = derivative(lambda d: PRIMITIVES[name](d, width), distance)
    assert expected.count_nonzero() > 30
    torch.testing.assert_close(slope(name, distance, width), expected, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("name", SNNTORCH)
def test_slope_equals_snntorchs_near_the_threshold(name: str) -> None:
    # not too far below it: there snnTorch's own sigmoid overflows
    distance = torch.linspace(-1, 1, 401)
    torch.testing.assert_close(slope(name, distance), derivative(SNNTORCH[name], distance), rtol=1e-4, atol=1e-7)


def test_rectangular_is_one_inside_its_half_width_and_zero_outside() -> None:
    distance = torch.tensor([-0.31, -0.3, -0.29, 0.0, 0.29, 0.3, 0.31])
    assert slope("rectangular", distance, 0.3).tolist() == [0, 0, 1, 1, 1, 0, 0]


def test_triangular_falls_linearly_to_zero_at_its_half_width() -> None:
    distance = torch.tensor([-1.0, -0.5, -0.25, 0.0, 0.125, 0.25, 0.5, 0.75])
    assert slope("triangular", distance, 0.5).tolist() == [0, 0, 0.5, 1, 0.75, 0.5, 0, 0]
    assert slope("triangular", distance, 1.0).tolist() == [0, 0.5, 0.75, 1, 0.875, 0.75, 0.5, 0.25]


def test_gaussian_is_one_at_the_threshold_and_its_width_is_a_standard_deviation() -> None:
    distance = torch.tensor([0.0, 0.25, -0.25, 0.5, -0.75], dtype=torch.float64)
    expected = torch.tensor([1, math.exp(-0.5), math.exp(-0.5), math.exp(-2), math.exp(-4.5)], dtype=torch.float64)
    torch.testing.assert_close(slope("gaussian", distance, 0.25), expected)


@pytest.mark.parametrize(
    ("name", "formula"),
    [
        ("fast_sigmoid", lambda d: 1 / (1 + 25 * abs(d)) ** 2),
        ("triangular", lambda d: max(0.0, 1 - abs(d) / 0.5)),
        ("arctan", lambda d: 1 / (1 + (math.pi * d) ** 2)),
        ("sigmoid", lambda d: 25 * math.exp(-25 * d) / (1 + math.exp(-25 * d)) ** 2),
        ("gaussian", lambda d: math.exp(-(d**2) / (2 * 0.5**2))),
    ],
)
def test_slope_is_the_published_formula(name: str, formula: Callable[[float], float]) -> None:
    points = [-0.7, -0.1, -0.01, 0.0, 0.02, 0.3, 0.9]
    expected = torch.tensor([formula(d) for d in points])
    torch.testing.assert_close(slope(name, torch.tensor(points)), expected, rtol=1e-4, atol=1e-12)


@pytest.mark.parametrize("name", ["sigmoid", "fast_sigmoid", "arctan"])
def test_the_width_leaves_the_slopes_without_one_alone(name: str) -> None:
    distance = torch.linspace(-1, 1, 21)
    assert torch.equal(slope(name, distance, 0.1), slope(name, distance, 2.0))


@pytest.mark.parametrize("name", SURROGATES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_slope_is_finite_however_far_from_the_threshold(name: str, dtype: torch.dtype) -> None:
    # A neuron with inhibitory input lies many thresholds below its own; one NaN there ruins every weight.
    distance = torch.tensor([-1e6, -1000.0, -50.0, -5.0, -3.0, 3.0, 5.0, 50.0, 1000.0, 1e6], dtype=dtype)
    slopes = slope(name, distance)
    assert slopes.dtype == dtype and slopes.shape == distance.shape
    assert slopes.isfinite().all()
    assert slopes[0] <= 1e-9 and slopes[-1] <= 1e-9


@pytest.mark.parametrize("name", SURROGATES)
def test_slope_is_never_negative_symmetric_and_greatest_at_the_threshold(name: str) -> None:
    distance = torch.linspace(-3, 3, 601)
    slopes = slope(name, distance)
    assert (slopes >= 0).all()
    torch.testing.assert_close(slopes, slope(name, -distance))
    assert slope(name, torch.zeros(1))[0] >= 0.9999 * slopes.max() > slopes[0]


def test_every_surrogate_that_settings_offer_exists_and_no_other() -> None:
    choices = Settings.__dataclass_fields__["surrogate"].metadata["choices"]
    assert set(choices) == set(SURROGATES) == set(PRIMITIVES)
