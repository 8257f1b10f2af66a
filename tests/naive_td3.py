"""The reference of TD3: one seed at a time, one time step after the other, in float64, differentiated by plain autograd
through functions whose derivative is the surrogate's slope.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from td3_support import ACT, BATCH, F64, HIGH, LOW, OBS, transitions
from torch import Tensor, nn

from training.actor import ENCODER_THRESHOLD
from training.settings import Settings
from training.td3 import TD3, Statistics

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
