"""The fit of policies to chips against counts by hand, and the layout over cores against its own rules."""

from __future__ import annotations

import itertools
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support import quantized_policy, random_layers, random_policy

from spikerl_deploy.chips import KINDS, LIMIT_NAMES, Chip, load_chips
from spikerl_deploy.cores import LayerLoad, pack
from spikerl_deploy.errors import SpikerlError
from spikerl_deploy.fit import Check, FitReport, check_fit
from spikerl_deploy.loihi import IntegerLayer
from spikerl_deploy.policy import Policy, SpikingLayer

CHIPS = load_chips()
MINE = """
[mine]
title = "My chip"
[mine.sources]
sheet = { name = "data sheet", kind = "datasheet", url = "https://example.org" }
[mine.limits]
cores = { value = 8, source = "sheet" }
core_neurons = { value = 4, source = "sheet" }
core_in_axons = { value = 100, source = "sheet" }
core_out_axons = { value = 6, source = "sheet" }
"""


def chip_of(tmp_path: Path, text: str) -> Chip:
    (tmp_path / "mine.toml").write_text(text)
    return load_chips(tmp_path / "mine.toml")["mine"]


def check(report: FitReport, name: str) -> Check:
    (found,) = [each for each in report.checks if each.name == name]
    return found


def integer_policy(*layers: IntegerLayer, bits: int = 8) -> Policy:
    floats = tuple(SpikingLayer(layer.weight, layer.bias) for layer in layers)
    return Policy(layers=floats, integers=layers, bits=bits)


def filled(n_in: int, n_out: int, value: int = 2, bias: int = 2, **constants: int) -> IntegerLayer:
    """A layer of equal weights."""
    numbers = {"weight_exp": 0, "du": 2047, "dv": 1024, "vth": 100} | constants
    return IntegerLayer(np.full((n_out, n_in), value), np.full(n_out, bias), **numbers, scale=1.0)


def dense(*sizes: int) -> Policy:
    return integer_policy(*(filled(n_in, n_out) for n_in, n_out in itertools.pairwise(sizes)))


@pytest.mark.parametrize(
    ("synapses", "bits", "expected"),
    [
        (1, 8, 64),  # 8 + 10 bits in one word
        (6, 8, 64),  # 58
        (7, 8, 128),  # 66
        (60, 8, 512),  # 490
        (64, 8, 576),  # 522
        (65, 8, 576 + 64),
        (256, 8, 4 * 576),
        (64, 7, 576),  # there is no 7-bit weight
        (64, 4, 320),  # 266
        (0, 8, 0),
    ],
)
def test_an_axon_takes_whole_words_of_blocks(synapses: int, bits: int, expected: int) -> None:
    memory = CHIPS["loihi1"].synapse_memory
    assert memory is not None
    assert memory.axon_bits(synapses, bits) == expected


def test_a_large_policy_on_loihi_1_by_hand() -> None:
    """From the output: 257 axons of 60 synapses, 257 of 256, and of the first layer what is left of the first core.

    That is 1,048,576 - 257 * 512 - 257 * 2304 = 324,864 bits for 171 axons, 1,899 each: 29 words, which hold
    192 + 14 = 206 synapses (3 * 576 + 128 bits). The other 50 neurons take 171 * 448 bits on a second core.
    """
    report = check_fit(dense(170, 256, 256, 60), CHIPS["loihi1"])
    assert report.fits and report.worst is None
    first, second = report.cores
    assert first.slices == ((0, 206), (1, 256), (2, 60))
    assert second.slices == ((0, 50),)
    assert first.synapse_bits == 257 * 512 + 257 * 2304 + 171 * (3 * 576 + 128) == 1_041_088
    assert second.synapse_bits == 171 * 448 == 76_608
    assert report.synapse_bits == 1_117_696 > 1_048_576
    assert first.always_on + second.always_on == 2  # for the biases of the second and the third layer
    assert (first.neurons, second.neurons) == (206 + 256 + 60 + 2, 50)
    assert (first.in_axons, second.in_axons) == (171 + 257 + 257, 171)
    assert (first.out_axons, second.out_axons) == (60 + 257 + 207, 50)
    assert check(report, "cores").needed == 2 and check(report, "cores").margin == 126
    assert "fewer than 2" in check(report, "cores").note
    assert check(report, "core_synapse_bits").margin == 1_048_576 - 1_041_088


def test_out_axons_multiply_with_the_cores_of_the_next_layer(tmp_path: Path) -> None:
    """Six outputs fill cores 1 (4) and 2 (2); a hidden neuron then takes two out-axons, for either core.

    Core 2 has room for 2 neurons and 6 - 2 = 4 out-axons: 2 neurons. Core 3: 6 out-axons, 3 neurons. So the
    fourth hidden neuron and the always-firing one share core 3 with room for one more.
    """
    report = check_fit(dense(3, 4, 6), chip_of(tmp_path, MINE))
    assert [core.slices for core in report.cores] == [((1, 4),), ((0, 2), (1, 2)), ((0, 2),)]
    assert [core.always_on for core in report.cores] == [0, 0, 1]
    assert [core.out_axons for core in report.cores] == [4, 6, 6]
    assert [core.in_axons for core in report.cores] == [5, 9, 4]
    assert report.fits


def test_a_neuron_that_no_core_holds_fails_by_the_resource(tmp_path: Path) -> None:
    report = check_fit(dense(100, 4), chip_of(tmp_path, MINE))  # 101 in-axons with the bias
    axons = check(report, "core_in_axons")
    assert (axons.needed, axons.limit, axons.fits, axons.margin) == (101, 100, False, -1)
    assert check(report, "cores").fits is None and "layer 1" in check(report, "cores").note
    assert report.worst is axons and not report.fits
    assert check_fit(dense(99, 4), chip_of(tmp_path, MINE)).fits


@settings(max_examples=150, deadline=None)
@given(
    st.lists(st.tuples(st.integers(1, 40), st.integers(0, 3)), min_size=1, max_size=4),
    st.integers(1, 30),
    st.sampled_from([(10, 60, 60, 20_000), (7, 200, 30, 6_000), (50, 90, 200, 4_000)]),
)
def test_every_layout_keeps_its_own_rules(layers: list[tuple[int, int]], n_in: int, limits: tuple[int, ...]) -> None:
    """No neuron is lost, no limit is passed, and axons and memory are those of the slices."""
    chip = CHIPS["loihi1"]
    names = ("core_neurons", "core_in_axons", "core_out_axons", "core_synapse_bits")
    tight = {name: replace(chip.limits[name], value=value) for name, value in zip(names, limits, strict=True)}
    chip = replace(chip, limits=dict(chip.limits) | tight)
    assert chip.synapse_memory is not None
    loads, sources = [], n_in
    for index, (neurons, bias) in enumerate(layers):
        always_on = layers[index + 1][1] if index + 1 < len(layers) else 0
        loads.append(LayerLoad(neurons, sources + bias, always_on, ((sources, 8), (bias, 4)), 1.0, (1.0, 1.0)))
        sources = neurons
    packed = pack(loads, chip)
    if packed.unplaced is not None:
        assert any(packed.largest[name] > limit for name, limit in zip(names, limits, strict=True))
        return
    for index, load in enumerate(loads):
        assert sum(dict(core.slices).get(index, 0) for core in packed.cores) == load.neurons
    assert sum(core.always_on for core in packed.cores) == sum(load.always_on for load in loads)
    for core in packed.cores:
        slices = dict(core.slices)
        assert core.neurons == sum(slices.values()) + core.always_on > 0
        assert core.in_axons == sum(loads[index].sources for index in slices)
        expected = sum(
            count * chip.synapse_memory.axon_bits(neurons, width)
            for index, neurons in slices.items() for count, width in loads[index].axons
        )  # fmt: skip
        assert core.synapse_bits == expected
        used = (core.neurons, core.in_axons, core.out_axons, core.synapse_bits)
        assert all(amount <= limit for amount, limit in zip(used, limits, strict=True))
    spread = [sum(index in dict(core.slices) for core in packed.cores) for index in range(len(loads))] + [1]
    wanted = sum((load.neurons + load.always_on) * spread[index + 1] for index, load in enumerate(loads))
    assert sum(core.out_axons for core in packed.cores) == wanted
    assert packed.at_least <= len(packed.cores)
    assert packed.synapse_bits == sum(core.synapse_bits for core in packed.cores)


def test_a_wide_bias_takes_neurons_axons_and_synapses(tmp_path: Path) -> None:
    """600 = 254 + 254 + 92: three always-firing neurons for the second layer, three constants for the first."""
    policy = integer_policy(filled(5, 4, bias=600), filled(4, 3, bias=600))
    report = check_fit(
        policy, chip_of(tmp_path, MINE.replace("core_neurons = { value = 4", "core_neurons = { value = 50"))
    )
    needed = {each.name: each.needed for each in report.checks}
    assert needed["inputs"] == 5 + 3
    assert (needed["hidden_neurons"], needed["output_neurons"], needed["neurons"]) == (4 + 3, 3, 10)
    assert (needed["fan_in"], needed["fan_out"]) == (8, 3)
    assert needed["synapses"] == 4 * 8 + 3 * 7
    assert needed["core_in_axons"] == 8 + 7
    assert needed["core_bytes"] == 4 * 8 + 3 * 7


def test_weights_of_zero_are_no_synapses_but_fill_dense_memory() -> None:
    weight = np.zeros((10, 20), dtype=int)
    weight[0, :3] = 4
    layer = replace(filled(20, 10), weight=weight)
    report = check_fit(integer_policy(layer, filled(10, 2)), CHIPS["loihi1"])
    assert check(report, "synapses").needed == 3 + 10 + 2 * 11
    assert check(report, "fan_in").needed == 11 and check(report, "fan_out").needed == 2
    assert report.synapse_bits == 21 * 128 + 11 * 64


def test_a_policy_of_four_bits_takes_four_bits_of_memory_and_its_bias_its_own() -> None:
    layer = filled(10, 64, value=32, bias=2)
    report = check_fit(integer_policy(layer, bits=4), CHIPS["loihi1"])
    assert report.synapse_bits == 10 * 320 + 576
    assert check(report, "weight_bits").needed == 8  # those of the bias
    coarse = check_fit(integer_policy(filled(10, 64, value=32, bias=-32), bits=4), CHIPS["loihi1"])
    assert check(coarse, "weight_bits").needed == 4 and coarse.synapse_bits == 11 * 320


def test_a_large_policy_misses_xylo_in_these_four_ways() -> None:
    report = check_fit(dense(170, 256, 256, 60), CHIPS["xylo-a2"])
    failed = {each.name: (each.needed, each.limit, each.margin) for each in report.checks if each.fits is False}
    assert failed == {
        "neuron_model": ("cuba-lif", "cuba-lif-subtract", None),
        "inputs": (171, 16, -155),
        "output_neurons": (60, 8, -52),
        "fan_out": (256, 64, -192),
    }
    assert check(report, "hidden_neurons").margin == 1000 - 514
    assert report.worst is check(report, "neuron_model") and math.isinf(report.worst.excess)
    other = check_fit(dense(170, 256, 256, 60), CHIPS["xylo-a3"])
    assert other.worst is check(other, "inputs")  # 171 of 16 is farther beyond than 60 of 32
    small = check_fit(dense(15, 495, 16), CHIPS["xylo-imu"])
    assert small.fits and check(small, "hidden_neurons").margin == 0 == check(small, "inputs").margin


def test_the_range_of_weights_exponents_and_thresholds_is_checked() -> None:
    edge = check_fit(integer_policy(filled(3, 2, value=-256)), CHIPS["spinnaker2"])
    assert check(edge, "weight_min").needed == -128 and edge.worst is check(edge, "weight_min")
    assert check_fit(integer_policy(filled(3, 2, value=-254)), CHIPS["spinnaker2"]).fits
    for exponent, name, fits in (
        (-8, "weight_exp_min", False),
        (-7, "weight_exp_min", True),
        (7, "weight_exp_max", True),
    ):
        report = check_fit(integer_policy(filled(3, 2, weight_exp=exponent)), CHIPS["loihi1"])
        assert report.fits is fits and check(report, name).fits is fits
    assert check(check_fit(integer_policy(filled(3, 2, vth=131071)), CHIPS["loihi1"]), "threshold_max").margin == 0


def test_more_thresholds_or_decays_than_a_core_holds() -> None:
    layers = [filled(4, 4, vth=100 + index, dv=1000 + min(index, 4)) for index in range(9)]
    report = check_fit(integer_policy(*layers), CHIPS["loihi1"])
    assert (check(report, "core_thresholds").needed, check(report, "core_thresholds").fits) == (9, False)
    assert (check(report, "core_decays").needed, check(report, "core_decays").fits) == (5, True)


def test_layers_go_to_kernel_memories_by_size() -> None:
    """Nine layers of 256 * 60, rounded up to 256 * 64 = 16K words, fit; one more word each does not."""
    assert check(check_fit(dense(256, 60), CHIPS["speck"]), "layer_kernels").needed == 16384
    report = check_fit(dense(*[128] * 10), CHIPS["speck"])
    assert check(report, "layer_kernels").fits and check(report, "cores").margin == 0
    crowded = check_fit(dense(*[128] * 8, 129, 128), CHIPS["speck"])  # 128 * 256 for 129 neurons, 129 * 128 after
    assert check(crowded, "layer_kernels").fits
    three = check_fit(dense(256, 256, 256, 256), CHIPS["speck"])  # three of 64K, and two such memories
    kernels = check(three, "layer_kernels")
    assert (kernels.needed, kernels.limit, kernels.fits) == (65536, 32768, False)
    assert not check(check_fit(dense(*[4] * 11), CHIPS["speck"]), "cores").fits
    assert not check(check_fit(dense(4, 1025, 4), CHIPS["speck"]), "layer_neurons").fits


def test_a_float_policy_fails_by_its_bits_and_is_counted_at_the_chips_width() -> None:
    policy = random_policy(obs_dim=17, act_dim=6, hidden=(256, 256))
    report = check_fit(policy, CHIPS["loihi1"])
    assert not report.quantized and report.worst is check(report, "weight_bits")
    assert report.worst.needed == 32 and "quantized" in report.worst.note
    assert report.synapse_bits == 1_117_696
    assert check(report, "threshold_max").fits is None and check(report, "threshold_max").needed is None


def test_what_is_not_published_is_not_checked() -> None:
    report = check_fit(quantized_policy(), CHIPS["loihi2"])
    assert {each.name for each in report.checks} == set(LIMIT_NAMES)
    for each in report.checks:
        if each.name in CHIPS["loihi2"].limits:
            assert each.source is not None and each.fits
        else:
            assert each.fits is None and each.note == "not checked: no published limit" and each.limit is None


def test_an_empty_layer_is_refused() -> None:
    with pytest.raises(SpikerlError, match="a layer of the policy is empty: 4-0"):
        check_fit(Policy(layers=random_layers(np.random.default_rng(0), (4, 0))), CHIPS["loihi1"])


def test_the_built_in_chips_state_a_source_for_everything() -> None:
    assert set(CHIPS) == {"loihi1", "loihi2", "spinnaker2", "speck", "xylo-a2", "xylo-a3", "xylo-imu"}
    for chip in CHIPS.values():
        for limit in chip.limits.values():
            assert limit.source.kind in KINDS and limit.source.name


BROKEN = [
    ("", "holds no chip"),
    ("[mine", "is not TOML"),
    ("mine = 3", "mine = 3 is no table"),
    (MINE.replace('title = "My chip"', ""), "mine.title is missing"),
    (MINE.replace('title = "My chip"', "title = 3"), "mine.title = 3 is no text"),
    (MINE.replace('title = "My chip"', 'titel = "My chip"'), "unknown key 'mine.titel'"),
    (MINE + "core_nerons = { value = 4, source = 'sheet' }", "unknown limit 'mine.limits.core_nerons'"),
    (MINE.replace("value = 4", "value = -4"), "mine.limits.core_neurons.value = -4 must be positive"),
    (MINE.replace("value = 4", "value = 0"), "mine.limits.core_neurons.value = 0 must be positive"),
    (MINE.replace("value = 4", "value = 4.5"), "mine.limits.core_neurons.value = 4.5 is no integer"),
    (MINE.replace("value = 4", "value = true"), "mine.limits.core_neurons.value = True is no integer"),
    (MINE.replace("value = 4,", ""), "mine.limits.core_neurons.value is missing"),
    (MINE.replace("value = 4, source", "value = 4, unit = 'x', source"), "unknown key 'mine.limits.core_neurons.unit'"),
    (MINE.replace('{ value = 4, source = "sheet" }', "4"), "core_neurons = 4 is no table"),
    (MINE.replace('value = 4, source = "sheet"', 'value = 4, source = "shet"'), "core_neurons.source 'shet'"),
    (MINE.replace('kind = "datasheet"', 'kind = "rumour"'), "unknown mine.sources.sheet.kind 'rumour'"),
    (MINE + "neuron_model = { value = 'izhikevich', source = 'sheet' }", "neuron_model.value 'izhikevich'"),
    (MINE + "layer_kernels = { value = [3, -1], source = 'sheet' }", "layer_kernels.value[1] = -1 must be positive"),
    (MINE + "layer_kernels = { value = [], source = 'sheet' }", "layer_kernels.value = [] is no list"),
    (MINE + "core_synapse_bits = { value = 9, source = 'sheet' }", "core_synapse_bits and synapse_memory together"),
    (MINE.replace('cores = { value = 8, source = "sheet" }', ""), "cores is missing"),
    (MINE[: MINE.index("cores =")], "mine.limits is empty"),
    (MINE.replace("[mine]", "[loihi1]").replace("[mine.", "[loihi1."), "chip 'loihi1' is built in already"),
]  # fmt: skip


@pytest.mark.parametrize(("text", "message"), BROKEN)
def test_a_broken_chip_file_is_refused_by_file_key_and_value(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(text)
    with pytest.raises(SpikerlError) as refused:
        load_chips(path)
    assert message in refused.value.message
    assert str(path) in refused.value.message and refused.value.hint


def test_a_chip_file_that_cannot_be_read_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SpikerlError, match="cannot read chip file"):
        load_chips(tmp_path / "none.toml")
    (tmp_path / "binary.toml").write_bytes(b"\xff\xfe")
    with pytest.raises(SpikerlError, match="cannot read chip file"):
        load_chips(tmp_path / "binary.toml")
