"""The proxy of the target actor."""

from __future__ import annotations

import math

import torch
from td3_support import ACT, CPU, OBS, PROXY, SMALL, SPACES, agent, noise_of, rows_of, statistics_of

from training.settings import Settings
from training.td3 import TD3


def test_a_proxy_starts_on_its_own_and_leaves_the_networks_as_they_would_be() -> None:
    fresh, plain = (TD3(SPACES, Settings(**SMALL | kind), CPU, (3, 4)) for kind in (PROXY, {}))
    assert [weight.shape for weight in fresh.actor_target.weights] == [(2, OBS, 13), (2, 13, 11), (2, 11, ACT)]
    assert not torch.equal(*fresh.actor_target.weights[0])
    for name in ("actor", "critic"):
        pairs = zip(fresh.learners[name].parameters(), plain.learners[name].parameters(), strict=True)
        assert all(torch.equal(a, b) for a, b in pairs)


def test_a_proxy_comes_to_act_as_an_actor_that_stays() -> None:
    tested = agent((0, 1), **PROXY | {"actor_lr": 1e-12, "policy_delay": 2, "surrogate": "arctan"})
    before = torch.stack([parameter.clone().sum() for parameter in tested.actor.parameters()])
    losses = []
    for number in range(300):
        rows = rows_of((0, 1), number % 7, batches=2)
        losses.append(tested.update(rows, noise_of((0, 1), number), statistics_of((0, 1)))["proxy_loss"])
    assert (torch.stack(losses[-10:]).mean(0) < 0.15 * losses[0]).all()
    torch.testing.assert_close(torch.stack([p.sum() for p in tested.actor.parameters()]), before)
    assert tested.actor_target.weights[0].requires_grad


def test_a_proxy_that_is_not_finite_is_noted_by_its_name() -> None:
    tested = agent((0, 1), **PROXY)
    rows = rows_of((0, 1), batches=2)
    rows[0, 0, 0] = math.nan  # an observation of the first batch: the proxy alone learns from it
    tested.update(rows, noise_of((0, 1)), statistics_of((0, 1)))
    found = tested.watch.fault()
    assert found == (1, "proxy.weights.0")
