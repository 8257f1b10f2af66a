"""Calibration: nearer to the float policy than rounding, what it reports is what the integers do on the data."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import numpy as np
import pytest
from support import naive_core, random_layers, random_policy, random_spikes

from exporters.calibrate import (
    action_error,
    calibrate,
    compare_recorded,
    input_spikes,
    report_recorded,
    spike_error,
)
from exporters.grid import Grid, layers_to_try
from exporters.layer_report import StateWatch, observed_states
from exporters.quantize import quantize, round_encoder
from exporters.reconstruction import TRUST, InputStatistics
from simulators.fixed import FixedBackend
from spikerl_deploy.codec import decode, encode
from spikerl_deploy.errors import SpikerlError
from spikerl_deploy.float_core import run_floats
from spikerl_deploy.integer_core import IntegerCore
from spikerl_deploy.loihi import STATE_LIMIT, is_lossless, state_bound
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
    statistics = InputStatistics(spikes, spikes, 0.5, 0.5)
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
    statistics = InputStatistics(floats, quantized, 0.6, 0.6)
    q, f = filtered(quantized, 0.6), filtered(floats, 0.6)
    np.testing.assert_allclose(statistics.hessian, q.T @ q / len(q), rtol=1e-5)
    np.testing.assert_allclose(statistics.shift, (f - q).T @ q / len(q), rtol=1e-4, atol=1e-5)


def test_weights_follow_inputs_that_have_changed_as_ridge_regression_says() -> None:
    rng = np.random.default_rng(0)
    floats, quantized = (
        random_spikes(0, (5, 400, 3)),
        random_spikes(1, (5, 400, 3)) & random_spikes(2, (5, 400, 3), 0.8),
    )
    statistics = InputStatistics(floats, quantized, 0.5, 0.5)
    rows = rng.normal(0, 1, (4, 4))
    q, f = filtered(quantized, 0.5), filtered(floats, 0.5)
    pull = np.sqrt(TRUST * np.diag(q.T @ q).mean())
    system = np.vstack([q, pull * np.eye(4)])
    for row, moved in zip(rows, statistics.reachable(rows), strict=True):
        wanted = np.linalg.lstsq(system, np.concatenate([f @ row, pull * row]), rcond=None)[0]
        np.testing.assert_allclose(moved, wanted, rtol=1e-3, atol=1e-4)
    np.testing.assert_array_equal(InputStatistics(floats, floats, 0.5, 0.5).reachable(rows), rows)


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
        SpikingLayer(np.full((3, 200), -1000.0), np.zeros(3), current_decay=0.99),
    )
    spikes = np.ones((2, 60, 4), bool)
    with pytest.raises(SpikerlError, match=r"layer 1: a current reaches \d+% of the chip's 24-bit state"):
        calibrate(Policy(layers=layers, time_steps=60), spikes, 8)


def test_rounded_decays_are_made_up_for() -> None:
    """The traces that weights are fitted to decay as the chip's currents will."""
    layers = random_layers(np.random.default_rng(0), (30, 24, 16), current_decay=0.4, voltage_decay=0.75)
    data = random_spikes(0, (800, 5, 30), 0.4)
    spikes = np.ascontiguousarray(data.swapaxes(0, 1))
    rows = np.concatenate([layers[0].weight, layers[0].bias[:, None]], axis=1).astype(float)
    moved = InputStatistics(spikes, spikes, 0.4, 0.5).reachable(rows)
    assert np.abs(moved).sum() < 0.97 * np.abs(rows).sum()  # longer traces, smaller weights
    policy, _ = calibrate(Policy(layers=layers), data, 8, decay_bits=2)
    naive, _ = quantize(Policy(layers=layers), 8, decay_bits=2)
    assert compare_recorded(policy, data).spike_error < 0.9 * compare_recorded(naive, data).spike_error


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


@pytest.mark.parametrize("search_steps", [1_500, 60])
def test_each_layer_is_the_best_of_all_scales_on_what_the_layers_before_it_give(
    monkeypatch: pytest.MonkeyPatch, search_steps: int
) -> None:
    """Every candidate by hand, hidden layers by spike counts and the last by actions, encoder on a grid of its own."""
    if search_steps != 1_500:
        monkeypatch.setattr("exporters.calibrate.SEARCH_STEPS", search_steps)
    policy = random_policy(hidden=(16, 12))
    data, grid = observations(policy, 200), Grid(3)
    some = np.linspace(0, 199, min(search_steps, 200), dtype=int)
    result, _ = calibrate(policy, data, 3, encoder_bits=3)
    floats, spikes = input_spikes(policy, data), input_spikes(result, data)
    assert (floats != spikes).any()
    assert policy.decoder is not None
    by_actions = partial(action_error, policy.decoder, 5)
    for index, (layer, integer) in enumerate(zip(policy.layers, result.integers or (), strict=True)):
        statistics = InputStatistics(floats, spikes, 0.5, 0.5)
        floats = run_floats([layer], floats)[0]
        wanted = floats.sum(axis=0)[some]
        rows = statistics.reachable(np.concatenate([layer.weight, layer.bias[:, None]], axis=1).astype(float))
        rounded = partial(lambda statistics, rows, unit: statistics.round(rows / unit, grid), statistics, rows)
        errors, tried = [], layers_to_try(index, layer, grid, 5, rounded)
        for candidate in tried:
            counts = IntegerCore([candidate], 5)(spikes)[0].sum(axis=0)[some]
            errors.append((by_actions if index == 2 else spike_error)(counts, wanted))
        best = tried[int(np.argmin(errors))]
        assert len(set(errors)) > 5
        np.testing.assert_array_equal(integer.weight, best.weight)
        np.testing.assert_array_equal(integer.bias, best.bias)
        assert (integer.vth, integer.weight_exp) == (best.vth, best.weight_exp)
        spikes = IntegerCore([integer], 5)(spikes)[0]


def test_the_scales_are_compared_on_many_control_steps() -> None:
    """The scale that is best on all 300 control steps, which few of them would not tell."""
    layers = random_layers(np.random.default_rng(0), (30, 24))
    spikes = random_spikes(0, (300, 5, 30))
    policy, _ = calibrate(Policy(layers=layers), spikes, 3)
    inputs = spikes.swapaxes(0, 1)
    statistics, wanted = InputStatistics(inputs, inputs, 0.5, 0.5), run_floats(layers, inputs)[0].sum(axis=0)
    rows = np.concatenate([layers[0].weight, layers[0].bias[:, None]], axis=1).astype(float)
    errors = []
    for candidate in layers_to_try(0, layers[0], Grid(3), 5, lambda unit: statistics.round(rows / unit, Grid(3))):
        errors.append(spike_error(IntegerCore([candidate], 5)(inputs)[0].sum(axis=0), wanted))
    found = spike_error(IntegerCore(policy.integers or (), 5)(inputs)[0].sum(axis=0), wanted)
    assert found == min(errors)


def test_statistics_do_not_depend_on_how_many_control_steps_are_taken_at_a_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("exporters.reconstruction.CHUNK", 7)
    floats, quantized = random_spikes(0, (4, 30, 3)), random_spikes(1, (4, 30, 3))
    statistics = InputStatistics(floats, quantized, 0.6, 0.6)
    q, f = filtered(quantized, 0.6), filtered(floats, 0.6)
    np.testing.assert_allclose(statistics.hessian, q.T @ q / len(q), rtol=1e-5)
    np.testing.assert_allclose(statistics.shift, (f - q).T @ q / len(q), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("count", [14, 15, 20])
def test_agreement_does_not_depend_on_how_many_control_steps_are_taken_at_a_time(
    monkeypatch: pytest.MonkeyPatch, count: int
) -> None:
    policy, data = quantize(random_policy(), 2)[0], observations(random_policy(), count)
    whole, reports = compare_recorded(policy, data), report_recorded(policy, data)
    assert whole.control_steps == count
    singly = [compare_recorded(policy, data[i : i + 1]).spike_error for i in range(count)]
    assert whole.spike_error == pytest.approx(np.mean(singly))
    monkeypatch.setattr("exporters.calibrate.CHUNK", 7)
    assert compare_recorded(policy, data) == whole
    assert report_recorded(policy, data) == reports


def test_parts_of_the_data_come_back_in_their_order(monkeypatch: pytest.MonkeyPatch) -> None:
    policy, found = random_policy(), []
    monkeypatch.setattr("exporters.calibrate.SEARCH_STEPS", 10)  # of 30: which ones they are matters
    for chunk in (1_000, 7):
        monkeypatch.setattr("exporters.calibrate.CHUNK", chunk)
        found.append(calibrate(policy, observations(policy, 30), 3)[0].integers or ())
    for whole, parts in zip(*found, strict=True):
        np.testing.assert_array_equal(whole.weight, parts.weight)


def test_the_busiest_input_is_rounded_first_and_takes_up_no_other_errors() -> None:
    rng = np.random.default_rng(0)
    spikes = rng.random((5, 300, 4)) < np.array([0.1, 0.3, 0.8, 0.5])
    statistics, grid = InputStatistics(spikes, spikes, 0.5, 0.5), Grid(3)
    rows = rng.uniform(-150, 150, (40, 5))
    weight, _ = statistics.round(rows, grid)
    plain = grid.round(rows[:, :-1])
    np.testing.assert_array_equal(weight[:, 2], plain[:, 2])
    assert (weight != plain).any()


def test_rounding_of_inputs_that_never_spike_stays_finite_and_near() -> None:
    spikes = np.zeros((5, 50, 3), bool)
    spikes[:, :, 0] = random_spikes(0, (5, 50))
    rows = np.random.default_rng(0).uniform(-150, 150, (40, 4))
    weight, _ = InputStatistics(spikes, spikes, 0.5, 0.5).round(rows, Grid(4))
    np.testing.assert_array_equal(weight[:, 1:], Grid(4).round(rows[:, 1:3]))


def test_reconstruction_takes_up_most_of_the_error_of_rounding() -> None:
    """Of inputs that go together, the error of one is made up for by the others."""
    rng = np.random.default_rng(0)
    common = rng.random((5, 400, 1)) < 0.4
    spikes = np.where(rng.random((5, 400, 8)) < 0.9, common, rng.random((5, 400, 8)) < 0.4)
    statistics, grid = InputStatistics(spikes, spikes, 0.5, 0.5), Grid(3)
    rows = rng.uniform(-150, 150, (40, 9))
    weight, bias = statistics.round(rows, grid)
    traces = filtered(spikes, 0.5)
    found = np.square(traces @ (np.column_stack([weight, bias]) - rows).T).mean()
    plain = np.square(traces @ (np.column_stack([grid.round(rows[:, :-1]), grid.round_bias(rows[:, -1])]) - rows).T)
    assert found < 0.2 * plain.mean()


def test_currents_come_back_where_inputs_have_lost_spikes() -> None:
    floats = random_spikes(0, (5, 400, 6))
    quantized = floats & random_spikes(1, (5, 400, 6), 0.6)
    rows = np.abs(np.random.default_rng(0).normal(0, 1, (8, 7)))
    moved = InputStatistics(floats, quantized, 0.5, 0.5).reachable(rows)
    q, wanted = filtered(quantized, 0.5), filtered(floats, 0.5) @ rows.T
    assert np.square(q @ moved.T - wanted).mean() < 0.5 * np.square(q @ rows.T - wanted).mean()


def test_reports_look_through_both_encoders_and_state_the_bounds_of_the_integers() -> None:
    policy = random_policy(hidden=(32,))
    data, steps = observations(policy, 100), 5
    result, reports = calibrate(policy, data, 4, encoder_bits=2)
    generators = [np.random.default_rng(0)] * len(data)
    floats, quantized = (encode(p, data, generators).swapaxes(0, 1) for p in (policy, result))
    assert (floats != quantized).any()
    wanted = run_floats(policy.layers, floats)
    counts = IntegerCore(result.integers or (), steps)(quantized)
    for layer, report, a, b in zip(result.integers or (), reports, counts, wanted, strict=True):
        assert report.observed is not None
        assert report.observed.spike_error == pytest.approx(np.abs(a.sum(axis=0) - b.sum(axis=0)).mean())
        assert report.observed.spikes == pytest.approx(b.sum(axis=0).mean())
        assert (report.u_bound, report.v_bound) == tuple(x / STATE_LIMIT for x in state_bound(layer, steps))
        assert report.lossless == is_lossless(layer, steps)
    agreement = compare_recorded(result, data)
    assert agreement.spike_error == pytest.approx(np.abs(counts[-1].sum(axis=0) - wanted[-1].sum(axis=0)).mean())
    assert result.encoder is not None
    assert policy.encoder is not None
    np.testing.assert_array_equal(result.encoder.mean, round_encoder(policy.encoder, 2).mean)


def test_each_layer_is_announced_with_the_spikes_that_differ() -> None:
    lines: list[str] = []
    _, reports = calibrate(random_policy(), observations(random_policy(), 100), 2, progress=lines.append)
    for number, (line, report) in enumerate(zip(lines, reports, strict=True), start=1):
        assert report.observed is not None
        assert line == f"layer {number} of 3: spike counts differ by {report.observed.spike_error:.4f} a neuron"
        assert report.observed.spike_error > 0


def test_all_four_extremes_are_those_of_a_scalar_walk_spikes_included() -> None:
    policy, (report,) = calibrate(random_policy_of_one_layer(), random_spikes(0, (20, 5, 6)), 8)
    assert policy.integers is not None
    layer, us, vs = policy.integers[0], [0], [0]
    for row in random_spikes(0, (20, 5, 6)):
        for neuron in range(layer.weight.shape[0]):
            u = v = 0
            for t in range(5):
                u = int(u * 0.5) + int(layer.weight[neuron] @ row[t] + layer.bias[neuron]) * 2 ** (layer.weight_exp + 6)
                v = int(v * 0.75) + u
                us.append(u)
                vs.append(v)
                v = 0 if v > layer.vth * 64 else v
    assert report.observed is not None
    assert report.observed.u == (min(us) / STATE_LIMIT, max(us) / STATE_LIMIT)
    assert report.observed.v == (min(vs) / STATE_LIMIT, max(vs) / STATE_LIMIT)
    assert report.observed.margin == 1 - max(map(abs, us + vs)) / STATE_LIMIT
    assert min(us) < 0 < max(us)


@pytest.mark.parametrize("reached", [1.0, -1.0, 1.13, -1.13])
def test_a_current_of_either_sign_that_leaves_the_state_is_refused(reached: float) -> None:
    watch, counts = StateWatch(), np.zeros((1, 1), dtype=np.int64)
    watch(np.array([[0.5 * STATE_LIMIT]]), np.zeros((1, 1)))
    watch(np.array([[reached * STATE_LIMIT]]), np.zeros((1, 1)))
    watch(np.zeros((1, 1)), np.zeros((1, 1)))
    with pytest.raises(
        SpikerlError, match=rf"layer 3: a current reaches {abs(reached):.0%} of the chip's 24-bit state"
    ):
        observed_states(3, watch, counts, counts)


def test_a_voltage_that_clips_on_the_data_is_reported_not_refused() -> None:
    layer = SpikingLayer(np.full((3, 150), -0.5), np.zeros(3))
    _, (report,) = calibrate(Policy(layers=(layer,)), np.ones((2, 5, 150), bool), 8)
    assert report.observed is not None
    assert report.observed.u[0] > -1
    assert report.observed.v[0] < -1
    assert report.observed.margin == 1 + report.observed.v[0] < 0


def test_one_value_that_is_not_finite_is_enough() -> None:
    data = np.zeros((10, 4))
    data[7, 2] = np.inf
    with pytest.raises(SpikerlError, match="not finite"):
        calibrate(random_policy(), data, 8)


@pytest.mark.parametrize("v_threshold", [0.2, 0.5, 0.9])
def test_the_float_core_has_the_layers_own_threshold_and_is_silent_at_it(v_threshold: float) -> None:
    layers = random_layers(np.random.default_rng(0), (20, 16), v_threshold=v_threshold)
    spikes = random_spikes(0, (7, 10, 20))
    for b in range(10):
        np.testing.assert_array_equal(run_floats(layers, spikes)[0][:, b], naive_core(layers, spikes[:, b])[0])
    at = SpikingLayer(np.array([[0.5], [0.5 + 2**-20]]), np.zeros(2), v_threshold=0.5)
    assert run_floats([at], np.ones((1, 1, 1), bool))[0].ravel().tolist() == [False, True]
