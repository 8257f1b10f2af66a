"""Reads back what `exporters.netx` wrote, as integer layers that execute it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import h5py
import numpy as np
from numpy.typing import NDArray

from exporters.netx import FORMAT, VERSION
from spikerl_deploy.errors import SpikerlError
from spikerl_deploy.integer_lif import integrate_reference
from spikerl_deploy.loihi import BIAS_NEURONS_MAX, WEIGHT_MAX, IntegerLayer

HINT = "write it again: spikerl export POLICY --to netx"
ALWAYS_ON_BIAS = BIAS_NEURONS_MAX * WEIGHT_MAX  # the largest bias of an integer layer
# What h5py and our own checks can raise on a file that is damaged or foreign.
_READ_ERRORS = (
    *(OSError, KeyError, ValueError, TypeError, AttributeError, IndexError, RuntimeError),
    *(MemoryError, OverflowError),
)
BYTES_MAX = 1 << 30  # of the datasets that are read, unpacked
TIME_STEPS_MAX = 1 << 16  # of a control step; always-firing neurons are run through them


@dataclass(frozen=True, eq=False)
class NetxNetwork:
    """A netx file's network.

    Attributes:
        layers: weights, decays and thresholds as the file has them. A neuron that the file's bias, which enters the
            voltage, makes fire at every step has a bias here that enters the current and does the same.
        channels: [n], the input spike that each channel gets; `n_in` stands for a constant 1.
        neurons: for each layer [n], the policy's neuron that each one stands for; its n_out for one that always fires.
        time_steps: of a control step. n_in: input spikes of the policy.
    """

    layers: tuple[IntegerLayer, ...]
    channels: NDArray[np.int32]
    neurons: tuple[NDArray[np.int32], ...]
    time_steps: int
    n_in: int


def read_netx(path: Path) -> NetxNetwork:
    """Read a file of `export_netx`.

    Raises:
        SpikerlError: no such file, not one of ours, or it cannot be carried over exactly (names the layer).
    """
    try:
        with h5py.File(path, "r") as file:
            if file.attrs.get("format") != FORMAT or file.attrs["version"] != VERSION:
                raise ValueError(f"it is not {FORMAT} {VERSION}")
            depth, time_steps = len(file["layer"]), int(file.attrs["time_steps"])
            if not 1 <= time_steps <= TIME_STEPS_MAX:
                raise ValueError(f"time_steps {time_steps} is outside [1, {TIME_STEPS_MAX}]")
            _check_unpacked(file, depth)
            layers = tuple(_layer(index, file[f"layer/{index}"], time_steps) for index in range(depth))
            channels, neurons = file["input_channels"][()], tuple(file[f"neurons/{i}"][()] for i in range(depth))
            n_in = int(file.attrs["n_in"])
            _check_sizes(layers, channels, neurons, n_in)
            return NetxNetwork(layers, channels, neurons, time_steps, n_in)
    except _READ_ERRORS as error:
        raise SpikerlError(
            f"'{path}' is not a netx file that can be read: {' '.join(str(error).split())}", HINT
        ) from error


def _check_unpacked(file: h5py.File, depth: int) -> None:
    """Add up what is read before any of it is: a small file can declare any size."""
    unpacked = file["input_channels"].nbytes
    for index in range(depth):
        layer = file[f"layer/{index}"]
        read = [file[f"neurons/{index}"], layer["weight"], *layer["neuron"].values()]
        unpacked += sum(dataset.nbytes for dataset in (*read, *([layer["bias"]] if "bias" in layer else [])))
        if unpacked > BYTES_MAX:
            raise ValueError(
                f"layer {index} and those before it unpack to {unpacked} bytes, {BYTES_MAX} are read at most"
            )


def _check_sizes(
    layers: tuple[IntegerLayer, ...], channels: NDArray[np.int32], neurons: tuple[NDArray[np.int32], ...], n_in: int
) -> None:
    if not (channels.min() >= 0 and channels.max() <= n_in):
        raise ValueError(f"input_channels lie outside [0, {n_in}]")
    sources = (channels, *neurons)
    for index, layer in enumerate(layers):
        if layer.weight.shape != (sources[index + 1].size, sources[index].size):
            raise ValueError(f"layer {index} has weights {layer.weight.shape}, its neighbours do not")


def _layer(index: int, group: h5py.Group, time_steps: int) -> IntegerLayer:
    """The layer of a group; in netx weights lie at << 6, as ours do with weight_exp 0, and its bias at << 6."""
    weight, neuron = group["weight"][()], group["neuron"]
    du, dv, vth = (int(neuron[name][()]) for name in ("iDecay", "vDecay", "vThMant"))
    given = group["bias"][()] if "bias" in group else np.zeros(len(weight), dtype=np.int32)
    biased = given != 0
    if weight[biased].any() or (given[biased] <= vth).any():
        raise SpikerlError(f"layer {index}: a bias does more than make its neuron fire at every step", HINT)
    layer = IntegerLayer(weight, np.where(biased, ALWAYS_ON_BIAS, 0), 0, du - 1, dv, vth, 1.0)
    if biased.any() and not integrate_reference(np.full((time_steps, 1, 1), ALWAYS_ON_BIAS), layer).all():
        raise SpikerlError(
            f"layer {index}: with threshold {vth} no bias into the current makes a neuron fire at every step",
            "its weights are small beside its threshold: spikerl train --set v_threshold=0.25",
        )
    return layer
