"""What a report shows of a rollout: spikes of its first control steps, firing rates, voltages of chosen neurons."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from simulators.protocol import Backend
from simulators.rollout import Rollout
from spikerl_deploy.codec import Spikes
from spikerl_deploy.float_core import run_layer
from spikerl_deploy.integer_lif import integrate_reference
from spikerl_deploy.loihi import STATE_SHIFT, IntegerLayer
from spikerl_deploy.policy import Policy, SpikingLayer

TRACE_STEPS = 20  # control steps that are shown
VOLTAGE_DIGITS = 6  # significant digits of a float voltage in the report
RATE_DIGITS = 6  # decimals of a firing rate

Voltages = NDArray[Any]  # [T, B, n]: int32 in chip's state units, or float32


def shown_spikes(rollout: Rollout) -> list[Spikes] | None:
    """Spikes [k, T, n] of the input and of each layer: the first k control steps of the first episode, if recorded."""
    if rollout.inputs is None or rollout.rasters is None:
        return None
    steps = min(TRACE_STEPS, rollout.lengths[0])  # then slot 0 goes on with another episode
    return [raster[:steps, 0] for raster in (rollout.inputs, *rollout.rasters)]


def spikes_document(rollout: Rollout) -> dict[str, Any] | None:
    """The shown spikes as events; None if they were not recorded."""
    shown = shown_spikes(rollout)
    if shown is None:
        return None
    layers = []
    for index, raster in enumerate(shown):
        time, neuron = np.nonzero(_in_one_line(raster))
        entry = {"neurons": raster.shape[-1], "time": time.tolist(), "neuron": neuron.tolist()}
        layers.append({"name": _name(index), **entry})
    steps, time_steps = shown[0].shape[:2]
    return {"control_steps": steps, "time_steps": time_steps, "seed": rollout.seeds[0], "layers": layers}


def rates_document(rollout: Rollout, time_steps: int) -> list[dict[str, Any]]:
    """Spikes of each neuron a time step, over all control steps; the input first."""
    steps = rollout.control_steps * time_steps
    return [
        {"name": _name(index), "rates": [round(count / steps, RATE_DIGITS) for count in total.tolist()]}
        for index, total in enumerate(rollout.spike_totals)
    ]


def membranes_document(policy: Policy, backend: Backend, rollout: Rollout) -> dict[str, Any] | None:
    """Voltages of up to three neurons a layer in the shown control steps, recomputed from the recorded input spikes.

    Shown are the most active neuron of a layer, the median one of those that spike and the first silent one. The
    layers are those that the backend runs: integers bit by bit as `fixed`, floats in float32. `what` says how many
    spikes of all neurons differ from the recorded ones.
    """
    shown = shown_spikes(rollout)
    if shown is None:
        return None
    layers, integer = _layers_run(policy, backend)
    spikes, documents, different = shown[0].swapaxes(0, 1), [], 0
    for index, (layer, recorded) in enumerate(zip(layers, shown[1:], strict=True), start=1):
        voltages, spikes = layer_voltages(layer, spikes)
        fired = spikes.swapaxes(0, 1)
        different += int((fired != recorded).sum())
        documents.append(_layer_document(_name(index), layer, _in_one_line(voltages.swapaxes(0, 1)), fired))
    arithmetic, unit = (
        ("fixed", "state units of Loihi: 1/64 of the threshold's mantissa")
        if integer
        else ("float32", "units of the policy's threshold")
    )
    agreement = "every spike is" if not different else f"all but {different} spikes are"
    what = (
        f"voltage after a time step's update and before the reset of the neurons that spiked; the most active neuron, "
        f"the median active one and a silent one of each layer, computed from the recorded input spikes in the "
        f"arithmetic '{arithmetic}'; {agreement} as recorded on {backend.name}"
    )
    steps, time_steps = shown[0].shape[:2]
    return {
        "backend": arithmetic,
        "what": what,
        "control_steps": steps,
        "time_steps": time_steps,
        "unit": unit,
        "layers": documents,
    }


def layer_voltages(layer: SpikingLayer | IntegerLayer, spikes: Spikes) -> tuple[Voltages, Spikes]:
    """Voltages [T, B, n] of a layer before each reset, and its spikes, for input spikes [T, B, n_in]; states from 0."""
    shape = (*spikes.shape[:2], len(layer.weight))
    if isinstance(layer, IntegerLayer):
        accumulated = spikes.astype(np.int64) @ layer.weight.T.astype(np.int64) + layer.bias
        integers = np.empty(shape, np.int32)
        return integers, integrate_reference(accumulated, layer, integers)
    floats = np.empty(shape, np.float32)
    return floats, run_layer(layer, spikes, floats)


def threshold_of(layer: SpikingLayer | IntegerLayer) -> float:
    """The threshold in the unit of `layer_voltages`."""
    return layer.vth << STATE_SHIFT if isinstance(layer, IntegerLayer) else float(np.float32(layer.v_threshold))


def choose_neurons(counts: NDArray[np.int64]) -> list[int]:
    """The most active neuron, the median one of those that spike, and the first silent one, as far as there are."""
    order = np.argsort(-counts, kind="stable")
    active = [int(neuron) for neuron in order if counts[neuron] > 0]
    silent = [int(neuron) for neuron in order if counts[neuron] == 0]
    chosen = [*active[:1], *active[len(active) // 2 : len(active) // 2 + 1], *silent[:1]]
    return list(dict.fromkeys(chosen))


def _layer_document(
    name: str, layer: SpikingLayer | IntegerLayer, voltages: NDArray[Any], fired: Spikes
) -> dict[str, Any]:
    """Args: voltages [k * T, n]. fired: [k, T, n]."""
    spikes = _in_one_line(fired)
    traces = [
        {
            "neuron": neuron,
            "voltage": [_short(value) for value in voltages[:, neuron].tolist()],
            "spikes": np.flatnonzero(spikes[:, neuron]).tolist(),
        }
        for neuron in choose_neurons(spikes.sum(axis=0))
    ]
    return {"name": name, "threshold": [threshold_of(layer)] * len(traces), "traces": traces}


def _short(value: float) -> float:
    return value if isinstance(value, int) else float(f"{value:.{VOLTAGE_DIGITS}g}")


def _layers_run(policy: Policy, backend: Backend) -> tuple[Sequence[SpikingLayer | IntegerLayer], bool]:
    """The layers that the backend executes, found by its weights, and whether they are integers."""
    if backend.exactness == "integer" and policy.integers is not None:
        return policy.integers, True
    trained, executed = policy.as_trained().layers, backend.layer_weights(policy)
    same = all(np.array_equal(layer.weight, weight) for layer, weight in zip(trained, executed, strict=True))
    return (trained if same else policy.layers), False


def _in_one_line(raster: NDArray[Any]) -> NDArray[Any]:
    """[k, T, n] as [k * T, n]."""
    return raster.reshape(-1, raster.shape[-1])


def _name(index: int) -> str:
    return f"layer {index}" if index else "input"
