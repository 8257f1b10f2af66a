"""The quantizer: valid integers, small errors, and the promise that integers and floats spike alike."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support import naive_core, random_layers, random_policy, random_spikes

from exporters.grid import dequantize
from exporters.quantize import quantize
from simulators.fixed import FixedBackend
from spikerl_deploy.errors import SpikerlError
from spikerl_deploy.loihi import IntegerLayer
from spikerl_deploy.policy import Policy, SpikingLayer


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
