"""The integer network in torch, differentiable: its spikes are the chip's bit for bit, its gradient a surrogate's."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from exporters.grid import Grid
from spikerl_deploy.errors import SpikerlError
from spikerl_deploy.integer_core import FLOAT32_INTEGERS
from spikerl_deploy.loihi import STATE_LIMIT, STATE_SHIFT, WEIGHT_MIN, IntegerLayer, bias_columns, kept_fractions
from training.lif import backward_through_time
from training.surrogate import Slope

WIRE_LIMIT = 1 << 31  # synaptic input passes through 32 bits


class _Round(torch.autograd.Function):
    """Round to multiples of `step` in [low, high]; straight through, but not to what is beyond and clipped."""

    @staticmethod
    def forward(ctx: Any, values: Tensor, step: float, low: float, high: float) -> Tensor:
        ctx.save_for_backward((values >= low - step / 2) & (values <= high + step / 2))
        return (values / step).round().mul_(step).clamp_(low, high)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        (inside,) = ctx.saved_tensors
        return grad * inside, None, None, None


class _IntegerLIF(torch.autograd.Function):
    """Spikes [T, B, n] of accumulated mantissas [T, B, n], as `integer_lif.integrate_reference` computes them.

    States are integers in float64, whose 53 bits hold a 24-bit state times a 12-bit decay.
    """

    @staticmethod
    def forward(ctx: Any, accumulated: Tensor, layer: IntegerLayer, unit: float, slope: Slope) -> Tensor:
        keep_u, keep_v = kept_fractions(layer.du, layer.dv)
        gain = 2.0 ** (layer.weight_exp + STATE_SHIFT)
        threshold = float(layer.vth << STATE_SHIFT)
        activation = accumulated.double().mul_(gain)
        u, v = torch.zeros_like(activation[0]), torch.zeros_like(activation[0])
        voltages, spikes = torch.empty_like(accumulated), torch.empty_like(accumulated)
        for t in range(len(activation)):
            u = u.mul_(keep_u).trunc_().add_(activation[t])
            wrapped = torch.where(u > STATE_LIMIT, u - 2 * STATE_LIMIT, u)
            u = torch.where(wrapped <= -STATE_LIMIT, u + 2 * STATE_LIMIT, wrapped)
            v = v.mul_(keep_v).trunc_().add_(u).clamp_(1 - STATE_LIMIT, STATE_LIMIT - 1)
            fired = v > threshold
            voltages[t], spikes[t] = v * (unit / gain), fired
            v = v.masked_fill_(fired, 0.0)
        ctx.save_for_backward(voltages, spikes)
        ctx.constants = (keep_u, keep_v, threshold * unit / gain, slope)
        ctx.unit = unit
        return spikes

    @staticmethod
    def backward(ctx: Any, grad_spikes: Tensor) -> tuple[Tensor | None, ...]:
        grad = backward_through_time(grad_spikes.contiguous(), *ctx.saved_tensors, *ctx.constants)
        return grad.mul_(ctx.unit), None, None, None


class TrainableLayer(torch.nn.Module):
    """A layer of integers that can be trained: latent weights, in mantissa units, rounded at every forward pass.

    Attributes:
        weight: [n_in, n_out], bias: [n_out]; latent, in mantissa units.
    """

    def __init__(self, layer: IntegerLayer, unit: float, grid: Grid, weight: Tensor, bias: Tensor) -> None:
        """Of latent values that round to those of `layer`, or near; `unit` is the trained weight of one mantissa unit.

        Raises:
            SpikerlError: the layer is too large for exact sums in float32.
        """
        super().__init__()
        n_in, columns = layer.weight.shape[1], bias_columns(layer).shape[1]
        self.bias_range = (float(columns * WEIGHT_MIN), float(columns * (-WEIGHT_MIN - grid.bias_step)))
        largest = n_in * -WEIGHT_MIN + -self.bias_range[0]
        if layer.weight_exp < 0 or largest >= FLOAT32_INTEGERS or largest * 2.0 ** (layer.weight_exp + 6) >= WIRE_LIMIT:
            raise SpikerlError(
                f"a layer of {n_in} inputs at weight_exp {layer.weight_exp} cannot be fine-tuned exactly"
            )
        self.layer, self.unit, self.grid = layer, unit, grid
        self.weight, self.bias = torch.nn.Parameter(weight), torch.nn.Parameter(bias)

    def mantissas(self) -> tuple[Tensor, Tensor]:
        """Rounded weights [n_in, n_out] and bias [n_out]."""
        grid = self.grid
        low, high = float(-grid.limit * grid.step), float(grid.top)
        weight: Tensor = _Round.apply(self.weight, float(grid.step), low, high)
        bias: Tensor = _Round.apply(self.bias, float(grid.bias_step), *self.bias_range)
        return weight, bias

    def forward(self, spikes: Tensor, slope: Slope) -> Tensor:
        """Spikes [T, B, n_out] of input spikes [T, B, n_in], as float32 0 and 1."""
        weight, bias = self.mantissas()
        accumulated = torch.addmm(bias, spikes.flatten(0, 1), weight).unflatten(0, spikes.shape[:2])
        out: Tensor = _IntegerLIF.apply(accumulated, self.layer, self.unit, slope)
        return out
