"""The LIF sequence, written out and as the compiler sees it, against naive loops, forward and backward.

Inputs and decays are dyadic fractions: float32 computes the membrane exactly, so threshold crossings cannot differ.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable

import pytest
import torch
from snntorch import surrogate as snntorch_surrogate
from torch import Tensor

from training import lif
from training.lif import _plain_sequence, last_voltage, lif_sequence
from training.surrogate import SURROGATES, make_surrogate

KEEP_U, KEEP_V, THRESHOLD, WIDTH = 0.5, 0.75, 0.5, 0.5
SNNTORCH = {
    "fast_sigmoid": snntorch_surrogate.fast_sigmoid(),
    "sigmoid": snntorch_surrogate.sigmoid(),
    "arctan": snntorch_surrogate.atan(),
}
SLOPES: dict[str, Callable[[float], float]] = {  # of one number, by the formulas
    "rectangular": lambda d: float(abs(d) < WIDTH),
    "triangular": lambda d: max(0.0, 1 - abs(d) / WIDTH),
    "gaussian": lambda d: math.exp(-(d**2) / (2 * WIDTH**2)),
    "sigmoid": lambda d: 25 * math.exp(-25 * abs(d)) / (1 + math.exp(-25 * abs(d))) ** 2,
    "fast_sigmoid": lambda d: 1 / (1 + 25 * abs(d)) ** 2,
    "arctan": lambda d: 1 / (1 + (math.pi * d) ** 2),
}
PRIMITIVES: dict[str, Callable[[Tensor], Tensor]] = {  # functions whose derivative is the surrogate's slope
    "rectangular": lambda d: d * (d.abs() < 0.5),
    "gaussian": lambda d: math.sqrt(math.pi / 8) * torch.erf(math.sqrt(2) * d),
    "fast_sigmoid": lambda d: d / (1 + 25 * d.abs()),
    "sigmoid": lambda d: torch.sigmoid(25 * d),
    "arctan": lambda d: torch.atan(math.pi * d) / math.pi,
}


def dyadic_current(seed: int, *shape: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(-24, 33, shape, generator=generator) / 16.0


def plain_lif(current: Tensor, spike: Callable[[Tensor], Tensor]) -> Tensor:
    """The equations step by step over the first axis, differentiated by autograd."""
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


def scalar_neuron(
    current: list[float], weight: list[float], slope: Callable[[float], float], *constants: float
) -> tuple[list[float], list[float]]:
    """Spikes of one neuron and d(sum of weight * spikes)/d(current): one forward sensitivity after the other."""
    keep_u, keep_v, threshold = constants
    steps = range(len(current))
    u = v = 0.0
    s = 0.0
    spikes: list[float] = []
    du, dv, ds = ([0.0 for _ in steps] for _ in range(3))  # in the current of each step
    gradient = [0.0 for _ in steps]
    for t in steps:
        u = keep_u * u + current[t]
        for k in steps:
            du[k] = keep_u * du[k] + float(k == t)
            dv[k] = keep_v * (dv[k] * (1 - s) - v * ds[k]) + du[k]
        v = keep_v * v * (1 - s) + u
        s = float(v > threshold)
        for k in steps:
            ds[k] = slope(v - threshold) * dv[k]
            gradient[k] += weight[t] * ds[k]
        spikes.append(s)
    return spikes, gradient


def gradient(function: Callable[[Tensor], Tensor], current: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
    current = current.clone().requires_grad_()
    spikes = function(current)
    (spikes * weight).sum().backward()
    assert current.grad is not None
    return spikes.detach(), current.grad


def ours(name: str) -> Callable[[Tensor], Tensor]:
    return lambda c: lif_sequence(c, KEEP_U, KEEP_V, THRESHOLD, make_surrogate(name, WIDTH))


def test_every_surrogate_has_its_formula_here() -> None:
    assert set(SLOPES) == set(SURROGATES)


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


@pytest.mark.parametrize("name", SURROGATES)
@pytest.mark.parametrize("time_steps", [1, 2, 5])
@pytest.mark.parametrize("form", ["written out", "for the compiler"])
def test_value_and_gradient_equal_a_scalar_loop_in_float64(form: str, time_steps: int, name: str) -> None:
    generator = torch.Generator().manual_seed(time_steps)
    current = 1.5 * torch.randn(2, time_steps, 3, 4, generator=generator, dtype=torch.float64)
    weight = torch.randn(2, time_steps, 3, 4, generator=generator, dtype=torch.float64)
    constants = (0.4, 0.7, 0.6)
    function = {"written out": lif_sequence, "for the compiler": _plain_sequence}[form]
    spikes, got = gradient(lambda c: function(c, *constants, make_surrogate(name, WIDTH)), current, weight)
    assert spikes.dtype == got.dtype == torch.float64
    assert 0.1 < spikes.mean() < 0.9 and got.count_nonzero() >= 4
    for seed in range(2):
        for b in range(3):
            for n in range(4):
                at = (seed, slice(None), b, n)
                neuron = scalar_neuron(current[at].tolist(), weight[at].tolist(), SLOPES[name], *constants)
                assert spikes[at].tolist() == neuron[0]
                assert got[at].tolist() == pytest.approx(neuron[1], rel=1e-12, abs=1e-13)


@pytest.mark.parametrize("name", SURROGATES)
@pytest.mark.parametrize("time_steps", [1, 2, 5])
def test_the_form_for_the_compiler_equals_the_one_written_out(name: str, time_steps: int) -> None:
    generator = torch.Generator().manual_seed(7)
    current = 2 * torch.randn(3, time_steps, 16, 20, generator=generator, dtype=torch.float64)
    weight = torch.randn(3, time_steps, 16, 20, generator=generator, dtype=torch.float64)
    spikes, got = gradient(ours(name), current, weight)
    plain = functools.partial(_plain_sequence, keep_u=KEEP_U, keep_v=KEEP_V, threshold=THRESHOLD)
    expected_spikes, expected = gradient(lambda c: plain(c, slope=make_surrogate(name, WIDTH)), current, weight)
    assert torch.equal(spikes, expected_spikes)
    torch.testing.assert_close(got, expected, rtol=1e-12, atol=1e-13)


def test_compiled_code_takes_the_plain_form_and_gives_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    current, weight = dyadic_current(1, 4, 5, 8), dyadic_current(2, 4, 5, 8)
    spikes, expected = gradient(ours("arctan"), current, weight)
    monkeypatch.setattr(lif, "_LIFSequence", None)  # whoever took it would fail
    compiled = torch.compile(ours("arctan"), backend="aot_eager", fullgraph=True)
    compiled_spikes, got = gradient(compiled, current, weight)
    assert torch.equal(compiled_spikes, spikes)
    torch.testing.assert_close(got, expected)


def test_voltage_at_the_threshold_does_not_spike() -> None:
    current = torch.tensor([[[0.5, 0.5 + 2**-20, 0.5 - 2**-20]]])
    assert ours("rectangular")(current).tolist() == [[[0, 1, 0]]]
    assert _plain_sequence(current, KEEP_U, KEEP_V, THRESHOLD, SURROGATES["arctan"](1.0)).tolist() == [[[0, 1, 0]]]


def test_the_voltage_is_reset_after_a_spike_and_the_current_is_not() -> None:
    # u = 1, .5, .25, .125; v = 1 (spike), .5 (no spike: v restarts), .625 (spike), .125
    assert ours("arctan")(torch.tensor([1.0, 0, 0, 0]).reshape(4, 1, 1)).flatten().tolist() == [1, 0, 1, 0]


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


def test_leading_axes_are_so_many_sequences() -> None:
    current, weight = dyadic_current(6, 3, 2, 4, 5, 6), dyadic_current(7, 3, 2, 4, 5, 6)
    spikes, got = gradient(ours("gaussian"), current, weight)
    for i in range(3):
        for j in range(2):
            alone, its_gradient = gradient(ours("gaussian"), current[i, j], weight[i, j])
            assert torch.equal(spikes[i, j], alone) and torch.equal(got[i, j], its_gradient)


def test_the_input_is_left_alone_and_the_gradient_is_written_nowhere_else() -> None:
    current, weight = dyadic_current(8, 5, 3, 4), dyadic_current(9, 5, 3, 4)
    given, given_weight = current.clone(), weight.clone()
    first = gradient(ours("arctan"), current, weight)
    second = gradient(ours("arctan"), current, weight)
    assert torch.equal(current, given) and torch.equal(weight, given_weight)
    assert torch.equal(first[0], second[0]) and torch.equal(first[1], second[1])


def test_other_decays_and_threshold_reach_forward_and_gradient() -> None:
    current = dyadic_current(5, 4, 3, 6).requires_grad_()
    spikes = lif_sequence(current, 0.25, 0.5, 1.25, make_surrogate("arctan", 0.5))
    spikes.sum().backward()
    reference = current.detach().double().requires_grad_()
    u = v = s = torch.zeros(3, 6, dtype=torch.float64)
    out = []
    for c in reference:
        u = 0.25 * u + c
        v = 0.5 * v * (1 - s) + u
        s = straight_through(PRIMITIVES["arctan"])(v - 1.25)
        out.append(s)
    torch.stack(out).sum().backward()
    torch.testing.assert_close(spikes.double(), torch.stack(out), rtol=0, atol=0)
    assert current.grad is not None and reference.grad is not None
    torch.testing.assert_close(current.grad.double(), reference.grad, rtol=2e-5, atol=2e-6)


def test_bf16_input_is_integrated_in_float32() -> None:
    # 1 + 2^-8 + ... is not representable in BF16: a BF16 membrane would round 0.5 + 2^-10 down to the threshold
    current = torch.tensor([0.25, 0.1875 + 2**-10], dtype=torch.bfloat16).reshape(2, 1, 1)
    spikes = ours("rectangular")(current)
    assert spikes.dtype == torch.float32
    u2 = 0.125 + float(current[1, 0, 0])
    assert spikes[1, 0, 0] == float(0.1875 + u2 > THRESHOLD) == 1


@pytest.mark.parametrize("steps", [1, 2, 5])
def test_the_last_voltage_is_that_of_the_equations_without_spikes(steps: int) -> None:
    current = dyadic_current(1, 2, steps, 7, 3).requires_grad_()  # seeds, time steps, batch, neurons
    voltage = last_voltage(current, KEEP_U, KEEP_V)
    u = v = torch.zeros(2, 7, 3)
    for c in current.unbind(1):
        u = KEEP_U * u + c
        v = KEEP_V * v + u
    torch.testing.assert_close(voltage, v)
    got, wanted = (torch.autograd.grad(value.square().sum(), current)[0] for value in (voltage, v))
    torch.testing.assert_close(got, wanted)
    silent = torch.tensor([[[[-9.0]], [[-1.0]]]])
    assert last_voltage(silent, KEEP_U, KEEP_V).item() == -9 * (KEEP_U + KEEP_V) - 1
