"""A whole sequence of current-based LIF steps as one differentiable function."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from training.surrogate import Slope

TIME = -3  # axis of the time steps in [..., T, B, n]


class _LIFSequence(torch.autograd.Function):
    """Backpropagation through time written out: autograd would record some ten small operations a step.

    Forward, from u = v = s = 0:  u_t = a u_{t-1} + c_t;  v_t = b v_{t-1} (1 - s_{t-1}) + u_t;  s_t = H(v_t - th).
    """

    @staticmethod
    def forward(ctx: Any, current: Tensor, keep_u: float, keep_v: float, threshold: float, slope: Slope) -> Tensor:
        v, spikes = torch.empty_like(current), torch.empty_like(current)
        c_, v_, s_ = current.unbind(TIME), v.unbind(TIME), spikes.unbind(TIME)
        u = c_[0].clone()
        for t in range(len(c_)):
            if t == 0:
                v_[0].copy_(u)
            else:
                u.mul_(keep_u).add_(c_[t])
                torch.sub(1.0, s_[t - 1], out=v_[t]).mul_(v_[t - 1]).mul_(keep_v).add_(u)
            torch.gt(v_[t], threshold, out=s_[t])
        ctx.save_for_backward(v, spikes)
        ctx.constants = (keep_u, keep_v, threshold, slope)
        return spikes

    @staticmethod
    def backward(ctx: Any, grad_spikes: Tensor) -> tuple[Tensor | None, ...]:
        return backward_through_time(grad_spikes, *ctx.saved_tensors, *ctx.constants), None, None, None, None


def backward_through_time(
    grad_spikes: Tensor, v: Tensor, spikes: Tensor, keep_u: float, keep_v: float, threshold: float, slope: Slope
) -> Tensor:
    """Gradient in the synaptic input of a sequence, from that in its spikes; all tensors [..., T, B, n].

    `v` are voltages before the reset, in the units of `threshold` and `slope`.
    """
    slopes = slope(v - threshold).unbind(TIME)
    kept = torch.sub(1.0, spikes).mul_(keep_v).unbind(TIME)  # dv_{t+1}/dv_t along the membrane
    reset = (v * -keep_v).unbind(TIME)  # dv_{t+1}/ds_t through the reset
    grad_current = torch.empty_like(v)
    out, grads = grad_current.unbind(TIME), grad_spikes.unbind(TIME)
    last = len(out) - 1
    grad_v = torch.mul(grads[last], slopes[last], out=out[last])
    grad_u = grad_v
    for t in range(last - 1, -1, -1):
        through_spike = torch.addcmul(grads[t], reset[t], grad_v).mul_(slopes[t])
        grad_v = torch.addcmul(through_spike, kept[t], grad_v)
        grad_u = torch.add(grad_v, grad_u, alpha=keep_u, out=out[t])
    return grad_current


def _plain_sequence(current: Tensor, keep_u: float, keep_v: float, threshold: float, slope: Slope) -> Tensor:
    """The same as ordinary operations, for the compiler, which fuses them; a Function would stand in its way."""
    first, *later = current.unbind(TIME)
    u = v = first
    out = [_spike(v - threshold, slope)]
    for c in later:
        u = keep_u * u + c
        v = keep_v * v * (1.0 - out[-1]) + u
        out.append(_spike(v - threshold, slope))
    return torch.stack(out, TIME)


def _spike(distance: Tensor, slope: Slope) -> Tensor:
    """The step, with the slope for a derivative: `distance - distance.detach()` is exactly zero."""
    return (distance > 0).to(distance.dtype) + slope(distance).detach() * (distance - distance.detach())


def voltage_weights(steps: int, current_decay: float, voltage_decay: float) -> list[float]:
    """What the synaptic input of each of T time steps adds to the voltage at the last, without spikes or reset."""
    weights, u, v = [], 1.0, 1.0
    for _ in range(steps):
        weights.append(v)
        u *= current_decay
        v = voltage_decay * v + u
    return weights[::-1]


def last_voltage(current: Tensor, current_decay: float, voltage_decay: float) -> Tensor:
    """Voltage [..., B, n] at the last time step of neurons that never spike, for synaptic input [..., T, B, n].

    Without spikes and reset the equations of `lif_sequence` are linear. In float32, or float64 for float64 input.
    """
    if current.dtype != torch.float64:
        current = current.float()
    parts = current.unbind(TIME)
    weights = voltage_weights(len(parts), current_decay, voltage_decay)
    v = parts[-1]
    for part, weight in zip(parts[:-1], weights[:-1], strict=True):
        v = torch.add(v, part, alpha=weight)
    return v


def lif_sequence(
    current: Tensor, current_decay: float, voltage_decay: float, v_threshold: float, slope: Slope
) -> Tensor:
    """Spikes [..., T, B, n] (0 or 1) of synaptic input [..., T, B, n], states starting at zero.

    Equations as in `spikerl_deploy.policy.SpikingLayer`; the gradient follows both the membrane and the reset. States
    are float32, or float64 for float64 input.
    """
    if current.dtype != torch.float64:
        current = current.float()
    if torch.compiler.is_compiling():
        return _plain_sequence(current, current_decay, voltage_decay, v_threshold, slope)
    spikes: Tensor = _LIFSequence.apply(current, current_decay, voltage_decay, v_threshold, slope)
    return spikes
