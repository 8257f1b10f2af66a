"""What quantization did to each layer, by its weights, by a bound over all inputs, and on recorded data."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from exporters.grid import Grid, trained_unit
from spikerl_deploy.errors import SpikerlError
from spikerl_deploy.loihi import STATE_LIMIT, IntegerLayer, bias_columns, is_lossless, state_bound
from spikerl_deploy.policy import SpikingLayer


@dataclass(frozen=True)
class ObservedStates:
    """States and spikes of a layer on recorded data.

    Attributes:
        u, v: smallest and largest current and voltage, as shares of the chip's 2^23; beyond 1 the current wraps, the
            voltage clips.
        margin: 1 - the largest |u| or |v|, negative where it overflowed.
        spike_error: mean difference of a neuron's spike count in a control step from the trained float network's.
        spikes: mean spike count of a neuron in a control step in the float network, to compare with.
        control_steps: how many were looked at.
    """

    u: tuple[float, float]
    v: tuple[float, float]
    margin: float
    spike_error: float
    spikes: float
    control_steps: int


@dataclass(frozen=True)
class LayerReport:
    """What quantization did to a layer.

    Attributes:
        layer: index from 0. scale: trained weight that one mantissa unit stands for.
        weight_exp, vth: as in `IntegerLayer`.
        bias_neurons: always-firing neurons that carry the bias.
        clipped: share of weights beyond the mantissa range.
        rms_error: root mean square change of weights and biases, relative to their root mean square.
        u_bound, v_bound: largest states that any input can cause, as shares of the chip's 2^23.
        lossless: whether the integers provably compute the same as the exported floats (`is_lossless`).
        observed: on recorded data, if there was any.
    """

    layer: int
    scale: float
    weight_exp: int
    vth: int
    bias_neurons: int
    clipped: float
    rms_error: float
    u_bound: float
    v_bound: float
    lossless: bool
    observed: ObservedStates | None = None


class StateWatch:
    """Collects the extremes of a layer's states, for `integrate_bounded`."""

    def __init__(self) -> None:
        self.u, self.v = (0.0, 0.0), (0.0, 0.0)

    def __call__(self, u: NDArray[np.float64], v: NDArray[np.float64]) -> None:
        self.u = (min(self.u[0], float(u.min())), max(self.u[1], float(u.max())))
        self.v = (min(self.v[0], float(v.min())), max(self.v[1], float(v.max())))


def report_layer(
    index: int,
    layer: SpikingLayer,
    integer: IntegerLayer,
    grid: Grid,
    time_steps: int,
    observed: ObservedStates | None = None,
) -> LayerReport:
    """Report of a layer `layer`, as trained, that became `integer`."""
    unit = trained_unit(layer, integer)
    values = np.concatenate([layer.weight, layer.bias[:, None]], axis=1).astype(np.float64)
    restored = np.concatenate([integer.weight, integer.bias[:, None]], axis=1) * unit
    rms = float(np.sqrt(np.square(values).mean()))
    u_bound, v_bound = state_bound(integer, time_steps)
    return LayerReport(
        layer=index,
        scale=unit,
        weight_exp=integer.weight_exp,
        vth=integer.vth,
        bias_neurons=bias_columns(integer).shape[1],
        clipped=float(grid.clips(values[:, :-1] / unit).mean()),
        rms_error=float(np.sqrt(np.square(restored - values).mean())) / rms if rms else 0.0,
        u_bound=u_bound / STATE_LIMIT,
        v_bound=v_bound / STATE_LIMIT,
        lossless=is_lossless(integer, time_steps),
        observed=observed,
    )


def observed_states(
    index: int, watch: StateWatch, counts: NDArray[np.int64], wanted: NDArray[np.int64]
) -> ObservedStates:
    """What a layer did on recorded data: its watched states, its spike counts [N, n] beside the float network's.

    Raises:
        SpikerlError: a current left the chip's 24 bits: it would wrap and change its sign.
    """
    u, v = (tuple(value / STATE_LIMIT for value in extremes) for extremes in (watch.u, watch.v))
    if max(-u[0], u[1]) >= 1:
        raise SpikerlError(
            f"layer {index}: a current reaches {max(-u[0], u[1]):.0%} of the chip's 24-bit state on the recorded data",
            "its weights are too large beside its threshold; train with a v_threshold nearer to them, or weight decay",
        )
    return ObservedStates(
        u=(u[0], u[1]),
        v=(v[0], v[1]),
        margin=1 - max(-u[0], u[1], -v[0], v[1]),
        spike_error=float(np.abs(counts - wanted).mean()),
        spikes=float(wanted.mean()),
        control_steps=len(wanted),
    )
