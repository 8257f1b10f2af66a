"""Shapes and parameters of single NIR nodes, checked: what a node makes of an input of a shape, or why it cannot."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import nir
import numpy as np
from numpy.typing import NDArray

from spikerl_deploy.errors import SpikerlError

Shape = tuple[int, ...]
Floats = NDArray[np.float64]

# Parameters of one value a neuron; a neuron's output has the shape of its input.
NEURON_FIELDS: dict[type[nir.NIRNode], tuple[str, ...]] = {
    nir.CubaLIF: ("tau_syn", "tau_mem", "r", "v_leak", "v_threshold", "v_reset", "w_in"),
    nir.LIF: ("tau", "r", "v_leak", "v_threshold", "v_reset"),
    nir.IF: ("r", "v_threshold", "v_reset"),
    nir.CubaLI: ("tau_syn", "tau_mem", "r", "v_leak", "w_in"),
    nir.LI: ("tau", "r", "v_leak"),
    nir.I: ("r",),
    nir.Threshold: ("threshold",),
}
NEURONS = tuple(NEURON_FIELDS)
SPIKING = (nir.CubaLIF, nir.LIF, nir.IF, nir.Threshold)
LINEAR = (nir.Affine, nir.Linear, nir.Scale, nir.Delay, nir.Flatten)
WINDOWED = (nir.Conv1d, nir.Conv2d, nir.SumPool2d, nir.AvgPool2d)
SUPPORTED = (nir.Input, nir.Output, *NEURONS, *LINEAR, *WINDOWED)
TIME_CONSTANTS = ("tau", "tau_syn", "tau_mem")
RELATIVE_TOLERANCE = 1e-6  # float32 rounding of a time constant
VALUES_MAX = 1 << 24  # outputs of all nodes together; a Loihi 2 chip has 2^20 neurons
INTEGER_MAX = 1 << 31  # of a dimension, stride, padding, ...


def refused(name: str, what: str, hint: str | None = None) -> SpikerlError:
    """Error that names the node."""
    return SpikerlError(f"NIR node '{name}' {what}", hint)


def declared_shape(name: str, value: object) -> Shape | None:
    """Shape that an Input, Output or Flatten states; None where it states none.

    Raises:
        SpikerlError: it holds something else than positive whole numbers.
    """
    if value is None:
        return None
    return _whole_numbers(name, "shape", value, None, 1)


def parameter(name: str, node: nir.NIRNode, field: str, shape: Shape | None = None) -> Floats:
    """A parameter in float64: as it is, or given for every value of `shape` or once for all, broadcast to it.

    Raises:
        SpikerlError: another shape, or values that are not finite real numbers.
    """
    values = _numbers(name, field, getattr(node, field))
    if shape is None or values.shape == shape:
        return values
    if values.size != 1:
        raise refused(name, f"has {field} of shape {values.shape}, {shape} or a single value was expected")
    return np.broadcast_to(values.reshape(()), shape)


def check_time_constants(name: str, node: nir.NIRNode, dt: float) -> None:
    """Refuse a time constant below the time step, at which forward Euler is no longer the neuron.

    Raises:
        SpikerlError: such a time constant, up to float32 rounding.
    """
    for field in NEURON_FIELDS.get(type(node), ()):
        if field in TIME_CONSTANTS:
            shortest = float(parameter(name, node, field).min())
            if not shortest >= dt * (1 - RELATIVE_TOLERANCE):
                raise refused(
                    name,
                    f"has {field} {shortest:g} s, a time constant below dt = {dt:g} s",
                    f"give a time step of at most the time constant: --dt {shortest!r}"
                    if shortest > 0
                    else "time constants are positive",
                )


@dataclass(frozen=True)
class Window:
    """Geometry of a convolution or pooling over the axes after the channels.

    Attributes:
        kernel, stride, dilation: one number an axis. padding: zeros before and after, of each axis.
        groups: channels are split into so many groups that do not mix.
    """

    kernel: Shape
    stride: Shape
    dilation: Shape
    padding: tuple[tuple[int, int], ...]
    groups: int

    def spatial(self, spatial: Shape) -> Shape:
        """Sizes of the output's axes for those of the input; below 1 where the kernel does not fit."""
        return tuple(
            (size + before + after - dilation * (kernel - 1) - 1) // stride + 1
            for size, kernel, stride, dilation, (before, after) in zip(
                spatial, self.kernel, self.stride, self.dilation, self.padding, strict=True
            )
        )


def window(name: str, node: nir.NIRNode, given: Shape) -> Window:
    """The geometry of a Conv1d, Conv2d, SumPool2d or AvgPool2d for an input of shape [C, ...].

    Raises:
        SpikerlError: its numbers make no sense, or do not suit the input.
    """
    axes = 1 if isinstance(node, nir.Conv1d) else 2
    if len(given) != axes + 1:
        raise refused(name, f"takes an input of {axes + 1} dimensions, {given} arrives")
    stride = _whole_numbers(name, "stride", node.stride, axes, 1)
    if isinstance(node, nir.SumPool2d | nir.AvgPool2d):
        kernel = _whole_numbers(name, "kernel_size", node.kernel_size, axes, 1)
        border = _whole_numbers(name, "padding", node.padding, axes, 0)
        return _bounded(name, Window(kernel, stride, (1,) * axes, tuple((p, p) for p in border), given[0]), given)
    weight = np.asarray(node.weight)
    if weight.ndim != axes + 2 or not weight.size:
        raise refused(
            name, f"has a weight of shape {weight.shape}, [C_out, C_in, {'K' if axes == 1 else 'K, K'}] is needed"
        )
    kernel = weight.shape[2:]
    dilation = _whole_numbers(name, "dilation", node.dilation, axes, 1)
    (groups,) = _whole_numbers(name, "groups", node.groups, 1, 1)
    if weight.shape[1] * groups != given[0] or weight.shape[0] % groups:
        raise refused(
            name, f"has a weight of shape {weight.shape} in {groups} groups, which does not suit {given[0]} channels"
        )
    padding = _padding(name, node.padding, kernel, stride, dilation)
    if node.input_shape is not None:
        stated = _whole_numbers(name, "input_shape", node.input_shape, axes, 1)
        if stated != given[1:]:
            raise refused(name, f"states an input_shape of {stated}, {given[1:]} arrives")
    return _bounded(name, Window(kernel, stride, dilation, padding, groups), given)


def _bounded(name: str, geometry: Window, given: Shape) -> Window:
    """The geometry, unless its padding makes the input huge or its kernel does not fit."""
    padded = [size + sum(border) for size, border in zip(given[1:], geometry.padding, strict=True)]
    if given[0] * math.prod(padded) > VALUES_MAX:
        raise refused(name, f"pads its input to {padded}, beyond {VALUES_MAX} values")
    if min(geometry.spatial(given[1:])) < 1:
        raise refused(name, f"has a kernel of {geometry.kernel}, which does not fit the input {given}")
    return geometry


def _padding(name: str, value: Any, kernel: Shape, stride: Shape, dilation: Shape) -> tuple[tuple[int, int], ...]:
    """Padding in numbers; `same` as in torch: what is odd goes after, and the stride is 1."""
    kind = value.decode(errors="replace") if isinstance(value, bytes) else value
    if not isinstance(kind, str):
        return tuple((p, p) for p in _whole_numbers(name, "padding", value, len(kernel), 0))
    if kind == "valid":
        return ((0, 0),) * len(kernel)
    if kind != "same":
        raise refused(name, f"has padding {kind!r}, numbers, 'same' or 'valid' were expected")
    if any(s != 1 for s in stride):
        raise refused(name, f"has padding 'same' with a stride of {stride}, which is not defined")
    total = [d * (k - 1) for d, k in zip(dilation, kernel, strict=True)]
    return tuple((t // 2, t - t // 2) for t in total)


def output_shape(name: str, node: nir.NIRNode, given: Shape) -> Shape:
    """Shape of what a node makes of an input of shape `given`; its parameters are checked for it.

    Raises:
        SpikerlError: the input does not suit the node, or a parameter is broken.
    """
    if isinstance(node, nir.Affine | nir.Linear):
        return _affine_shape(name, node, given)
    if isinstance(node, WINDOWED):
        return _window_shape(name, node, given)
    if isinstance(node, nir.Flatten):
        return _flatten_shape(name, node, given)
    if isinstance(node, nir.Input | nir.Output):
        kind = "input" if isinstance(node, nir.Input) else "output"
        stated = declared_shape(name, getattr(node, f"{kind}_type")[kind])
        if stated is not None and stated != given:
            raise refused(name, f"states a shape of {stated}, {given} arrives")
        return given
    fields = NEURON_FIELDS.get(type(node)) or {nir.Scale: ("scale",), nir.Delay: ("delay",)}[type(node)]
    for field in fields:
        parameter(name, node, field, given)
    return given


def _affine_shape(name: str, node: nir.Affine | nir.Linear, given: Shape) -> Shape:
    weight = parameter(name, node, "weight")
    if weight.ndim < 2 or not weight.size:
        raise refused(name, f"has a weight of shape {weight.shape}, [..., n_out, n_in] was expected")
    if given != (*weight.shape[:-2], weight.shape[-1]):
        raise refused(
            name, f"has a weight of shape {weight.shape}, which takes {(*weight.shape[:-2], weight.shape[-1])}; "
            f"{given} arrives"
        )  # fmt: skip
    shape = weight.shape[:-1]
    if isinstance(node, nir.Affine):
        parameter(name, node, "bias", shape)
    return shape


def _window_shape(name: str, node: nir.NIRNode, given: Shape) -> Shape:
    spatial = window(name, node, given).spatial(given[1:])
    if isinstance(node, nir.SumPool2d | nir.AvgPool2d):
        return (given[0], *spatial)
    channels = parameter(name, node, "weight").shape[0]
    parameter(name, node, "bias", (channels,))
    return (channels, *spatial)


def _flatten_shape(name: str, node: nir.Flatten, given: Shape) -> Shape:
    stated = declared_shape(name, node.input_type["input"])
    if stated is not None and stated != given:
        raise refused(name, f"states an input of shape {stated}, {given} arrives")
    (start,) = _whole_numbers(name, "start_dim", node.start_dim, 1, -len(given))
    (end,) = _whole_numbers(name, "end_dim", node.end_dim, 1, -len(given))
    first, last = (dim + len(given) if dim < 0 else dim for dim in (start, end))
    if not first <= last < len(given):
        raise refused(name, f"flattens dimensions {start} to {end} of {given}, which has no such dimensions")
    return (*given[:first], math.prod(given[first : last + 1]), *given[last + 1 :])


def _numbers(name: str, field: str, value: object) -> Floats:
    try:
        array = np.asarray(value)
        values = np.asarray(array, dtype=np.float64) if array.dtype.kind in "biuf" else None
    except (TypeError, ValueError):  # a ragged list
        values = None
    if values is None or not np.isfinite(values).all():
        raise refused(name, f"has {field} that is not made of finite real numbers")
    return values


def _whole_numbers(name: str, field: str, value: object, count: int | None, least: int) -> Shape:
    """Whole numbers of at least `least`: `count` of them, or one for all; as many as there are for None."""
    values = _numbers(name, field, value).ravel()
    if count is not None and values.size == 1:
        values = np.repeat(values, count)
    whole = bool((values == np.rint(values)).all() and (values >= least).all() and (values < INTEGER_MAX).all())
    if not whole or (count is not None and values.size != count):
        shown = " ".join(str(np.asarray(value).tolist()).split())[:80]
        wanted = "whole numbers" if count is None else f"{count} whole number{'s'[: count - 1]}"
        raise refused(name, f"has {field} {shown}, {wanted} of at least {least} expected")
    return tuple(int(v) for v in values)
