"""The memory-aware model of Lemaire et al. 2022 (arXiv 2210.13107): operations, addressing and memory accesses.

Of fully connected layers, as the authors' own code counts them (qualia-plugin-snn, which mends equation 2.4).
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence

from spikerl_deploy.energy_arithmetic import FLOAT_BITS, Bounds, Numbers, access_energy, floats, wide
from spikerl_deploy.energy_constants import EnergyChip
from spikerl_deploy.workload import LayerWorkload, Workload

WORD = 4  # bytes of a bias and of a neuron state
ADDRESS = 2  # bytes of an entry of a spike queue, which has room for each neuron of its source once


def memory_aware(workload: Workload, chip: EnergyChip) -> Bounds:
    """Energy of the spiking network, in pJ.

    Low: as published, biases and voltages once an inference beside the synaptic operations, one leak a time step.
    High: biases, currents and voltages of every neuron in every time step of the pipeline, two leaks.
    """
    steps = workload.time_steps
    once = [_spiking_layer(layer, chip, workload.weight_bits, steps, 1, 1) for layer in workload.layers]
    piped = steps + workload.overhead_steps
    always = [_spiking_layer(layer, chip, workload.weight_bits, piped, piped, 2) for layer in workload.layers]
    return sum(once), sum(always)


def _spiking_layer(
    layer: LayerWorkload, chip: EnergyChip, weight_bits: int, steps: int, visits: int, states: int
) -> float:
    """Energy of one layer.

    Args:
        steps: time steps in which a neuron leaks and takes its bias. visits: those in which its state is fetched
            and stored, and its bias read, apart from synaptic operations. states: variables of a neuron.
    """
    numbers = floats(chip, FLOAT_BITS) if weight_bits == FLOAT_BITS else wide(chip)
    (add, _), (multiply, _) = numbers.add, numbers.multiply
    crossings = layer.effective_acs + layer.effective_macs
    leaks = states * steps * layer.neurons
    operations = (
        (crossings + steps * layer.neurons + layer.spikes) * add
        + layer.effective_macs * multiply
        + leaks * (multiply + add)
    )
    addressing = crossings * wide(chip).add[0]
    state_accesses = crossings + states * visits * layer.neurons
    memory = (
        layer.input_events * access_energy(chip, layer.n_in * ADDRESS)
        + crossings * access_energy(chip, layer.n_in * layer.neurons * weight_bits / 8)
        + visits * layer.neurons * access_energy(chip, layer.neurons * WORD)
        + 2 * state_accesses * access_energy(chip, layer.neurons * states * WORD)
        + layer.spikes * access_energy(chip, layer.neurons * ADDRESS)
    )
    return operations + addressing + memory


def memory_aware_ann(sizes: Sequence[int], chip: EnergyChip, numbers: Numbers) -> Bounds:
    """Energy of the dense ANN of these layer sizes, in pJ: inputs, weights and biases read once, outputs written."""
    low = high = 0.0
    step = wide(chip).add[0]
    for n_in, n_out in itertools.pairwise(sizes):
        weights = n_in * n_out
        memory = (
            n_in * access_energy(chip, n_in * numbers.activation_bits / 8)
            + weights * access_energy(chip, weights * numbers.weight_bits / 8)
            + n_out * access_energy(chip, n_out * WORD)
            + n_out * access_energy(chip, n_out * numbers.activation_bits / 8)
        )
        shared = memory + weights * step
        low += weights * numbers.multiply_accumulate[0] + n_out * numbers.add[0] + shared
        high += weights * numbers.multiply_accumulate[1] + n_out * numbers.add[1] + shared
    return low, high
