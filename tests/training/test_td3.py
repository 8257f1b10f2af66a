"""TD3's formulas on literals, whole updates against naive ones in float64, targets, state."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from naive_td3 import NaiveTD3, clear_rows
from td3_support import (
    ACT,
    BATCH,
    CPU,
    F32,
    F64,
    OBS,
    PROXY,
    SPACES,
    agent,
    assert_same,
    noise_of,
    rows_of,
    statistics_of,
)
from torch import Tensor

from training.settings import Settings
from training.surrogate import SURROGATES
from training.td3 import TD3, critic_loss, smoothing_noise, td_target

FORMS: list[Any] = [
    *(pytest.param({"surrogate": name, "policy_delay": 2}, id=name) for name in SURROGATES),
    *(pytest.param({"surrogate": "gaussian", "policy_delay": delay}, id=f"delay {delay}") for delay in (1, 3)),
    pytest.param({"hidden": (14, 12), "surrogate": "arctan", "policy_delay": 1, "time_steps": 3}, id="two layers"),
    pytest.param({"surrogate": "triangular", "policy_delay": 1, "time_steps": 1, "coding": "poisson"}, id="one step"),
    pytest.param({"surrogate": "fast_sigmoid", "policy_delay": 2, "coding": "poisson"}, id="poisson"),
    pytest.param(
        {"surrogate": "sigmoid", "policy_delay": 1, "surrogate_width": 0.3, "v_threshold": 0.75,
         "current_decay": 0.3, "voltage_decay": 0.6, "observation_clip": 0.8}, id="other constants",
    ),
    pytest.param({"actor": "mlp", "hidden": (14, 12), "policy_delay": 2}, id="mlp"),
    pytest.param({"readout": "membrane", "surrogate": "gaussian", "policy_delay": 2}, id="membrane"),
    pytest.param(
        {"readout": "membrane", "surrogate": "arctan", "policy_delay": 1, "time_steps": 3, "hidden": (14, 12),
         "current_decay": 0.3, "voltage_decay": 0.6}, id="membrane, two layers",
    ),
    pytest.param({**PROXY, "surrogate": "gaussian", "policy_delay": 2}, id="proxy"),
    pytest.param({**PROXY, "surrogate": "arctan", "policy_delay": 1, "proxy_steps": 1}, id="proxy, one step"),
]  # fmt: skip


@pytest.mark.parametrize("dtype", [F64, F32], ids=["float64", "float32"])
@pytest.mark.parametrize("seeds", [(0,), (4, 0, 7)], ids=["one seed", "three seeds"])
@pytest.mark.parametrize("form", FORMS)
def test_three_updates_equal_a_naive_float64_computation(
    form: dict[str, Any], seeds: tuple[int, ...], dtype: torch.dtype
) -> None:
    """Losses, gradients, Adam and polyak averaging of each update, with and without the actor's step."""
    settings = {"polyak": 0.9, "gamma": 0.8, "target_noise": 0.7, "noise_clip": 0.6, "surrogate_width": 0.7} | form
    tested = agent(seeds, dtype, **settings)
    s = tested.settings
    references = [NaiveTD3(tested, i) for i in range(len(seeds))]
    statistics = statistics_of(seeds, dtype)
    loose, proxy = dtype == F32, s.target_actor == "proxy"
    for number in (1, 2, 3):
        rows = clear_rows(references, seeds, number, statistics, tested.batches * BATCH)
        assert 0 < rows[..., -1].mean() < 1
        normal = noise_of(seeds, number)
        with_actor = number % s.policy_delay == 0

        torch.manual_seed(number)
        first = None if proxy else tested.critic_gradients(rows.to(dtype), normal.to(dtype), *statistics)
        torch.manual_seed(number)
        losses = tested.update(rows.to(dtype), normal.to(dtype), statistics)
        applied = {name: [p.grad for p in module.parameters()] for name, module in tested.learners.items()}

        torch.manual_seed(number)
        shape = (len(seeds), s.time_steps, BATCH, OBS * s.population)
        draws = torch.rand(2, *shape) if s.coding == "poisson" else [[None] * len(seeds)] * 2
        learning = ["proxy"] * proxy + ["critic"] + ["actor"] * with_actor
        assert list(losses) == [f"{name}_loss" for name in learning]
        for i, reference in enumerate(references):
            its_statistics = (statistics[0][i], statistics[1][i])
            expected, grads = reference.update(rows[i], normal[i], *its_statistics, [draws[0][i], draws[1][i]])
            for name, value in expected.items():
                assert losses[name].shape == (len(seeds),) and not losses[name].requires_grad
                assert losses[name][i].item() == pytest.approx(value, rel=1e-5 if loose else 1e-12)
            assert first is None or first[0][i].item() == losses["critic_loss"][i].item()
            assert list(grads) == learning
            for which in grads:
                for k, (name, grad) in enumerate(grads[which].items()):
                    own = applied[which][k]
                    assert own is not None and grad.any(), name
                    assert which != "critic" or first is None or torch.equal(own, first[1][k])
                    scale = grad.abs().max().item()
                    atol = scale * (2e-5 if loose else 1e-12)
                    torch.testing.assert_close(
                        own[i].double(), grad, rtol=0, atol=atol, msg=lambda t, n=name: f"{n} {t}"
                    )
            for which, module in tested._modules().items():
                for name, parameter in module.named_parameters():
                    # Adam's first steps magnify the rounding of gradients near zero, at most to the step itself
                    atol = 5e-5 if loose else 1e-10
                    wanted = reference.w[which][name].detach()
                    torch.testing.assert_close(
                        parameter[i].detach().double(), wanted, rtol=0, atol=atol, msg=lambda t, n=name: f"{n} {t}"
                    )


def test_the_target_bootstraps_from_the_smaller_critic_unless_terminated() -> None:
    target = td_target(
        torch.tensor([[1.0, 2.0, -3.0], [0.0, 0.0, 0.0]]),
        torch.tensor([[0.0, 1.0, 0.0], [1.0, 0.0, 0.0]]),
        torch.tensor([[[10.0, 50.0, -4.0], [20.0, 40.0, 8.0]], [[1.0, 2.0, 3.0], [4.0, -2.0, 8.0]]]),
        gamma=0.5,
    )
    assert target.tolist() == [[6.0, 2.0, -5.0], [0.0, -1.0, 1.5]]


def test_the_critic_loss_is_the_sum_of_both_mean_squared_errors_of_each_seed() -> None:
    q = torch.tensor([[[1.0, 2.0], [5.0, -1.0]], [[0.0, 0.0], [1.0, 0.0]]])
    target = torch.tensor([[0.0, 4.0], [2.0, 0.0]])
    assert critic_loss(q, target).tolist() == [(1 + 4) / 2 + (25 + 25) / 2, 4 / 2 + 1 / 2]


def test_smoothing_noise_is_clipped_in_each_dimensions_own_units() -> None:
    draws = torch.randn(2, 5000, 2, generator=torch.Generator().manual_seed(0))
    noise = smoothing_noise(draws, 1.0, 0.5, torch.tensor([1.0, 8.0]))
    assert noise.flatten(0, 1).amin(0).tolist() == [-0.5, -4.0]
    assert noise.flatten(0, 1).amax(0).tolist() == [0.5, 4.0]
    inside = draws.abs() < 0.5
    assert torch.equal(noise[inside], (draws * torch.tensor([1.0, 8.0]))[inside])


def test_smoothing_noise_has_its_std_in_each_dimensions_own_units() -> None:
    draws = torch.randn(1, 20_000, 2, generator=torch.Generator().manual_seed(0))
    noise = smoothing_noise(draws, 0.2, 10.0, torch.tensor([1.0, 8.0]))
    torch.testing.assert_close(noise.std((0, 1)), torch.tensor([0.2, 1.6]), rtol=0.03, atol=0)
    assert noise.mean((0, 1)).abs().max() < 0.05


def test_gradients_pass_through_the_averaging_before_the_optimizer_takes_them() -> None:
    tested, untouched = agent(policy_delay=1), agent(policy_delay=1)
    seen: list[list[torch.Size]] = []

    def average(grads: list[Tensor]) -> None:
        seen.append([grad.shape for grad in grads])
        for grad in grads:
            grad.zero_()

    tested.average = average
    tested.update(rows_of([0]), noise_of([0]), statistics_of([0]))
    for shapes, module in zip(seen, (tested.critic, tested.actor), strict=True):
        expected = [parameter.shape for parameter in module.parameters()]
        assert shapes[: len(expected)] == expected
    for which in ("critic", "actor"):
        pair = (made._modules()[which].parameters() for made in (tested, untouched))
        for mine, before in zip(*pair, strict=True):
            assert torch.equal(mine, before)  # Adam does not move along a gradient of zero


def test_the_actor_step_leaves_the_critics_their_parameters_and_gradients() -> None:
    with_actor, without = agent((0, 3), policy_delay=1), agent((0, 3), policy_delay=1000)
    before = copy.deepcopy(with_actor.actor)
    for tested in (with_actor, without):
        tested.update(rows_of((0, 3)), noise_of((0, 3)), statistics_of((0, 3)))
    for mine, reference in zip(with_actor.critic.parameters(), without.critic.parameters(), strict=True):
        assert torch.equal(mine, reference)
        assert mine.grad is not None and torch.equal(mine.grad, reference.grad)  # type: ignore[arg-type]
        assert mine.requires_grad
    assert any(not torch.equal(a, b) for a, b in zip(before.parameters(), with_actor.actor.parameters(), strict=True))
    assert all(torch.equal(a, b) for a, b in zip(before.parameters(), without.actor.parameters(), strict=True))


def test_the_step_of_the_caller_decides_on_the_actor_whatever_the_count() -> None:
    by_count, by_caller = agent(policy_delay=2), agent(policy_delay=2)
    for number in (1, 2, 3):
        arguments = (rows_of([0], number), noise_of([0], number), statistics_of([0]))
        by_count.update(*arguments)
        by_caller.step(*arguments, with_actor=number == 2)
    assert_same(by_count, by_caller)
    assert (by_count.updates, by_caller.updates) == (3, 0)


def test_targets_start_equal_to_the_networks_and_take_no_gradient() -> None:
    fresh = TD3(SPACES, Settings(hidden=(8,)), CPU, (0, 1))
    for target, online in ((fresh.actor_target, fresh.actor), (fresh.critic_target, fresh.critic)):
        for a, b in zip(target.parameters(), online.parameters(), strict=True):
            assert torch.equal(a, b) and a.data_ptr() != b.data_ptr() and not a.requires_grad


def test_acting_is_deterministic_and_records_no_gradient() -> None:
    tested, o = agent((0, 1)), rows_of((0, 1))[..., :OBS]
    first = tested.act(o)
    assert torch.equal(first, tested.act(o)) and not first.requires_grad
    assert torch.equal(first, tested.actor(o).detach())
    assert first.shape == (2, BATCH, ACT)


def test_the_state_is_complete_and_does_not_move_with_the_networks() -> None:
    seeds = (0, 5)
    tested = agent(seeds, policy_delay=2)
    for number in range(3):
        tested.update(rows_of(seeds, number), noise_of(seeds, number), statistics_of(seeds))
    state = tested.state_dict()
    kept = copy.deepcopy(state)
    other = agent((8, 9), policy_delay=2)
    other.load_state_dict(copy.deepcopy(state))
    assert_same(tested, other)
    for number in range(3, 6):  # Adam's moments and the count of updates too
        for which in (tested, other):
            which.update(rows_of(seeds, number), noise_of(seeds, number), statistics_of(seeds))
    assert_same(tested, other)
    assert tested.updates == other.updates == 6
    assert state["updates"] == 3
    for name in ("actor", "critic", "actor_target", "critic_target"):
        for key, value in state[name].items():
            assert torch.equal(value, kept[name][key]), key
    assert not torch.equal(tested.actor.weights[0], state["actor"]["weights.0"])
    for which in ("actor_optimizer", "critic_optimizer"):
        for place, moments in state[which]["state"].items():
            assert torch.equal(moments["exp_avg"], kept[which]["state"][place]["exp_avg"])
