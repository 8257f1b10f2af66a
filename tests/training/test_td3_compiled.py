"""Compiled updates against those that are not."""

from __future__ import annotations

import functools
import math
from typing import Any

import pytest
import torch
from td3_support import ACT, F32, F64, OBS, PROXY, agent, noise_of, parameters, rows_of, statistics_of

from training import lif


@pytest.mark.parametrize(
    ("seeds", "dtype", "settings"),
    [
        ((0,), F32, {"surrogate": "rectangular"}),
        ((4, 0, 7), F64, {"surrogate": "arctan", "hidden": (14, 12)}),
        ((4, 0), F32, {"surrogate": "gaussian", "coding": "poisson"}),
        ((4, 0), F32, {"actor": "mlp", "hidden": (14, 12)}),
        ((4, 0), F64, PROXY | {"readout": "membrane"}),
    ],
)
def test_compiled_updates_equal_those_that_are_not(
    quick_compiler: None, seeds: tuple[int, ...], dtype: torch.dtype, settings: dict[str, Any]
) -> None:
    plain = agent(seeds, dtype, policy_delay=2, **settings)
    compiled = agent(seeds, dtype, compiled=True, policy_delay=2, **settings)
    statistics = statistics_of(seeds, dtype)
    close = functools.partial(torch.testing.assert_close, **tolerance(dtype))
    for number in range(1, 5):
        rows, normal = rows_of(seeds, number, dtype, plain.batches), noise_of(seeds, number, dtype)
        results = []
        for tested in (plain, compiled):
            torch.manual_seed(number)
            with pytest.MonkeyPatch.context() as patch:
                if tested is compiled:
                    patch.setattr(lif, "_LIFSequence", None)  # the compiled form must not need it
                results.append(tested.update(rows, normal, statistics))
        assert set(results[0]) == set(results[1])
        for name, value in results[0].items():
            close(results[1][name], value)
            assert not results[1][name].requires_grad
        for module in plain.learners if number % 2 == 0 else plain.learners.keys() - {"actor"}:
            pairs = zip(plain.learners[module].named_parameters(), compiled.learners[module].parameters(), strict=True)
            for (name, a), b in pairs:
                assert a.grad is not None and b.grad is not None and a.grad.any(), name
                close(b.grad, a.grad, msg=lambda t, n=name: f"{n}: {t}")
    theirs = parameters(compiled)
    for name, parameter in parameters(plain).items():
        torch.testing.assert_close(theirs[name], parameter, rtol=0, atol=2e-5 if dtype == F32 else 1e-11, msg=name)
        assert theirs[name].requires_grad == parameter.requires_grad
    assert compiled.watch.fault() is None
    rows[..., -1, OBS + ACT] = math.nan
    for tested in (plain, compiled):
        tested.update(rows, normal, statistics)
    assert plain.watch.fault() is not None and compiled.watch.fault() == plain.watch.fault()
    assert torch.equal(compiled.watch.first, plain.watch.first)


def tolerance(dtype: torch.dtype) -> dict[str, float]:
    return {"rtol": 1e-4, "atol": 1e-6} if dtype == F32 else {"rtol": 1e-10, "atol": 1e-12}


def test_the_compiled_gradients_need_no_autograd_around_them() -> None:
    made = agent((0, 1))
    rows, normal, statistics = rows_of((0, 1)), noise_of((0, 1)), statistics_of((0, 1))
    for function, arguments in (
        (made.critic_gradients, (rows, normal, *statistics)),
        (made.actor_gradients, (rows, *statistics)),
    ):
        losses, grads, _ = function(*arguments)
        with torch.no_grad():
            its_losses, its_grads, _ = torch.compile(function, backend="aot_eager", fullgraph=True)(*arguments)
        torch.testing.assert_close(its_losses, losses.detach())
        for mine, reference in zip(its_grads, grads, strict=True):
            assert reference.any() and not mine.requires_grad
            torch.testing.assert_close(mine, reference, rtol=1e-4, atol=1e-6)
