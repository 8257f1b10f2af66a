"""What else would do the task: the dense ANN of the same sizes, quantized and not, and processors of all trades."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

from spikerl_deploy.energy_arithmetic import Bounds, Numbers, floats, quantized
from spikerl_deploy.energy_constants import MEMORY, PROCESSOR, EnergyChip, EnergyChips
from spikerl_deploy.energy_figures import figure
from spikerl_deploy.energy_memory import memory_aware_ann
from spikerl_deploy.errors import SpikerlError
from spikerl_deploy.workload import Workload

TECHNOLOGY = "cmos45"
FLOOR = "h100"
ADDERS = "accumulator of 8 (low) or 32 bits (high)"
QUANTIZED_NOTE = f"8-bit weights; the multiplier's energy scaled by the activation's bits over 8; {ADDERS}"


def quantized_bits(time_steps: int) -> int:
    """Activation bits of the ANN that tells as many levels apart as T time steps of spikes: ceil(log2(T + 1))."""
    return time_steps.bit_length()


def dense_macs(ann_sizes: Sequence[int]) -> int:
    """Multiply-accumulates of one inference of the dense ANN; biases excluded.

    Raises:
        SpikerlError: fewer than two layer sizes, or one that is not positive.
    """
    if len(ann_sizes) < 2 or min(ann_sizes) < 1:
        raise SpikerlError(f"{tuple(ann_sizes)} are no layer sizes of an ANN: two or more positive numbers are needed")
    return sum(n_in * n_out for n_in, n_out in itertools.pairwise(ann_sizes))


def ann_formats(technology: EnergyChip, time_steps: int) -> dict[str, Numbers]:
    """Number formats of the dense ANN; the last is the quantized one that T time steps of spikes are compared with."""
    bits = quantized_bits(time_steps)
    formats = {"ann-fp32": floats(technology, 32), "ann-fp16": floats(technology, 16)}
    if bits != 8:
        formats["ann-int8"] = quantized(technology, 8)
    return formats | {f"ann-int{bits}": quantized(technology, bits)}


def ann_operations(ann_sizes: Sequence[int], numbers: Numbers) -> Bounds:
    """Energy of the dense ANN's multiply-accumulates alone, in pJ."""
    low, high = numbers.multiply_accumulate
    return dense_macs(ann_sizes) * low, dense_macs(ann_sizes) * high


def baselines(workload: Workload, ann_sizes: Sequence[int], chips: EnergyChips) -> list[dict[str, Any]]:
    """Figures of the baselines, in the shape of those of the policy."""
    technology, seconds = chips.chips[TECHNOLOGY], workload.control_step_s
    macs, ann = dense_macs(ann_sizes), f"the dense ANN {'-'.join(map(str, ann_sizes))} of the same task"
    found = []
    for name, numbers in ann_formats(technology, workload.time_steps).items():
        word = f"FP{name[6:]}" if name.startswith("ann-fp") else f"{name[7:]}-bit"
        for model, energy, used, what in (
            ("synops", ann_operations(ann_sizes, numbers), (), "multiply-accumulates alone"),
            ("memory-aware", memory_aware_ann(ann_sizes, technology, numbers), (MEMORY, "int32_add"),
             "operations, addressing and memory"),
        ):  # fmt: skip
            found.append(
                figure(
                    name,
                    f"dense ANN, {word}",
                    model,
                    f"{ann}, {word}: {what}",
                    energy,
                    control_step_s=seconds,
                    constants=technology.values(*numbers.constants, *used),
                    note=f"{technology.title}: {technology.note}"
                    + (f"; {QUANTIZED_NOTE}" if name.startswith("ann-int") else ""),
                    derived=name.startswith("ann-int") and numbers.activation_bits != 8,
                )
            )
    for chip in chips.chips.values():
        if PROCESSOR in chip.constants:
            found.append(_on_processor(f"ann-{chip.name}", f"dense ANN, {chip.title}", ann, macs, chip, seconds))
    dense = "the same spiking policy as dense arithmetic, all time steps"
    floor = chips.chips[FLOOR]
    found.append(_on_processor(f"snn-{FLOOR}", f"dense SNN, {floor.title}", dense, workload.dense, floor, seconds))
    return found


def _on_processor(
    target: str, title: str, whom: str, macs: int, chip: EnergyChip, control_step_s: float | None
) -> dict[str, Any]:
    constant = chip.constants[PROCESSOR]
    return figure(
        target,
        title,
        "synops",
        f"{whom}: {macs} multiply-accumulates alone",
        (macs * constant.low.value, macs * constant.high.value),
        control_step_s=control_step_s,
        constants=chip.values(PROCESSOR),
        licence=chip.licence,
        note=chip.note,
    )
