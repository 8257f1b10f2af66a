"""The four energy models against sums by hand, and the document that they fill."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

import jsonschema
import pytest
from energy_networks import ANN, POLICY, even_workload, uneven_workload

from spikerl_deploy.chip_tables import built_in_text
from spikerl_deploy.energy import estimate_energy, load_energy_chips
from spikerl_deploy.energy_arithmetic import access_energy
from spikerl_deploy.energy_baselines import dense_macs, quantized_bits
from spikerl_deploy.errors import SpikerlError
from spikerl_deploy.workload import Workload

CHIPS = load_energy_chips()
SMALL = (3, 4, 2)
# Of the uneven network, one control step, by hand: inputs 3, 5, 1; layer 1: 2, 0, 4, 1; layer 2: 1.5, 3.5 spikes.
CROSSINGS = (3 * 3 + 5 * 1 + 1 * 3, 2 * 1 + 0 * 0 + 4 * 2 + 1 * 2)
SYNOPS, SPIKES, UPDATES, OVERHEAD = 17 + 12, 7 + 5, 6 * 5, 6 * 2


def estimate(workload: Workload, sizes: tuple[int, ...] = SMALL) -> dict[str, Any]:
    return estimate_energy(workload, sizes, CHIPS)


def ranges(workload: Workload, sizes: tuple[int, ...] = SMALL) -> dict[str, tuple[float, float]]:
    """Low and high of every figure and baseline, in pJ."""
    document = estimate(workload, sizes)
    return {f["id"]: (f["low"] * 1e6, f["high"] * 1e6) for f in document["figures"] + document["baselines"]}


def test_the_hand_count_is_that_of_the_workload() -> None:
    workload = uneven_workload()
    assert tuple(layer.effective_acs for layer in workload.layers) == CROSSINGS
    assert (workload.synaptic_operations, workload.spikes, workload.overhead_updates) == (SYNOPS, SPIKES, OVERHEAD)
    assert workload.updates_active + workload.updates_inactive == UPDATES


def test_synaptic_operations_alone_take_the_energy_of_one_each() -> None:
    found = ranges(uneven_workload())
    assert found["loihi1/synops"] == pytest.approx((SYNOPS * 23.6, SYNOPS * 35.5))
    assert found["spinnaker2/synops"] == pytest.approx((SYNOPS * 450, SYNOPS * 450))
    assert found["truenorth/synops"] == pytest.approx((SYNOPS * 2.3, SYNOPS * 2.3))


def test_the_chips_dynamic_energy_adds_updates_of_the_pipeline_and_spikes() -> None:
    found = ranges(uneven_workload())
    idle = UPDATES + OVERHEAD - SPIKES
    davies = SYNOPS * 23.6 + idle * 52.0 + SPIKES * 81.0 + SPIKES * 1.7
    sana_fe = SYNOPS * 35.5 + (idle + SPIKES) * 72.8 + SPIKES * (69.3 + 111)
    assert found["loihi1/chip-dynamic"] == pytest.approx((davies, sana_fe))
    one_update = SYNOPS * 13300 + (UPDATES + OVERHEAD) * 26000
    assert found["spinnaker/chip-dynamic"] == pytest.approx((one_update, one_update))


def test_the_chips_total_adds_static_power_over_the_control_step() -> None:
    found = ranges(uneven_workload(control_step_s=0.05))
    low, high = found["loihi1/chip-dynamic"]
    assert found["loihi1/chip-total"] == pytest.approx((low + 29e-3 * 0.05 * 1e12, high + 104e-3 * 0.05 * 1e12))
    assert found["loihi1/chip-total"][1] / 1e6 == pytest.approx(5200, rel=1e-3)  # 104 mW over 50 ms is 5.2 mJ
    assert found["truenorth/chip-total"] == pytest.approx((SYNOPS * 2.3 + 64e-3 * 0.05 * 1e12,) * 2)


def test_without_a_control_step_there_is_no_total_and_no_power() -> None:
    document = estimate(uneven_workload(control_step_s=None))
    figures = document["figures"] + document["baselines"]
    assert all(f["per_second"] is None and f["model"] != "chip-total" for f in figures)
    assert not any(each["id"].endswith("chip-total") for each in document["break_even"])
    json.dumps(document, allow_nan=False)


def test_energy_a_second_is_energy_over_the_control_step() -> None:
    for f in estimate(uneven_workload(control_step_s=0.02))["figures"]:
        assert f["per_second"]["low"] == pytest.approx(f["low"] * 50)
        assert f["per_second"]["high"] == pytest.approx(f["high"] * 50) and f["per_second"]["unit"] == "uW"


def test_a_memory_access_is_interpolated_between_the_published_sizes() -> None:
    chip = CHIPS.chips["cmos45"]
    places = [0, 4096, 8192, 20480, 32768, 540672, 1048576]
    assert [access_energy(chip, place) for place in places] == pytest.approx([0, 5, 10, 15, 20, 60, 100])
    assert access_energy(chip, 1048576 + 1016) == pytest.approx(100 + 80 / 1000)  # on along the last line


@pytest.mark.parametrize("bits", [8, 32])
def test_the_memory_aware_model_by_hand(bits: int) -> None:
    """All memories lie below 8 kB, where an access takes 10 / 8192 pJ a byte."""
    add, multiply = (0.9, 3.7) if bits == 32 else (0.1, 3.1)
    byte = 10 / 8192
    low = high = 0.0
    for n_in, n_out, events, crossings, spikes in ((3, 4, 9, 17, 7), (4, 2, 7, 12, 5)):
        shared = crossings * 0.1  # addressing
        shared += events * (2 * n_in) * byte + spikes * (2 * n_out) * byte  # queues, 2 bytes a neuron
        shared += crossings * (n_in * n_out * bits / 8) * byte  # weights
        low += shared + (crossings + 5 * n_out + spikes) * add + 5 * n_out * (multiply + add)
        low += n_out * (4 * n_out) * byte  # biases, once
        low += 2 * (crossings + n_out) * (4 * n_out) * byte  # voltages, read and written
        high += shared + (crossings + 7 * n_out + spikes) * add + 2 * 7 * n_out * (multiply + add)
        high += 7 * n_out * (4 * n_out) * byte
        high += 2 * (crossings + 2 * 7 * n_out) * (8 * n_out) * byte  # currents too
    assert ranges(uneven_workload(bits=bits))["cmos45/memory-aware"] == pytest.approx((low, high))


@pytest.mark.parametrize(("bits", "adds"), [(4, (0.03, 0.1)), (8, (0.03, 0.1)), (16, (0.1, 0.1)), (32, (0.9, 0.9))])
def test_a_spike_is_an_addition_of_the_weights_width(bits: int, adds: tuple[float, float]) -> None:
    assert ranges(uneven_workload(bits=bits))["cmos45/synops"] == pytest.approx(tuple(SYNOPS * add for add in adds))


def test_an_input_that_is_no_spike_is_multiplied() -> None:
    workload = uneven_workload(bits=32)
    first = dataclasses.replace(workload.layers[0], effective_acs=0.0, effective_macs=float(CROSSINGS[0]))
    analog = dataclasses.replace(workload, layers=(first, workload.layers[1]))
    before, after = ranges(workload), ranges(analog)
    for figure in ("cmos45/synops", "cmos45/memory-aware"):
        assert after[figure][0] - before[figure][0] == pytest.approx(CROSSINGS[0] * 3.7)


def test_baselines_are_the_dense_ann_in_each_format() -> None:
    found, macs = ranges(uneven_workload()), 3 * 4 + 4 * 2
    assert found["ann-fp32/synops"] == pytest.approx((macs * 4.6, macs * 4.6))
    assert found["ann-fp16/synops"] == pytest.approx((macs * 1.5, macs * 1.5))
    assert found["ann-int8/synops"] == pytest.approx((macs * 0.23, macs * 0.3))
    three = 0.2 * 3 / 8
    assert found["ann-int3/synops"] == pytest.approx((macs * (three + 0.03), macs * (three + 0.1)))
    assert found["ann-cpu2015/synops"] == pytest.approx((macs * 8600, macs * 8600))
    assert found["ann-h100/synops"] == pytest.approx((macs * 1.4, macs * 21))
    assert found["snn-h100/synops"] == pytest.approx((macs * 5 * 1.4, macs * 5 * 21))


def test_the_memory_aware_ann_by_hand() -> None:
    byte, found = 10 / 8192, ranges(uneven_workload())
    for target, add, multiply, weight_bytes, activation_bytes in (
        ("ann-fp32", 0.9, 3.7, 4, 4), ("ann-fp16", 0.4, 1.1, 2, 2), ("ann-int3", 0.1, 0.2 * 3 / 8, 1, 3 / 8),
    ):  # fmt: skip
        expected = 0.0
        for n_in, n_out in ((3, 4), (4, 2)):
            expected += n_in * n_out * (add + multiply) + n_out * add + n_in * n_out * 0.1
            expected += n_in * (n_in * activation_bytes) * byte + n_out * (n_out * activation_bytes) * byte
            expected += n_in * n_out * (n_in * n_out * weight_bytes) * byte + n_out * (n_out * 4) * byte
        assert found[f"{target}/memory-aware"][1] == pytest.approx(expected)


@pytest.mark.parametrize(("time_steps", "bits"), [(1, 1), (3, 2), (4, 3), (5, 3), (7, 3), (8, 4), (50, 6), (200, 8)])
def test_the_quantized_ann_tells_as_many_levels_apart_as_spike_counts(time_steps: int, bits: int) -> None:
    assert quantized_bits(time_steps) == bits and 2**bits >= time_steps + 1 > 2 ** (bits - 1)
    found = [f["id"] for f in estimate(even_workload(SMALL, 0.2, time_steps))["baselines"]]
    assert f"ann-int{bits}/synops" in found and len(found) == len(set(found))


@pytest.mark.parametrize("sizes", [(), (17,), (17, 0, 6), (17, -1)])
def test_sizes_of_no_ann_are_refused(sizes: tuple[int, ...]) -> None:
    with pytest.raises(SpikerlError, match="no layer sizes of an ANN"):
        estimate(uneven_workload(), sizes)
    assert dense_macs((17, 256, 256, 6)) == 17 * 256 + 256 * 256 + 256 * 6


def test_every_figure_says_how_it_came_about() -> None:
    document = estimate(even_workload(POLICY, 0.1, 5), ANN)
    figures = document["figures"] + document["baselines"]
    ids = [f["id"] for f in figures]
    assert len(ids) == len(set(ids)) and document["headline"]["id"] in ids
    assert {f["model"] for f in figures} == {each["model"] for each in document["models"]}
    for f in figures:
        assert 0 < f["low"] <= f["high"] and f["kind"] == "modelled" and f["constants_kind"] and f["sources"]
        assert f["id"] == f"{f['target']}/{f['model']}" and f["what"] and f["title"]
    by_id = {f["id"]: f for f in figures}
    assert by_id["loihi1/chip-dynamic"]["constants_kind"] == ["simulated", "fitted"]
    assert "measured" in by_id["loihi1/chip-total"]["constants_kind"]
    assert "derived" in by_id["ann-int3/synops"]["constants_kind"]
    assert "derived" not in by_id["ann-int8/synops"]["constants_kind"]
    assert "left out: spike" in by_id["spinnaker/chip-dynamic"]["note"]
    assert "left out: neuron_update, spike" in by_id["truenorth/chip-total"]["note"]
    assert "left out" not in by_id["loihi1/chip-dynamic"]["note"]
    json.dumps(document, allow_nan=False)


def test_chips_without_a_table_of_operations_get_no_estimate_but_a_reference() -> None:
    document = estimate(uneven_workload())
    estimated = {f["target"] for f in document["figures"] + document["baselines"]}
    referred = {each["target"] for each in document["references"]}
    assert {"loihi2", "speck", "xylo-a2"} <= referred and not estimated & {"loihi2", "speck", "xylo-a2"}
    (force,) = [each for each in document["references"] if each["target"] == "loihi2"]
    assert (force["value"], force["spread"], force["unit"]) == (53, 17, "uJ per inference")


def test_estimate_of_the_papers_network_is_in_the_published_range() -> None:
    """170-256-256-60, T 5, 10 % activity, 62k operations: 1.6 to 1.8 uJ by Davies, 2.4 to 2.7 by SANA-FE."""
    low, high = ranges(even_workload(POLICY, 0.1, 5), ANN)["loihi1/chip-dynamic"]
    assert 1.6e6 < low < 1.8e6 and 2.4e6 < high < 2.7e6


def test_a_silent_policy_takes_no_synaptic_energy_but_updates() -> None:
    found = ranges(even_workload(SMALL, 0.0, 5))
    assert found["loihi1/synops"] == (0.0, 0.0)
    assert found["loihi1/chip-dynamic"] == pytest.approx(((UPDATES + OVERHEAD) * 52.0, (UPDATES + OVERHEAD) * 72.8))


@pytest.mark.parametrize("rate", [0.0, 0.1, 1.0])
@pytest.mark.parametrize("control_step_s", [None, 0.05])
def test_the_document_keeps_to_the_reports_schema(rate: float, control_step_s: float | None) -> None:
    schema = json.loads(built_in_text("report.schema.json"))
    energy = {"$schema": schema["$schema"], "$defs": schema["$defs"], "$ref": "#/$defs/energy"}
    jsonschema.validate(estimate(even_workload(POLICY, rate, 5, control_step_s=control_step_s), ANN), energy)
