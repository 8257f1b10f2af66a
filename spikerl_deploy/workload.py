"""What an inference costs in operations: counted from the spikes of a closed loop, as NeuroBench counts.

docs/counting.md says what is counted, and what is not.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from spikerl_deploy.errors import SpikerlError

UNIT = "per inference: mean over all control steps"
FLOAT_BITS = 32  # of a float weight; of a bias and of a state everywhere
STATES = 2  # of a neuron: current u and voltage v
FOOTPRINT_NOTE = (
    f"every weight, zero or not, at its width; a bias, a current and a voltage of {FLOAT_BITS} bits a neuron; "
    "of one episode: the states grow with the batch"
)
Totals = Sequence[NDArray[np.int64]]
Weights = Sequence[NDArray[Any]]


@dataclass(frozen=True)
class LayerWorkload:
    """Operations of one layer; what is no size or share is a mean per inference.

    Attributes:
        n_in, neurons: sizes. synapses: weights that are not zero.
        input_events: inputs that are not zero, over all T time steps.
        effective_acs: input events times their synapses, where all inputs are -1, 0 or 1; biases excluded.
        effective_macs: the same where they are not.
        dense: all weights, T times.
        spikes: of the layer's neurons.
        updates_active: neuron updates of the T time steps in which the neuron spiked.
        updates_inactive: the other ones.
        connection_sparsity: share of weights that are zero. activation_sparsity: share of outputs that are.
    """

    name: str
    n_in: int
    neurons: int
    synapses: int
    input_events: float
    effective_acs: float
    effective_macs: float
    dense: int
    spikes: float
    updates_active: float
    updates_inactive: float
    connection_sparsity: float
    activation_sparsity: float

    @property
    def firing_rate(self) -> float:
        """Spikes a neuron and time step."""
        updates = self.updates_active + self.updates_inactive
        return self.spikes / updates if updates else 0.0


@dataclass(frozen=True)
class Footprint:
    """Memory of a policy's core in bytes; `weights` at `weight_bits` bits each, zeros among them."""

    weight_bits: int
    weights: int
    biases: int
    neuron_states: int

    @property
    def total(self) -> int:
        return self.weights + self.biases + self.neuron_states


@dataclass(frozen=True)
class Workload:
    """Operations of one inference: one control step of T time steps.

    Attributes:
        time_steps: T. overhead_steps: further time steps of the pipeline on a chip, one a layer.
        control_steps: that the means are over.
        input_spikes: a mean per inference, as everything that is no size.
        weight_bits: 32 for float.
        control_step_s: seconds of simulated time between inferences, None if unknown.
    """

    time_steps: int
    overhead_steps: int
    control_steps: int
    input_neurons: int
    input_spikes: float
    layers: tuple[LayerWorkload, ...]
    weight_bits: int
    footprint: Footprint
    control_step_s: float | None

    @property
    def effective_acs(self) -> float:
        return sum(layer.effective_acs for layer in self.layers)

    @property
    def effective_macs(self) -> float:
        return sum(layer.effective_macs for layer in self.layers)

    @property
    def synaptic_operations(self) -> float:
        """Spikes crossing synapses, of all layers."""
        return self.effective_acs + self.effective_macs

    @property
    def dense(self) -> int:
        """Operations of the same network with every weight and every input."""
        return sum(layer.dense for layer in self.layers)

    @property
    def neurons(self) -> int:
        """Neurons of all layers, without the input."""
        return sum(layer.neurons for layer in self.layers)

    @property
    def spikes(self) -> float:
        """Spikes of all layers, without the input's."""
        return sum(layer.spikes for layer in self.layers)

    @property
    def updates_active(self) -> float:
        return sum(layer.updates_active for layer in self.layers)

    @property
    def updates_inactive(self) -> float:
        """Updates without a spike of the T time steps; those of the pipeline's further steps are not among them."""
        return sum(layer.updates_inactive for layer in self.layers)

    @property
    def overhead_updates(self) -> int:
        """Neuron updates of the pipeline's further time steps."""
        return self.neurons * self.overhead_steps


@dataclass(frozen=True)
class EpisodeCounts:
    """Whole counts of each episode: all layers together, the input's spikes apart."""

    synaptic_operations: tuple[int, ...]
    spikes: tuple[int, ...]
    input_spikes: tuple[int, ...]


def count_workload(
    spike_totals: Totals,
    weights: Weights,
    control_steps: int,
    time_steps: int,
    *,
    weight_bits: int,
    control_step_s: float | None,
) -> Workload:
    """Operations of one inference, a mean over control steps.

    Args:
        spike_totals: for the input and each layer [n], spikes over all control steps.
        weights: for each layer [n_out, n_in], as it is executed; a zero is no synapse.

    Raises:
        SpikerlError: no control steps, weights that do not fit the spikes, or more than one spike a time step.
    """
    if control_steps < 1 or time_steps < 1:
        raise SpikerlError(f"operations of {control_steps} control steps of {time_steps} time steps cannot be counted")
    _check_sizes([total.shape for total in spike_totals], weights)
    most = control_steps * time_steps
    for place, total in enumerate(spike_totals):
        if total.size and not 0 <= total.min() <= total.max() <= most:
            name, worst = f"layer {place}" if place else "input", max(total, key=lambda n: abs(n - most / 2))
            raise SpikerlError(f"{name} holds a neuron with {worst} spikes in {most} time steps")
    layers = tuple(
        _layer(f"layer {number}", before, weight, after, control_steps, time_steps)
        for number, (before, weight, after) in enumerate(
            zip(spike_totals[:-1], weights, spike_totals[1:], strict=True), start=1
        )
    )
    neurons = sum(layer.neurons for layer in layers)
    word = FLOAT_BITS // 8
    return Workload(
        time_steps=time_steps,
        overhead_steps=len(layers),
        control_steps=control_steps,
        input_neurons=spike_totals[0].size,
        input_spikes=int(spike_totals[0].sum()) / control_steps,
        layers=layers,
        weight_bits=weight_bits,
        footprint=Footprint(
            weight_bits=weight_bits,
            weights=-(-sum(weight.size for weight in weights) * weight_bits // 8),
            biases=neurons * word,
            neuron_states=neurons * STATES * word,
        ),
        control_step_s=control_step_s,
    )


def count_episodes(episode_spikes: Totals, weights: Weights) -> EpisodeCounts:
    """Counts of each of E episodes.

    Args:
        episode_spikes: for the input and each layer [E, n], spikes over the episode's control steps.
        weights: as of `count_workload`.

    Raises:
        SpikerlError: weights that do not fit the spikes.
    """
    _check_sizes([spikes.shape[1:] for spikes in episode_spikes], weights)
    operations = sum(spikes @ _fan_out(weight) for spikes, weight in zip(episode_spikes[:-1], weights, strict=True))
    fired = sum(spikes.sum(axis=1) for spikes in episode_spikes[1:])
    return EpisodeCounts(
        *(tuple(np.asarray(counts).tolist()) for counts in (operations, fired, episode_spikes[0].sum(axis=1)))
    )


def workload_document(workload: Workload, per_episode: EpisodeCounts) -> dict[str, Any]:
    """The counts as report.json holds them (docs/report.md)."""
    per_inference = {
        "synaptic_operations": workload.synaptic_operations,
        "effective_acs": workload.effective_acs,
        "effective_macs": workload.effective_macs,
        "dense": workload.dense,
        "spikes": workload.spikes,
        "input_spikes": workload.input_spikes,
        "updates_active": workload.updates_active,
        "updates_inactive": workload.updates_inactive,
        "overhead_updates": workload.overhead_updates,
    }
    inputs = workload.input_neurons * workload.time_steps
    inferences, seconds = workload.control_steps / len(per_episode.spikes), workload.control_step_s
    return {
        "unit": UNIT,
        "time_steps": workload.time_steps,
        "overhead_steps": workload.overhead_steps,
        "control_steps": workload.control_steps,
        "control_step_s": seconds,
        "input": {
            "neurons": workload.input_neurons,
            "spikes": workload.input_spikes,
            "activation_sparsity": (inputs - workload.input_spikes) / inputs,
        },
        "layers": [_layer_document(layer) for layer in workload.layers],
        "per_inference": per_inference,
        "per_second": None if seconds is None else {key: value / seconds for key, value in per_inference.items()},
        "per_episode": {
            "mean": {key: value * inferences for key, value in per_inference.items()},
            "synaptic_operations": list(per_episode.synaptic_operations),
            "spikes": list(per_episode.spikes),
            "input_spikes": list(per_episode.input_spikes),
        },
        "footprint": {
            "unit": "bytes",
            "weight_bits": workload.footprint.weight_bits,
            "weights": workload.footprint.weights,
            "biases": workload.footprint.biases,
            "neuron_states": workload.footprint.neuron_states,
            "total": workload.footprint.total,
            "note": FOOTPRINT_NOTE,
        },
    }


def _layer_document(layer: LayerWorkload) -> dict[str, Any]:
    return {**vars(layer), "firing_rate": layer.firing_rate}


def _layer(
    name: str,
    before: NDArray[np.int64],
    weight: NDArray[Any],
    after: NDArray[np.int64],
    control_steps: int,
    time_steps: int,
) -> LayerWorkload:
    """Sums are whole numbers until they are divided: shares and means are then the nearest floats."""
    synapses, fired = int(np.count_nonzero(weight)), int(after.sum())
    outputs = after.size * time_steps * control_steps
    return LayerWorkload(
        name=name,
        n_in=before.size,
        neurons=after.size,
        synapses=synapses,
        input_events=int(before.sum()) / control_steps,
        effective_acs=int(before @ _fan_out(weight)) / control_steps,
        effective_macs=0.0,  # inputs of a spiking layer are 0 and 1
        dense=weight.size * time_steps,
        spikes=fired / control_steps,
        updates_active=fired / control_steps,
        updates_inactive=(outputs - fired) / control_steps,
        connection_sparsity=(weight.size - synapses) / weight.size,
        activation_sparsity=(outputs - fired) / outputs,
    )


def _fan_out(weight: NDArray[Any]) -> NDArray[np.int64]:
    """Synapses of each input, [n_in]."""
    fan_out: NDArray[np.int64] = np.count_nonzero(weight, axis=0).astype(np.int64)
    return fan_out


def _check_sizes(shapes: Sequence[tuple[int, ...]], weights: Weights) -> None:
    wanted = [(after, before) for (before,), (after,) in pairwise(shapes)]
    found = [weight.shape for weight in weights]
    if wanted != found:
        raise SpikerlError(f"weights of shapes {found} do not fit spikes of {[size for (size,) in shapes]} neurons")
