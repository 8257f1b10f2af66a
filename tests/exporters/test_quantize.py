"""The quantizer: valid integers, small errors, and the promise that integers and floats spike alike."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support import naive_core, quantized_policy, random_layers, random_policy, random_spikes

from exporters.quantize import dequantize, quantize
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
        error = np.abs(layer.weight * layer.scale - trained.weight)
        inside = error <= step * layer.scale / 2 + 1e-7
        values = layer.weight.size + layer.bias.size
        assert (~inside).sum() <= round(report.clipped * values)
        assert layer.scale == 2.0 ** round(np.log2(layer.scale))


def test_eight_bits_change_weights_little_and_fewer_bits_more() -> None:
    errors = [max(report.rms_error for report in quantize(random_policy(), bits)[1]) for bits in (8, 6, 4, 2)]
    assert errors[0] < 0.02
    assert errors == sorted(errors)


def test_threshold_and_decays_are_on_the_scale_exactly() -> None:
    policy = quantized_policy()
    for layer in policy.layers:
        assert (layer.current_decay, layer.voltage_decay, layer.v_threshold) == (0.5, 0.75, 0.5)


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
    assert wide.layers[0].v_threshold == pytest.approx(0.5)


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
    assert layer.v_threshold == pytest.approx(0.3, rel=0.01)
    assert not report.lossless
