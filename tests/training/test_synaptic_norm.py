"""Batch normalisation of synaptic input: against torch's, in whole updates, and its settings."""

from __future__ import annotations

import functools
import math
from typing import Any

import numpy as np
import pytest
import torch
from synaptic_norm_support import ACT, F32, OBS, SEEDS, SMALL, SPACES, agent, arguments_of, normal, rows_of
from torch import Tensor, nn

from spikerl_deploy.errors import SpikerlError
from training.actor import ENCODER_THRESHOLD, Spaces, SpikingActor
from training.settings import Settings
from training.stacked import generators_of
from training.synaptic_norm import EPS, INITIAL_VARIANCE, SynapticNorm
from training.td3 import TD3

# The layer against torch's own batch normalisation.


@pytest.mark.parametrize("count", [2, 60])
@pytest.mark.parametrize("seeds", [1, 3])
def test_a_layer_is_torchs_batch_norm_of_each_seed_with_its_gradients_and_running_statistics(
    seeds: int, count: int
) -> None:
    norm = SynapticNorm(seeds, 7, 0.5).double()
    with torch.no_grad():
        norm.gamma += 0.1 * normal(seeds, 7, seed=1)
        norm.running_mean += normal(seeds, 7, seed=2)
    current = (3 * normal(seeds, count, 7, seed=3) + normal(seeds, 1, 7, seed=4)).requires_grad_()
    beta, weight = normal(seeds, 7, seed=5).requires_grad_(), normal(seeds, count, 7, seed=6)
    leaves = [current, norm.gamma, beta]
    moments: list[Tensor] = []
    mine = norm(current, beta, moments)
    grads = torch.autograd.grad((mine * weight).sum(), leaves)
    acted = norm(current, beta)
    acted_grads = torch.autograd.grad((acted * weight).sum(), leaves)
    close = functools.partial(torch.testing.assert_close, rtol=1e-12, atol=1e-12)
    for i in range(seeds):
        mean, variance = norm.running_mean[i].clone(), norm.running_var[i].clone()
        own = [leaf.detach()[i].clone().requires_grad_() for leaf in leaves]
        apply = functools.partial(nn.functional.batch_norm, own[0], weight=own[1], bias=own[2], eps=EPS)
        eager = apply(mean, variance)
        for got, wanted in zip(acted_grads, torch.autograd.grad((eager * weight[i]).sum(), own), strict=True):
            close(got[i], wanted)
        close(acted[i], eager)
        trained = apply(mean, variance, training=True, momentum=0.2)
        close(mine[i], trained)
        for got, wanted in zip(grads, torch.autograd.grad((trained * weight[i]).sum(), own), strict=True):
            close(got[i], wanted)
        close(norm.running_mean[i].lerp(moments[0][i], 0.2), mean)
        close(norm.running_var[i].lerp(moments[1][i], 0.2), variance)
    assert not any(moment.requires_grad for moment in moments)


def test_gamma_starts_at_the_threshold_and_nothing_is_drawn_for_it() -> None:
    plain = SpikingActor(SPACES, Settings(**SMALL | {"synaptic_norm": "none"}), generators_of((3, 1)))
    normed = SpikingActor(SPACES, Settings(**SMALL, v_threshold=0.75), generators_of((3, 1)))
    assert [norm.gamma.shape for norm in normed.norms] == [(2, 14), (2, 12), (2, 10)]
    assert all((norm.gamma == 0.75).all() and isinstance(norm.gamma, nn.Parameter) for norm in normed.norms)
    assert all((norm.running_mean == 0).all() and (norm.running_var == INITIAL_VARIANCE).all() for norm in normed.norms)
    theirs = dict(normed.named_parameters())
    for name, parameter in plain.named_parameters():
        assert torch.equal(parameter, theirs.pop(name)), name
    assert set(theirs) == {f"norms.{k}.gamma" for k in range(3)}


def test_without_normalisation_the_actor_has_no_further_state() -> None:
    plain = SpikingActor(SPACES, Settings(**SMALL | {"synaptic_norm": "none"}), generators_of([0]))
    assert plain.statistics() == [] and not any("norm" in name for name in plain.state_dict())
    assert Settings().synaptic_norm == "none"


def test_the_first_running_variance_is_near_that_of_the_first_batches() -> None:
    """Neurons then fire from the first step on, about as often with the running statistics as with the batch's."""
    made = SpikingActor(Spaces(17, -np.ones(6), np.ones(6)), Settings(synaptic_norm="batch"), generators_of([0]))
    moments: list[Tensor] = []
    with torch.no_grad():
        spikes = made.encoder(normal(1, 100, 17, dtype=F32))
        learning, acting = made.core(spikes, moments), made.core(spikes)
    for variance in moments[1::2]:
        assert INITIAL_VARIANCE / 5 < variance.mean() < 2 * INITIAL_VARIANCE
    for a, b in zip(learning, acting, strict=True):
        assert 0.5 < a.mean() / b.mean() < 2


# Whole updates against a plain computation: one seed, one time step after the other, torch's batch norm and Adam.


def heaviside(distance: Tensor, width: float) -> Tensor:
    """The step with the rectangular surrogate for its derivative."""
    return (distance > 0).to(distance) + distance.clamp(-width, width) - distance.clamp(-width, width).detach()


class Reference:
    """One seed of TD3 in float64, from copies of an agent's tensors."""

    def __init__(self, made: TD3, index: int) -> None:
        self.s, self.updates = made.settings, 0
        self.w = {
            which: {name: value[index].detach().clone() for name, value in module.state_dict().items()}
            for which, module in made._modules().items()
        }
        self.optimizers = {}
        for which, lr in (("actor", self.s.actor_lr), ("critic", self.s.critic_lr)):
            trained = [w.requires_grad_() for name, w in self.w[which].items() if "running" not in name]
            self.optimizers[which] = torch.optim.Adam(trained, lr=lr, foreach=False)

    def act(self, which: str, o: Tensor, learning: bool) -> Tensor:
        s, w = self.s, self.w[which]
        std = w["encoder.std"].clamp_min(1e-3)
        activation = torch.exp(-((o[:, :, None] - w["encoder.mean"]) ** 2) / (2 * std**2)).flatten(1)
        level, train = torch.zeros_like(activation), []
        for _ in range(s.time_steps):
            level = level + activation.detach()
            spike = (level > ENCODER_THRESHOLD).double()
            level = level - ENCODER_THRESHOLD * spike
            train.append(spike + activation - activation.detach())
        for k in range(len(s.hidden) + 1):
            current = torch.cat([x @ w[f"weights.{k}"] for x in train])
            moments = (w[f"norms.{k}.running_mean"], w[f"norms.{k}.running_var"])
            current = nn.functional.batch_norm(  # changes the running ones when learning
                current, *moments, w[f"norms.{k}.gamma"], w[f"biases.{k}"], learning, s.norm_momentum, EPS
            )
            u = v = spike = torch.zeros_like(current[: len(o)])
            train = []
            for c in current.split(len(o)):
                u = s.current_decay * u + c
                v = s.voltage_decay * v * (1 - spike) + u
                spike = heaviside(v - s.v_threshold, s.surrogate_width)
                train.append(spike)
        rates = (sum(train) / s.time_steps).unflatten(1, w["decoder_weight"].shape)  # type: ignore[union-attr]
        drive = (rates * w["decoder_weight"]).sum(-1) + w["decoder_bias"]
        low, high = (torch.from_numpy(bound).double() for bound in (SPACES.action_low, SPACES.action_high))
        return low + (high - low) * (1 + torch.tanh(drive)) / 2

    def values(self, which: str, o: Tensor, a: Tensor) -> Tensor:
        """Both critics' values [2, B]."""
        w, x = self.w[which], torch.cat([o, a], 1).expand(2, -1, -1)
        last = len(self.s.critic_hidden)
        for k in range(last + 1):
            x = x @ w[f"weights.{k}"] + w[f"biases.{k}"][:, None]
            x = x if k == last else torch.relu(x)
        return x[..., 0]

    def update(self, rows: Tensor, noise: Tensor, mean: Tensor, inverse: Tensor) -> None:
        s = self.s
        self.updates += 1
        o_tm1, a_tm1, r_t, o_t, _ = rows.split([OBS, ACT, 1, OBS, 1], 1)
        o_tm1, o_t = (((o - mean) * inverse).clamp(-s.observation_clip, s.observation_clip) for o in (o_tm1, o_t))
        low, high = (torch.from_numpy(bound).double() for bound in (SPACES.action_low, SPACES.action_high))
        with torch.no_grad():
            smoothing = (s.target_noise * noise).clamp(-s.noise_clip, s.noise_clip) * (high - low) / 2
            a_t = (self.act("actor_target", o_t, False) + smoothing).clamp(low, high)
            target = r_t[:, 0] + s.gamma * self.values("critic_target", o_t, a_t).amin(0)
        self.descend("critic", (self.values("critic", o_tm1, a_tm1) - target).square().mean(1).sum())
        if self.updates % s.policy_delay == 0:
            self.descend("actor", -self.values("critic", o_tm1, self.act("actor", o_tm1, True))[0].mean())
            for which in ("actor", "critic"):
                for name, old in self.w[f"{which}_target"].items():
                    old.mul_(s.polyak).add_((1 - s.polyak) * self.w[which][name].detach())

    def descend(self, which: str, loss: Tensor) -> None:
        optimizer = self.optimizers[which]
        optimizer.zero_grad()
        loss.backward(inputs=optimizer.param_groups[0]["params"])
        optimizer.step()


@pytest.mark.parametrize("seeds", SEEDS)
@pytest.mark.parametrize("time_steps", [1, 4])
def test_updates_equal_a_plain_float64_computation(seeds: tuple[int, ...], time_steps: int) -> None:
    tested = agent(seeds, policy_delay=2, time_steps=time_steps, polyak=0.9)
    references = [Reference(tested, i) for i in range(len(seeds))]
    before = {which: tested._modules()[which].state_dict() for which in ("actor", "actor_target")}
    before = {which: {name: value.clone() for name, value in state.items()} for which, state in before.items()}
    for number in range(4):
        rows, noise, (mean, inverse) = arguments_of(seeds, number)
        tested.update(rows, noise, (mean, inverse))
        for i, reference in enumerate(references):
            reference.update(rows[i], noise[i], mean[i], inverse[i])
    for which, module in tested._modules().items():
        for name, value in module.state_dict().items():
            for i, reference in enumerate(references):
                wanted = reference.w[which][name].detach()
                torch.testing.assert_close(
                    value[i], wanted, rtol=1e-9, atol=1e-10, msg=lambda t, n=f"{which}.{name}": f"{n}: {t}"
                )
            if which in before and "norms" in name:
                moved = value != before[which][name]  # a neuron that is far from its threshold has no gradient
                assert moved.any() if "gamma" in name else moved.all(), f"{which}.{name} did not move"


def test_acting_and_critic_updates_leave_the_running_statistics_alone() -> None:
    tested = agent((0, 2), policy_delay=1000)
    kept = [[value.clone() for value in made.statistics()] for made in (tested.actor, tested.actor_target)]
    rows, noise, statistics = arguments_of((0, 2))
    tested.act(rows[..., :OBS])
    tested.update(rows, noise, statistics)
    tested.actor_gradients(rows, *statistics)
    for made, before in zip((tested.actor, tested.actor_target), kept, strict=True):
        assert len(before) == 6
        assert all(torch.equal(a, b) for a, b in zip(made.statistics(), before, strict=True))


def test_a_proxy_imitates_the_actor_as_it_acts_with_its_running_statistics() -> None:
    seeds = (0, 2)
    tested = agent(seeds, target_actor="proxy", proxy_hidden=(9,), proxy_steps=1)
    rows, noise, statistics = arguments_of(seeds)
    kept = [value.clone() for value in tested.actor.statistics()]
    observations = torch.clamp((rows[..., :OBS] - statistics[0][:, None]) * statistics[1][:, None], -3, 3)
    with torch.no_grad():
        distance = (tested.actor_target(observations) - tested.act(observations)) / ((tested.high - tested.low) / 2)
    of_the_batch = tested.actor(observations, [])
    assert not torch.allclose(of_the_batch, tested.act(observations), atol=1e-3)
    losses = tested.update(rows, noise, statistics)
    torch.testing.assert_close(losses["proxy_loss"], distance.square().mean(dim=(1, 2)), rtol=1e-12, atol=0)
    assert all(torch.equal(a, b) for a, b in zip(tested.actor.statistics(), kept, strict=True))


def test_what_the_actor_does_with_one_row_does_not_depend_on_the_others() -> None:
    tested = agent((0, 2))
    o = rows_of((0, 2))[..., :OBS]
    torch.testing.assert_close(tested.act(o)[:, :1], tested.act(o[:, :1]), rtol=1e-12, atol=1e-12)


def test_statistics_change_where_they_lie() -> None:
    """What a CUDA graph and the NumPy actor rely on."""
    tested = agent(dtype=F32, policy_delay=1)
    places = [value.data_ptr() for made in (tested.actor, tested.actor_target) for value in made.statistics()]
    tested.update(*arguments_of((0,), dtype=F32))
    tested.load_state_dict(agent((5,), F32).state_dict())
    assert places == [value.data_ptr() for made in (tested.actor, tested.actor_target) for value in made.statistics()]


def test_a_seed_is_normalised_by_its_own_statistics_alone() -> None:
    seeds = (4, 0, 7)
    plain, other = agent(seeds, policy_delay=1), agent(seeds, policy_delay=1)
    rows, noise, statistics = arguments_of(seeds)
    plain.update(rows, noise, statistics)
    rows = rows.clone()
    rows[1] += 1
    other.update(rows, noise, statistics)
    theirs = other.actor.state_dict()
    for name, value in plain.actor.state_dict().items():
        assert torch.equal(value[[0, 2]], theirs[name][[0, 2]]), name
    assert not torch.equal(plain.actor.norms[0].running_mean[1], other.actor.norms[0].running_mean[1])


def test_under_bf16_statistics_and_what_is_normalised_are_float32() -> None:
    short, full = agent((0, 1), F32, bf16=True, policy_delay=1), agent((0, 1), F32, policy_delay=1)
    seen: list[torch.dtype] = []

    def watch(_: nn.Module, inputs: tuple[Any, ...], output: Tensor) -> None:
        seen.extend([inputs[0].dtype, output.dtype, *(moment.dtype for moment in inputs[2])])

    with torch.autocast("cpu", torch.bfloat16):
        norm = short.actor.norms[0]
        handle = norm.register_forward_hook(watch)
        norm(normal(2, 9, 14).bfloat16(), short.actor.biases[0], [])
        handle.remove()
    assert seen == [torch.bfloat16, F32, F32, F32]
    rows, noise, statistics = arguments_of((0, 1), dtype=F32)
    moments = [made.actor_gradients(rows, *statistics)[2] for made in (short, full)]
    for a, b in zip(*moments, strict=True):
        assert a.dtype == F32 and not torch.equal(a, b)
    torch.testing.assert_close(moments[0][0], moments[1][0], rtol=0.02, atol=0.01)  # later layers get other spikes
    torch.testing.assert_close(moments[0][1], moments[1][1], rtol=0.05, atol=1e-4)
    for made in (short, full):
        made.update(rows, noise, statistics)
    assert {value.dtype for value in short.actor.state_dict().values()} == {F32}
    assert short.watch.fault() is None


def test_statistics_of_a_large_mean_keep_their_variance_in_float32() -> None:
    norm, moments = SynapticNorm(1, 3, 0.5), []  # type: ignore[var-annotated]
    current = 1000 + 0.1 * normal(1, 500, 3)
    norm(current.float(), torch.zeros(1, 3), moments)
    torch.testing.assert_close(moments[1].double(), current.var(1), rtol=1e-2, atol=0)


def test_compiled_updates_equal_those_that_are_not(quick_compiler: None) -> None:
    seeds = (4, 0)
    plain, compiled = agent(seeds, policy_delay=2), agent(seeds, policy_delay=2, compiled=True)
    for number in range(4):
        arguments = arguments_of(seeds, number)
        losses = [made.update(*arguments) for made in (plain, compiled)]
        for name, value in losses[0].items():
            torch.testing.assert_close(losses[1][name], value, rtol=1e-10, atol=1e-12)
    for which, module in plain._modules().items():
        theirs = compiled._modules()[which].state_dict()
        for name, value in module.state_dict().items():
            torch.testing.assert_close(theirs[name], value, rtol=0, atol=1e-11, msg=lambda t, n=name: f"{n}: {t}")
    with torch.no_grad():
        for made in (plain, compiled):
            made.actor.norms[2].gamma[1, 3] = math.nan
            made.update(*arguments_of(seeds, 4))
            assert made.watch.fault() is None  # an update of the critics alone does not see it
            made.update(*arguments_of(seeds, 5))
    for made in (plain, compiled):
        noted = {name for name, update in zip(made.watch.names, made.watch.first.tolist(), strict=True) if update == 6}
        assert "actor.norms.0.gamma" in noted and not any(name.startswith("critic.") for name in noted)


def test_a_gradient_of_gamma_that_is_not_finite_is_named() -> None:
    tested = agent(policy_delay=1)
    names = [name for name, _ in tested.actor.named_parameters()]
    place, calls = names.index("norms.1.gamma"), 0

    def average(tensors: list[Tensor]) -> None:
        nonlocal calls
        calls += 1
        if calls == 4:
            tensors[-1][place] = math.inf

    tested.average = average
    for number in range(3):
        tested.update(*arguments_of((0,), number))
    assert tested.watch.fault() == (2, "actor.norms.1.gamma")


# Settings.


@pytest.mark.parametrize(
    ("settings", "name"),
    [
        ({"synaptic_norm": "layer"}, "synaptic_norm"),
        ({"norm_momentum": 0}, "norm_momentum"),
        ({"norm_momentum": 1.01}, "norm_momentum"),
        ({"norm_momentum": -0.1}, "norm_momentum"),
        ({"norm_momentum": "nan"}, "norm_momentum"),
        ({"synaptic_norm": "batch", "batch_size": 1, "time_steps": 1}, "batch_size"),
    ],
)
def test_a_setting_of_no_sense_is_refused(settings: dict[str, Any], name: str) -> None:
    with pytest.raises(SpikerlError, match=f"'{name}'"):
        Settings(**settings)


@pytest.mark.parametrize(
    "settings",
    [
        {"norm_momentum": 1.0},
        {"synaptic_norm": "none", "batch_size": 1, "time_steps": 1},
        {"synaptic_norm": "batch", "batch_size": 1, "time_steps": 2},
        {"synaptic_norm": "batch", "batch_size": 2, "time_steps": 1},
    ],
)
def test_what_can_be_normalised_is_not_refused(settings: dict[str, Any]) -> None:
    Settings(**settings)
