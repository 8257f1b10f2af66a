"""The quantizer: valid integers, small errors, and the promise that integers and floats spike alike."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support import naive_core, random_layers, random_policy, random_spikes

from exporters.grid import Grid, dequantize, layers_to_try, trained_unit
from exporters.quantize import quantize, round_encoder
from simulators.fixed import FixedBackend
from spikerl_deploy.errors import SpikerlError
from spikerl_deploy.float_core import run_floats
from spikerl_deploy.integer_core import IntegerCore
from spikerl_deploy.loihi import (
    ALWAYS_ON_THRESHOLD_MAX,
    STATE_LIMIT,
    IntegerLayer,
    bias_columns,
    is_lossless,
    state_bound,
)
from spikerl_deploy.policy import Policy, PopulationEncoder, SpikingLayer


@pytest.mark.parametrize("bits", range(2, 9))
def test_mantissas_have_the_asked_bits_and_errors_below_half_a_step(bits: int) -> None:
    policy, reports = quantize(random_policy(), bits)
    assert policy.integers is not None
    assert policy.trained is not None
    step = 2 ** (9 - bits)
    for layer, trained, report in zip(policy.integers, policy.trained, reports, strict=True):
        codes = layer.weight // step
        assert (layer.weight % step == 0).all()
        assert codes.min() >= -(2 ** (bits - 1))
        assert codes.max() <= 2 ** (bits - 1) - 1
        inside = np.abs(layer.weight * report.scale - trained.weight) <= step * report.scale / 2 * (1 + 1e-6)
        assert (~inside).sum() == round(report.clipped * layer.weight.size)
        bias_error = np.abs(layer.bias * report.scale - trained.bias).max()
        assert bias_error <= max(step / 8, 1) * report.scale * (1 + 1e-6)  # two bits finer, eight at most
        assert layer.scale == 2.0 ** round(np.log2(layer.scale))
        assert 2**-0.5 <= report.scale / layer.scale <= 2**0.5


def test_the_scale_is_the_best_of_all_that_were_to_be_tried() -> None:
    """No unit on a fine grid has a squared error that is smaller by more than the grid's coarseness explains."""
    policy, reports = quantize(random_policy(hidden=(64, 64)), 4)
    for layer, report in zip(policy.trained or (), reports, strict=True):
        weight = layer.weight.astype(float)

        def error(unit: float, weight: np.ndarray = weight) -> float:
            return float(np.square(np.clip(np.rint(weight / unit / 32), -8, 7) * 32 * unit - weight).sum())

        best = min(error(unit) for unit in report.scale * np.geomspace(0.3, 3, 400))
        assert error(report.scale) <= 1.15 * best


def test_a_bias_beyond_the_weights_takes_more_always_firing_neurons_and_no_resolution() -> None:
    rng = np.random.default_rng(0)
    weight, bias = rng.normal(0, 0.05, (30, 40)), rng.normal(0, 0.3, 30)
    wide, plain = (quantize(Policy(layers=(SpikingLayer(weight, values),)), 8)[1][0] for values in (bias, np.zeros(30)))
    assert wide.scale == plain.scale
    assert (plain.bias_neurons, wide.bias_neurons) == (1, 3)


def test_eight_bits_change_weights_little_and_fewer_bits_more() -> None:
    errors = [max(report.rms_error for report in quantize(random_policy(), bits)[1]) for bits in (8, 6, 4, 2)]
    assert errors[0] < 0.02
    assert errors == sorted(errors)


def test_weights_and_threshold_keep_their_ratio_and_decays_are_exact() -> None:
    policy, reports = quantize(random_policy(), 8)
    for layer, report in zip(policy.layers, reports, strict=True):
        assert (layer.current_decay, layer.voltage_decay) == (0.5, 0.75)
        assert report.scale * report.vth / 2**report.weight_exp == pytest.approx(0.5, rel=1e-12)


def test_decays_on_a_coarser_grid_need_fewer_bits_below_the_unit() -> None:
    layers = random_layers(np.random.default_rng(0), (20, 10), current_decay=0.6, voltage_decay=0.9)
    _, (fine_report,) = quantize(Policy(layers=layers, time_steps=4), 8)
    coarse, (report,) = quantize(Policy(layers=layers, time_steps=4), 8, decay_bits=3)
    assert (coarse.layers[0].current_decay, coarse.layers[0].voltage_decay) == (0.625, 0.875)
    assert coarse.trained is not None
    assert coarse.trained[0].current_decay == 0.6
    assert report.lossless
    assert not fine_report.lossless
    with pytest.raises(SpikerlError, match="decay bits 13 is outside"):
        quantize(Policy(layers=layers), 8, decay_bits=13)


def test_an_encoder_on_a_grid_keeps_the_trained_one_beside_it() -> None:
    source = random_policy()
    policy, _ = quantize(source, 8, encoder_bits=6)
    assert policy.encoder is not None
    assert source.encoder is not None
    assert len(np.unique(np.abs(policy.encoder.mean))) <= 32
    assert len(np.unique(policy.encoder.std)) <= 63
    assert np.abs(policy.encoder.mean - source.encoder.mean).max() <= np.abs(source.encoder.mean).max() / 31 / 2 + 1e-6
    assert np.abs(policy.encoder.std - source.encoder.std).max() <= source.encoder.std.max() / 63 / 2 + 1e-6
    trained = policy.as_trained()
    assert trained.encoder is source.encoder
    assert trained.layers is source.layers
    assert quantize(policy, 8)[0].encoder is source.encoder
    with pytest.raises(SpikerlError, match="encoder bits 1 is outside"):
        quantize(source, 8, encoder_bits=1)


def test_quantizing_again_starts_from_the_trained_weights() -> None:
    once, _ = quantize(random_policy(), 8)
    through_two_bits, _ = quantize(quantize(random_policy(), 2)[0], 8)
    for a, b in zip(once.integers or (), through_two_bits.integers or (), strict=True):
        np.testing.assert_array_equal(a.weight, b.weight)
    with pytest.raises(SpikerlError, match="does not carry its trained weights"):
        quantize(replace(once, trained=None), 8)


@pytest.mark.parametrize("bits", [-1, 0, 1, 9])
def test_bits_out_of_range_are_refused(bits: int) -> None:
    with pytest.raises(SpikerlError, match=f"bits {bits} is outside"):
        quantize(random_policy(), bits)


def test_a_layer_of_zeros_and_one_that_dwarfs_its_threshold() -> None:
    silent = Policy(layers=(SpikingLayer(np.zeros((3, 4)), np.zeros(3)),))
    integers = quantize(silent, 8)[0].integers
    assert integers is not None
    assert not integers[0].weight.any()
    with pytest.raises(SpikerlError, match=r"layer 0: threshold 0\.5 is too far from its weights"):
        quantize(Policy(layers=(SpikingLayer(np.full((3, 4), 1e6), np.zeros(3)),)), 8)
    with pytest.raises(SpikerlError, match="layer 0: weights up to 1e-06 vanish beside its threshold"):
        quantize(Policy(layers=(SpikingLayer(np.full((3, 4), 1e-6), np.zeros(3)),)), 8)
    wide = quantize(Policy(layers=(SpikingLayer(np.full((3, 4), 1e4), np.zeros(3)),)), 8)[0]
    assert wide.layers[0].weight.max() / wide.layers[0].v_threshold == pytest.approx(2e4, rel=0.3)


def test_a_voltage_that_hardly_leaks_keeps_leaking() -> None:
    layer = SpikingLayer(np.ones((3, 4)), np.zeros(3), voltage_decay=0.99999)
    assert 0.999 < quantize(Policy(layers=(layer,)), 8)[0].layers[0].voltage_decay < 1


def exact_spikes(layers: tuple[IntegerLayer, ...], spikes: np.ndarray) -> list[np.ndarray]:
    return naive_core(tuple(dequantize(layer) for layer in layers), spikes)


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    sizes=st.lists(st.integers(1, 40), min_size=2, max_size=4).map(tuple),
    gain=st.floats(0.1, 4.0),
    bits=st.integers(2, 8),
    time_steps=st.integers(1, 5),
    rate=st.floats(0.05, 0.95),
)
def test_lossless_layers_spike_like_the_real_numbers(
    seed: int, sizes: tuple[int, ...], gain: float, bits: int, time_steps: int, rate: float
) -> None:
    """Where the report says lossless, the chip's integers agree with float64 on every spike, ties included."""
    layers = random_layers(np.random.default_rng(seed), sizes, gain)
    policy, reports = quantize(Policy(layers=layers, time_steps=time_steps), bits)
    assert policy.integers is not None
    spikes = random_spikes(seed + 1, (4, time_steps, sizes[0]), rate)
    with FixedBackend().open(policy, 4) as session:
        rasters = session.infer(spikes, rasters=True).rasters
    assert rasters is not None
    if not all(report.lossless for report in reports):
        return
    for b in range(4):
        for ours, exact in zip(rasters, exact_spikes(policy.integers, spikes[b]), strict=True):
            np.testing.assert_array_equal(ours[b], exact)


def test_a_default_policy_is_lossless() -> None:
    _, reports = quantize(random_policy(hidden=(64, 64)), 8)
    assert all(report.lossless for report in reports)
    assert max(report.u_bound for report in reports) < 1


def test_other_decays_and_thresholds_are_rounded_and_reported_as_not_lossless() -> None:
    layers = random_layers(np.random.default_rng(0), (20, 10), current_decay=0.6, voltage_decay=0.9, v_threshold=0.3)
    policy, (report,) = quantize(Policy(layers=layers), 8)
    layer = policy.layers[0]
    assert layer.current_decay == pytest.approx(0.6, abs=1 / 4096)
    assert layer.voltage_decay == pytest.approx(0.9, abs=1 / 4096)
    assert report.scale / policy.integers[0].scale * layer.v_threshold == pytest.approx(0.3)  # type: ignore[index]
    assert not report.lossless


def test_a_current_that_could_overflow_gets_a_coarser_scale() -> None:
    """Weights of one sign into neurons that hardly leak: fine scales would wrap, which changes the sign."""
    weight = np.random.default_rng(0).uniform(0, 0.02, (8, 1024))
    layers = (SpikingLayer(weight, np.zeros(8), current_decay=0.9, voltage_decay=0.9),)
    policy, (report,) = quantize(Policy(layers=layers, time_steps=40), 8)
    assert report.u_bound < 1
    assert policy.integers is not None
    spikes = np.ones((40, 1, 1024), bool)
    integers = IntegerCore(policy.integers, 40)(spikes)[0]
    assert integers.sum() == run_floats(layers, spikes)[0].sum() == 8 * 40


def test_a_current_that_overflows_at_every_scale_is_refused_by_layer() -> None:
    layers = (SpikingLayer(np.full((3, 200), -1000.0), np.zeros(3), current_decay=0.99),)
    with pytest.raises(SpikerlError, match=r"layer 0: at every scale some input makes a current overflow"):
        quantize(Policy(layers=layers, time_steps=60), 8)


def test_a_voltage_that_could_clip_gets_less_room_below_the_unit() -> None:
    """Inhibition first, then excitation: a voltage clipped on the way down would come up too early."""
    weight = np.concatenate([np.full((1, 60), -0.099), np.full((1, 60), 0.099)], axis=1)
    layers = (SpikingLayer(weight, np.zeros(1)),)
    policy, (report,) = quantize(Policy(layers=layers, time_steps=12), 8)
    assert report.v_bound < 1
    spikes = np.zeros((12, 1, 120), bool)
    spikes[:8, :, :60] = True
    spikes[8:, :, 60:] = True
    assert policy.integers is not None
    np.testing.assert_array_equal(IntegerCore(policy.integers, 12)(spikes)[0], run_floats(policy.layers, spikes)[0])


def test_biases_that_dwarf_the_threshold_are_refused_by_layer() -> None:
    layer = SpikingLayer(np.full((3, 4), 0.1), np.full(3, 1e6))
    with pytest.raises(SpikerlError, match=r"layer 0: threshold 0\.5 is too far .* biases \(up to 1e\+06\)"):
        quantize(Policy(layers=(layer,)), 8)


@pytest.mark.parametrize("bits", [2, 4, 8])
def test_bias_columns_are_on_the_grid_of_the_biases(bits: int) -> None:
    rng = np.random.default_rng(0)
    layer = SpikingLayer(rng.normal(0, 0.05, (30, 40)), rng.normal(0, 0.4, 30))
    policy, (report,) = quantize(Policy(layers=(layer,)), bits)
    assert policy.integers is not None
    columns = bias_columns(policy.integers[0])
    assert report.bias_neurons == columns.shape[1] > 1
    assert not (columns % max(2 ** (9 - bits) // 4, 2)).any()
    assert (columns.sum(axis=1) == policy.integers[0].bias).all()


def one_layer(weight: np.ndarray, bias: np.ndarray | float = 0.0, time_steps: int = 5, **neuron: float) -> Policy:
    return Policy(layers=(SpikingLayer(weight, np.broadcast_to(bias, len(weight)), **neuron),), time_steps=time_steps)


@pytest.mark.parametrize(("weight", "bias"), [(0.01, 1.0), (10.0, 534.7), (10.0, -534.7), (0.0, 20.0), (0.2, 3.0)])
def test_the_largest_bias_sets_the_scale_where_sixteen_synapses_would_not_hold_it(weight: float, bias: float) -> None:
    biases = np.array([bias, bias / 2, 0.0])
    policy, (report,) = quantize(one_layer(np.full((3, 4), weight), biases), 8)
    assert policy.integers is not None
    restored = policy.integers[0].bias * report.scale
    assert restored.tolist() == pytest.approx(biases.tolist(), rel=2e-3, abs=1.01 * report.scale)


def test_a_bias_of_sixteen_synapses_is_used_to_the_full() -> None:
    policy, (report,) = quantize(one_layer(np.full((3, 4), 0.01), np.array([1.0, -1.0, 0.5])), 8)
    assert policy.integers is not None
    assert policy.integers[0].bias.max() > 15 * 254
    assert report.bias_neurons == 16
    assert (policy.integers[0].bias * report.scale).tolist() == pytest.approx([1.0, -1.0, 0.5], abs=report.scale)


def test_a_bias_beyond_any_scale_is_refused() -> None:
    with pytest.raises(SpikerlError, match=r"layer 0: threshold 0\.5 is too far from its weights"):
        quantize(one_layer(np.zeros((3, 4)), 1e6), 8)


def test_one_large_weight_is_clipped_for_a_thousand_small_ones() -> None:
    weight = np.full((10, 100), 0.15)
    weight[0, 0] = 1.0
    policy, (report,) = quantize(one_layer(weight), 2)
    assert policy.integers is not None
    assert report.scale * 128 == pytest.approx(0.15, rel=0.15)
    assert (policy.integers[0].weight == 128).all()
    assert report.clipped == 1 / 1000


def test_a_scale_is_not_finer_than_the_largest_weight_or_bias_allows() -> None:
    rng = np.random.default_rng(0)
    for _ in range(200):
        gain = 10.0 ** rng.uniform(-1, 2)  # a threshold of a few units and one of thousands
        layer = SpikingLayer(rng.normal(0, gain, (3, 4)), rng.normal(0, 10 * gain, 3))
        weight, bias = layer.weight.astype(float), layer.bias.astype(float)

        def rounded(unit: float, weight: np.ndarray = weight, bias: np.ndarray = bias) -> tuple[np.ndarray, np.ndarray]:
            return Grid(8).round(weight / unit), Grid(8).round_bias(bias / unit)

        units = [trained_unit(layer, integer) for integer in layers_to_try(0, layer, Grid(8), 5, rounded)]
        assert units[0] * 254 >= np.abs(layer.weight).max() * (1 - 1e-9)
        assert min(units) * 16 * 254 >= np.abs(layer.bias).max() * (1 - 1e-9)


def test_a_layer_whose_weights_all_round_to_nothing_is_refused() -> None:
    finest = 0.5 / ALWAYS_ON_THRESHOLD_MAX
    with pytest.raises(SpikerlError, match="vanish beside its threshold"):
        quantize(one_layer(np.full((3, 4), 0.9 * finest)), 8)
    policy, _ = quantize(one_layer(np.full((3, 4), 1.1 * finest)), 8)
    assert policy.integers is not None
    assert policy.integers[0].weight.all()


@pytest.mark.parametrize("bits", range(2, 9))
@pytest.mark.parametrize("time_steps", [1, 3, 4, 5, 6])
def test_weight_exp_leaves_the_bits_that_decay_needs_and_no_more(bits: int, time_steps: int) -> None:
    """Two bits a decay; six are there, and those that are zero in every mantissa."""
    rng = np.random.default_rng(0)
    _, (report,) = quantize(one_layer(rng.normal(0, 0.2, (8, 20)), rng.normal(0, 0.05, 8), time_steps), bits)
    zeros = int(np.log2(max(2 ** (9 - bits) // 4, 2)))
    assert report.weight_exp == max(2 * (time_steps - 1) - 6 - zeros, 0)
    assert report.lossless


def test_a_threshold_stays_where_always_firing_neurons_pass_it() -> None:
    """At 5080 mantissa units one more bit below the unit would be representable, but not on the chip."""
    policy, (report,) = quantize(one_layer(np.full((3, 4), 0.025)), 8)
    assert policy.integers is not None
    assert ALWAYS_ON_THRESHOLD_MAX / 2 < policy.integers[0].vth <= ALWAYS_ON_THRESHOLD_MAX
    assert report.weight_exp == 0


@pytest.mark.parametrize(
    ("inputs", "weight_exp", "wraps", "clips"),
    [(80, 0, False, False), (120, 1, False, True), (200, 0, False, True), (400, 0, False, True)],
)
def test_weight_exp_gives_way_to_a_current_that_could_wrap_and_to_a_voltage_where_it_helps(
    inputs: int, weight_exp: int, wraps: bool, clips: bool
) -> None:
    _, (report,) = quantize(one_layer(np.full((3, inputs), -0.5)), 8)
    assert report.weight_exp == weight_exp
    assert (report.u_bound >= 1, report.v_bound >= 1) == (wraps, clips)


def test_a_report_states_the_bounds_of_the_integers() -> None:
    policy, reports = quantize(random_policy(time_steps=4), 6)
    for layer, report in zip(policy.integers or (), reports, strict=True):
        assert (report.u_bound, report.v_bound) == tuple(bound / STATE_LIMIT for bound in state_bound(layer, 4))
        assert report.u_bound != report.v_bound
        assert report.lossless == is_lossless(layer, 4)


def test_a_layer_of_zeros_has_no_error() -> None:
    _, (report,) = quantize(one_layer(np.zeros((3, 4))), 8)
    assert (report.rms_error, report.clipped) == (0.0, 0.0)


def test_an_encoder_has_codes_of_its_bits_and_no_width_of_zero() -> None:
    encoder = PopulationEncoder(np.array([[-3.0, -1.1, 0.7, 1.0]]), np.array([[0.01, 0.5, 1.0, 2.0]]))
    for bits in (2, 3, 6, 16):
        rounded = round_encoder(encoder, bits)
        means, stds = rounded.mean / (3.0 / (2 ** (bits - 1) - 1)), rounded.std / (2.0 / (2**bits - 1))
        np.testing.assert_allclose(means, np.rint(means), atol=2e-3)
        np.testing.assert_allclose(stds, np.rint(stds), atol=1e-2)
        assert np.rint(means).min() == -(2 ** (bits - 1) - 1)
        assert np.rint(stds).max() == 2**bits - 1
        assert np.rint(stds).min() >= 1
        assert np.abs(rounded.mean - encoder.mean).max() <= 3.0 / (2 ** (bits - 1) - 1) / 2 + 1e-6
    zero = round_encoder(PopulationEncoder(np.zeros((1, 2)), np.ones((1, 2))), 4)
    assert not zero.mean.any()
    with pytest.raises(SpikerlError, match="encoder bits 17 is outside"):
        round_encoder(encoder, 17)


def test_an_encoder_that_stays_is_not_carried_twice() -> None:
    source = random_policy()
    policy, _ = quantize(source, 8)
    assert policy.trained_encoder is None
    assert policy.encoder is source.encoder
    coarse, _ = quantize(source, 8, encoder_bits=4)
    assert coarse.trained_encoder is source.encoder
    assert quantize(replace(source, encoder=None, normalization=None), 8, encoder_bits=4)[0].trained_encoder is None
