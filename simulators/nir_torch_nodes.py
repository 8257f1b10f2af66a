"""What each NIR node computes in a time step, in torch, in float32: docs/semantics.md in code."""

from __future__ import annotations

from collections.abc import Callable

import nir
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from spikerl_deploy.nir_float32 import to_float32
from spikerl_deploy.nir_shapes import SPIKING, Floats, Shape, Window, parameter, refused, window

Op = Callable[[Tensor], Tensor]


class Parameters:
    """A node's parameters as float32 tensors of one shape, computed in float64 and rounded once."""

    def __init__(self, name: str, node: nir.NIRNode, shape: Shape | None, device: torch.device) -> None:
        self.name, self.node, self.shape, self.device = name, node, shape, device

    def get(self, field: str) -> Floats:
        return parameter(self.name, self.node, field, self.shape)

    def tensor(self, values: Floats, field: str) -> Tensor:
        return torch.tensor(to_float32(self.name, field, np.asarray(values)), device=self.device)

    def __getitem__(self, field: str) -> Tensor:
        return self.tensor(self.get(field), field)


class Neuron:
    """Neurons with a voltage: u = keep_u u + gain_u i; v = keep_v v + gain_v u + leak; those that spike reset."""

    def __init__(self, given: Parameters, dt: float) -> None:
        node = given.node
        self.synaptic = isinstance(node, nir.CubaLIF | nir.CubaLI)
        self.spiking = isinstance(node, SPIKING)
        self.leaky = not isinstance(node, nir.IF | nir.I)
        if self.synaptic:
            rate = _rate(given, "tau_syn", dt)
            self.keep_u, self.gain_u = given.tensor(1 - rate, "tau_syn"), given.tensor(rate * given.get("w_in"), "w_in")
        if self.leaky:
            rate = _rate(given, "tau_mem" if self.synaptic else "tau", dt)
            self.keep_v, self.leak = given.tensor(1 - rate, "tau"), given.tensor(rate * given.get("v_leak"), "v_leak")
            self.gain_v = given.tensor(rate * given.get("r"), "r")
        else:
            self.gain_v = given.tensor(dt * given.get("r"), "r")
        if self.spiking:
            self.v_threshold, self.v_reset = given["v_threshold"], given["v_reset"]
        self.u = self.v = torch.zeros_like(self.gain_v)

    def __call__(self, arriving: Tensor) -> Tensor:
        if self.synaptic:
            arriving = self.u = self.keep_u * self.u + self.gain_u * arriving
        gained = self.gain_v * arriving
        self.v = self.keep_v * self.v + gained + self.leak if self.leaky else self.v + gained
        if not self.spiking:
            return self.v
        spikes = self.v > self.v_threshold
        self.v = torch.where(spikes, self.v_reset, self.v)
        return spikes.to(torch.float32)


def _rate(given: Parameters, field: str, dt: float) -> Floats:
    """dt / time constant; at most 1, since a time constant may be dt but for its float32 rounding."""
    return np.minimum(dt / given.get(field), 1.0)


class Delay:
    """Each element's value of some time steps ago, and 0 before; holds as many steps as can matter in the run."""

    def __init__(self, steps: NDArray[np.int64], time_steps: int, device: torch.device) -> None:
        self.whole = bool((steps > 0).all())  # every element is delayed
        steps = np.minimum(steps, time_steps)
        self.slots, self.t = int(steps.max()), 0
        self.steps = torch.tensor(steps, device=device)
        self.held = torch.zeros((self.slots, *steps.shape), device=device)

    def past(self) -> Tensor:
        """What comes out where the delay is at least one step."""
        return self.held.gather(0, ((self.t - self.steps) % self.slots)[None])[0]

    def __call__(self, arriving: Tensor) -> Tensor:
        return torch.where(self.steps == 0, arriving, self.past()) if self.slots else arriving

    def keep(self, arriving: Tensor) -> None:
        """Take in what arrives in this time step, and end it."""
        if self.slots:
            self.held[self.t % self.slots] = arriving
        self.t += 1


def stateless(given: Parameters, taken: Shape, shape: Shape) -> Op:
    """What a node without state computes of an input of shape `taken`, into an output of shape `shape`."""
    node = given.node
    match node:
        case nir.Output():
            return lambda x: x
        case nir.Affine():
            weight, bias = Parameters(given.name, node, None, given.device)["weight"], given["bias"]
            return lambda x: torch.matmul(weight, x[..., None])[..., 0] + bias
        case nir.Linear():
            weight = Parameters(given.name, node, None, given.device)["weight"]
            return lambda x: torch.matmul(weight, x[..., None])[..., 0]
        case nir.Scale():
            scale = given["scale"]
            return lambda x: x * scale
        case nir.Threshold():
            threshold = given["threshold"]
            return lambda x: (x > threshold).to(torch.float32)
        case nir.Flatten():
            return lambda x: x.reshape(shape)
        case nir.Conv1d() | nir.Conv2d() | nir.SumPool2d() | nir.AvgPool2d():
            return _windowed(given, window(given.name, node, taken))
    raise refused(given.name, f"is a {type(node).__name__}, which backend 'torch' does not run")


def _windowed(given: Parameters, geometry: Window) -> Op:
    """A convolution or pooling; zeros are padded beforehand, since torch limits or rearranges its own padding."""
    node = given.node
    padding = [zeros for pair in reversed(geometry.padding) for zeros in pair]
    if isinstance(node, nir.SumPool2d | nir.AvgPool2d):
        divisor = 1 if isinstance(node, nir.SumPool2d) else None
        kernel, stride = geometry.kernel, geometry.stride
        return lambda x: functional.avg_pool2d(functional.pad(x, padding), kernel, stride, divisor_override=divisor)
    convolve = functional.conv1d if isinstance(node, nir.Conv1d) else functional.conv2d
    weight = Parameters(given.name, node, None, given.device)["weight"]
    bias = Parameters(given.name, node, (weight.shape[0],), given.device)["bias"]
    stride, dilation, groups = geometry.stride, geometry.dilation, geometry.groups
    return lambda x: convolve(functional.pad(x, padding), weight, bias, stride, 0, dilation, groups)
