"""The netx file: the integers' spikes in lava-dl's own reader under Lava, and in a reading of the format of our own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from support import ROOT, quantized_policy, random_layers, random_policy, random_spikes

from exporters.grid import dequantize
from exporters.netx import ALWAYS_ON_THRESHOLD_MAX, COPIES_MAX, export_netx, needed_exponent, netx_layer
from exporters.quantize import quantize
from spikerl_deploy import codec
from spikerl_deploy.errors import SpikerlError
from spikerl_deploy.integer_core import IntegerCore
from spikerl_deploy.integer_lif import integrate_reference
from spikerl_deploy.loihi import IntegerLayer, bias_columns, is_lossless
from spikerl_deploy.policy import Policy
from spikerl_deploy.policy_file import load_policy

# Runs in a process of its own: Lava forks, and must not meet torch. Drives each file as docs/netx.md says.
UNDER_LAVA = """
import sys, types
from pathlib import Path
from simulators.lava.compat import make_importable
make_importable(Path(sys.argv[1]))
sys.path.append(sys.argv[2])
# netx imports helpers that need torch, of resonate-and-fire neurons and sequential modules; CUBA neurons do not.
for name in ("slayer", "slayer.neuron", "slayer.neuron.rf", "netx.sequential_modules"):
    sys.modules["lava.lib.dl." + name] = types.ModuleType(name)
sys.modules["lava.lib.dl.slayer.neuron.rf"].neuron_params = None
import h5py
import numpy as np
from lava.lib.dl.netx.hdf5 import Network
from lava.magma.core.run_conditions import RunSteps
from lava.magma.core.run_configs import Loihi2SimCfg
from lava.proc.io.extractor import Extractor, PyLoihiExtractorModel
from lava.proc.io.injector import Injector, PyLoihiInjectorModel
assert "torch" not in sys.modules

def run(path, control_steps):
    with h5py.File(path) as file:
        about, channels = dict(file.attrs), file["input_channels"][()]
    window = int(about["reset_interval"])
    network = Network(path, input_shape=tuple(about["input_shape"]), reset_interval=window,
                      reset_offset=int(about["reset_offset"]))
    injector, extractor = Injector(shape=network.inp.shape), Extractor(shape=network.out.shape)
    injector.out_port.connect(network.inp)
    network.out.connect(extractor.in_port)
    models = {Injector: PyLoihiInjectorModel, Extractor: PyLoihiExtractorModel}
    config = Loihi2SimCfg(select_tag="fixed_pt", exception_proc_model_map=models)
    injector.create_runtime(run_cfg=config)
    outputs = []
    for spikes in control_steps:
        injector.run(condition=RunSteps(window, blocking=False), run_cfg=config)
        raster = []
        for t in range(window):
            row = np.append(spikes[t], 1)[channels] if t < len(spikes) else np.zeros(len(channels))
            injector.send(row.astype(float))
            raster.append(extractor.receive())
        injector.wait()
        outputs.append(raster[about["latency"]:])
    injector.stop()
    return np.array(outputs) > 0

for stem in sys.argv[3:]:
    np.save(stem + ".out.npy", run(stem + ".net", np.load(stem + ".npy")))
"""


def integer_policy(layers: tuple[IntegerLayer, ...], time_steps: int) -> Policy:
    return Policy(tuple(map(dequantize, layers)), time_steps, integers=layers, bits=8)


def large_bias_policy() -> Policy:
    """Biases that take three always-firing neurons a layer."""
    policy, rng = quantized_policy(seed=1), np.random.default_rng(1)
    assert policy.integers is not None
    layers = []
    for layer in policy.integers:
        bias = rng.integers(-40, 40, layer.bias.size) * 2
        bias[:2] = 700, -700
        layers.append(replace(layer, bias=bias))
    assert [bias_columns(layer).shape[1] for layer in layers] == [3, 3, 3]
    return integer_policy(tuple(layers), policy.time_steps)


def lossy_policy() -> Policy:
    """Decays that truncate, and an exponent that copies of neurons must make up for."""
    rng = np.random.default_rng(2)
    neuron = {"du": 1500, "dv": 700, "vth": 1001, "scale": 2.0**-8}
    weights = [rng.integers(-100, 101, shape) * 2 for shape in ((14, 12), (10, 14))]
    layers = tuple(
        IntegerLayer(weight, rng.integers(-30, 31, len(weight)) * 2, exponent, **neuron)
        for weight, exponent in zip(weights, (2, 0), strict=True)
    )
    assert not any(is_lossless(layer, 8) for layer in layers)
    return integer_policy(layers, 8)


def one_step_policy() -> Policy:
    """T = 1: a window is as long as the layers delay, and one step longer."""
    layers = random_layers(np.random.default_rng(3), (20, 16, 10, 12), gain=3.0)
    return quantize(Policy(layers=layers, time_steps=1), 8)[0]


CONTROL_STEPS = 8
POLICIES = {
    "8 bits": lambda: quantized_policy(8, seed=8),
    "2 bits": lambda: quantized_policy(2, seed=5),
    "large bias": large_bias_policy,
    "lossy": lossy_policy,
    "one time step": one_step_policy,
}


def expected_raster(policy: Policy, spikes: np.ndarray) -> np.ndarray:
    """Output spikes [N, T, n_out] of the integers for [N, T, n_in]."""
    assert policy.integers is not None
    return IntegerCore(policy.integers, policy.time_steps)(spikes.swapaxes(0, 1))[-1].swapaxes(0, 1)


@pytest.fixture(scope="module")
def under_lava(
    tmp_path_factory: pytest.TempPathFactory, lava_folder: Path, lava_dl_folder: Path, double_pendulum: Path
) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """For every policy: output spikes of its file in lava-dl's netx, one control step after the other; and ours."""
    folder, expected = tmp_path_factory.mktemp("netx"), {}
    trained = load_policy(double_pendulum)
    assert trained.encoder is not None
    observations = np.random.default_rng(0).normal(0, 0.5, (CONTROL_STEPS, trained.encoder.obs_dim))
    cases = {"trained": (trained, codec.encode(trained, observations, ()))}
    for name, make in POLICIES.items():
        policy = make()
        cases[name] = policy, random_spikes(1, (CONTROL_STEPS, policy.time_steps, policy.n_in), rate=0.5)
    for name, (policy, spikes) in cases.items():
        export_netx(policy, folder / f"{name}.net")
        np.save(folder / f"{name}.npy", spikes)
        expected[name] = expected_raster(policy, spikes)
    stems = [str(folder / name) for name in cases]
    done = subprocess.run(
        [sys.executable, "-c", UNDER_LAVA, str(lava_folder), str(lava_dl_folder), *stems],
        capture_output=True,
        text=True,
        timeout=200,
        cwd=ROOT,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return {name: (np.load(folder / f"{name}.out.npy"), raster) for name, raster in expected.items()}


@pytest.mark.parametrize("name", ["trained", *POLICIES])
def test_lava_dl_runs_the_file_with_every_spike_of_the_integers(
    name: str, under_lava: dict[str, tuple[np.ndarray, np.ndarray]]
) -> None:
    found, expected = under_lava[name]
    assert 0.02 < expected.mean() < 0.98
    np.testing.assert_array_equal(found, expected)


def read_back(path: Path, spikes: np.ndarray) -> np.ndarray:
    """Output spikes of a netx file for [N, T, n_in], from the format's own rules; Dense delays are left out."""
    with h5py.File(path) as file:
        padded = np.pad(spikes, ((0, 0), (0, 0), (0, 1)), constant_values=True)
        current = padded[:, :, file["input_channels"][()]].swapaxes(0, 1)
        for index in range(len(file["layer"])):
            group = file[f"layer/{index}"]
            weight, neuron = group["weight"][()].astype(int), group["neuron"]
            assert weight.shape == (group["outFeatures"][()], group["inFeatures"][()]) and weight.max() > 0
            assert group["type"][0] == b"dense" and neuron["type"][0] == b"CUBA" and group["shape"][0] == len(weight)
            du, dv, vth = (int(neuron[name][()]) for name in ("iDecay", "vDecay", "vThMant"))
            layer = IntegerLayer(weight, np.zeros(len(weight)), 0, du - 1, dv, vth, 1.0)
            output = integrate_reference(current.astype(np.int64) @ weight.T, layer)
            if "bias" in group:
                bias = group["bias"][()]
                assert ((bias << 6)[bias != 0] > vth << 6).all() and not weight[bias != 0].any()
                output[:, :, bias != 0] = True
            current = output
    return current.swapaxes(0, 1)


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    sizes=st.lists(st.integers(1, 30), min_size=2, max_size=4).map(tuple),
    gain=st.floats(0.3, 4.0),
    bits=st.integers(2, 8),
    time_steps=st.integers(1, 6),
    rate=st.floats(0.05, 0.95),
)
def test_scaled_weights_and_copies_of_neurons_change_no_spike(
    tmp_path_factory: pytest.TempPathFactory,
    seed: int,
    sizes: tuple[int, ...],
    gain: float,
    bits: int,
    time_steps: int,
    rate: float,
) -> None:
    layers = random_layers(np.random.default_rng(seed), sizes, gain)
    policy = quantize(Policy(layers=layers, time_steps=time_steps), bits)[0]
    assert policy.integers is not None
    assume(all(layer.weight.max() > 0 or layer.bias.max() > 0 for layer in policy.integers))
    assume(all(layer.vth <= ALWAYS_ON_THRESHOLD_MAX for layer in policy.integers))
    path = tmp_path_factory.mktemp("netx") / "p.net"
    export_netx(policy, path)
    spikes = random_spikes(seed, (20, time_steps, sizes[0]), rate)
    np.testing.assert_array_equal(read_back(path, spikes), expected_raster(policy, spikes))


@pytest.mark.parametrize("name", POLICIES)
def test_the_file_alone_holds_the_integers_spikes(tmp_path: Path, name: str) -> None:
    policy = POLICIES[name]()
    export_netx(policy, tmp_path / "p.net")
    spikes = random_spikes(3, (300, policy.time_steps, policy.n_in), rate=0.5)
    np.testing.assert_array_equal(read_back(tmp_path / "p.net", spikes), expected_raster(policy, spikes))


def test_no_smaller_exponent_would_do() -> None:
    """At T = 5 decay appends 8 bits; netx has 6 below the unit, and those that are zero in every mantissa."""
    rng = np.random.default_rng(0)
    spikes = random_spikes(0, (5, 20_000, 40), rate=0.5)
    for zeros, needed in ((1, 1), (2, 0), (3, 0)):
        weight, bias = (rng.integers(-100, 100, shape) >> zeros << zeros for shape in ((30, 40), 30))
        layer = IntegerLayer(weight, bias, 2, 2047, 1024, 1000, 1.0)
        assert is_lossless(layer, 5)
        assert needed_exponent(layer, 5) == needed
        smaller = replace(layer, weight_exp=0, vth=250)
        same = np.array_equal(IntegerCore([smaller], 5)(spikes)[0], IntegerCore([layer], 5)(spikes)[0])
        assert same == (needed == 0)
        assert needed_exponent(replace(layer, vth=999), 5) == 2  # a threshold between those of a smaller exponent
        assert needed_exponent(replace(layer, dv=1025), 5) == 2  # what truncates is not rescaled


def test_shared_synapses_sum_to_the_scaled_mantissas() -> None:
    for layer in large_bias_policy().integers or ():
        netx = netx_layer(0, layer, 5, feeds=False)
        exponent = needed_exponent(layer, 5)
        assert netx.vth << (layer.weight_exp - exponent) == layer.vth
        totals = np.zeros((layer.weight.shape[0], layer.weight.shape[1] + 1), dtype=int)
        np.add.at(totals.T, netx.sources, netx.weight.T)
        np.testing.assert_array_equal(totals[:, :-1], layer.weight << exponent)
        np.testing.assert_array_equal(totals[:, -1], layer.bias << exponent)
        assert netx.weight.min() >= -256 and netx.weight.max() <= 254 and not (netx.weight & 1).any()
        unscaled = netx_layer(0, replace(layer, weight_exp=0), 5, feeds=False)
        np.testing.assert_array_equal(unscaled.weight[:, :-3], layer.weight)
        np.testing.assert_array_equal(unscaled.weight[:, -3:], bias_columns(layer))


def test_the_header_says_how_to_drive_the_network(tmp_path: Path) -> None:
    policy, path = quantized_policy(7, seed=3), tmp_path / "p.net"
    export_netx(policy, path)
    with h5py.File(path) as file:
        about = dict(file.attrs)
        channels = file["input_channels"][()]
        assert json.loads(file["provenance"][()]) == {"made": "for a test"}
    assert (about["time_steps"], about["latency"], about["reset_interval"], about["reset_offset"]) == (5, 3, 8, 1)
    assert (about["n_in"], about["n_out"], about["bits"], about["env_id"]) == (40, 10, 7, "InvertedPendulum-v5")
    assert about["input_shape"].tolist() == [channels.size]
    assert about["constant_channels"] == (channels == 40).sum() >= 1
    assert sorted(set(channels)) == list(range(41))


def test_a_file_is_not_overwritten_unless_forced(tmp_path: Path) -> None:
    path = tmp_path / "p.net"
    export_netx(quantized_policy(), path)
    first = path.read_bytes()
    with pytest.raises(SpikerlError, match="exists and is not overwritten"):
        export_netx(quantized_policy(4), path)
    assert path.read_bytes() == first
    export_netx(quantized_policy(4), path, force=True)
    assert path.read_bytes() != first
    assert [entry.name for entry in tmp_path.iterdir()] == ["p.net"]


def test_what_netx_cannot_hold_is_refused_by_the_layers_name(tmp_path: Path) -> None:
    path = tmp_path / "p.net"
    with pytest.raises(SpikerlError, match="the policy is not quantized") as refusal:
        export_netx(random_policy(), path)
    assert refusal.value.hint == "spikerl export RUN --to netx --bits 8"
    first = IntegerLayer(np.full((3, 2), 100), np.zeros(3), 0, 2047, 1024, 500, 1.0)

    def refuse(second: IntegerLayer, match: str, before: IntegerLayer = first, time_steps: int = 5) -> None:
        with pytest.raises(SpikerlError, match=match):
            export_netx(integer_policy((before, second), time_steps), path)

    second = IntegerLayer(np.full((4, 3), 100), np.zeros(4), 0, 2047, 1024, 500, 1.0)
    refuse(replace(second, weight_exp=-1), "layer 1: weight_exp -1 is negative")
    refuse(replace(second, weight=np.full((4, 3), -100)), "layer 1: no weight and no bias is positive")
    refuse(
        replace(second, weight_exp=7), f"layer 1: weight_exp 7 needs 51 copies .* at most {COPIES_MAX}", time_steps=40
    )
    refuse(
        replace(second, weight_exp=7, weight=np.full((4, 3), -100), bias=np.full(4, 2)), "needs 50 copies", first, 40
    )
    refuse(second, "layer 0: threshold 4095 is above 4094", replace(first, vth=ALWAYS_ON_THRESHOLD_MAX + 1))
    assert not path.exists()
    high = replace(second, vth=100_000)  # nothing follows the last layer, so its threshold may be any
    export_netx(integer_policy((replace(first, vth=ALWAYS_ON_THRESHOLD_MAX), high), 5), path)
