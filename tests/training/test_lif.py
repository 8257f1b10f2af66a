"""The fused LIF sequence against a naive loop, forward and backward.

Inputs and decays are dyadic fractions: float32 computes the membrane exactly, so threshold crossings cannot differ.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from snntorch import surrogate as snntorch_surrogate
from torch import Tensor

from training.lif import lif_sequence
from training.surrogate import make_surrogate

KEEP_U, KEEP_V, THRESHOLD = 0.5, 0.75, 0.5
SNNTORCH = {
    "fast_sigmoid": snntorch_surrogate.fast_sigmoid(),
    "sigmoid": snntorch_surrogate.sigmoid(),
    "atan": snntorch_surrogate.atan(),
}
PRIMITIVES: dict[str, Callable[[Tensor], Tensor]] = {  # functions whose derivative is the surrogate's slope
    "rectangular": lambda d: d * (d.abs() < 0.5),
    "fast_sigmoid": lambda d: d / (1 + 25 * d.abs()),
    "sigmoid": lambda d: torch.sigmoid(25 * d),
    "atan": lambda d: torch.atan(math.pi * d) / math.pi,
}


def dyadic_current(seed: int, *shape: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(-24, 33, shape, generator=generator) / 16.0


def plain_lif(current: Tensor, spike: Callable[[Tensor], Tensor]) -> Tensor:
    """The equations step by step, differentiated by autograd."""
    u = v = s = torch.zeros_like(current[0])
    out = []
    for c in current:
        u = KEEP_U * u + c
        v = KEEP_V * v * (1 - s) + u
        s = spike(v - THRESHOLD)
        out.append(s)
    return torch.stack(out)


def straight_through(primitive: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    return lambda d: (d > 0).to(d) + (primitive(d) - primitive(d).detach())


def gradient(function: Callable[[Tensor], Tensor], current: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
    current = current.clone().requires_grad_()
    spikes = function(current)
    (spikes * weight).sum().backward()
    assert current.grad is not None
    return spikes.detach(), current.grad


def ours(name: str) -> Callable[[Tensor], Tensor]:
    return lambda c: lif_sequence(c, KEEP_U, KEEP_V, THRESHOLD, make_surrogate(name, 0.5))


@pytest.mark.parametrize("time_steps", [1, 2, 5])
def test_spikes_equal_a_scalar_loop(time_steps: int) -> None:
    current = dyadic_current(0, time_steps, 7, 11)
    spikes = ours("rectangular")(current)
    assert 0.1 < spikes.mean() < 0.9
    for b in range(7):
        for n in range(11):
            u = v = 0.0
            spiked = False
            for t in range(time_steps):
                u = u * KEEP_U + current[t, b, n].item()
                v = (0.0 if spiked else v * KEEP_V) + u
                spiked = v > THRESHOLD
                assert spikes[t, b, n] == float(spiked)


def test_voltage_at_the_threshold_does_not_spike() -> None:
    current = torch.tensor([[0.5, 0.5 + 2**-20, 0.5 - 2**-20]])
    assert ours("rectangular")(current).tolist() == [[0, 1, 0]]


def test_the_voltage_is_reset_after_a_spike_and_the_current_is_not() -> None:
    # u = 1, .5, .25, .125; v = 1 (spike), .5 (no spike: v restarts), .625 (spike), .125
    assert ours("atan")(torch.tensor([[1.0], [0], [0], [0]])).flatten().tolist() == [1, 0, 1, 0]


@pytest.mark.parametrize("name", PRIMITIVES)
@pytest.mark.parametrize("time_steps", [1, 2, 6])
def test_gradient_equals_float64_autograd_through_the_plain_steps(name: str, time_steps: int) -> None:
    current, weight = dyadic_current(1, time_steps, 5, 8), dyadic_current(2, time_steps, 5, 8)
    spikes, got = gradient(ours(name), current, weight)
    reference = straight_through(PRIMITIVES[name])
    expected_spikes, expected = gradient(lambda c: plain_lif(c, reference), current.double(), weight.double())
    torch.testing.assert_close(spikes.double(), expected_spikes, rtol=0, atol=0)
    assert expected.count_nonzero() > expected.numel() / 10
    torch.testing.assert_close(got.double(), expected, rtol=2e-5, atol=2e-6)


@pytest.mark.parametrize("name", SNNTORCH)
def test_gradient_equals_autograd_with_snntorchs_own_surrogate(name: str) -> None:
    # not too far below the threshold: there snnTorch's own sigmoid overflows
    current, weight = dyadic_current(3, 5, 4, 9).clamp_min(-0.5), dyadic_current(4, 5, 4, 9)
    _, got = gradient(ours(name), current, weight)
    _, expected = gradient(lambda c: plain_lif(c, SNNTORCH[name]), current, weight)
    torch.testing.assert_close(got, expected, rtol=1e-5, atol=1e-6)


def test_other_decays_and_threshold_reach_forward_and_gradient() -> None:
    current = dyadic_current(5, 4, 3, 6).requires_grad_()
    spikes = lif_sequence(current, 0.25, 0.5, 1.25, make_surrogate("atan", 0.5))
    spikes.sum().backward()
    reference = current.detach().double().requires_grad_()
    u = v = s = torch.zeros(3, 6, dtype=torch.float64)
    out = []
    for c in reference:
        u = 0.25 * u + c
        v = 0.5 * v * (1 - s) + u
        s = straight_through(PRIMITIVES["atan"])(v - 1.25)
        out.append(s)
    torch.stack(out).sum().backward()
    torch.testing.assert_close(spikes.double(), torch.stack(out), rtol=0, atol=0)
    assert current.grad is not None and reference.grad is not None
    torch.testing.assert_close(current.grad.double(), reference.grad, rtol=2e-5, atol=2e-6)


def test_bf16_input_is_integrated_in_float32() -> None:
    # 1 + 2^-8 + ... is not representable in BF16: a BF16 membrane would round 0.5 + 2^-10 down to the threshold
    current = torch.tensor([[0.25], [0.1875 + 2**-10]], dtype=torch.bfloat16)
    spikes = ours("rectangular")(current)
    assert spikes.dtype == torch.float32
    u2 = 0.125 + float(current[1, 0])
    assert spikes[1, 0] == float(0.1875 + u2 > THRESHOLD) == 1
