"""TD3's formulas on literals, and one whole update against plain autograd."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from training.actor import Spaces
from training.critic import TwinCritic
from training.replay import Batch
from training.settings import Settings
from training.td3 import TD3, critic_loss, smoothing_noise, td_target

LOW, HIGH = np.float32([-1, 0]), np.float32([3, 0.5])
SPACES = Spaces(3, LOW, HIGH)


def agent(**settings: object) -> TD3:
    torch.manual_seed(0)
    made = TD3(SPACES, Settings(**{"hidden": (16,), "critic_hidden": (12, 10), "population": 5} | settings), CPU)
    with torch.no_grad():  # wide enough for every layer to spike
        for layer, target in zip(made.actor.layers, made.actor_target.layers, strict=True):
            layer.weight *= 4
            target.weight.copy_(layer.weight * 1.1)
        for target in made.critic_target.parameters():  # online and target must be told apart
            target.add_(0.1 * torch.randn_like(target))
    return made


CPU = torch.device("cpu")


def batch(seed: int = 0, size: int = 40) -> Batch:
    g = torch.Generator().manual_seed(seed)
    o_tm1, o_t = torch.randn(2, size, 3, generator=g)
    a_tm1 = torch.from_numpy(LOW) + torch.rand(size, 2, generator=g) * torch.from_numpy(HIGH - LOW)
    return Batch(o_tm1, a_tm1, torch.randn(size, generator=g), o_t, (torch.rand(size, generator=g) < 0.3).float())


def mlps(critic: TwinCritic) -> nn.ModuleList:
    """The two critics as ordinary MLPs with the same weights."""
    out = nn.ModuleList()
    for k in (0, 1):
        modules: list[nn.Module] = []
        for weight, bias in zip(critic.weights, critic.biases, strict=True):
            linear = nn.Linear(weight.shape[1], weight.shape[2])
            linear.weight.data, linear.bias.data = weight[k].detach().T.clone(), bias[k, 0].detach().clone()
            modules += [linear, nn.ReLU()]
        out.append(nn.Sequential(*modules[:-1]))
    return out


def assert_same_critic(critic: TwinCritic, reference: nn.ModuleList) -> None:
    for mine, theirs in zip(mlps(critic).parameters(), reference.parameters(), strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-5, atol=1e-6)


def assert_same(mine: nn.Module, reference: nn.Module) -> None:
    for (name, a), b in zip(mine.named_parameters(), reference.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-6, msg=lambda text, name=name: f"{name}: {text}")


def test_the_target_bootstraps_from_the_smaller_critic_unless_terminated() -> None:
    target = td_target(
        torch.tensor([1.0, 2.0, -3.0]),
        torch.tensor([0.0, 1.0, 0.0]),
        torch.tensor([[10.0, 50.0, -4.0], [20.0, 40.0, 8.0]]),
        gamma=0.5,
    )
    assert target.tolist() == [6.0, 2.0, -5.0]


def test_the_critic_loss_is_the_sum_of_both_mean_squared_errors() -> None:
    q = torch.tensor([[1.0, 2.0], [5.0, -1.0]])
    assert critic_loss(q, torch.tensor([0.0, 4.0])).item() == (1 + 4) / 2 + (25 + 25) / 2


def test_smoothing_noise_is_clipped_in_each_dimensions_own_units() -> None:
    torch.manual_seed(0)
    noise = smoothing_noise(torch.zeros(5000, 2), 1.0, 0.5, torch.tensor([1.0, 8.0]))
    assert noise.amin(0).tolist() == [-0.5, -4.0]
    assert noise.amax(0).tolist() == [0.5, 4.0]


def test_smoothing_noise_has_its_std_in_each_dimensions_own_units() -> None:
    torch.manual_seed(0)
    noise = smoothing_noise(torch.zeros(20_000, 2), 0.2, 10.0, torch.tensor([1.0, 8.0]))
    torch.testing.assert_close(noise.std(0), torch.tensor([0.2, 1.6]), rtol=0.03, atol=0)
    assert noise.mean(0).abs().max() < 0.05


@pytest.mark.parametrize("policy_delay", [1, 2, 3])
def test_updates_equal_a_plain_reference(policy_delay: int) -> None:
    """Three updates: critic step each time, actor step and polyak averaging each `policy_delay`-th time."""
    tested = agent(policy_delay=policy_delay, polyak=0.9, gamma=0.8, target_noise=0.7, noise_clip=0.6)
    critics, critic_targets = mlps(tested.critic), mlps(tested.critic_target)
    actor, actor_target = copy.deepcopy(tested.actor), copy.deepcopy(tested.actor_target)
    critic_adam = torch.optim.Adam(critics.parameters(), lr=1e-3, foreach=False)
    actor_adam = torch.optim.Adam(actor.parameters(), lr=3e-4, foreach=False)
    low, high = torch.from_numpy(LOW), torch.from_numpy(HIGH)

    def q(networks: nn.ModuleList, o: Tensor, a: Tensor) -> list[Tensor]:
        return [network(torch.cat([o, a], 1)).squeeze(1) for network in networks]

    for number in (1, 2, 3):
        data = batch(number)
        torch.manual_seed(100 + number)
        losses = tested.update(data)

        torch.manual_seed(100 + number)
        with torch.no_grad():
            noise = (0.7 * torch.randn(40, 2)).clamp(-0.6, 0.6) * torch.tensor([2.0, 0.25])
            a_t = torch.minimum(torch.maximum(actor_target(data.o_t) + noise, low), high)
            q_t = torch.minimum(*q(critic_targets, data.o_t, a_t))
            target = torch.where(data.terminated > 0, data.r_t, data.r_t + 0.8 * q_t)
        loss = sum(nn.functional.mse_loss(value, target) for value in q(critics, data.o_tm1, data.a_tm1))
        critic_adam.zero_grad()
        loss.backward()
        critic_adam.step()
        torch.testing.assert_close(losses["critic_loss"], loss.detach())
        assert_same_critic(tested.critic, critics)

        assert ("actor_loss" in losses) == (number % policy_delay == 0)
        if number % policy_delay == 0:
            actor_loss = -q(critics, data.o_tm1, actor(data.o_tm1))[0].mean()
            actor_adam.zero_grad()
            actor_loss.backward()
            assert all(p.grad is not None and p.grad.any() for p in actor.parameters())
            actor_adam.step()
            torch.testing.assert_close(losses["actor_loss"], actor_loss.detach())
            for target_net, online in ((critic_targets, critics), (actor_target, actor)):
                for old, new in zip(target_net.parameters(), online.parameters(), strict=True):
                    old.data = 0.9 * old.data + 0.1 * new.data
        assert_same(tested.actor, actor)
        assert_same(tested.actor_target, actor_target)
        assert_same_critic(tested.critic_target, critic_targets)


def test_the_actor_step_leaves_the_critics_their_parameters_and_gradients() -> None:
    with_actor, without = agent(policy_delay=1), agent(policy_delay=1000)
    before = copy.deepcopy(with_actor.actor)
    for tested in (with_actor, without):
        torch.manual_seed(5)
        tested.update(batch())
    for mine, reference in zip(with_actor.critic.parameters(), without.critic.parameters(), strict=True):
        assert torch.equal(mine, reference)
        assert mine.grad is not None and torch.equal(mine.grad, reference.grad)  # type: ignore[arg-type]
        assert mine.requires_grad
    assert any(not torch.equal(a, b) for a, b in zip(before.parameters(), with_actor.actor.parameters(), strict=True))
    assert all(torch.equal(a, b) for a, b in zip(before.parameters(), without.actor.parameters(), strict=True))


def test_targets_start_equal_to_the_networks_and_take_no_gradient() -> None:
    torch.manual_seed(0)
    fresh = TD3(SPACES, Settings(hidden=(8,)), CPU)
    for target, online in ((fresh.actor_target, fresh.actor), (fresh.critic_target, fresh.critic)):
        for a, b in zip(target.parameters(), online.parameters(), strict=True):
            assert torch.equal(a, b) and a.data_ptr() != b.data_ptr() and not a.requires_grad


def test_acting_is_deterministic_and_records_no_gradient() -> None:
    tested, o = agent(), batch().o_tm1
    first = tested.act(o)
    assert torch.equal(first, tested.act(o)) and not first.requires_grad
    assert torch.equal(first, tested.actor(o).detach())


def test_under_bf16_the_actors_products_alone_are_bf16() -> None:
    tested = agent(bf16=True, policy_delay=1)
    seen: dict[str, set[torch.dtype]] = {"actor": set(), "critic": set()}
    for module in (tested.actor.layers, tested.actor_target.layers):
        for layer in module:
            layer.register_forward_hook(lambda m, i, out: seen["actor"].add(out.dtype))
    for critic in (tested.critic, tested.critic_target):
        critic.register_forward_hook(lambda m, i, out: seen["critic"].update({out.dtype, *(x.dtype for x in i)}))
    losses = tested.update(batch())
    assert tested.act(batch().o_tm1).dtype == torch.float32
    assert seen == {"actor": {torch.bfloat16}, "critic": {torch.float32}}
    assert {loss.dtype for loss in losses.values()} == {torch.float32}
    for module in (tested.actor, tested.critic, tested.actor_target, tested.critic_target):
        assert {p.dtype for p in module.parameters()} == {torch.float32}
        assert {p.grad.dtype for p in module.parameters() if p.grad is not None} <= {torch.float32}


def test_under_bf16_the_critic_tells_values_near_a_thousand_apart() -> None:
    tested = agent(bf16=True)  # BF16 resolves 4 at 1000
    with torch.no_grad():
        for critic in (tested.critic, tested.critic_target):
            critic.biases[-1].fill_(1000.0)
            critic.weights[-1].zero_()
        tested.critic.biases[-1].fill_(1000.25)
    data = batch()
    data = Batch(data.o_tm1, data.a_tm1, torch.zeros(40), data.o_t, torch.zeros(40))
    assert tested.update(data)["critic_loss"].item() == pytest.approx(2 * (1000.25 - 990) ** 2, rel=1e-4)


def test_bf16_actions_are_near_those_in_float32() -> None:
    o = batch(size=200).o_tm1
    difference = (agent(bf16=True).act(o) - agent().act(o)).abs() / torch.from_numpy(HIGH - LOW)
    assert 0 < difference.mean() < 0.1


def test_the_state_is_complete_and_does_not_move_with_the_networks() -> None:
    tested = agent(policy_delay=1)
    tested.update(batch())
    state = tested.state_dict()
    kept = state["actor"]["layers.0.weight"].clone()  # type: ignore[index]
    assert torch.equal(kept, tested.actor.layers[0].weight)
    tested.update(batch(1))
    assert torch.equal(state["actor"]["layers.0.weight"], kept)  # type: ignore[index]
    assert not torch.equal(tested.actor.layers[0].weight, kept)
    assert state["updates"] == 1 and tested.updates == 2
    other = agent()
    other.critic.load_state_dict(state["critic"])  # type: ignore[arg-type]
    other.actor_optimizer.load_state_dict(state["actor_optimizer"])  # type: ignore[arg-type]
