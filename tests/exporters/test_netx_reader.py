"""A netx file read back, and run neuron by neuron against the integers that it was made of."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from support import quantized_policy, random_layers, random_spikes

from exporters.grid import dequantize
from exporters.netx import export_netx
from exporters.netx_reader import ALWAYS_ON_BIAS, read_netx
from exporters.quantize import quantize
from simulators.fixed import FixedBackend
from simulators.netx_session import NetxSession
from spikerl_deploy.errors import SpikerlError
from spikerl_deploy.loihi import IntegerLayer, is_lossless
from spikerl_deploy.policy import Policy


def integer_policy(layers: tuple[IntegerLayer, ...], time_steps: int) -> Policy:
    return Policy(tuple(map(dequantize, layers)), time_steps, integers=layers, bits=8)


def copied_policy() -> Policy:
    """Decays that truncate and a weight exponent, which copies of neurons make up for; biases of several columns."""
    rng = np.random.default_rng(2)
    layers = []
    for exponent, (n_in, n_out) in zip((2, 2, 1), itertools.pairwise((12, 14, 10, 8)), strict=True):
        bias = rng.integers(-30, 31, n_out) * 2
        bias[:2] = 700, -700
        weight = rng.integers(-100, 101, (n_out, n_in)) * 2
        layers.append(IntegerLayer(weight, bias, exponent, 1500, 700, 1001, 2.0**-8))
    assert not any(is_lossless(layer, 8) for layer in layers)
    return integer_policy(tuple(layers), 8)


def assert_same_spikes(policy: Policy, path: Path, spikes: np.ndarray) -> None:
    network, batch = read_netx(path), len(spikes)
    with (
        FixedBackend().open(policy, batch) as fixed,
        NetxSession(policy, batch, network.layers, network.channels, network.neurons) as netx,
    ):
        expected, found = (session.infer(spikes, rasters=True) for session in (fixed, netx))
    assert expected.rasters is not None and found.rasters is not None
    for ours, theirs, counts in zip(expected.rasters, found.rasters, found.counts, strict=True):
        np.testing.assert_array_equal(theirs, ours)
        np.testing.assert_array_equal(counts, ours.sum(axis=1))


@pytest.mark.parametrize("make", [quantized_policy, copied_policy])
def test_every_neuron_of_every_layer_spikes_as_the_integers_do(tmp_path: Path, make: Callable[[], Policy]) -> None:
    policy, path = make(), tmp_path / "p.net"
    export_netx(policy, path)
    spikes = random_spikes(0, (200, policy.time_steps, policy.n_in), rate=0.5)
    with FixedBackend().open(policy, 200) as fixed:
        assert all(0.02 < counts.mean() / policy.time_steps < 0.98 for counts in fixed.infer(spikes).counts)
    assert_same_spikes(policy, path, spikes)


@settings(max_examples=25, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    sizes=st.lists(st.integers(1, 20), min_size=2, max_size=4).map(tuple),
    gain=st.floats(0.3, 4.0),
    bits=st.integers(2, 8),
    time_steps=st.integers(1, 6),
)
def test_any_file_that_can_be_written_can_be_read_back(
    tmp_path_factory: pytest.TempPathFactory,
    seed: int,
    sizes: tuple[int, ...],
    gain: float,
    bits: int,
    time_steps: int,
) -> None:
    layers = random_layers(np.random.default_rng(seed), sizes, gain)
    policy = quantize(Policy(layers=layers, time_steps=time_steps), bits)[0]
    assert policy.integers is not None
    assume(all(layer.weight.max() > 0 or layer.bias.max() > 0 for layer in policy.integers))
    assume(all(layer.vth < ALWAYS_ON_BIAS for layer in policy.integers))
    path = tmp_path_factory.mktemp("netx") / "p.net"
    export_netx(policy, path)
    assert_same_spikes(policy, path, random_spikes(seed, (20, time_steps, sizes[0]), 0.5))


def test_the_file_says_which_neuron_each_row_stands_for(tmp_path: Path) -> None:
    policy, path = copied_policy(), tmp_path / "p.net"
    export_netx(policy, path)
    network = read_netx(path)
    assert (network.time_steps, network.n_in) == (8, 12)
    assert sorted(set(network.channels)) == list(range(13))
    for layer, neurons, size in zip(network.layers, network.neurons, policy.sizes[1:], strict=True):
        always_on = layer.bias > 0
        np.testing.assert_array_equal(neurons == size, always_on)
        assert set(neurons[~always_on]) == set(range(size))
        for neuron in range(size):  # copies have equal weights
            rows = layer.weight[neurons == neuron]
            np.testing.assert_array_equal(rows, np.broadcast_to(rows[0], rows.shape))
    assert network.neurons[0].size > 15 and network.neurons[-1].tolist() == list(range(8))


def changed(path: Path, change: Callable[[h5py.File], None]) -> Path:
    with h5py.File(path, "r+") as file:
        change(file)
    return path


def declare(name: str, *shape: int) -> Callable[[h5py.File], None]:
    """A dataset of any size that takes no room in the file."""

    def change(file: h5py.File) -> None:
        del file[name]
        file.create_dataset(name, shape, dtype="i4", chunks=(1024,) * len(shape))

    return change


def replace_data(name: str, value: object) -> Callable[[h5py.File], None]:
    def change(file: h5py.File) -> None:
        del file[name]
        file[name] = value

    return change


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda file: file.attrs.__setitem__("version", 2), "it is not spikerl-netx 1"),
        (lambda file: file.attrs.__delitem__("format"), "it is not spikerl-netx 1"),
        (lambda file: file.__delitem__("layer/1/neuron/vThMant"), "is not a netx file"),
        (lambda file: file.__delitem__("neurons"), "is not a netx file"),
        (replace_data("input_channels", np.full(41, 41)), r"input_channels lie outside \[0, 40\]"),
        (replace_data("neurons/1", np.arange(3)), "layer 1 has weights"),
        (declare("layer/0/weight", 1 << 20, 1 << 20), "layer 0 and those before it unpack to 4398"),
        (declare("input_channels", 1 << 40), "unpack to 4398"),
        (declare("neurons/2", 1 << 40), "layer 2 and those before it unpack to 4398"),
        (declare("layer/1/neuron/vThMant", 1 << 40), "layer 1 and those before it unpack to 4398"),
        (lambda file: file.attrs.__setitem__("time_steps", 1 << 40), "time_steps 1099511627776 is outside"),
        (lambda file: file.attrs.__setitem__("time_steps", np.inf), "cannot convert float infinity"),
        (replace_data("layer/0/bias", np.full(25, 4095)), "layer 0: a bias does more than"),
        (replace_data("layer/0/bias", np.r_[np.zeros(24, int), 1]), "layer 0: a bias does more than"),
    ],
)
def test_a_file_that_is_not_as_we_write_it_is_refused(
    tmp_path: Path, change: Callable[[h5py.File], None], message: str
) -> None:
    path = tmp_path / "p.net"
    policy = quantized_policy()
    assert policy.integers is not None
    even = replace(policy, integers=tuple(replace(layer, weight_exp=0) for layer in policy.integers))
    export_netx(even, path)
    assert read_netx(path).neurons[0].size == 25
    with pytest.raises(SpikerlError, match=message):
        read_netx(changed(path, change))


def test_what_is_no_file_of_ours_is_refused(tmp_path: Path) -> None:
    (tmp_path / "text.net").write_text("not HDF5")
    for name in ("text.net", "none.net"):
        with pytest.raises(SpikerlError, match=f"{name}' is not a netx file that can be read"):
            read_netx(tmp_path / name)


def test_an_always_firing_neuron_that_no_bias_of_ours_can_drive_is_refused(tmp_path: Path) -> None:
    first = IntegerLayer(np.full((3, 2), 100), np.full(3, 2), 0, 2047, 1024, 4063, 1.0)
    second = IntegerLayer(np.full((4, 3), 100), np.full(4, 2), 0, 2047, 1024, 500, 1.0)
    export_netx(integer_policy((first, second), 5), tmp_path / "p.net")
    assert_same_spikes(integer_policy((first, second), 5), tmp_path / "p.net", np.ones((1, 5, 2), bool))
    export_netx(integer_policy((replace(first, vth=4064), second), 5), tmp_path / "q.net")
    with pytest.raises(SpikerlError, match="layer 0: with threshold 4064 no bias"):
        read_netx(tmp_path / "q.net")
    # The current of such a neuron wraps after 33 steps where it does not decay.
    lasting = replace(first, du=0, vth=500)
    export_netx(integer_policy((lasting, second), 32), tmp_path / "r.net")
    assert len(read_netx(tmp_path / "r.net").layers) == 2
    export_netx(integer_policy((lasting, second), 40), tmp_path / "s.net")
    with pytest.raises(SpikerlError, match="layer 0: with threshold 500 no bias"):
        read_netx(tmp_path / "s.net")
