"""The stacked twin critic against two ordinary MLPs."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from training.critic import TwinCritic


def sequential(critic: TwinCritic, which: int) -> nn.Sequential:
    """One of the two critics as an ordinary MLP with the same weights."""
    modules: list[nn.Module] = []
    for weight, bias in zip(critic.weights, critic.biases, strict=True):
        linear = nn.Linear(weight.shape[1], weight.shape[2])
        with torch.no_grad():
            linear.weight.copy_(weight[which].T)
            linear.bias.copy_(bias[which, 0])
        modules += [linear, nn.ReLU()]
    return nn.Sequential(*modules[:-1])


@pytest.mark.parametrize("hidden", [(16, 12), (9,), (5, 6, 7)])
def test_values_equal_two_ordinary_mlps(hidden: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    critic = TwinCritic(3, 2, hidden)
    o, a = torch.randn(13, 3), torch.randn(13, 2)
    expected = torch.stack([sequential(critic, k)(torch.cat([o, a], 1)).squeeze(1) for k in (0, 1)])
    torch.testing.assert_close(critic(o, a), expected, rtol=1e-5, atol=1e-6)
    assert not torch.allclose(expected[0], expected[1])


def test_loss_of_one_critic_gives_the_other_no_gradient() -> None:
    torch.manual_seed(0)
    critic = TwinCritic(3, 2, (16, 16))
    critic(torch.randn(8, 3), torch.randn(8, 2))[0].square().sum().backward()
    for parameter in critic.parameters():
        assert parameter.grad is not None
        assert parameter.grad[0].any()
        assert not parameter.grad[1].any()


def test_both_critics_start_different_and_distributed_like_linear_layers() -> None:
    torch.manual_seed(0)
    critic = TwinCritic(90, 10, (400, 300))
    for weight, bias, n_in in zip(critic.weights, critic.biases, (100, 400, 300), strict=True):
        assert not torch.equal(weight[0], weight[1])
        linear = nn.Linear(n_in, 200)
        assert weight.abs().max() <= linear.weight.abs().max() * 1.05
        torch.testing.assert_close(weight.std(), linear.weight.std(), rtol=0.15, atol=0)
        assert bias.abs().max() <= n_in**-0.5
