"""Decay codes and the bounds of the integer state, against exhaustive search."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from spikerl_deploy.errors import SpikerlError
from spikerl_deploy.loihi import (
    STATE_LIMIT,
    IntegerLayer,
    bias_columns,
    current_decay_code,
    fraction_bits,
    is_lossless,
    kept_fractions,
    state_bound,
    voltage_decay_code,
)


def test_codes_of_the_default_decays_are_exact() -> None:
    assert (current_decay_code(0.5), voltage_decay_code(0.75)) == (2047, 1024)
    assert kept_fractions(2047, 1024) == (0.5, 0.75)


@given(st.floats(0, 0.9999), st.floats(0, 0.9999))
def test_codes_round_to_the_nearest_4096th(keep_u: float, keep_v: float) -> None:
    kept = kept_fractions(current_decay_code(keep_u), voltage_decay_code(keep_v))
    assert kept == pytest.approx((keep_u, keep_v), abs=1.01 / 4096)


@pytest.mark.parametrize(("du", "dv", "bits"), [(2047, 1024, 2), (4095, 2048, 1), (0, 1024, 12), (4095, 4095, 12)])
def test_fraction_bits_of_a_step(du: int, dv: int, bits: int) -> None:
    assert fraction_bits(du, dv) == bits


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.lists(st.integers(-128, 127).map(lambda q: 2 * q), min_size=3, max_size=3), min_size=1, max_size=2),
    st.integers(-64, 63).map(lambda q: 2 * q),
    st.integers(0, 3),
    st.integers(1, 4000),
)
def test_no_input_exceeds_the_state_bound(weights: list[list[int]], bias: int, weight_exp: int, vth: int) -> None:
    """All 512 inputs of three channels over three time steps, run in exact arithmetic."""
    layer = IntegerLayer(np.array(weights), np.full(len(weights), bias), weight_exp, 2047, 1024, vth, 1.0)
    u_bound, v_bound = state_bound(layer, 3)
    unit = 2.0 ** (weight_exp + 6)
    for bits in itertools.product((0, 1), repeat=9):
        u = v = np.zeros(len(weights))
        for t in range(3):
            u = u * 0.5 + (layer.weight @ np.array(bits[3 * t : 3 * t + 3]) + layer.bias) * unit
            v = v * 0.75 + u
            assert np.abs(u).max() <= u_bound
            assert np.abs(v).max() <= v_bound
            v = np.where(v > vth * 64, 0.0, v)


def test_lossless_needs_room_below_the_unit_and_above_the_state() -> None:
    def layer(weight_exp: int, weight: int = 100, n_in: int = 10, du: int = 2047) -> IntegerLayer:
        return IntegerLayer(np.full((2, n_in), weight), np.zeros(2), weight_exp, du, 1024, 500, 1.0)

    assert is_lossless(layer(1, weight=102), 5)  # four decays append 8 bits, 6 + 1 are there, and mantissas are even
    assert not is_lossless(layer(0, weight=102), 5)
    assert is_lossless(layer(0, weight=96), 5)  # all multiples of 32
    assert not is_lossless(layer(0, weight=96), 7)
    assert is_lossless(layer(0, weight=102), 4)
    assert not is_lossless(layer(1, weight=102), 6)
    assert not is_lossless(layer(2, weight=-254, n_in=400), 5)  # the state overflows
    assert not is_lossless(layer(2, du=2000), 5)  # a decay with many bits


@given(st.lists(st.integers(-2048, 2032).map(lambda q: 2 * q), min_size=1, max_size=5))
def test_bias_columns_are_synapses_that_sum_to_the_bias(bias: list[int]) -> None:
    layer = IntegerLayer(np.zeros((len(bias), 1)), np.array(bias), 0, 2047, 1024, 1, 1.0)
    columns = bias_columns(layer)
    assert columns.sum(axis=1).tolist() == bias
    assert columns.min() >= -256
    assert columns.max() <= 254
    assert not (columns & 1).any()
    zeros = next(z for z in range(1, 13) if z == 12 or any(b % 2 ** (z + 1) for b in bias))
    top = 256 - 2 ** min(zeros, 5)  # the columns keep the zero bits that all biases end with
    needed = max(1, *(-(-b // top) if b > 0 else -(b // 256) for b in bias), 1)
    assert columns.shape[1] == (needed if needed <= 16 else max(-(-max(bias) // 254), -(min(bias) // 256)))
    assert needed > 16 or not (columns % 2 ** min(zeros, 5)).any()


@pytest.mark.parametrize("bias", [3, 16 * 254 + 2, -16 * 256 - 2])
def test_a_bias_that_is_odd_or_beyond_sixteen_synapses_is_refused(bias: int) -> None:
    with pytest.raises(SpikerlError, match="integer bias holds a mantissa that is odd or outside"):
        IntegerLayer(np.zeros((1, 1)), np.array([bias]), 0, 2047, 1024, 1, 1.0)


def plain_layer(weight: np.ndarray, bias: int = 0, weight_exp: int = 0) -> IntegerLayer:
    return IntegerLayer(weight, np.full(len(weight), bias), weight_exp, 2047, 1024, 500, 1.0)


def test_a_bias_counts_for_the_zeros_below_every_mantissa() -> None:
    weight = np.full((2, 3), 96)
    assert is_lossless(plain_layer(weight, 32), 5)
    assert not is_lossless(plain_layer(weight, 2), 5)
    assert not is_lossless(plain_layer(np.full((2, 3), 98), 32), 5)


def test_a_layer_of_zeros_is_lossless_however_long() -> None:
    assert is_lossless(plain_layer(np.zeros((2, 3))), 40)


def test_a_voltage_that_could_clip_is_not_lossless() -> None:
    layer = plain_layer(np.full((1, 100), -254), weight_exp=1)
    u_bound, v_bound = state_bound(layer, 5)
    assert u_bound < STATE_LIMIT <= v_bound
    assert not is_lossless(layer, 5)
    assert is_lossless(plain_layer(np.full((1, 30), -254), weight_exp=1), 5)


@pytest.mark.parametrize("weight_exp", [-1, -2, -8])
def test_a_layer_that_shifts_its_input_right_is_never_called_lossless(weight_exp: int) -> None:
    assert not is_lossless(plain_layer(np.full((2, 3), 96), weight_exp=weight_exp), 1)
