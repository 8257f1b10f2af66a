"""Modelled energy of an inference from counted spikes, with the constants of data/energy.toml.

Every figure is an estimate and a lower bound: operations, updates and spikes alone, at constants that their
sources give for a chip, without what EXCLUSIONS lists.
"""

from __future__ import annotations

import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any

import numpy as np
from numpy.typing import NDArray

PICOJOULES_PER_MICROJOULE = 1e6
EXCLUSIONS = (
    "encoder and decoder on the host",
    "input and output of the chip",
    "barrier synchronisation between time steps",
    "spike routing beyond one tile",
    "training",
)


@dataclass(frozen=True)
class Activity:
    """Mean activity of one control step (one inference).

    Attributes:
        spikes: of the input and of each layer. neurons: of each layer.
        synaptic_operations: of each layer, one for each spike crossing one non-zero synapse; biases excluded.
        dense_macs: of each layer and time step, all weights.
        time_steps: T. overhead_steps: further time steps of the pipeline, one a layer.
    """

    spikes: tuple[float, ...]
    neurons: tuple[int, ...]
    synaptic_operations: tuple[float, ...]
    dense_macs: tuple[int, ...]
    time_steps: int
    overhead_steps: int

    @property
    def activity(self) -> tuple[float, ...]:
        """Spikes a neuron and time step, for each layer."""
        return tuple(s / (n * self.time_steps) for s, n in zip(self.spikes[1:], self.neurons, strict=True))


def measure_activity(
    spike_totals: Sequence[NDArray[np.int64]],
    weights: Sequence[NDArray[Any]],
    control_steps: int,
    time_steps: int,
) -> Activity:
    """Mean activity of a control step.

    Args:
        spike_totals: for the input and each layer [n], spikes over all control steps.
        weights: for each layer [n_out, n_in]; a zero is no synapse.
    """
    operations = [
        float(total @ np.count_nonzero(weight, axis=0)) / control_steps
        for total, weight in zip(spike_totals[:-1], weights, strict=True)
    ]
    return Activity(
        spikes=tuple(float(total.sum()) / control_steps for total in spike_totals),
        neurons=tuple(int(weight.shape[0]) for weight in weights),
        synaptic_operations=tuple(operations),
        dense_macs=tuple(int(weight.size) for weight in weights),
        time_steps=time_steps,
        overhead_steps=len(weights),
    )


@cache
def constants() -> dict[str, Any]:
    """The constants file."""
    return tomllib.loads(files("spikerl_deploy").joinpath("data/energy.toml").read_text(encoding="utf-8"))


def estimate_energy(activity: Activity, control_step_seconds: float | None) -> dict[str, Any]:
    """Modelled energy of one inference under each set of constants, low and high beside each other.

    Args:
        control_step_seconds: simulated time between inferences, for the chip's leakage; None if unknown.

    Returns:
        A JSON-ready document; every figure has value, unit, kind, constants' kind and source.
    """
    table = constants()
    figures = [_chip(table[name], name, activity) for name in ("loihi1-davies", "loihi1-sanafe")]
    if control_step_seconds is not None:
        static = table["loihi1-static"]
        value = static["power"]["value"] * 1e3 * control_step_seconds  # mW over s, in microjoules
        figures.append(_figure(static, "loihi1-static", value, "leakage over one control step at the control rate"))
    macs = sum(activity.dense_macs) * activity.time_steps
    for name in ("gpu-floor", "gpu-2015"):
        value = macs * table[name]["multiply_accumulate"]["value"] / PICOJOULES_PER_MICROJOULE
        what = f"the same spiking policy as {macs} dense multiply-accumulates"
        figures.append(_figure(table[name], name, value, what))
    return {"constants_version": table["version"], "figures": figures, "exclusions": list(EXCLUSIONS)}


def _chip(chip: dict[str, Any], name: str, activity: Activity) -> dict[str, Any]:
    """Dynamic energy: operations, updates of every neuron in every step, and spikes."""
    fired = sum(activity.spikes[1:])
    updates = sum(activity.neurons) * (activity.time_steps + activity.overhead_steps)
    picojoules = (
        sum(activity.synaptic_operations) * chip["synaptic_operation"]["value"]
        + (updates - fired) * chip["neuron_update"]["value"]
        + fired * chip["neuron_update_active"]["value"]
        + fired * chip["spike"]["value"]
    )
    return _figure(chip, name, picojoules / PICOJOULES_PER_MICROJOULE, "dynamic energy of the core on the chip")


def _figure(entry: dict[str, Any], name: str, value: float, what: str) -> dict[str, Any]:
    return {
        "name": name,
        "title": entry["title"],
        "what": what,
        "value": value,
        "unit": "uJ per inference",
        "kind": "modelled",
        "constants_kind": entry["kind"],
        "source": entry["source"],
        "note": entry["note"],
    }
