"""TD3's formulas on literals, whole updates against naive ones in float64, seeds apart, compiled, and its faults."""

from __future__ import annotations

import copy
import functools
import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from spikerl_deploy.errors import SpikerlError
from training import lif
from training.actor import ENCODER_THRESHOLD, Spaces, SpikingActor
from training.distributed import Group, Place
from training.faults import Faults
from training.settings import Settings
from training.surrogate import SURROGATES
from training.td3 import TD3, Statistics, critic_loss, smoothing_noise, td_target

CPU = torch.device("cpu")
LOW, HIGH = np.float32([-1, 0]), np.float32([3, 0.5])
SPACES = Spaces(3, LOW, HIGH)
OBS, ACT = 3, 2
BATCH = 24
F32, F64 = torch.float32, torch.float64
SMALL: dict[str, Any] = {"hidden": (16,), "critic_hidden": (12, 10), "population": 5}
PROXY: dict[str, Any] = {"target_actor": "proxy", "proxy_hidden": (13, 11), "proxy_steps": 2, "proxy_lr": 5e-3}
KINDS: list[Any] = [
    pytest.param({"surrogate": "rectangular"}, id="rectangular"),
    pytest.param({"surrogate": "arctan"}, id="arctan"),
    pytest.param({"actor": "mlp"}, id="mlp"),
    pytest.param(PROXY, id="proxy"),
    pytest.param({"readout": "membrane"}, id="membrane"),
]


def agent(seeds: tuple[int, ...] = (0,), dtype: torch.dtype = F32, compiled: bool = False, **settings: Any) -> TD3:
    """Weights wide enough for every layer to spike, targets unlike the networks; no seed depends on the others."""
    made = TD3(SPACES, Settings(**SMALL | settings), CPU, seeds, compiled)
    with torch.no_grad():
        for weight, target in zip(made.actor.weights, made.actor_target.weights, strict=False):
            weight *= 4
            if made.settings.target_actor == "copy":
                target.copy_(weight * 1.1)
        for place, seed in enumerate(seeds):
            g = torch.Generator().manual_seed(1000 + seed)
            if isinstance(made.actor, SpikingActor):
                for parameter in (made.actor.encoder.mean, made.actor.encoder.std):
                    parameter[place] *= 1 + 0.2 * torch.rand(parameter.shape[1:], generator=g)
            for parameter in made.critic_target.parameters():  # online and target must be told apart
                parameter[place] += 0.1 * torch.randn(parameter.shape[1:], generator=g)
    for module in made._modules().values():
        module.to(dtype)
    made.low, made.high = made.low.to(dtype), made.high.to(dtype)
    return made


def statistics_of(seeds: Iterable[int], dtype: torch.dtype = F32) -> Statistics:
    """Mean and inverse standard deviation, another of each seed."""
    mean = torch.stack([torch.tensor([0.2, -0.1, 0.3]) + 0.1 * seed for seed in seeds])
    inverse = torch.stack([torch.tensor([0.9, 1.2, 1.5]) + 0.05 * seed for seed in seeds])
    return mean.to(dtype), inverse.to(dtype)


def transitions(seed: int, number: int, size: int = BATCH) -> Tensor:
    """Rows [size, width] of one seed: actions between the bounds, three in ten terminated."""
    g = torch.Generator().manual_seed(10_000 * seed + number)
    o_tm1, o_t = torch.randn(2, size, OBS, generator=g)
    a_tm1 = torch.from_numpy(LOW) + torch.rand(size, ACT, generator=g) * torch.from_numpy(HIGH - LOW)
    r_t = torch.randn(size, 1, generator=g)
    terminated = (torch.rand(size, 1, generator=g) < 0.3).float()
    return torch.cat([o_tm1, a_tm1, r_t, o_t, terminated], 1)


def rows_of(seeds: Iterable[int], number: int = 0, dtype: torch.dtype = F32, batches: int = 1) -> Tensor:
    return torch.stack([transitions(seed, number, batches * BATCH) for seed in seeds]).to(dtype)


def noise_of(seeds: Iterable[int], number: int = 0, dtype: torch.dtype = F32) -> Tensor:
    draws = [torch.randn(BATCH, ACT, generator=torch.Generator().manual_seed(777 + 10_000 * s + number)) for s in seeds]
    return torch.stack(draws).to(dtype)


def parameters(made: TD3) -> dict[str, Tensor]:
    """Parameters of all four networks by name."""
    return {f"{which}.{name}": p for which, module in made._modules().items() for name, p in module.named_parameters()}


def assert_same(mine: TD3, reference: TD3) -> None:
    theirs = parameters(reference)
    for name, parameter in parameters(mine).items():
        assert torch.equal(parameter, theirs[name]), name


# The reference: one seed at a time, one time step after the other, in float64, differentiated by plain autograd
# through functions whose derivative is the surrogate's slope.

PRIMITIVES: dict[str, Callable[[Tensor, float], Tensor]] = {
    "rectangular": lambda d, w: d.clamp(-w, w),
    "triangular": lambda d, w: d.clamp(-w, w) - d.clamp(-w, w) * d.clamp(-w, w).abs() / (2 * w),
    "gaussian": lambda d, w: w * math.sqrt(math.pi / 2) * torch.erf(d / (w * math.sqrt(2))),
    "sigmoid": lambda d, w: torch.sigmoid(25 * d),
    "fast_sigmoid": lambda d, w: d / (1 + 25 * d.abs()),
    "arctan": lambda d, w: torch.atan(math.pi * d) / math.pi,
}
Weights = dict[str, Tensor]


def leaves(module: nn.Module, seed: int) -> Weights:
    """Float64 copies of the parameters of one seed."""
    return {name: p.detach()[seed].double().clone().requires_grad_() for name, p in module.named_parameters()}


def replaced(value: Tensor, derivative_of: Tensor) -> Tensor:
    """`value` with the derivative of another expression."""
    return value.detach() + derivative_of - derivative_of.detach()


@dataclass
class NaiveNetworks:
    """Formulas of actor and critic for one seed. `margin` [B]: how near any comparison of a row came to a tie."""

    settings: Settings
    margin: Tensor

    def compare(self, distance: Tensor, row_axis: int = 0) -> Tensor:
        near = distance.detach().abs().movedim(row_axis, 0).flatten(1).amin(1)
        self.margin = torch.minimum(self.margin, near)
        return (distance > 0).double()

    def actor(self, w: Weights, o: Tensor, draws: Tensor | None) -> Tensor:
        """Actions [B, act_dim] for o [B, obs_dim]; Poisson coding compares with draws [T, B, n]."""
        low, high = torch.from_numpy(LOW).double(), torch.from_numpy(HIGH).double()
        drive = self.spiking(w, o, draws) if "encoder.mean" in w else self.mlp(w, o)
        return low + (torch.tanh(drive) + 1) / 2 * (high - low)

    def mlp(self, w: Weights, o: Tensor) -> Tensor:
        *hidden, last = [name for name in w if name.startswith("weights.")]
        for name in hidden:
            o = nn.functional.linear(o, w[name].T, w[name.replace("weights", "biases")]).clamp_min(0)
        return nn.functional.linear(o, w[last].T, w[last.replace("weights", "biases")])

    def spiking(self, w: Weights, o: Tensor, draws: Tensor | None) -> Tensor:
        s = self.settings
        layers = len([name for name in w if name.startswith("weights.")])
        std = w["encoder.std"].clamp_min(1e-3)
        activation = torch.exp(-((o[:, :, None] - w["encoder.mean"]) ** 2) / (2 * std**2)).reshape(len(o), -1)
        level = torch.zeros_like(activation)
        states = [[torch.zeros(len(o), w[f"biases.{k}"].shape[0], dtype=F64)] * 3 for k in range(layers)]
        count = torch.zeros_like(states[-1][0])
        for t in range(s.time_steps):
            if draws is not None:
                x = (draws[t].double() < activation).double()
            else:
                level = level + activation.detach()
                x = self.compare(level - ENCODER_THRESHOLD)
                level = level - ENCODER_THRESHOLD * x
            x = replaced(x, activation)
            for k in range(layers):
                u, v, spike = states[k]
                u = s.current_decay * u + nn.functional.linear(x, w[f"weights.{k}"].T, w[f"biases.{k}"])
                v = s.voltage_decay * v * (1 - spike) + u
                if s.readout == "membrane" and k == layers - 1:
                    states[k] = [u, v, spike]  # which stays 0
                    break
                x = replaced(
                    self.compare(v - s.v_threshold),
                    PRIMITIVES[s.surrogate](v - s.v_threshold, s.surrogate_width),
                )
                if s.surrogate == "rectangular":
                    self.compare((v - s.v_threshold).abs() - s.surrogate_width)
                states[k] = [u, v, x]
            count = count + states[-1][2]
        read = states[-1][1] if s.readout == "membrane" else count / s.time_steps
        rates = read.reshape(len(o), ACT, -1)
        return torch.einsum("bap,ap->ba", rates, w["decoder_weight"]) + w["decoder_bias"]

    def critic(self, w: Weights, which: int, o: Tensor, a: Tensor) -> Tensor:
        """Values [B] of one of the twins."""
        x = torch.cat([o, a], 1)
        layers = len([name for name in w if name.startswith("weights.")])
        for k in range(layers):
            x = nn.functional.linear(x, w[f"weights.{k}"][which].T, w[f"biases.{k}"][which])
            x = x if k == layers - 1 else torch.relu(x)
        return x[:, 0]


class Adam:
    """Kingma and Ba's formulas with their constants."""

    def __init__(self, lr: float) -> None:
        self.lr, self.t, self.m, self.v = lr, 0, {}, {}  # type: ignore[var-annotated]

    def step(self, w: Weights, grads: Weights) -> None:
        self.t += 1
        for name, g in grads.items():
            self.m[name] = 0.9 * self.m.get(name, 0.0) + 0.1 * g
            self.v[name] = 0.999 * self.v.get(name, 0.0) + 0.001 * g * g
            m, v = self.m[name] / (1 - 0.9**self.t), self.v[name] / (1 - 0.999**self.t)
            w[name].data = w[name].data - self.lr * m / (v.sqrt() + 1e-8)


class NaiveTD3:
    """One seed of TD3."""

    def __init__(self, made: TD3, seed: int) -> None:
        self.s = made.settings
        self.w = {name: leaves(module, seed) for name, module in made._modules().items()}
        self.adam = {
            "actor": Adam(self.s.actor_lr), "critic": Adam(self.s.critic_lr), "actor_target": Adam(self.s.proxy_lr)
        }  # fmt: skip
        self.nets = NaiveNetworks(self.s, torch.tensor([]))
        self.updates = 0

    def margins(self, rows: Tensor, mean: Tensor, inverse: Tensor) -> Tensor:
        """How near each row [B] comes to a tie where a comparison decides."""
        self.nets.margin = torch.full((len(rows),), math.inf, dtype=F64)
        for which, columns in (("actor", slice(0, OBS)), ("actor_target", slice(OBS + ACT + 1, 2 * OBS + ACT + 1))):
            observation = self.normalized(rows[:, columns].double(), mean, inverse)
            self.nets.actor(self.w[which], observation, None)
        return self.nets.margin

    def normalized(self, o: Tensor, mean: Tensor, inverse: Tensor) -> Tensor:
        bound = torch.tensor(self.s.observation_clip, dtype=F64)
        return torch.minimum(torch.maximum((o - mean.double()) * inverse.double(), -bound), bound)

    def update(
        self, rows: Tensor, normal: Tensor, mean: Tensor, inverse: Tensor, draws: list[Tensor | None]
    ) -> tuple[dict[str, float], dict[str, Weights]]:
        """Losses and gradients of one update, after which the networks have moved.

        With a proxy of the target actor `rows` are several batches, the last one the update's.
        """
        self.updates += 1
        s, w, rows = self.s, self.w, rows.double()
        self.nets.margin = torch.full((BATCH,), math.inf, dtype=F64)
        losses, grads = {}, {}
        if s.target_actor == "proxy":
            *_, rows = batches = rows.split(BATCH)
            for batch in batches:
                o_tm1 = self.normalized(batch[:, :OBS], mean, inverse)
                apart = (
                    self.nets.actor(w["actor_target"], o_tm1, None) - self.nets.actor(w["actor"], o_tm1, None).detach()
                )
                relative = apart / torch.from_numpy((HIGH - LOW) / 2).double()
                losses["proxy_loss"] = (relative**2).sum() / (BATCH * ACT)
                grads["proxy"] = self.descend("actor_target", losses["proxy_loss"])
        o_tm1, o_t = (self.normalized(rows[:, at : at + OBS], mean, inverse) for at in (0, OBS + ACT + 1))
        a_tm1, r_t, ends = rows[:, OBS : OBS + ACT], rows[:, OBS + ACT], rows[:, -1]
        low, high = torch.from_numpy(LOW).double(), torch.from_numpy(HIGH).double()
        noise = (s.target_noise * normal.double()).clamp(-s.noise_clip, s.noise_clip) * (high - low) / 2
        a_t = (self.nets.actor(w["actor_target"], o_t, draws[0]) + noise).clamp(low, high)
        q_t = torch.minimum(*(self.nets.critic(w["critic_target"], k, o_t, a_t) for k in (0, 1)))
        target = torch.where(ends > 0, r_t, r_t + s.gamma * q_t).detach()
        errors = [self.nets.critic(w["critic"], k, o_tm1, a_tm1) - target for k in (0, 1)]
        losses["critic_loss"] = sum((error**2).sum() / len(rows) for error in errors)
        grads["critic"] = self.descend("critic", losses["critic_loss"])
        if self.updates % s.policy_delay == 0:
            action = self.nets.actor(w["actor"], o_tm1, draws[1])
            losses["actor_loss"] = -self.nets.critic(w["critic"], 0, o_tm1, action).sum() / len(rows)
            grads["actor"] = self.descend("actor", losses["actor_loss"])
            for name in ("actor", "critic") if s.target_actor == "copy" else ("critic",):
                for key, old in w[f"{name}_target"].items():
                    old.data = s.polyak * old.data + (1 - s.polyak) * w[name][key].data
        return {name: loss.item() for name, loss in losses.items()}, grads

    def descend(self, name: str, loss: Tensor) -> Weights:
        w = self.w[name]
        grads = dict(zip(w, torch.autograd.grad(loss, list(w.values())), strict=True))
        self.adam[name].step(w, grads)
        return grads


def clear_rows(
    references: list[NaiveTD3], seeds: tuple[int, ...], number: int, statistics: Statistics, size: int = BATCH
) -> Tensor:
    """Rows [S, size, width] none of which comes so near to a threshold that float32 may decide otherwise."""
    out = []
    for i, seed in enumerate(seeds):
        candidates = transitions(seed, number, 2 * size)
        clear = candidates[references[i].margins(candidates, statistics[0][i], statistics[1][i]) > 5e-5]
        assert len(clear) >= size
        out.append(clear[:size])
    return torch.stack(out)


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


@pytest.fixture
def quick_compiler(monkeypatch: pytest.MonkeyPatch) -> None:
    """Traced as always; the graph is run by torch itself, since making code of it takes half a minute."""
    torch.compiler.reset()
    monkeypatch.setattr("training.td3.torch.compile", functools.partial(torch.compile, backend="aot_eager"))


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


def test_acting_is_deterministic_and_records_no_gradient() -> None:
    tested, o = agent((0, 1)), rows_of((0, 1))[..., :OBS]
    first = tested.act(o)
    assert torch.equal(first, tested.act(o)) and not first.requires_grad
    assert torch.equal(first, tested.actor(o).detach())
    assert first.shape == (2, BATCH, ACT)


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


# What is not finite.


def faulty(made: TD3, number: int) -> None:
    made.update(rows_of(made.seeds, number), noise_of(made.seeds, number), statistics_of(made.seeds))


def test_finite_updates_have_no_fault() -> None:
    tested = agent((0, 1), policy_delay=1)
    assert tested.watch.fault() is None
    for number in range(3):
        faulty(tested, number)
    assert tested.watch.fault() is None
    assert (tested.watch.first == -1).all()


@pytest.mark.parametrize(
    ("column", "bad"),
    [  # an infinite observation is clipped like any that is too large; those are for check_environment
        *((column, math.nan) for column in (0, OBS, OBS + ACT, OBS + ACT + 1)),
        *((column, sign * math.inf) for column in (OBS, OBS + ACT) for sign in (1, -1)),
    ],
)
def test_a_row_that_is_not_finite_is_noted_at_its_update_and_stays_noted(column: int, bad: float) -> None:
    tested = agent((0, 1), policy_delay=2)
    faulty(tested, 0)
    rows = rows_of((0, 1), 1)
    rows[1, 5, column] = bad
    rows[..., -1] = 0
    tested.update(rows, noise_of((0, 1), 1), statistics_of((0, 1)))
    found = tested.watch.fault()
    assert found is not None and found[0] == 2 and found[1].startswith("critic.")
    for number in (2, 3):
        faulty(tested, number)
        assert tested.watch.fault() == found


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("decoder_weight", "actor.decoder_weight"),
        ("biases.1", "actor.encoder.mean"),
    ],
)
def test_a_weight_of_the_actor_that_is_not_finite_is_noted_at_the_first_actor_update(name: str, expected: str) -> None:
    tested = agent((0, 1), policy_delay=3, surrogate="arctan")
    for number in range(2):
        faulty(tested, number)
    with torch.no_grad():
        dict(tested.actor.named_parameters())[name][1].fill_(math.nan)
    assert tested.watch.fault() is None
    faulty(tested, 2)
    found = tested.watch.fault()
    assert found is not None and found[0] == 3 and found[1].startswith("actor.")
    noted = {name for name, update in zip(tested.watch.names, tested.watch.first.tolist(), strict=True) if update == 3}
    assert expected in noted and not any(name.startswith("critic.") for name in noted)


def test_the_first_fault_wins_and_is_called_by_the_name_of_its_tensor() -> None:
    """Also one that another rank had: what is averaged ends with a size of each gradient."""
    tested = agent(policy_delay=1)
    names = [*(f"critic.{name}" for name, _ in tested.critic.named_parameters()), "critic_loss[seed 0]"]
    count = len(names)
    names += [f"actor.{name}" for name, _ in tested.actor.named_parameters()]
    plan = {(3, 1): [2], (4, 0): [1], (4, 1): [2], (5, 1): [2, 3], (6, 0): [1]}  # (update, network): places
    calls = 0

    def average(grads: list[Tensor]) -> None:
        nonlocal calls
        for place in plan.get((calls // 2 + 1, calls % 2), []):
            grads[-1][place] = math.inf if place == 2 else math.nan
        calls += 1

    tested.average = average
    found = []
    for number in range(7):
        faulty(tested, number)
        found.append(tested.watch.fault())
    assert found == [None, None] + [(3, names[count + 2])] * 5
    noted = {place: update for place, update in enumerate(tested.watch.first.tolist()) if update >= 0}
    assert noted == {count + 2: 3, 1: 4, count + 3: 5}


def test_faults_are_counted_on_from_the_updates_of_a_state() -> None:
    first = agent()
    for number in range(4):
        faulty(first, number)
    resumed = agent()
    resumed.load_state_dict(first.state_dict())
    rows = rows_of([0], 4)
    rows[0, 0, OBS + ACT] = math.nan
    resumed.update(rows, noise_of([0], 4), statistics_of([0]))
    found = resumed.watch.fault()
    assert found is not None and found[0] == 5


def watcher(tmp_path: Path, made: TD3) -> Faults:
    return Faults(tmp_path, "Some-v0", made, Group(Place(), CPU))


def test_the_run_is_stopped_with_the_update_and_the_tensor_named(tmp_path: Path) -> None:
    tested = agent()
    watch = watcher(tmp_path, tested)
    faulty(tested, 0)
    watch.check(10)
    with torch.no_grad():
        tested.critic.biases[-1].fill_(math.nan)
    faulty(tested, 1)
    with pytest.raises(SpikerlError, match=r"gradient of critic\.\S+ is not finite at update 2, found at step 11") as e:
        watch.check(11)
    assert "last good" not in (e.value.hint or "")
    (tmp_path / "resume").mkdir()
    (tmp_path / "resume" / "latest.json").write_text("{}")
    with pytest.raises(SpikerlError) as e:
        watch.check(11)
    assert "last good checkpoint" in (e.value.hint or "") and "\n" not in e.value.message + (e.value.hint or "")


@pytest.mark.parametrize(("learner", "name"), [("proxy", "weights.0"), ("critic", "biases.1"), ("actor", "weights.1")])
def test_a_parameter_that_is_not_finite_is_named_before_it_is_saved(tmp_path: Path, learner: str, name: str) -> None:
    tested = agent((0, 1), **PROXY)
    watch = watcher(tmp_path, tested)
    watch.check_parameters(6)
    with torch.no_grad():
        dict(tested.learners[learner].named_parameters())[name][1].view(-1)[-1] = math.inf
    with pytest.raises(SpikerlError, match=rf"^{learner}\.{name} is not finite at step 7"):
        watch.check_parameters(7)


def test_an_environments_number_that_is_not_finite_is_named(tmp_path: Path) -> None:
    watch = watcher(tmp_path, agent())
    observations, rewards = np.zeros((3, 4)), np.zeros(3)
    watch.check_environment(1, observations)
    watch.check_environment(1, observations, rewards)
    rewards[2] = math.inf
    with pytest.raises(SpikerlError, match=r"'Some-v0' gave reward = inf at step 7 \(environment 2, rank 0\)"):
        watch.check_environment(7, observations, rewards)
    watch.check_environment(7, observations)
    observations[1, 3] = math.nan
    with pytest.raises(
        SpikerlError, match=r"'Some-v0' gave observation\[3\] = nan at step 8 \(environment 1, rank 0\)"
    ):
        watch.check_environment(8, observations, rewards)
