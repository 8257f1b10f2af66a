"""TD3 (Fujimoto et al. 2018, https://arxiv.org/abs/1802.09477) for several seeds at once."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.optim.swa_utils import get_ema_multi_avg_fn

from training.actor import Spaces
from training.actors import make_actor, make_target
from training.critic import TwinCritic
from training.gradients import Gradients, gradients_of
from training.normalizer import normalize
from training.replay import unpack
from training.settings import Settings
from training.stacked import generators_of
from training.watch import Watch

Statistics = tuple[Tensor, Tensor]
"""Mean and inverse standard deviation of the observations, [S, obs_dim] each."""


def td_target(r_t: Tensor, terminated: Tensor, q_t: Tensor, gamma: float) -> Tensor:
    """Clipped double-Q target [S, B] from rewards [S, B], termination flags [S, B] and target values [S, 2, B]."""
    return r_t + gamma * (1.0 - terminated) * q_t.amin(dim=1)


def smoothing_noise(normal: Tensor, std: float, clip: float, half_range: Tensor) -> Tensor:
    """Target policy smoothing from standard normal numbers: clipped, in units of half the action range [act_dim]."""
    return (normal * std).clamp(-clip, clip) * half_range


def critic_loss(q_tm1: Tensor, target: Tensor) -> Tensor:
    """Sum over both critics of the mean squared TD error, [S]; values [S, 2, B], target [S, B]."""
    return (q_tm1 - target.unsqueeze(1)).square().mean(dim=2).sum(dim=1)


class TD3:
    """Networks, targets and optimizers of S seeds, and one update of them all.

    The seeds' networks are stacked: one batched product serves all of them, and none sees another's gradient, since the
    loss is the sum of theirs. Under `bf16` only the actor's matrix products run in BF16; critics, targets and losses
    stay in float32. Compiled, loss and gradient become one graph without autograd's bookkeeping between them.

    With `target_actor` "proxy" the target actor is trained, too (Xu et al. 2025, https://arxiv.org/abs/2505.24161,
    after its authors' code): before each critic update it takes `proxy_steps` steps of Adam, each on another batch,
    towards the actions of the actor as it is; it starts from weights of its own and is never averaged.

    Attributes:
        batches: batches of transitions that one update takes.
        learners: what has gradients and an optimizer, by name, in the order of an update.
        average: called with the gradients and the moments of synaptic input before each optimizer step, and changes
            them in place; distributed runs average them over ranks here.
        updates: updates done.
        watch: notes on the device which gradients and losses are not finite; the host looks when it saves or logs.
    """

    def __init__(
        self,
        spaces: Spaces,
        settings: Settings,
        device: torch.device,
        seeds: Sequence[int] = (0,),
        compiled: bool = False,
    ) -> None:
        self.settings, self.device, self.seeds = settings, device, tuple(seeds)
        generators = generators_of(seeds)
        self.actor = make_actor(spaces, settings, generators).to(device)
        self.critic = TwinCritic(spaces.obs_dim, spaces.act_dim, settings.critic_hidden, generators).to(device)
        self.actor_target = make_target(self.actor, settings, generators).to(device)
        self.critic_target = copy.deepcopy(self.critic).requires_grad_(False)
        learners: dict[str, tuple[nn.Module, float, Callable[..., Gradients]]] = {}  # in the order of an update
        self.batches = 1
        if any(parameter.requires_grad for parameter in self.actor_target.parameters()):  # it is trained: a proxy
            learners["proxy"] = (self.actor_target, settings.proxy_lr, self.proxy_gradients)
            self.batches = settings.proxy_steps
        learners["critic"] = (self.critic, settings.critic_lr, self.critic_gradients)
        learners["actor"] = (self.actor, settings.actor_lr, self.actor_gradients)
        self.learners = {name: module for name, (module, _, _) in learners.items()}
        options: dict[str, Any] = {"fused": True, "capturable": device.type == "cuda"}
        self.optimizers = {
            name: torch.optim.Adam(module.parameters(), lr=lr, **options) for name, (module, lr, _) in learners.items()
        }
        self.low = torch.as_tensor(spaces.action_low, dtype=torch.float32, device=device)
        self.high = torch.as_tensor(spaces.action_high, dtype=torch.float32, device=device)
        self.sizes = (spaces.obs_dim, spaces.act_dim)
        self.average: Callable[[list[Tensor]], None] | None = None
        self.updates = 0
        self._ema = get_ema_multi_avg_fn(settings.polyak)
        self._lists = {module: list(module.parameters()) for module in self._modules().values()}
        self.watch = Watch({name: self._watched(name) for name in learners}, device)
        self._counter = torch.zeros((), dtype=torch.int64, device=device)  # `updates` where a CUDA graph can count it
        self.compiled = compiled
        self._gradients = {name: gradients for name, (_, _, gradients) in learners.items()}
        if compiled:
            self._gradients = {
                name: torch.compile(gradients, dynamic=False, fullgraph=True)
                for name, gradients in self._gradients.items()
            }

    def act(self, observation: Tensor) -> Tensor:
        """Deterministic actions [S, B, act_dim] for normalised observations [S, B, obs_dim], in float32."""
        with torch.no_grad():
            action: Tensor = self.actor(observation)
            return action

    def update(self, rows: Tensor, normal: Tensor, statistics: Statistics) -> dict[str, Tensor]:
        """One critic update, and every `policy_delay`-th time one of actor and targets.

        Args:
            rows: transitions [S, batches * B, width] as `replay.pack` lays them out, observations raw; critics and
                actor learn from the last B.
            normal: standard normal numbers [S, B, act_dim] for target policy smoothing.
            statistics: what observations are normalised with.

        Returns:
            `critic_loss` and, when the actor was updated, `actor_loss`, [S] each, on the device, detached; with a
            proxy its last `proxy_loss`, too.
        """
        return self.step(rows, normal, statistics, self.count_update())

    def count_update(self) -> bool:
        """Count an update that begins, and tell whether it is one of the actor, too."""
        self.updates += 1
        return self.updates % self.settings.policy_delay == 0

    def step(self, rows: Tensor, normal: Tensor, statistics: Statistics, with_actor: bool) -> dict[str, Tensor]:
        """The update itself; apart from `update` for CUDA graphs, in which the host's counter cannot be."""
        self._counter += 1
        losses = {}
        if "proxy" in self.learners:
            *_, rows = parts = rows.chunk(self.batches, dim=1)
            for part in parts:
                losses["proxy_loss"] = self._descend("proxy", part, *statistics)
        losses["critic_loss"] = self._descend("critic", rows, normal, *statistics)
        if with_actor:
            losses["actor_loss"] = self._descend("actor", rows, *statistics)
            with torch.no_grad():
                if "proxy" not in self.learners:
                    target, online = ([*self._lists[a], *a.statistics()] for a in (self.actor_target, self.actor))
                    self._ema(target, online, 1)
                self._ema(self._lists[self.critic_target], self._lists[self.critic], 1)
        return losses

    def critic_gradients(self, rows: Tensor, normal: Tensor, mean: Tensor, inverse_std: Tensor) -> Gradients:
        """Losses [S] of the critics and the gradients of their sum."""
        s, (obs_dim, act_dim) = self.settings, self.sizes
        batch = unpack(rows, obs_dim, act_dim)
        o_tm1 = normalize(batch.o_tm1, mean, inverse_std, s.observation_clip)
        o_t = normalize(batch.o_t, mean, inverse_std, s.observation_clip)
        with torch.no_grad():
            with self._autocast():
                a_t = self.actor_target(o_t)
            a_t = a_t.to(rows.dtype) + smoothing_noise(normal, s.target_noise, s.noise_clip, (self.high - self.low) / 2)
            a_t = torch.clamp(a_t, self.low, self.high)
            target = td_target(batch.r_t, batch.terminated, self.critic_target(o_t, a_t), s.gamma)

        def losses(critic: Callable[..., Tensor]) -> tuple[Tensor, list[Tensor]]:
            return critic_loss(critic(o_tm1, batch.a_tm1), target), []

        return gradients_of(losses, self.critic)

    def actor_gradients(self, rows: Tensor, mean: Tensor, inverse_std: Tensor) -> Gradients:
        """Losses [S] of the actors, minus the first critic's mean value, and the gradients of their sum.

        Synaptic input is normalised with the batch's moments, which are the third part: changing the running ones here
        would be a side effect of a function that is compiled and differentiated.
        """
        o_tm1 = normalize(rows[..., : self.sizes[0]], mean, inverse_std, self.settings.observation_clip)
        frozen = {name: parameter.detach() for name, parameter in self.critic.named_parameters()}

        def losses(actor: Callable[..., Tensor]) -> tuple[Tensor, list[Tensor]]:
            moments: list[Tensor] = []
            with self._autocast():
                action = actor(o_tm1, moments)
            q: Tensor = functional_call(self.critic, frozen, (o_tm1, action.to(rows.dtype), 1))
            return -q.squeeze(1).mean(dim=1), moments

        return gradients_of(losses, self.actor)

    def proxy_gradients(self, rows: Tensor, mean: Tensor, inverse_std: Tensor) -> Gradients:
        """Losses [S] of the proxies and the gradients of their sum.

        A loss is the mean squared distance of their actions on the present observations from the actors', in units of
        half the action range: as the authors' where that range is -1 to 1, and each dimension alike where it is not.
        """
        o_tm1 = normalize(rows[..., : self.sizes[0]], mean, inverse_std, self.settings.observation_clip)
        with torch.no_grad(), self._autocast():
            wanted = self.actor(o_tm1)

        def losses(proxy: Callable[..., Tensor]) -> tuple[Tensor, list[Tensor]]:
            with self._autocast():
                action = proxy(o_tm1)
            distance = (action - wanted).to(rows.dtype) / ((self.high - self.low) / 2)
            return distance.square().mean(dim=(1, 2)), []

        return gradients_of(losses, self.actor_target)

    def _autocast(self) -> torch.autocast:
        return torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=self.settings.bf16)

    def _descend(self, which: str, *arguments: Tensor) -> Tensor:
        """One optimizer step of a learner by its gradients, and one of the actor's running statistics by its moments.

        Both are averaged over ranks where there are several.
        """
        with torch.set_grad_enabled(not self.compiled):  # compiled, the gradient is part of the graph
            losses, grads, moments = self._gradients[which](*arguments)
        # a norm is finite if the gradient is, and its squares are; foreach takes them faster than the compiler would
        sizes = torch.cat([torch.stack(torch._foreach_norm(grads)), losses.detach()])
        if self.average is not None:
            self.average([*grads, *moments, sizes])  # all ranks learn of a fault of any
        self.watch.note(which, sizes, self._counter)
        for parameter, grad in zip(self._lists[self.learners[which]], grads, strict=True):
            parameter.grad = grad
        self.optimizers[which].step()
        if moments:
            torch._foreach_lerp_(self.actor.statistics(), moments, self.settings.norm_momentum)
        detached: Tensor = losses.detach()
        return detached

    def _watched(self, which: str) -> list[str]:
        """Names of a learner's gradients and losses, in the order of `sizes` in `_descend`."""
        of_parameters = [f"{which}.{name}" for name, _ in self.learners[which].named_parameters()]
        return [*of_parameters, *(f"{which}_loss[seed {seed}]" for seed in self.seeds)]

    def _modules(self) -> dict[str, nn.Module]:
        return {
            "actor": self.actor, "critic": self.critic,
            "actor_target": self.actor_target, "critic_target": self.critic_target,
        }  # fmt: skip

    def state_dict(self) -> dict[str, Any]:
        """Networks, targets and optimizers of all seeds on the CPU."""
        state: dict[str, Any] = {name: _to_cpu(module.state_dict()) for name, module in self._modules().items()}
        for name, optimizer in self.optimizers.items():
            state[f"{name}_optimizer"] = _to_cpu(optimizer.state_dict())
        state["updates"] = self.updates
        return state

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a state."""
        for name, module in self._modules().items():
            module.load_state_dict(state[name])
        for name, optimizer in self.optimizers.items():
            optimizer.load_state_dict(state[f"{name}_optimizer"])
        self.updates = int(state["updates"])
        self._counter.fill_(self.updates)


def _to_cpu(value: Any) -> Any:
    """Copy of nested dicts and lists with every tensor cloned to the CPU."""
    if isinstance(value, Tensor):
        return value.detach().cpu().clone()
    if isinstance(value, dict):
        return {key: _to_cpu(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_to_cpu(item) for item in value]
    return value
