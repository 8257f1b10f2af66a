"""A whole sequence of current-based LIF steps as one differentiable function."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from training.surrogate import SpikeFunction


class _LIFSequence(torch.autograd.Function):
    """Backpropagation through time written out: autograd would record some ten small operations a step.

    Forward, from u = v = s = 0:  u_t = a u_{t-1} + c_t;  v_t = b v_{t-1} (1 - s_{t-1}) + u_t;  s_t = H(v_t - th).
    The surrogate's derivative is taken once for all steps, from snnTorch's own function.
    """

    @staticmethod
    def forward(
        ctx: Any, current: Tensor, keep_u: float, keep_v: float, threshold: float, spike_function: SpikeFunction
    ) -> Tensor:
        v, spikes = torch.empty_like(current), torch.empty_like(current)
        u = current[0].clone()
        for t in range(current.shape[0]):
            if t == 0:
                v[0] = u
            else:
                u.mul_(keep_u).add_(current[t])
                torch.sub(1.0, spikes[t - 1], out=v[t]).mul_(v[t - 1]).mul_(keep_v).add_(u)
            torch.gt(v[t], threshold, out=spikes[t])
        ctx.save_for_backward(v, spikes)
        ctx.constants = (keep_u, keep_v, threshold, spike_function)
        return spikes

    @staticmethod
    def backward(ctx: Any, grad_spikes: Tensor) -> tuple[Tensor | None, ...]:
        v, spikes = ctx.saved_tensors
        keep_u, keep_v, threshold, spike_function = ctx.constants
        with torch.enable_grad():
            distance = (v - threshold).requires_grad_()
            (slope,) = torch.autograd.grad(spike_function(distance).sum(), distance)
        kept = torch.sub(1.0, spikes).mul_(keep_v)  # dv_{t+1}/dv_t along the membrane
        reset = v * -keep_v  # dv_{t+1}/ds_t through the reset
        grad_current = torch.empty_like(v)
        last = v.shape[0] - 1
        grad_v = torch.mul(grad_spikes[last], slope[last], out=grad_current[last])
        grad_u = grad_v
        for t in range(last - 1, -1, -1):
            through_spike = torch.addcmul(grad_spikes[t], reset[t], grad_v).mul_(slope[t])
            grad_v = torch.addcmul(through_spike, kept[t], grad_v)
            grad_u = torch.add(grad_v, grad_u, alpha=keep_u, out=grad_current[t])
        return grad_current, None, None, None, None


def lif_sequence(
    current: Tensor, current_decay: float, voltage_decay: float, v_threshold: float, spike_function: SpikeFunction
) -> Tensor:
    """Spikes [T, ..., n] (0 or 1, float32) of synaptic input [T, ..., n], states starting at zero.

    Equations as in `spikerl_deploy.policy.SpikingLayer`; the gradient follows both the membrane and the reset.
    """
    spikes: Tensor = _LIFSequence.apply(current.float(), current_decay, voltage_decay, v_threshold, spike_function)
    return spikes
