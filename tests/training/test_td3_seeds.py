"""Seeds that are updated together: each is what it would be alone."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from td3_support import CPU, F64, KINDS, SMALL, SPACES, agent, noise_of, parameters, rows_of, statistics_of, transitions

from training.settings import Settings
from training.td3 import TD3


@pytest.mark.parametrize("kind", KINDS)
def test_seeds_updated_together_are_what_each_would_be_alone(kind: dict[str, Any]) -> None:
    seeds = (4, 0, 7)
    together = agent(seeds, F64, policy_delay=2, **kind)
    alone = [agent((seed,), F64, policy_delay=2, **kind) for seed in seeds]
    for number in range(6):
        rows, normal = rows_of(seeds, number, F64, together.batches), noise_of(seeds, number, F64)
        mean, inverse = statistics_of(seeds, F64)
        losses = together.update(rows, normal, (mean, inverse))
        for i, single in enumerate(alone):
            part = slice(i, i + 1)
            its_losses = single.update(rows[part], normal[part], (mean[part], inverse[part]))
            for name, value in its_losses.items():
                torch.testing.assert_close(losses[name][part], value, rtol=1e-12, atol=1e-12)
    for i, single in enumerate(alone):
        theirs = parameters(single)
        for name, parameter in parameters(together).items():
            torch.testing.assert_close(
                parameter[i], theirs[name][0], rtol=1e-12, atol=1e-12, msg=lambda t, n=name: f"{n}: {t}"
            )


@pytest.mark.parametrize("kind", [KINDS[0], *KINDS[2:]])
@pytest.mark.parametrize("what", ["rows", "noise", "statistics", "weights", "not a number"])
def test_what_happens_to_one_seed_leaves_the_others_bit_identical(what: str, kind: dict[str, Any]) -> None:
    seeds = (4, 0, 7)
    plain, other = agent(seeds, policy_delay=2, **kind), agent(seeds, policy_delay=2, **kind)
    if what == "weights":
        with torch.no_grad():
            for parameter in other.actor.parameters():
                parameter[1] *= 1.5
    for number in range(4):
        rows, normal = rows_of(seeds, number, batches=plain.batches), noise_of(seeds, number)
        statistics = statistics_of(seeds)
        plain.update(rows.clone(), normal.clone(), statistics)
        if what == "rows":
            rows[1] = transitions(55, number, rows.shape[1])
        elif what == "noise":
            normal[1] *= -1
        elif what == "statistics":
            statistics[0][1] += 0.5
        elif what == "not a number":
            rows[1] = math.nan
        other.update(rows, normal, statistics)
    theirs = parameters(other)
    for name, parameter in parameters(plain).items():
        assert torch.equal(parameter[[0, 2]], theirs[name][[0, 2]]), name
    assert not torch.equal(plain.critic.weights[0][1], other.critic.weights[0][1])


def test_seeds_start_from_different_weights_and_the_same_seed_from_the_same() -> None:
    first, second = TD3(SPACES, Settings(**SMALL), CPU, (3, 4)), TD3(SPACES, Settings(**SMALL), CPU, (4, 5))
    for module in ("actor", "critic"):
        pair = zip(first._modules()[module].named_parameters(), second._modules()[module].parameters(), strict=True)
        for (name, a), b in pair:
            assert torch.equal(a[1], b[0]), name
            assert name.startswith("encoder") or not torch.equal(a[0], a[1]), name
