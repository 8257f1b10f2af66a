"""The stacked twin critic against ordinary MLPs, two a seed."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from training.critic import TwinCritic
from training.stacked import generators_of


def sequential(critic: TwinCritic, seed: int, which: int) -> nn.Sequential:
    """One critic of one seed as an ordinary MLP with the same weights."""
    modules: list[nn.Module] = []
    for weight, bias in zip(critic.weights, critic.biases, strict=True):
        linear = nn.Linear(weight.shape[2], weight.shape[3])
        with torch.no_grad():
            linear.weight.copy_(weight[seed, which].T)
            linear.bias.copy_(bias[seed, which])
        modules += [linear, nn.ReLU()]
    return nn.Sequential(*modules[:-1])


def inputs(seeds: int, batch: int) -> tuple[torch.Tensor, torch.Tensor]:
    g = torch.Generator().manual_seed(1)
    return torch.randn(seeds, batch, 3, generator=g), torch.randn(seeds, batch, 2, generator=g)


@pytest.mark.parametrize("seeds", [[0], [4, 0, 9]])
@pytest.mark.parametrize("hidden", [(16, 12), (9,), (5, 6, 7)])
def test_values_equal_ordinary_mlps(hidden: tuple[int, ...], seeds: list[int]) -> None:
    critic = TwinCritic(3, 2, hidden, generators_of(seeds))
    o, a = inputs(len(seeds), 13)
    expected = torch.stack(
        [
            torch.stack([sequential(critic, i, k)(torch.cat([o[i], a[i]], 1)).squeeze(1) for k in (0, 1)])
            for i in range(len(seeds))
        ]
    )
    torch.testing.assert_close(critic(o, a), expected, rtol=1e-5, atol=1e-6)
    assert not torch.allclose(expected[:, 0], expected[:, 1])


def test_asked_for_one_critic_it_gives_the_first_alone() -> None:
    critic = TwinCritic(3, 2, (8, 7), generators_of([0, 1, 2]))
    o, a = inputs(3, 6)
    both, first = critic(o, a), critic(o, a, 1)
    assert both.shape == (3, 2, 6) and first.shape == (3, 1, 6)
    torch.testing.assert_close(first[:, 0], both[:, 0])


def test_loss_of_one_critic_gives_no_other_a_gradient() -> None:
    critic = TwinCritic(3, 2, (16, 16), generators_of([0, 1, 2]))
    critic(*inputs(3, 8))[1, 0].square().sum().backward()
    for parameter in critic.parameters():
        assert parameter.grad is not None
        assert parameter.grad[1, 0].any()
        parameter.grad[1, 0] = 0
        assert not parameter.grad.any()


def test_a_seeds_critics_start_beside_others_as_they_would_alone() -> None:
    together = TwinCritic(3, 2, (8, 7), generators_of([5, 6]))
    for place, seed in enumerate([5, 6]):
        alone = TwinCritic(3, 2, (8, 7), generators_of([seed]))
        for mine, reference in zip(together.parameters(), alone.parameters(), strict=True):
            assert torch.equal(mine[place], reference[0])


def test_both_critics_start_different_and_distributed_like_linear_layers() -> None:
    torch.manual_seed(0)
    critic = TwinCritic(90, 10, (400, 300), generators_of([0]))
    for weight, bias, n_in in zip(critic.weights, critic.biases, (100, 400, 300), strict=True):
        assert not torch.equal(weight[0, 0], weight[0, 1])
        linear = nn.Linear(n_in, 200)
        assert weight.abs().max() <= linear.weight.abs().max() * 1.05
        torch.testing.assert_close(weight.std(), linear.weight.std(), rtol=0.15, atol=0)
        assert bias.abs().max() <= n_in**-0.5
