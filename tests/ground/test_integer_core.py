"""The integer core: sizes, overflow and watching, against arithmetic written out."""

from __future__ import annotations

import numpy as np
import pytest

from spikerl_deploy.integer_core import IntegerCore
from spikerl_deploy.integer_lif import integrate_reference
from spikerl_deploy.loihi import STATE_LIMIT, IntegerLayer, state_bound


def reference(layer: IntegerLayer, spikes: np.ndarray) -> np.ndarray:
    return integrate_reference(spikes.astype(np.int64) @ layer.weight.T.astype(np.int64) + layer.bias, layer)


def clipping_layer() -> tuple[IntegerLayer, np.ndarray]:
    """A layer and input: two steps of inhibition, then an excitation that tells whether the voltage was clipped."""
    weight = np.array([[-250] * 320 + [254] * 516 + [6]])
    layer = IntegerLayer(weight, np.zeros(1), 0, 4095, 1, 1, 1.0)
    spikes = np.zeros((3, 1, 837), bool)
    spikes[:2, :, :320] = spikes[2, :, 320:] = True
    return layer, spikes


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"weight_exp": -3, "vth": 5},
        {"weight_exp": -8, "vth": 2},
        {"weight_exp": 5, "vth": 8000},
        {"weight_exp": 7, "du": 100, "dv": 50},
        {"du": 400, "dv": 3000},
    ],
)
@pytest.mark.parametrize("time_steps", [1, 6, 30])
def test_a_core_is_the_reference_layer_by_layer(fields: dict[str, int], time_steps: int) -> None:
    rng = np.random.default_rng(0)
    defaults = {"weight_exp": 0, "du": 2047, "dv": 1024, "vth": 300} | fields
    layers = [
        IntegerLayer(2 * rng.integers(-128, 128, (b, a)), 2 * rng.integers(-128, 128, b), scale=1.0, **defaults)
        for a, b in ((300, 20), (20, 8))
    ]
    spikes = rng.random((time_steps, 10, 300)) < 0.5
    for layer, ours in zip(layers, IntegerCore(layers, time_steps)(spikes), strict=True):
        wanted = reference(layer, spikes)
        np.testing.assert_array_equal(ours, wanted)
        spikes = wanted


def test_a_current_that_wraps_in_later_steps_only_wraps() -> None:
    layer = IntegerLayer(np.full((1, 250), -256), np.zeros(1), 1, 2047, 4095, 300, 1.0)
    assert state_bound(layer, 1)[0] < STATE_LIMIT <= state_bound(layer, 3)[0]
    spikes = np.ones((3, 1, 250), bool)
    found = IntegerCore([layer], 3)(spikes)[0]
    np.testing.assert_array_equal(found, reference(layer, spikes))
    assert found.any()  # inhibition alone: it is the sign that changed


def test_a_voltage_clips_where_it_can_watched_or_not() -> None:
    layer, spikes = clipping_layer()
    u_bound, v_bound = state_bound(layer, 3)
    assert u_bound < STATE_LIMIT < v_bound < 2 * STATE_LIMIT
    seen: list[float] = []
    for watch in (None, lambda u, v: seen.append(float(v.min()))):
        assert IntegerCore([layer], 3)(spikes, watch)[0].ravel().tolist() == [False, False, True]
    assert reference(layer, spikes).ravel().tolist() == [False, False, True]
    assert min(seen) < -STATE_LIMIT  # before it clips


def test_a_watch_sees_a_current_beyond_the_state() -> None:
    layer = IntegerLayer(np.full((1, 250), -256), np.zeros(1), 1, 2047, 1024, 300, 1.0)
    seen: list[float] = []
    IntegerCore([layer], 3)(np.ones((3, 1, 250), bool), lambda u, v: seen.append(float(u[0, 0])))
    drive = -250 * 256 * 128
    assert seen == [drive, 1.5 * drive, 1.75 * drive]


def test_a_layer_that_shifts_its_input_right_is_not_watched() -> None:
    rng = np.random.default_rng(0)
    layer = IntegerLayer(2 * rng.integers(-128, 128, (5, 30)), np.zeros(5), -3, 2047, 1024, 20, 1.0)
    spikes, seen = rng.random((6, 10, 30)) < 0.5, []
    found = IntegerCore([layer], 6)(spikes, lambda u, v: seen.append(u))[0]
    np.testing.assert_array_equal(found, reference(layer, spikes))
    assert not seen


def test_sums_that_float32_cannot_hold_are_exact() -> None:
    """200 000 inputs of -256 and one of -2: one unit of the shifted sum, which the threshold is put on."""
    count = 200_000
    weight = np.full((1, count + 1), -256)
    weight[0, -1] = -2
    # shifted right by 8 it is -(count + 1); aligned and wrapped, (2^18 - count - 1) * 64
    layer = IntegerLayer(weight, np.zeros(1), -8, 2047, 1024, 2**18 - count - 1, 1.0)
    assert not IntegerCore([layer], 1)(np.ones((1, 1, count + 1), bool))[0].any()
    layer = IntegerLayer(weight, np.zeros(1), -8, 2047, 1024, 2**18 - count - 2, 1.0)
    assert IntegerCore([layer], 1)(np.ones((1, 1, count + 1), bool))[0].all()
