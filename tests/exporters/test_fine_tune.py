"""Quantization-aware training: its forward pass is the chip's, its gradient the float network's, and it helps."""

from __future__ import annotations

import copy
from dataclasses import replace

import numpy as np
import pytest
import torch
from support import random_layers, random_policy, random_spikes

from exporters.calibrate import Agreement, calibrate, compare_recorded, input_spikes
from exporters.fine_tune import HIDDEN_SHARE, LEARNING_RATE, _Trainer, fine_tune
from exporters.grid import Grid, dequantize, trained_unit
from exporters.integer_torch import TrainableLayer, _IntegerLIF
from exporters.quantize import quantize
from spikerl_deploy.errors import SpikerlError
from spikerl_deploy.float_core import run_floats
from spikerl_deploy.integer_core import IntegerCore
from spikerl_deploy.integer_lif import integrate_reference
from spikerl_deploy.loihi import IntegerLayer
from spikerl_deploy.policy import Policy
from training.lif import lif_sequence
from training.surrogate import make_surrogate

SLOPE = make_surrogate("rectangular", 0.5)


def trainable(layer: IntegerLayer, bits: int, unit: float = 0.01) -> TrainableLayer:
    """A layer whose latent weights are its mantissas."""
    weight, bias = (torch.from_numpy(np.array(values.T, dtype=np.float32)) for values in (layer.weight, layer.bias))
    return TrainableLayer(layer, unit, Grid(bits), weight, bias)


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"weight_exp": 2, "vth": 1200},
        {"du": 400, "dv": 3000},
        {"du": 0, "dv": 1},
        {"weight_exp": 7, "vth": 8000},  # currents wrap, voltages clip
        {"weight_exp": 7, "du": 100, "dv": 50, "vth": (1 << 17) - 1},
        {"weight_exp": 5, "du": 0, "dv": 0, "vth": 100},
    ],
)
@pytest.mark.parametrize("time_steps", [1, 5, 40])
def test_the_forward_pass_is_fixed_bit_for_bit_overflow_included(fields: dict[str, int], time_steps: int) -> None:
    rng = np.random.default_rng(0)
    sizes = {"weight_exp": 0, "du": 2047, "dv": 1024, "vth": 300} | fields
    layer = IntegerLayer(2 * rng.integers(-128, 128, (30, 300)), 2 * rng.integers(-500, 500, 30), scale=1.0, **sizes)
    spikes = random_spikes(1, (time_steps, 50, 300), 0.4)
    wanted = IntegerCore([layer], time_steps)(spikes)[0]
    found = trainable(layer, 8)(torch.from_numpy(spikes).float(), SLOPE)
    np.testing.assert_array_equal(found.detach().numpy() > 0, wanted)
    assert 0 < wanted.mean() < 1


@pytest.mark.parametrize("seed", range(3))
def test_the_gradient_is_that_of_the_float_network_the_integers_stand_for(seed: int) -> None:
    policy, (report,) = quantize(Policy(layers=random_layers(np.random.default_rng(seed), (20, 16))), 8)
    assert policy.integers is not None
    assert report.lossless
    layer, exported = policy.integers[0], policy.layers[0]
    spikes = torch.from_numpy(random_spikes(seed, (5, 40, 20))).float()
    probe = torch.from_numpy(np.random.default_rng(seed).normal(size=(5, 40, 16))).float()
    ours = trainable(layer, 8, report.scale)
    inputs = spikes.clone().requires_grad_()
    (ours(inputs, SLOPE) * probe).sum().backward()

    # the same in trained units, through training's own function
    ratio = 0.5 / exported.v_threshold
    weight = torch.from_numpy(np.array(exported.weight.T) * ratio).requires_grad_()
    bias = torch.from_numpy(np.array(exported.bias) * ratio).requires_grad_()
    other = spikes.clone().requires_grad_()
    (lif_sequence(other @ weight + bias, 0.5, 0.75, 0.5, SLOPE) * probe).sum().backward()
    for found, wanted, unit in (
        (inputs.grad, other.grad, 1.0),
        (ours.weight.grad, weight.grad, report.scale),
        (ours.bias.grad, bias.grad, report.scale),
    ):
        assert found is not None
        assert wanted is not None
        assert wanted.abs().max() > 0
        torch.testing.assert_close(found, wanted * unit, rtol=1e-4, atol=1e-5)


def test_rounding_passes_gradients_of_what_is_on_the_grid_and_none_of_what_is_clipped() -> None:
    layer = IntegerLayer(np.zeros((1, 4)), np.zeros(1), 0, 2047, 1024, 300, 1.0)
    latent = torch.tensor([[40.0], [300.0], [-300.0], [-263.0]])
    module = TrainableLayer(layer, 1.0, Grid(4), latent, torch.tensor([7.0]))
    weight, bias = module.mantissas()
    assert weight.flatten().tolist() == [32.0, 224.0, -256.0, -256.0]
    assert bias.tolist() == [8.0]
    (weight.sum() + bias.sum()).backward()
    assert module.weight.grad is not None
    assert module.weight.grad.flatten().tolist() == [1.0, 0.0, 0.0, 1.0]


def recorded(policy: Policy, count: int, seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    assert policy.encoder is not None
    mixing = np.random.default_rng(99).normal(0, 1, (2, policy.encoder.obs_dim))
    return rng.normal(0, 1, (count, 2)) @ mixing


def test_training_brings_two_bits_nearer_on_data_it_has_not_seen() -> None:
    policy = random_policy(obs_dim=4, hidden=(32, 32))
    start, _ = quantize(policy, 2)
    tuned, result = fine_tune(start, recorded(policy, 4_000, 1), recorded(policy, 1_000, 3), 300)
    fresh = recorded(policy, 1_000, 2)
    before, after = compare_recorded(start, fresh).action_error, compare_recorded(tuned, fresh).action_error
    assert before is not None
    assert after is not None
    assert after < 0.9 * before
    assert result.kept > 0
    assert result.control_steps == 4_000
    assert tuned.integers is not None
    for layer, calibrated in zip(tuned.integers, start.integers or (), strict=True):
        assert set(np.unique(layer.weight)) <= {-256, -128, 0, 128}
        assert (layer.vth, layer.weight_exp) == (calibrated.vth, calibrated.weight_exp)
    for layer, integer in zip(tuned.layers, tuned.integers, strict=True):
        np.testing.assert_array_equal(layer.weight, dequantize(integer).weight)
    assert tuned.trained is policy.layers
    assert tuned.encoder is policy.encoder


def test_what_was_trained_is_what_is_written_and_runs() -> None:
    """The loss's own forward pass and the policy that comes out give the same spikes."""
    policy, _ = calibrate(random_policy(hidden=(32,)), recorded(random_policy(hidden=(32,)), 500, 0), 3)
    trainer = _Trainer(policy, seed=0)
    trainer.add(recorded(policy, 500, 1))
    for _ in range(20):
        trainer.step(1.0)
    result = trainer.policy()
    assert any((a.weight != b.weight).any() for a, b in zip(result.integers or (), policy.integers or (), strict=True))
    spikes = input_spikes(result, recorded(policy, 200, 2))
    tensor = torch.from_numpy(spikes.copy()).float()
    with torch.no_grad():
        for layer, slope in zip(trainer.layers, trainer.slopes, strict=True):
            tensor = layer(tensor, slope)
    wanted = IntegerCore(result.integers or (), result.time_steps)(spikes)[-1]
    np.testing.assert_array_equal(tensor.numpy() > 0, wanted)


def test_latent_weights_start_at_the_calibrated_integers() -> None:
    policy, _ = calibrate(random_policy(hidden=(32,)), recorded(random_policy(hidden=(32,)), 500, 0), 4)
    start = _Trainer(policy, seed=0).policy()
    for a, b in zip(start.integers or (), policy.integers or (), strict=True):
        np.testing.assert_array_equal(a.weight, b.weight)
        np.testing.assert_array_equal(a.bias, b.bias)


def test_states_that_the_policy_visits_are_added_and_the_run_repeats() -> None:
    policy, _ = calibrate(random_policy(hidden=(16,)), recorded(random_policy(hidden=(16,)), 500, 0), 4)
    visits = []

    def collect(now: Policy) -> np.ndarray:
        visits.append(now)
        return recorded(policy, 100, len(visits))

    first, result = fine_tune(policy, recorded(policy, 500, 1), recorded(policy, 100, 9), 20, seed=3, collect=collect)
    assert len(visits) == 4
    assert result.control_steps == 900
    visits.clear()
    second, _ = fine_tune(policy, recorded(policy, 500, 1), recorded(policy, 100, 9), 20, seed=3, collect=collect)
    for a, b in zip(first.integers or (), second.integers or (), strict=True):
        np.testing.assert_array_equal(a.weight, b.weight)


def test_training_that_does_not_help_keeps_the_calibration(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("exporters.fine_tune.LEARNING_RATE", 300.0)
    policy, _ = calibrate(random_policy(hidden=(32,)), recorded(random_policy(hidden=(32,)), 500, 0), 8)
    kept, result = fine_tune(policy, recorded(policy, 500, 1), recorded(policy, 100, 9), 10)
    assert kept is policy
    assert result.kept == 0
    assert result.after == result.before


def test_a_core_alone_learns_its_rates() -> None:
    layers = random_layers(np.random.default_rng(0), (30, 24, 16))
    start, _ = quantize(Policy(layers=layers), 2)
    tuned, result = fine_tune(start, random_spikes(1, (3_000, 5, 30)), random_spikes(3, (500, 5, 30)), 300)
    assert result.after.spike_error < result.before.spike_error
    assert compare_recorded(tuned, random_spikes(2, (500, 5, 30))).spike_error < result.before.spike_error


def test_what_cannot_be_trained_is_refused() -> None:
    policy, _ = quantize(random_policy(), 4)
    data = recorded(policy, 100, 0)
    for broken in (random_policy(), replace(policy, trained=None)):
        with pytest.raises(SpikerlError, match="quantized policy that carries its trained weights"):
            fine_tune(broken, data, data, 10)
    with pytest.raises(SpikerlError, match="steps 0 must be at least 1"):
        fine_tune(policy, data, data, 0)
    wide = IntegerLayer(np.zeros((1, 70_000)), np.zeros(1), 0, 2047, 1024, 300, 1.0)
    with pytest.raises(SpikerlError, match="a layer of 70000 inputs at weight_exp 0 cannot be fine-tuned exactly"):
        trainable(wide, 8)
    assert policy.integers is not None
    assert trained_unit(policy.trained[0], policy.integers[0]) > 0  # type: ignore[index]


def neurons(drive: np.ndarray, layer: IntegerLayer) -> np.ndarray:
    """Spikes of the torch form for accumulated mantissas [T, B, n]."""
    return _IntegerLIF.apply(torch.from_numpy(drive).float(), layer, 1.0, SLOPE).numpy() > 0


@pytest.mark.parametrize("seed", range(4))
def test_truncation_decides_spikes_near_the_threshold_as_on_the_chip(seed: int) -> None:
    """Voltages within some hundred state units of the threshold: where truncation goes decides many spikes."""
    rng = np.random.default_rng(seed)
    du, dv = (int(code) for code in rng.integers(0, 4096, 2))
    layer = IntegerLayer(np.zeros((1, 1)), np.zeros(1), 0, du, dv, 6, 1.0)
    drive = 2 * rng.integers(-4, 6, (12, 50, 400))
    np.testing.assert_array_equal(neurons(drive, layer), integrate_reference(drive, layer))


@pytest.mark.parametrize("edge", [2**17 - 1, 2**17, 2**17 + 1, -(2**17) + 1, -(2**17), -(2**17) - 1])
def test_the_torch_form_wraps_at_the_very_edge(edge: int) -> None:
    layer = IntegerLayer(np.zeros((1, 1)), np.zeros(1), 0, 2047, 1024, 100, 1.0)
    for drive in ([edge, 0, 0, -edge, 0, 0], [edge, edge, -edge, 5, edge]):
        accumulated = np.array(drive, dtype=np.int64)[:, None, None]
        np.testing.assert_array_equal(neurons(accumulated, layer), integrate_reference(accumulated, layer))


def test_the_torch_form_clips_one_above_minus_two_to_the_23() -> None:
    """Without leaks that one unit is what is above the threshold in the end."""
    layer = IntegerLayer(np.zeros((1, 1)), np.zeros(1), 0, 4095, 0, 100, 1.0)
    accumulated = np.array([-(2**17) + 1] * 3 + [2**17, 100], dtype=np.int64)[:, None, None]
    assert neurons(accumulated, layer).ravel().tolist() == [False] * 4 + [True]
    assert integrate_reference(accumulated, layer).ravel().tolist() == [False] * 4 + [True]


@pytest.mark.parametrize(("latent", "gradient"), [(239.0, 1.0), (241.0, 0.0), (-271.0, 1.0), (-273.0, 0.0)])
def test_gradients_end_half_a_step_beyond_the_grid(latent: float, gradient: float) -> None:
    layer = IntegerLayer(np.zeros((1, 1)), np.zeros(1), 0, 2047, 1024, 300, 1.0)
    module = TrainableLayer(layer, 1.0, Grid(4), torch.tensor([[latent]]), torch.zeros(1))
    module.mantissas()[0].sum().backward()
    assert module.weight.grad is not None
    assert module.weight.grad.item() == gradient


@pytest.mark.parametrize(("widest", "columns"), [(250, 1), (-256, 1), (300, 2), (-600, 3)])
def test_a_bias_that_runs_off_stays_on_its_grid_and_near_what_its_neurons_carry(widest: int, columns: int) -> None:
    layer = IntegerLayer(np.zeros((2, 1)), np.array([widest, 0]), 0, 2047, 1024, 300, 1.0)
    for bits in (4, 8):
        grid = Grid(bits)
        module = TrainableLayer(layer, 1.0, grid, torch.zeros(1, 2), torch.tensor([1e4, -1e4]))
        high, low = module.mantissas()[1].tolist()
        assert low == -256 * columns
        assert (256 - grid.bias_step) * columns <= high < 256 * columns
        assert high % grid.bias_step == 0


def test_a_layer_is_refused_where_float32_or_the_wire_would_not_be_exact() -> None:
    def build(n_in: int, weight_exp: int) -> None:
        trainable(IntegerLayer(np.zeros((1, n_in)), np.zeros(1), weight_exp, 2047, 1024, 300, 1.0), 8)

    build(900, 7)
    build(65_000, 0)
    for n_in, weight_exp in ((1_100, 7), (66_000, 0), (4, -1)):
        with pytest.raises(SpikerlError, match=f"{n_in} inputs at weight_exp {weight_exp} cannot be fine-tuned"):
            build(n_in, weight_exp)


def scripted(figures: list[float], by_actions: bool) -> list[Agreement]:
    """Agreements with these figures, and others, the opposite, in what does not count."""
    return [Agreement(50, f if by_actions else None, 1 - f if by_actions else f) for f in figures]


@pytest.mark.parametrize("by_actions", [True, False])
def test_the_best_of_five_looks_is_kept_and_its_figures(monkeypatch: pytest.MonkeyPatch, by_actions: bool) -> None:
    agreements = scripted([0.5, 0.6, 0.3, 0.4, 0.2, 0.25], by_actions)
    looked_at: list[Policy] = []

    def compare(policy: Policy, data: np.ndarray) -> Agreement:
        looked_at.append(policy)
        assert data is held_out
        return agreements[len(looked_at) - 1]

    monkeypatch.setattr("exporters.fine_tune.compare_recorded", compare)
    policy, _ = quantize(random_policy(), 4)
    everything, held_out, lines = recorded(policy, 200, 0), recorded(policy, 50, 1), []
    kept, result = fine_tune(policy, everything, held_out, 10, progress=lines.append)
    assert len(looked_at) == 6
    assert kept is looked_at[4]
    assert (result.steps, result.kept, result.control_steps) == (10, 8, 200)
    assert (result.before, result.after) == (agreements[0], agreements[4])
    assert [line.split(":")[0] for line in lines] == [f"step {step} of 10" for step in (2, 4, 6, 8, 10)]
    assert "0.6000" in lines[0]


def test_the_learning_rate_falls_from_the_whole_to_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    shares: list[float] = []
    monkeypatch.setattr(_Trainer, "step", lambda self, share: shares.append(share))
    policy, _ = quantize(random_policy(), 4)
    fine_tune(policy, recorded(policy, 100, 0), recorded(policy, 50, 1), 40)
    assert shares[0] == 1.0
    assert shares == sorted(shares, reverse=True)
    assert shares[20] == pytest.approx(0.5)
    assert 0 < shares[-1] < 0.01
    assert len(shares) == 40


def test_what_is_trained_on_is_never_what_is_held_out_and_visits_come_beside_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    added: list[np.ndarray] = []
    monkeypatch.setattr(_Trainer, "add", lambda self, data: added.append(data))
    monkeypatch.setattr(_Trainer, "step", lambda self, share: None)
    policy, _ = quantize(random_policy(), 4)
    data, visits = recorded(policy, 95, 0), recorded(policy, 30, 1)
    _, result = fine_tune(policy, data, recorded(policy, 50, 2), 10, collect=lambda _: visits)
    assert added[0] is data
    assert len(added) == 5
    assert all(part is visits for part in added[1:])
    assert result.control_steps == 95 + 4 * 30


def test_the_student_sees_through_its_own_encoder_and_the_teacher_through_the_trained_one() -> None:
    source = random_policy(hidden=(16,))
    policy, _ = quantize(source, 2, encoder_bits=2)
    trainer = _Trainer(policy, seed=0)
    for seed in (0, 1):
        trainer.add(recorded(source, 50, seed))
    data = np.concatenate([recorded(source, 50, seed) for seed in (0, 1)])
    seen, taught = input_spikes(policy, data), input_spikes(source, data)
    assert (seen != taught).any()
    np.testing.assert_array_equal(trainer.inputs, seen)
    for rates, raster in zip(trainer.rates, run_floats(source.layers, taught), strict=True):
        np.testing.assert_allclose(rates, raster.mean(axis=0), rtol=1e-6)
    result = trainer.policy()
    assert result.encoder is policy.encoder
    assert result.trained_encoder is source.encoder


@pytest.mark.parametrize("alone", [False, True])
def test_a_step_follows_the_gradient_of_actions_and_hidden_rates(alone: bool) -> None:
    """Two steps on rows that the test draws itself, their gradients from a loss written out."""
    layers = random_layers(np.random.default_rng(0), (40, 24, 20, 10), v_threshold=0.8)
    source = Policy(layers=layers) if alone else replace(random_policy(), layers=layers)
    policy, _ = quantize(source, 3)
    data = random_spikes(0, (400, 5, 40)) if alone else recorded(source, 400, 0)
    trainer, rng = _Trainer(policy, seed=7), np.random.default_rng(7)
    trainer.add(data)
    inputs, rasters = input_spikes(policy, data), run_floats(layers, input_spikes(source, data))
    decoder = source.decoder

    def actions(rates: torch.Tensor) -> torch.Tensor:
        if decoder is None:
            return rates
        parts = rates.reshape(len(rates), *decoder.weight.shape)
        return torch.tanh((parts * torch.tensor(decoder.weight)).sum(-1) + torch.tensor(decoder.bias))

    for share in (1.0, 0.25):
        rows = rng.integers(0, 400, 256)
        copies, before = copy.deepcopy(trainer.layers), [layer.weight.detach().clone() for layer in trainer.layers]
        spikes, loss = torch.from_numpy(inputs[:, rows].copy()).float(), torch.zeros(())
        for index, (layer, raster) in enumerate(zip(copies, rasters, strict=True)):
            spikes = layer(spikes, make_surrogate("rectangular", 0.8))
            found, wanted = spikes.mean(0), torch.from_numpy(raster.mean(axis=0)[rows]).float()
            if index == 2:
                loss = loss + (actions(found) - actions(wanted)).pow(2).mean()
            else:
                loss = loss + HIDDEN_SHARE * (found - wanted).pow(2).mean()
        for layer in copies:
            layer.zero_grad()
        loss.backward()
        trainer.step(share)
        for layer, other, start in zip(trainer.layers, copies, before, strict=True):
            for ours, wanted_grad in ((layer.weight.grad, other.weight.grad), (layer.bias.grad, other.bias.grad)):
                assert ours is not None
                assert wanted_grad is not None
                assert wanted_grad.abs().max() > 0
                torch.testing.assert_close(ours, wanted_grad, rtol=1e-4, atol=1e-6 * float(wanted_grad.abs().max()))
            moved = float((layer.weight.detach() - start).abs().max())
            assert moved <= 1.2 * 64 * LEARNING_RATE * share  # 64 mantissa units are a step at 3 bits
            if share == 1.0:
                assert moved == pytest.approx(64 * LEARNING_RATE, rel=0.01)  # Adam's first step


def test_hidden_layers_learn_their_rates_even_where_no_action_depends_on_them() -> None:
    source = random_policy(hidden=(16,))
    assert source.decoder is not None
    source = replace(source, decoder=replace(source.decoder, weight=np.zeros_like(source.decoder.weight)))
    policy, _ = quantize(source, 2)
    trainer = _Trainer(policy, seed=0)
    trainer.add(recorded(source, 300, 0))
    trainer.step(1.0)
    hidden, last = (layer.weight.grad for layer in trainer.layers)
    assert hidden is not None
    assert last is not None
    assert hidden.any()
    assert not last.any()


def test_batches_are_drawn_from_the_seed() -> None:
    policy, _ = quantize(random_policy(hidden=(16,)), 3)
    latent = []
    for seed in (0, 0, 1):
        trainer = _Trainer(policy, seed)
        trainer.add(recorded(policy, 500, 0))
        for _ in range(3):
            trainer.step(1.0)
        latent.append(trainer.layers[0].weight.detach())
    assert torch.equal(latent[0], latent[1])
    assert not torch.equal(latent[0], latent[2])


def test_latent_weights_start_towards_the_trained_ones_and_off_the_next_step() -> None:
    policy, _ = quantize(random_policy(hidden=(16,)), 5)
    assert policy.trained is not None
    for layer, trained, integer in zip(_Trainer(policy, 0).layers, policy.trained, policy.integers or (), strict=True):
        unit, step = trained_unit(trained, integer), 16
        latent, exact = layer.weight.detach().numpy().T, trained.weight / unit
        inside = np.abs(exact - integer.weight) < step / 2
        assert np.abs(latent - exact)[inside].max() <= 0.05 * step + 1e-3
        assert np.abs(latent - integer.weight).max() <= 0.45 * step + 1e-3
        assert np.abs(latent - integer.weight).max() > 0.4 * step


def test_integers_that_would_overflow_on_the_data_are_not_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    def overflows(policy: Policy, data: np.ndarray) -> None:
        raise SpikerlError("layer 0: a current reaches 120% of the chip's 24-bit state on the recorded data")

    monkeypatch.setattr("exporters.fine_tune.report_recorded", overflows)
    policy, _ = quantize(random_policy(hidden=(32, 32)), 2)
    kept, result = fine_tune(policy, recorded(policy, 2_000, 0), recorded(policy, 500, 1), 100)
    assert kept is policy
    assert result.kept == 0
