"""The integer neuron against a scalar in Python's unbounded integers, written from the chip's rules."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from spikerl_deploy.integer_lif import integrate_bounded, integrate_reference
from spikerl_deploy.loihi import STATE_LIMIT, IntegerLayer, state_bound


def scalar_neuron(drive: list[int], layer: IntegerLayer) -> list[bool]:
    """One neuron, one step after the other, without NumPy."""

    def to_32_bits(x: int) -> int:
        return (x + 2**31) % 2**32 - 2**31

    def decayed(x: int, keep: int) -> int:
        return (1 if x >= 0 else -1) * ((abs(x) * keep) // 4096)

    u = v = 0
    spikes = []
    for accumulated in drive:
        shifted = (accumulated << layer.weight_exp) if layer.weight_exp > 0 else accumulated >> -layer.weight_exp
        u = to_32_bits(decayed(u, 4096 - layer.du - 1) + to_32_bits(to_32_bits(shifted) << 6))
        if u > 2**23:
            u -= 2**24
        elif u <= -(2**23):
            u += 2**24
        v = min(max(decayed(v, 4096 - layer.dv) + u, 1 - 2**23), 2**23 - 1)
        spikes.append(v > layer.vth * 64)
        if spikes[-1]:
            v = 0
    return spikes


layers = st.builds(
    lambda weight_exp, du, dv, vth: IntegerLayer(np.zeros((1, 1)), np.zeros(1), weight_exp, du, dv, vth, 1.0),
    st.integers(-8, 7),
    st.integers(0, 4095),
    st.integers(0, 4095),
    st.integers(1, (1 << 17) - 1),
)


@settings(max_examples=300, deadline=None)
@given(layers, st.lists(st.integers(-(2**18), 2**18), min_size=1, max_size=12))
def test_reference_equals_the_scalar_neuron_even_where_states_overflow(layer: IntegerLayer, drive: list[int]) -> None:
    spikes = integrate_reference(np.array(drive, dtype=np.int64)[:, None, None], layer)
    assert spikes[:, 0, 0].tolist() == scalar_neuron(drive, layer)


@pytest.mark.parametrize("edge", [2**17 - 1, 2**17, 2**17 + 1, -(2**17) + 1, -(2**17), -(2**17) - 1])
def test_wrapping_and_clipping_at_the_very_edge(edge: int) -> None:
    """A drive of 2^17 is a current of 2^23: the value at which `>` and `<=` differ."""
    layer = IntegerLayer(np.zeros((1, 1)), np.zeros(1), 0, 2047, 1024, 100, 1.0)
    drive = [edge, edge, -edge, 5, edge]
    spikes = integrate_reference(np.array(drive, dtype=np.int64)[:, None, None], layer)
    assert spikes[:, 0, 0].tolist() == scalar_neuron(drive, layer)


def test_the_threshold_itself_does_not_spike() -> None:
    layer = IntegerLayer(np.zeros((1, 1)), np.zeros(1), 0, 4095, 4095, 100, 1.0)
    for integrate, dtype in ((integrate_reference, np.int64), (integrate_bounded, np.float32)):
        spikes = integrate(np.array([100, 101, 100], dtype=dtype)[:, None, None], layer)
        assert spikes[:, 0, 0].tolist() == [False, True, False]


def silent_voltage(drive: list[int], du: int, dv: int) -> int:
    """Voltage after a drive that never spikes."""
    u = v = 0
    for accumulated in drive:
        u = int(u * (4095 - du) / 4096) + accumulated * 64
        v = int(v * (4096 - dv) / 4096) + u
    return v


def test_one_unit_of_the_state_decides() -> None:
    """Thresholds put exactly at, and one 64th of a mantissa unit below, a voltage that truncation led to."""
    rng = np.random.default_rng(0)
    cases = {0: 0, 1: 0}
    for _ in range(6_000):
        du, dv = (int(x) for x in rng.integers(0, 4096, 2))
        drive = [int(x) for x in rng.integers(-400, 100, 3)] + [int(rng.integers(600, 900))]
        voltage = silent_voltage(drive, du, dv)
        if voltage < 2 * 64 * 100 or voltage % 64 > 1:
            continue
        layer = IntegerLayer(np.zeros((1, 1)), np.zeros(1), 0, du, dv, voltage // 64, 1.0)
        assert scalar_neuron(drive, layer)[-1] == (voltage % 64 == 1)
        for integrate, dtype in ((integrate_reference, np.int64), (integrate_bounded, np.float32)):
            spikes = integrate(np.array(drive, dtype=dtype)[:, None, None], layer)
            assert spikes[:, 0, 0].tolist() == scalar_neuron(drive, layer)
        cases[voltage % 64] += 1
    assert min(cases.values()) > 20


def test_a_voltage_that_clips_recovers_alike_in_both_forms() -> None:
    """Strong inhibition for four steps, then excitation: unclipped, the neuron would still be silent."""
    layer = IntegerLayer(np.zeros((1, 1)), np.zeros(1), 0, 4095, 1, 1, 1.0)  # no current kept, hardly any leak
    drive = [-120_000] * 4 + [120_000, 12_000]
    expected = scalar_neuron(drive, layer)
    assert expected == [False] * 5 + [True]
    for clips in (True, False):
        spikes = integrate_bounded(np.array(drive, dtype=np.float32)[:, None, None], layer, clips)
        assert (spikes[:, 0, 0].tolist() == expected) is clips
    assert integrate_reference(np.array(drive, dtype=np.int64)[:, None, None], layer)[:, 0, 0].tolist() == expected


@settings(max_examples=200, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    weight_exp=st.integers(0, 4),
    du=st.integers(0, 4095),
    dv=st.integers(0, 4095),
    vth=st.integers(1, 8000),
    time_steps=st.integers(1, 10),
)
def test_the_fast_form_equals_the_reference_within_its_bound(
    seed: int, weight_exp: int, du: int, dv: int, vth: int, time_steps: int
) -> None:
    rng = np.random.default_rng(seed)
    weight = 2 * rng.integers(-127, 127, (6, 20))
    layer = IntegerLayer(weight, 2 * rng.integers(-127, 127, 6), weight_exp, du, dv, vth, 1.0)
    accumulated = (rng.random((time_steps, 3, 20)) < 0.5).astype(np.int64) @ weight.T + layer.bias
    u_bound, v_bound = state_bound(layer, time_steps)
    if u_bound >= STATE_LIMIT:
        return
    fast = integrate_bounded(accumulated.astype(np.float32), layer, clips=v_bound >= STATE_LIMIT)
    np.testing.assert_array_equal(fast, integrate_reference(accumulated, layer))
