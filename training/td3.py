"""TD3 (Fujimoto et al. 2018, https://arxiv.org/abs/1802.09477) with a spiking actor."""

from __future__ import annotations

import copy
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import get_ema_multi_avg_fn

from training.actor import Spaces, SpikingActor
from training.critic import TwinCritic
from training.replay import Batch
from training.settings import Settings


def td_target(r_t: Tensor, terminated: Tensor, q_t: Tensor, gamma: float) -> Tensor:
    """Clipped double-Q target [B] from rewards [B], termination flags [B] and target values [2, B]."""
    return r_t + gamma * (1.0 - terminated) * q_t.amin(dim=0)


def smoothing_noise(like: Tensor, std: float, clip: float, half_range: Tensor) -> Tensor:
    """Target policy smoothing: clipped Gaussian noise in units of half the action range [act_dim]."""
    return torch.randn_like(like).mul_(std).clamp_(-clip, clip) * half_range


def critic_loss(q_tm1: Tensor, target: Tensor) -> Tensor:
    """Sum over both critics of the mean squared TD error; values [2, B], target [B]."""
    loss: Tensor = (q_tm1 - target).square().mean(dim=1).sum()
    return loss


class TD3:
    """Networks, targets and optimizers, and one update of them.

    Under `bf16` only the actor's matrix products run in BF16; critics, targets and losses stay in FP32.
    """

    def __init__(self, spaces: Spaces, settings: Settings, device: torch.device) -> None:
        self.settings, self.device = settings, device
        self.actor = SpikingActor(spaces, settings).to(device)
        self.critic = TwinCritic(spaces.obs_dim, spaces.act_dim, settings.critic_hidden).to(device)
        self.actor_target = copy.deepcopy(self.actor).requires_grad_(False)
        self.critic_target = copy.deepcopy(self.critic).requires_grad_(False)
        self.actor_optimizer = torch.optim.Adam(self.actor.parameters(), lr=settings.actor_lr, fused=True)
        self.critic_optimizer = torch.optim.Adam(self.critic.parameters(), lr=settings.critic_lr, fused=True)
        self.low = torch.as_tensor(spaces.action_low, dtype=torch.float32, device=device)
        self.high = torch.as_tensor(spaces.action_high, dtype=torch.float32, device=device)
        self.updates = 0
        self._average = get_ema_multi_avg_fn(settings.polyak)

    def autocast(self) -> torch.autocast:
        """Context for the actor's forward pass."""
        return torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=self.settings.bf16)

    def act(self, observation: Tensor) -> Tensor:
        """Deterministic actions [B, act_dim] for normalised observations [B, obs_dim]."""
        with torch.no_grad(), self.autocast():
            action: Tensor = self.actor(observation)
            return action.float()

    def update(self, batch: Batch) -> dict[str, Tensor]:
        """One critic update, and every `policy_delay`-th time one of actor and targets.

        Args:
            batch: transitions with normalised observations.

        Returns:
            Losses as detached tensors, so that nothing waits for the device.
        """
        s = self.settings
        with torch.no_grad():
            with self.autocast():
                a_t = self.actor_target(batch.o_t).float()
            half_range = (self.high - self.low) / 2
            a_t = a_t + smoothing_noise(a_t, s.target_noise, s.noise_clip, half_range)
            a_t = torch.clamp(a_t, self.low, self.high)
            target = td_target(batch.r_t, batch.terminated, self.critic_target(batch.o_t, a_t), s.gamma)
        loss = critic_loss(self.critic(batch.o_tm1, batch.a_tm1), target)
        self.critic_optimizer.zero_grad(set_to_none=True)
        loss.backward()
        self.critic_optimizer.step()
        losses = {"critic_loss": loss.detach()}
        self.updates += 1
        if self.updates % s.policy_delay == 0:
            losses["actor_loss"] = self._update_actor(batch)
            self._polyak(self.actor_target, self.actor)
            self._polyak(self.critic_target, self.critic)
        return losses

    def _update_actor(self, batch: Batch) -> Tensor:
        with self.autocast():
            action = self.actor(batch.o_tm1).float()
        for parameter in self.critic.parameters():  # the critic passes a gradient on and takes none
            parameter.requires_grad_(False)
        loss: Tensor = -self.critic(batch.o_tm1, action)[0].mean()
        self.actor_optimizer.zero_grad(set_to_none=True)
        loss.backward()
        self.actor_optimizer.step()
        for parameter in self.critic.parameters():
            parameter.requires_grad_(True)
        return loss.detach()

    def _polyak(self, target: nn.Module, online: nn.Module) -> None:
        with torch.no_grad():
            self._average(_parameters(target), _parameters(online), 1)

    def state_dict(self) -> dict[str, dict[str, object] | int]:
        """Networks, targets and optimizers on the CPU."""
        modules = {
            "actor": self.actor, "critic": self.critic,
            "actor_target": self.actor_target, "critic_target": self.critic_target,
        }  # fmt: skip
        state: dict[str, dict[str, object] | int] = {
            name: {key: value.detach().cpu().clone() for key, value in module.state_dict().items()}
            for name, module in modules.items()
        }
        for name, optimizer in (("actor", self.actor_optimizer), ("critic", self.critic_optimizer)):
            state[f"{name}_optimizer"] = _to_cpu(optimizer.state_dict())
        state["updates"] = self.updates
        return state


def _parameters(module: nn.Module) -> list[Tensor]:
    parameters: Iterable[Tensor] = module.parameters()
    return list(parameters)


def _to_cpu(value: Any) -> Any:
    """Copy of nested dicts and lists with every tensor cloned to the CPU."""
    if isinstance(value, Tensor):
        return value.detach().cpu().clone()
    if isinstance(value, dict):
        return {key: _to_cpu(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_to_cpu(item) for item in value]
    return value
