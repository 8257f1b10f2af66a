"""Stacked parameters against networks made one by one."""

from __future__ import annotations

import torch
from torch import nn

from training.stacked import generators_of, linear, repeat, uniform


def test_each_network_applies_its_own_affine_map() -> None:
    g = torch.Generator().manual_seed(0)
    x, weight, bias = (torch.randn(*shape, generator=g) for shape in ((3, 7, 4), (3, 4, 5), (3, 5)))
    got = linear(x, weight, bias)
    for i in range(3):
        torch.testing.assert_close(got[i], nn.functional.linear(x[i], weight[i].T, bias[i]), rtol=1e-5, atol=1e-6)


def test_a_network_starts_beside_others_as_it_would_alone() -> None:
    together = generators_of([5, 9, 2])
    first, second = uniform(together, (40, 3), 0.5), uniform(together, (7,), 0.25)
    assert first.shape == (3, 40, 3) and first.requires_grad and isinstance(first, nn.Parameter)
    for place, seed in enumerate([5, 9, 2]):
        alone = generators_of([seed])
        assert torch.equal(uniform(alone, (40, 3), 0.5)[0], first[place])
        assert torch.equal(uniform(alone, (7,), 0.25)[0], second[place])
    assert not torch.equal(first[0], first[1])


def test_starting_draws_nothing_from_the_default_generator() -> None:
    before = torch.get_rng_state()
    uniform(generators_of([1]), (10,), 1.0)
    assert torch.equal(before, torch.get_rng_state())


def test_values_are_uniform_between_minus_the_bound_and_the_bound() -> None:
    drawn = uniform(generators_of([0]), (40_000,), 0.3).detach()
    assert -0.3 <= drawn.min() < -0.299 and 0.299 < drawn.max() <= 0.3
    assert drawn.mean().abs() < 0.004
    torch.testing.assert_close(drawn.std(), torch.tensor(0.3 / 3**0.5), rtol=0.02, atol=0)


def test_repeated_slices_are_equal_and_do_not_share_memory() -> None:
    value = torch.tensor([[1.0, 2.0], [3.0, 4.0]])
    stacked = repeat(value, 3)
    assert stacked.shape == (3, 2, 2) and all(torch.equal(part, value) for part in stacked)
    with torch.no_grad():
        stacked[1] += 1
    assert torch.equal(stacked[0], value) and torch.equal(stacked[2], value) and value[0, 0] == 1
