"""The ONNX graph in ONNX Runtime: the same spikes and actions as the policy it was written from."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from support import naive_core, quantized_policy, random_policy, random_spikes

from exporters.grid import dequantize
from exporters.onnx_graph import OPSET_MAX, OPSET_MIN, export_onnx, policy_to_model
from simulators.fixed import FixedBackend
from simulators.torch_backend import TorchBackend
from spikerl_deploy import codec
from spikerl_deploy.errors import SpikerlError
from spikerl_deploy.integer_core import IntegerCore
from spikerl_deploy.loihi import STATE_LIMIT, IntegerLayer, is_lossless, state_bound
from spikerl_deploy.policy import Policy
from spikerl_deploy.policy_file import load_policy

LARGE = {"obs_dim": 17, "act_dim": 6, "hidden": (256, 256)}


def open_session(policy: Policy, opset: int = 17) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    model = policy_to_model(policy, opset).SerializeToString()
    return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])


def observations(policy: Policy, batch: int, seed: int = 0) -> np.ndarray:
    """Observations some of which the normalisation clips."""
    assert policy.encoder is not None
    return np.random.default_rng(seed).normal(0, 2, (batch, policy.encoder.obs_dim)).astype(np.float32)


def core_alone(policy: Policy) -> Policy:
    return replace(policy, normalization=None, encoder=None, decoder=None, env_id=None)


def fixed_raster(policy: Policy, spikes: np.ndarray) -> np.ndarray:
    """Output spikes [B, T, n_out] of the chip's integers."""
    assert policy.integers is not None
    return IntegerCore(policy.integers, policy.time_steps)(spikes.swapaxes(0, 1))[-1].swapaxes(0, 1)


@pytest.mark.parametrize("time_steps", [1, 5, 40])
@pytest.mark.parametrize("seed", range(3))
def test_a_float_policy_acts_like_the_torch_backend(seed: int, time_steps: int) -> None:
    """No output spike differs for these seeds; one in 10,000 may, where float32 sums are rounded in another order."""
    policy = random_policy(seed, time_steps=time_steps, **LARGE)
    observation = observations(policy, 20, seed)
    action, counts = open_session(policy).run(None, {"observation": observation})
    with TorchBackend("cpu").open(policy, 20) as session:
        expected = session.infer(codec.encode(policy, observation, ())).output_counts
    assert time_steps == 1 or expected.sum() > 400
    assert np.abs(counts - expected).sum() <= 1e-4 * expected.sum()
    assert policy.decoder is not None
    np.testing.assert_allclose(action, codec.decode(counts, time_steps, policy.decoder), rtol=0, atol=2e-6)


@pytest.mark.parametrize("time_steps", [1, 5, 40])
def test_a_float_core_alone_spikes_like_float64(time_steps: int) -> None:
    policy = core_alone(random_policy(1, hidden=(64, 64), time_steps=time_steps))
    spikes = random_spikes(2, (5, time_steps, policy.n_in), rate=0.5)
    raster, counts = open_session(policy).run(None, {"spikes": spikes.astype(np.float32)})
    expected = np.stack([naive_core(policy.layers, row)[-1] for row in spikes])
    assert expected.any()
    np.testing.assert_array_equal(raster, expected)
    np.testing.assert_array_equal(counts, expected.sum(axis=1))


def test_one_session_takes_any_batch() -> None:
    policy = random_policy()
    session, observation = open_session(policy), observations(random_policy(), 100)
    whole = session.run(["action"], {"observation": observation})[0]
    assert whole.shape == (100, 1)
    for batch in (1, 7):
        part = session.run(["action"], {"observation": observation[:batch]})[0]
        np.testing.assert_allclose(part, whole[:batch], rtol=0, atol=1e-6)


@pytest.mark.parametrize("bits", [2, 5, 8])
@pytest.mark.parametrize("seed", range(3))
def test_a_quantized_policy_has_exactly_the_spikes_of_the_integers(seed: int, bits: int) -> None:
    policy = quantized_policy(bits, seed=seed, **LARGE)
    assert policy.decoder is not None
    low, high = np.linspace(-3, 1, 6), np.linspace(2, 9, 6)  # ranges that do not lie about zero
    policy = replace(policy, decoder=replace(policy.decoder, action_low=low, action_high=high))
    observation = observations(policy, 50, seed)
    action, counts = open_session(policy).run(None, {"observation": observation})
    spikes = codec.encode(policy, observation, ())
    with FixedBackend().open(policy, 50) as session:
        expected = session.infer(spikes).output_counts
    assert expected.any()
    np.testing.assert_array_equal(counts, expected)
    assert policy.decoder is not None
    np.testing.assert_allclose(action, codec.decode(expected, 5, policy.decoder), rtol=0, atol=1e-6)


def test_the_trained_policy_has_exactly_the_spikes_of_the_integers(double_pendulum: Path) -> None:
    policy = load_policy(double_pendulum)
    observation = observations(policy, 200) / 4
    action, counts = open_session(policy).run(None, {"observation": observation})
    expected = fixed_raster(policy, codec.encode(policy, observation, ())).sum(axis=1)
    assert 0 < expected.mean() < policy.time_steps
    np.testing.assert_array_equal(counts, expected)
    assert policy.decoder is not None
    np.testing.assert_allclose(action, codec.decode(expected, policy.time_steps, policy.decoder), rtol=0, atol=1e-6)


def with_integers(layers: tuple[IntegerLayer, ...], time_steps: int) -> Policy:
    """A core alone, of integers."""
    return Policy(tuple(map(dequantize, layers)), time_steps, integers=layers, bits=8)


def random_integers(seed: int, n_in: int, n_out: int, **scalars: int) -> IntegerLayer:
    rng = np.random.default_rng(seed)
    weight, bias = rng.integers(-128, 128, (n_out, n_in)) * 2, rng.integers(-128, 128, n_out) * 2
    neuron = {"weight_exp": 0, "du": 1500, "dv": 300, "vth": 200} | scalars
    return IntegerLayer(weight, bias, scale=2.0**-8, **neuron)


@pytest.mark.parametrize(
    "scalars",
    [
        {},  # truncates
        {"du": 2047, "dv": 1024},
        {"weight_exp": -3, "vth": 20},  # the input is floored
        {"weight_exp": -8, "vth": 1},
        {"weight_exp": 6, "vth": 20_000, "du": 100},  # the current wraps, the voltage clips
        {"weight_exp": 7, "vth": 100_000, "du": 0, "dv": 1},
    ],
)
def test_integers_that_lose_bits_are_executed_bit_by_bit(scalars: dict[str, int]) -> None:
    layers = (random_integers(0, 60, 80, **scalars), random_integers(1, 80, 40, **scalars))
    policy = with_integers(layers, 12)
    assert not any(is_lossless(layer, 12) for layer in layers)
    spikes = random_spikes(3, (20, 12, 60))
    raster = open_session(policy).run(["spikes_out"], {"spikes": spikes.astype(np.float32)})[0]
    expected = fixed_raster(policy, spikes)
    assert 0.01 < expected.mean() < 0.99
    np.testing.assert_array_equal(raster, expected)


def test_an_input_beyond_32_bits_wraps_as_on_the_chip() -> None:
    """Enough synapses that the sum of mantissas, shifted by 13 bits, overflows 32."""
    weight = np.full((4, 2400), 254)
    weight[1::2] = -256
    layer = IntegerLayer(weight, np.array([0, 2, 100, -2]), 7, 1000, 500, 3000, 2.0**-8)
    policy = with_integers((layer,), 6)
    assert state_bound(layer, 1)[0] > 1 << 32
    spikes = random_spikes(4, (50, 6, 2400), rate=0.5)
    raster = open_session(policy).run(["spikes_out"], {"spikes": spikes.astype(np.float32)})[0]
    expected = fixed_raster(policy, spikes)
    assert 0.05 < expected.mean() < 0.95
    np.testing.assert_array_equal(raster, expected)


def test_sums_near_the_bound_of_float32_are_exact_and_larger_ones_refused() -> None:
    """Two sums of mantissas below 2^25, two apart; the threshold lies between them."""
    n_in, turns = 132_139, 62 << 19  # shifted by 13 bits, multiples of 2^19 vanish from 32
    low, high = turns + 512, turns + 514
    weight, bias = np.full((2, n_in), 246), np.array([low, high]) - 246 * n_in
    layer = IntegerLayer(weight, bias, 7, 4095, 4095, 513 << 7, 1.0)
    policy, spikes = with_integers((layer,), 1), np.ones((1, 1, n_in), dtype=bool)
    raster = open_session(policy).run(["spikes_out"], {"spikes": spikes.astype(np.float32)})[0]
    assert raster.ravel().tolist() == [0, 1]
    np.testing.assert_array_equal(raster, fixed_raster(policy, spikes))
    with pytest.raises(SpikerlError, match=r"layer 0: its 132139 mantissas add up to 33827760, float32 is exact to"):
        policy_to_model(with_integers((replace(layer, weight=np.full((2, n_in), -256)),), 1))


def test_a_quantized_policy_of_forty_steps_is_exact_in_integers() -> None:
    """At T = 40 decay appends more bits than the state has: float32 and the chip differ, the graph follows the chip."""
    policy = quantized_policy(time_steps=40, seed=3)
    model = policy_to_model(policy)
    assert {p.key: p.value for p in model.metadata_props}["arithmetic"] == "int64,int64,int64"
    observation = observations(policy, 100)
    counts = open_session(policy).run(["output_spike_counts"], {"observation": observation})[0]
    expected = fixed_raster(policy, codec.encode(policy, observation, ())).sum(axis=1)
    np.testing.assert_array_equal(counts, expected)


def test_lossless_and_lossy_layers_share_a_graph() -> None:
    lossless, lossy = random_integers(0, 12, 10, du=2047, dv=2048), random_integers(1, 10, 8)
    policy = with_integers((lossless, lossy), 3)
    assert (is_lossless(lossless, 3), is_lossless(lossy, 3)) == (True, False)
    model = policy_to_model(policy)
    assert {p.key: p.value for p in model.metadata_props}["arithmetic"] == "float32,int64"
    spikes = random_spikes(6, (200, 3, 12))
    raster = open_session(policy).run(["spikes_out"], {"spikes": spikes.astype(np.float32)})[0]
    np.testing.assert_array_equal(raster, fixed_raster(policy, spikes))


def test_poisson_coding_takes_its_random_numbers_as_an_input() -> None:
    policy = random_policy(coding="poisson", seed=2)
    observation, generators = observations(policy, 9), [np.random.default_rng(seed) for seed in range(9)]
    spikes = codec.encode(policy, observation, generators)
    shape = (policy.time_steps, policy.n_in)
    uniform = np.stack([np.random.default_rng(seed).random(shape, dtype=np.float32) for seed in range(9)])
    session = open_session(policy)
    counts = session.run(None, {"observation": observation, "uniform": uniform})[1]
    with TorchBackend("cpu").open(policy, 9) as reference:
        expected = reference.infer(spikes).output_counts
    assert expected.any()
    np.testing.assert_array_equal(counts, expected)
    silent = session.run(None, {"observation": observation, "uniform": np.ones_like(uniform)})[1]
    assert not np.array_equal(silent, counts)


def test_parts_that_are_missing_are_left_to_the_caller() -> None:
    policy = random_policy(seed=4)
    observation = observations(policy, 6)
    whole_action, whole_counts = open_session(policy).run(None, {"observation": observation})
    spikes = codec.encode(policy, observation, ()).astype(np.float32)

    encoded = open_session(replace(policy, decoder=None))
    assert [port.name for port in encoded.get_outputs()] == ["spikes_out", "output_spike_counts"]
    raster, counts = encoded.run(None, {"observation": observation})
    np.testing.assert_array_equal(raster.sum(axis=1), whole_counts)
    np.testing.assert_array_equal(counts, whole_counts)

    decoded = open_session(replace(policy, encoder=None))
    assert [port.name for port in decoded.get_inputs()] == ["spikes"]
    np.testing.assert_array_equal(decoded.run(["action"], {"spikes": spikes})[0], whole_action)

    raw = replace(policy, normalization=None)
    action = open_session(raw).run(["action"], {"observation": observation})[0]
    assert raw.decoder is not None
    with TorchBackend("cpu").open(raw, 6) as session:
        expected = session.infer(codec.encode(raw, observation, ())).output_counts
    np.testing.assert_allclose(action, codec.decode(expected, raw.time_steps, raw.decoder), rtol=0, atol=1e-6)
    assert not np.allclose(action, whole_action)


@pytest.mark.parametrize("opset", range(OPSET_MIN, OPSET_MAX + 1))
def test_every_opset_of_the_range_runs_and_gives_the_same(opset: int) -> None:
    policy = with_integers((random_integers(0, 20, 16, weight_exp=6, vth=9000),), 4)
    whole = replace(random_policy(), time_steps=3)
    spikes = random_spikes(7, (30, 4, 20))
    raster = open_session(policy, opset).run(["spikes_out"], {"spikes": spikes.astype(np.float32)})[0]
    np.testing.assert_array_equal(raster, fixed_raster(policy, spikes))
    observation = observations(whole, 4)
    expected = open_session(whole).run(None, {"observation": observation})
    for found, known in zip(open_session(whole, opset).run(None, {"observation": observation}), expected, strict=True):
        np.testing.assert_array_equal(found, known)
    assert policy_to_model(whole, opset).opset_import[0].version == opset


@pytest.mark.parametrize("opset", [0, OPSET_MIN - 1, OPSET_MAX + 1])
def test_other_opsets_are_refused(tmp_path: Path, opset: int) -> None:
    with pytest.raises(SpikerlError, match=rf"opset {opset} is outside \[13, {OPSET_MAX}\]"):
        export_onnx(random_policy(), tmp_path / "p.onnx", opset=opset)
    assert not any(tmp_path.iterdir())


def test_the_file_is_valid_says_what_it_is_and_is_not_overwritten(tmp_path: Path) -> None:
    policy, path = quantized_policy(6), tmp_path / "p.onnx"
    export_onnx(policy, path)
    first = path.read_bytes()
    model = onnx.load(path)
    onnx.checker.check_model(model, full_check=True)
    data = {p.key: p.value for p in model.metadata_props}
    assert (data["spikerl.format"], data["time_steps"], data["env_id"]) == ("spikerl-onnx", "5", "InvertedPendulum-v5")
    assert (data["bits"], data["opset"], data["arithmetic"]) == ("6", "17", "float32,float32,float32")
    assert json.loads(data["provenance"]) == {"made": "for a test"}
    with pytest.raises(SpikerlError, match="exists and is not overwritten"):
        export_onnx(random_policy(), path)
    assert path.read_bytes() == first
    export_onnx(policy, path, force=True)
    assert path.read_bytes() == first  # the same policy gives the same bytes
    assert [port.name for port in open_session(policy).get_outputs()] == ["action", "output_spike_counts"]


def test_random_integers_reach_the_overflow_they_are_meant_to_test() -> None:
    layer = random_integers(0, 60, 80, weight_exp=6, vth=20_000, du=100)
    assert state_bound(layer, 12)[0] >= STATE_LIMIT
