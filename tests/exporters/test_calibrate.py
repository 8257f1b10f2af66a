"""Calibration: nearer to the float policy than rounding, what it reports is what the integers do on the data."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from support import naive_core, random_layers, random_policy, random_spikes

from exporters.calibrate import calibrate, compare_recorded, input_spikes, report_recorded
from exporters.grid import Grid
from exporters.quantize import quantize
from exporters.reconstruction import TRUST, InputStatistics
from simulators.fixed import FixedBackend
from spikerl_deploy.codec import decode, encode
from spikerl_deploy.errors import SpikerlError
from spikerl_deploy.float_core import run_floats
from spikerl_deploy.loihi import STATE_LIMIT
from spikerl_deploy.policy import Policy, SpikingLayer


def observations(policy: Policy, count: int = 600, seed: int = 0) -> np.ndarray:
    """Correlated observations, as those of a robot are: calibration has something to use."""
    assert policy.encoder is not None
    rng = np.random.default_rng(seed)
    mixing = np.random.default_rng(99).normal(0, 1, (2, policy.encoder.obs_dim))
    return rng.normal(0, 1, (count, 2)) @ mixing + rng.normal(0, 0.1, (count, policy.encoder.obs_dim))


def filtered(spikes: np.ndarray, keep: float) -> np.ndarray:
    """Traces [T * N, n + 1] of spikes [T, N, n] and of a constant input, one after the other."""
    rows = []
    for t, b in np.ndindex(spikes.shape[:2]):
        rows.append(sum(keep ** (t - past) * np.append(spikes[past, b], 1) for past in range(t + 1)))
    return np.array(rows)


@pytest.mark.parametrize("seed", range(3))
def test_the_float_core_spikes_as_the_equations_say(seed: int) -> None:
    layers = random_layers(np.random.default_rng(seed), (20, 16, 12), current_decay=0.6, voltage_decay=0.9)
    spikes = random_spikes(seed, (7, 30, 20))
    rasters = run_floats(layers, spikes)
    for b in range(30):
        for ours, exact in zip(rasters, naive_core(layers, spikes[:, b]), strict=True):
            np.testing.assert_array_equal(ours[:, b], exact)


@pytest.mark.parametrize(("bits", "share"), [(2, 0.8), (4, 0.9)])
def test_calibration_comes_nearer_than_rounding_on_data_it_has_not_seen(bits: int, share: float) -> None:
    ratios = []
    for seed in range(3):
        policy = random_policy(seed, obs_dim=6, act_dim=2, hidden=(32, 32))
        fresh = observations(policy, seed=5)
        rounded = compare_recorded(quantize(policy, bits)[0], fresh)
        found = compare_recorded(calibrate(policy, observations(policy), bits)[0], fresh)
        assert found.action_error is not None
        assert rounded.action_error is not None
        ratios.append(found.action_error / rounded.action_error)
    assert np.mean(ratios) < share


def test_mantissas_are_on_the_grid_and_neurons_keep_their_decays() -> None:
    policy, reports = calibrate(random_policy(), observations(random_policy()), 3)
    assert policy.integers is not None
    for layer, report in zip(policy.integers, reports, strict=True):
        codes = layer.weight // 64
        assert (layer.weight % 64 == 0).all()
        assert (codes.min() >= -4) & (codes.max() <= 3)
        assert (layer.bias % 16 == 0).all()
        assert (layer.du, layer.dv) == (2047, 1024)
        assert report.lossless


def test_a_column_order_of_optimal_rounding_is_exhaustive_search_for_one_weight() -> None:
    """With one input and the bias, the best pair of mantissas can be found by trying all."""
    rng = np.random.default_rng(0)
    spikes = random_spikes(0, (5, 200, 1), 0.4)
    statistics = InputStatistics(spikes, spikes, 0.5)
    grid = Grid(4)
    rows = rng.uniform(-200, 200, (20, 2))
    weight, bias = statistics.round(rows, grid)

    def loss(w: np.ndarray, b: np.ndarray, row: np.ndarray) -> np.ndarray:
        d = np.stack([w - row[0], b - row[1]])
        return np.einsum("i...,ij,j...->...", d, statistics.hessian, d)

    for index, row in enumerate(rows):
        all_w = np.arange(-8, 8) * grid.step
        all_b = np.arange(-508, 508) * grid.bias_step
        w, b = np.meshgrid(all_w, all_b, indexing="ij")
        found = float(loss(weight[index, 0], bias[index], row))
        assert found <= float(loss(w, b, row).min()) * 1.05 + 1e-9
        naive = float(loss(grid.round(row[:1])[0], grid.round_bias(row[1:])[0], row))
        assert found <= naive * 1.05 + 1e-9


def test_the_hessian_is_the_second_moment_of_filtered_spikes() -> None:
    floats, quantized = random_spikes(0, (4, 30, 3)), random_spikes(1, (4, 30, 3))
    statistics = InputStatistics(floats, quantized, 0.6)
    q, f = filtered(quantized, 0.6), filtered(floats, 0.6)
    np.testing.assert_allclose(statistics.hessian, q.T @ q / len(q), rtol=1e-5)
    np.testing.assert_allclose(statistics.shift, (f - q).T @ q / len(q), rtol=1e-4, atol=1e-5)


def test_weights_follow_inputs_that_have_changed_as_ridge_regression_says() -> None:
    rng = np.random.default_rng(0)
    floats, quantized = (
        random_spikes(0, (5, 400, 3)),
        random_spikes(1, (5, 400, 3)) & random_spikes(2, (5, 400, 3), 0.8),
    )
    statistics = InputStatistics(floats, quantized, 0.5)
    rows = rng.normal(0, 1, (4, 4))
    q, f = filtered(quantized, 0.5), filtered(floats, 0.5)
    pull = np.sqrt(TRUST * np.diag(q.T @ q).mean())
    system = np.vstack([q, pull * np.eye(4)])
    for row, moved in zip(rows, statistics.reachable(rows), strict=True):
        wanted = np.linalg.lstsq(system, np.concatenate([f @ row, pull * row]), rcond=None)[0]
        np.testing.assert_allclose(moved, wanted, rtol=1e-3, atol=1e-4)
    np.testing.assert_array_equal(InputStatistics(floats, floats, 0.5).reachable(rows), rows)


@pytest.mark.parametrize("coding", ["regular", "poisson"])
def test_what_is_reported_is_what_fixed_does(coding: str) -> None:
    policy = random_policy(hidden=(32, 32), coding=coding)
    data = observations(policy, 300)
    result, reports = calibrate(policy, data, 4)
    spikes = input_spikes(result, data)
    with FixedBackend().open(result, 300) as session:
        played = session.infer(np.ascontiguousarray(spikes.swapaxes(0, 1)))
    floats = [raster.sum(axis=0) for raster in run_floats(policy.layers, spikes)]
    for report, counts, wanted in zip(reports, played.counts, floats, strict=True):
        assert report.observed is not None
        assert report.observed.spike_error == pytest.approx(np.abs(counts - wanted).mean())
        assert report.observed.spikes == pytest.approx(wanted.mean())
        assert report.observed.control_steps == 300
        assert max(-report.observed.u[0], report.observed.u[1]) <= report.u_bound
        assert report.observed.margin == pytest.approx(1 - np.abs((*report.observed.u, *report.observed.v)).max())
    agreement = compare_recorded(result, data)
    assert policy.decoder is not None
    actions = [decode(c, 5, policy.decoder) / 3.0 for c in (played.counts[-1], floats[-1])]
    assert agreement.action_error == pytest.approx(np.sqrt(np.square(actions[0] - actions[1]).mean()))
    assert agreement.spike_error == reports[-1].observed.spike_error  # type: ignore[union-attr]


def test_observed_states_are_those_of_a_scalar_walk() -> None:
    policy, (report,) = calibrate(random_policy_of_one_layer(), random_spikes(0, (20, 5, 6)), 8)
    assert policy.integers is not None
    layer, spikes = policy.integers[0], random_spikes(0, (20, 5, 6))
    lowest_v, highest_u = 0, 0
    for row in spikes:
        for neuron in range(layer.weight.shape[0]):
            u = v = 0
            for t in range(5):
                drive = int(layer.weight[neuron] @ row[t] + layer.bias[neuron]) * 2 ** (layer.weight_exp + 6)
                u = int(u * 0.5) + drive
                v = int(v * 0.75) + u
                lowest_v, highest_u = min(lowest_v, v), max(highest_u, u)
                v = 0 if v > layer.vth * 64 else v
    assert report.observed is not None
    assert report.observed.v[0] == lowest_v / STATE_LIMIT
    assert report.observed.u[1] == highest_u / STATE_LIMIT


def random_policy_of_one_layer() -> Policy:
    return Policy(layers=random_layers(np.random.default_rng(3), (6, 8)))


def test_a_core_alone_is_calibrated_on_input_spikes() -> None:
    layers = random_layers(np.random.default_rng(0), (40, 30, 20))
    policy, reports = calibrate(Policy(layers=layers), random_spikes(0, (300, 5, 40)), 4)
    agreement = compare_recorded(policy, random_spikes(1, (300, 5, 40)))
    rounded = compare_recorded(quantize(Policy(layers=layers), 4)[0], random_spikes(1, (300, 5, 40)))
    assert agreement.action_error is None
    assert agreement.spike_error < rounded.spike_error
    assert len(reports) == 2


def test_encoder_and_decays_can_be_quantized_along() -> None:
    source = random_policy(hidden=(32,))
    data = observations(source)
    policy, _ = calibrate(source, data, 8, decay_bits=1, encoder_bits=4)
    assert {layer.current_decay for layer in policy.layers} == {0.5}
    assert {layer.voltage_decay for layer in policy.layers} == {0.5}
    assert policy.encoder is not None
    assert policy.encoder is not source.encoder
    assert policy.as_trained().encoder is source.encoder
    spikes = encode(policy, data, [np.random.default_rng(0)] * len(data))
    np.testing.assert_array_equal(input_spikes(policy, data), spikes.swapaxes(0, 1))


def test_a_current_that_leaves_the_state_on_the_data_is_refused_by_layer() -> None:
    layers = (
        SpikingLayer(np.ones((200, 4)), np.zeros(200)),
        SpikingLayer(np.full((3, 200), -0.5), np.zeros(3), current_decay=0.99),
    )
    spikes = np.ones((2, 60, 4), bool)
    with pytest.raises(SpikerlError, match=r"layer 1: a current reaches \d+% of the chip's 24-bit state"):
        calibrate(Policy(layers=layers, time_steps=60), spikes, 8)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (np.zeros((10, 5)), r"recorded data is float64 \(10, 5\), the policy takes observations \[N, 4\]"),
        (np.zeros((0, 4)), "the policy takes observations"),
        (np.zeros(4), "the policy takes observations"),
        (np.zeros((10, 4), bool), "the policy takes observations"),
        (np.full((10, 4), np.nan), "not finite"),
    ],
)
def test_data_that_does_not_fit_is_refused(data: np.ndarray, message: str) -> None:
    with pytest.raises(SpikerlError, match=message):
        calibrate(random_policy(), data, 8)


def test_a_core_takes_boolean_spikes_only() -> None:
    with pytest.raises(SpikerlError, match=r"the policy takes input spikes, bool \[N, 5, 6\]"):
        calibrate(random_policy_of_one_layer(), np.zeros((10, 5, 6)), 8)


def test_it_starts_from_the_trained_weights_of_a_quantized_policy() -> None:
    policy = random_policy(hidden=(32,))
    data = observations(policy, 200)
    direct, _ = calibrate(policy, data, 8)
    again, _ = calibrate(quantize(policy, 2)[0], data, 8)
    for a, b in zip(direct.integers or (), again.integers or (), strict=True):
        np.testing.assert_array_equal(a.weight, b.weight)
    with pytest.raises(SpikerlError, match="does not carry its trained weights"):
        calibrate(replace(direct, trained=None), data, 8)
    assert report_recorded(direct, data) == report_recorded(again, data)
