"""Four models of the energy of one inference, from counted operations and published constants.

Every model gives a pair in pJ: under the chip's low and its high set of constants. docs/energy.md has the equations.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Literal

from spikerl_deploy.energy_arithmetic import Bounds, integers_of
from spikerl_deploy.energy_constants import ARITHMETIC_NAMES, CHIP_NAMES, MEMORY, POWER, EnergyChip
from spikerl_deploy.energy_memory import memory_aware
from spikerl_deploy.workload import LayerWorkload, Workload

PJ_PER_J = 1e12


@dataclass(frozen=True)
class Model:
    """A way to count; `needs` are the constants without which it says nothing, `uses` all that it reads."""

    name: str
    title: str
    what: str
    needs: tuple[str, ...]
    uses: tuple[str, ...]
    energy: Callable[[Workload, EnergyChip], Bounds]

    def holds(self, workload: Workload, chip: EnergyChip) -> bool:
        """Whether the chip's constants and what is known of the policy suffice."""
        return chip.states(*self.needs) and (POWER not in self.needs or workload.control_step_s is not None)


def _operations(workload: Workload, chip: EnergyChip) -> Bounds:
    only = {"synaptic_operation": workload.synaptic_operations}
    return _priced(chip, only, "low"), _priced(chip, only, "high")


def _arithmetic_operations(workload: Workload, chip: EnergyChip) -> Bounds:
    """An accumulation for each spike, a multiply-accumulate where an input is no spike."""
    numbers = integers_of(chip, workload.weight_bits)
    low, high = (
        workload.synaptic_operations * add + workload.effective_macs * multiply
        for add, multiply in zip(numbers.add, numbers.multiply, strict=True)
    )
    return low, high


def _dynamic(workload: Workload, chip: EnergyChip) -> Bounds:
    counts = _counts(workload, chip)
    return _priced(chip, counts, "low"), _priced(chip, counts, "high")


def _total(workload: Workload, chip: EnergyChip) -> Bounds:
    seconds = workload.control_step_s
    if seconds is None:
        raise ValueError("the time between inferences is unknown")
    low, high = _dynamic(workload, chip)
    power = chip.constants[POWER]
    return low + power.low.value * seconds * PJ_PER_J, high + power.high.value * seconds * PJ_PER_J


def _counts(workload: Workload, chip: EnergyChip) -> dict[str, float]:
    """How often each constant is paid: updates of T and of the pipeline's further time steps, spikes of the layers."""
    idle, active = workload.updates_inactive + workload.overhead_updates, workload.updates_active
    apart = "neuron_update_active" in chip.constants
    return {
        "synaptic_operation": workload.synaptic_operations,
        "neuron_update": idle if apart else idle + active,
        "neuron_update_active": active,
        "spike": workload.spikes,
    }


def _priced(chip: EnergyChip, counts: Mapping[str, float], end: Literal["low", "high"]) -> float:
    total = 0.0
    for name, count in counts.items():
        constant = chip.constants.get(name)
        if constant is not None:
            total += count * (constant.low if end == "low" else constant.high).value
    return total


MODELS = (
    Model(
        "synops", "synaptic operations", "synaptic operations alone, each at the energy of one",
        ("synaptic_operation",), ("synaptic_operation",), _operations,
    ),
    Model(
        "synops", "synaptic operations", "synaptic operations alone, each an addition",
        ARITHMETIC_NAMES, ("fp32_add", "int8_add", "int32_add"), _arithmetic_operations,
    ),
    Model(
        "chip-dynamic", "chip, dynamic",
        "synaptic operations, neuron updates of all time steps with those of the pipeline, and spikes within a tile",
        ("synaptic_operation", "neuron_update"), CHIP_NAMES, _dynamic,
    ),
    Model(
        "chip-total", "chip with static power", "chip-dynamic and the static power of one chip over the control step",
        ("synaptic_operation", POWER), (*CHIP_NAMES, POWER), _total,
    ),
    Model(
        "memory-aware", "operations and memory",
        "operations, addressing, and every access of weights, biases, neuron states and spike queues "
        "(Lemaire et al. 2022)",
        (*ARITHMETIC_NAMES, MEMORY), ("fp32_add", "fp32_multiply", "int32_add", "int32_multiply", MEMORY),
        memory_aware,
    ),
)  # fmt: skip


def firing_rate(workload: Workload) -> float:
    """Spikes a neuron and time step, inputs among them, each weighted by its synapses: SynOps over synapses and T."""
    crossings = sum(layer.synapses for layer in workload.layers) * workload.time_steps
    return workload.synaptic_operations / crossings if crossings else 0.0


def scale_activity(workload: Workload, factor: float) -> Workload:
    """The same network with `factor` times the spikes, in the same proportions."""
    return replace(
        workload,
        input_spikes=workload.input_spikes * factor,
        layers=tuple(_scaled(layer, factor) for layer in workload.layers),
    )


def _scaled(layer: LayerWorkload, factor: float) -> LayerWorkload:
    updates, active = layer.updates_active + layer.updates_inactive, layer.updates_active * factor
    return replace(
        layer,
        input_events=layer.input_events * factor,
        effective_acs=layer.effective_acs * factor,
        effective_macs=layer.effective_macs * factor,
        spikes=layer.spikes * factor,
        updates_active=active,
        updates_inactive=updates - active,
    )


def all_firing(workload: Workload) -> Workload:
    """The same network with every input and every neuron firing in each of the T time steps."""
    steps = workload.time_steps
    layers = tuple(
        replace(
            layer,
            input_events=float(layer.n_in * steps),
            effective_acs=float(layer.synapses * steps),
            effective_macs=0.0,
            spikes=float(layer.neurons * steps),
            updates_active=float(layer.neurons * steps),
            updates_inactive=0.0,
        )
        for layer in workload.layers
    )
    return replace(workload, input_spikes=float(workload.input_neurons * steps), layers=layers)
