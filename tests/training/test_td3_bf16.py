"""Updates whose actor runs in BF16."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from td3_support import ACT, OBS, PROXY, agent, noise_of, rows_of, statistics_of
from torch.utils._python_dispatch import TorchDispatchMode


class Products(TorchDispatchMode):
    """Notes the types and inner sizes of batched matrix products."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: set[tuple[torch.dtype, int, int]] = set()

    def __torch_dispatch__(
        self, function: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        out = function(*args, **(kwargs or {}))
        if function in (torch.ops.aten.bmm.default, torch.ops.aten.baddbmm.default):
            self.seen.add((out.dtype, args[-2].shape[2], args[-1].shape[2]))
        return out


@pytest.mark.parametrize(
    ("kind", "sizes_of_actor"),
    [
        ({}, {(15, 16), (16, 10)}),
        ({"actor": "mlp"}, {(3, 16), (16, 2)}),
        (PROXY | {"proxy_steps": 1}, {(15, 16), (16, 10), (3, 13), (13, 11), (11, 2)}),
    ],
    ids=["spiking", "mlp", "proxy"],
)
def test_under_bf16_the_actors_products_alone_are_bf16(
    kind: dict[str, Any], sizes_of_actor: set[tuple[int, int]]
) -> None:
    tested = agent((0, 1), bf16=True, policy_delay=1, **kind)
    forward = {"actor": sizes_of_actor, "critic": {(5, 12), (12, 10), (10, 1)}}
    dtypes: dict[str, set[torch.dtype]] = {"actor": set(), "critic": set()}
    with Products() as products:
        losses = tested.update(rows_of((0, 1)), noise_of((0, 1)), statistics_of((0, 1)))
    for dtype, *size in products.seen:
        for which, sizes in forward.items():
            if tuple(size) in sizes:
                dtypes[which].add(dtype)
    assert dtypes == {"actor": {torch.bfloat16}, "critic": {torch.float32}}
    assert tested.act(rows_of((0, 1))[..., :OBS]).dtype == torch.float32
    assert {loss.dtype for loss in losses.values()} == {torch.float32}
    for module in tested._modules().values():
        assert {p.dtype for p in module.parameters()} == {torch.float32}
        assert {p.grad.dtype for p in module.parameters() if p.grad is not None} <= {torch.float32}


def test_under_bf16_the_critic_tells_values_near_a_thousand_apart() -> None:
    tested = agent(bf16=True)  # BF16 resolves 4 at 1000
    with torch.no_grad():
        for critic in (tested.critic, tested.critic_target):
            critic.biases[-1].fill_(1000.0)
            critic.weights[-1].zero_()
        tested.critic.biases[-1].fill_(1000.25)
    rows = rows_of([0])
    rows[..., OBS + ACT] = 0.0
    rows[..., -1] = 0.0
    loss = tested.update(rows, noise_of([0]), statistics_of([0]))["critic_loss"]
    assert loss.item() == pytest.approx(2 * (1000.25 - 990) ** 2, rel=1e-4)


def test_updates_in_bf16_go_the_way_of_those_in_float32() -> None:
    short, full = agent((0, 1), bf16=True, policy_delay=1), agent((0, 1), policy_delay=1)
    arguments = (rows_of((0, 1)), noise_of((0, 1)), statistics_of((0, 1)))
    (_, mine, _), (_, reference, _) = (tested.actor_gradients(arguments[0], *arguments[2]) for tested in (short, full))
    assert not torch.equal(mine[2], reference[2])
    for a, b in zip(mine, reference, strict=True):
        assert torch.nn.functional.cosine_similarity(a.flatten(), b.flatten(), dim=0) > 0.9
    losses = [tested.update(*arguments)["critic_loss"] for tested in (short, full)]
    torch.testing.assert_close(losses[0], losses[1], rtol=0.05, atol=0)
