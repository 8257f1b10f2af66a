"""Writes a quantized core as lava-dl's netx HDF5, with h5py alone; docs/netx.md says how to run the file.

netx differs from our integers in two ways, and the file makes up for both without changing a spike. Its bias enters the
voltage, ours the current: so neurons that fire at every step carry the bias as synapses. And it has no weight exponent:
so weights, or thresholds, are scaled, and a weight beyond a synapse's range is shared by copies of its source neuron.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from spikerl_deploy.errors import SpikerlError
from spikerl_deploy.files import atomic_path
from spikerl_deploy.loihi import (
    BIAS_MANT_MAX,
    THRESHOLD_MAX,
    WEIGHT_MAX,
    WEIGHT_MIN,
    Int,
    IntegerLayer,
    is_lossless,
)
from spikerl_deploy.policy import Policy

FORMAT, VERSION = "spikerl-netx", 1
COPIES_MAX = 16  # neurons that may stand for one; our bound, not the chip's
# netx fixes bias_exp to 6, which is STATE_SHIFT: the largest bias alone exceeds thresholds below it at every step.
ALWAYS_ON_THRESHOLD_MAX = BIAS_MANT_MAX - 1
QUANTIZE_HINT = "spikerl export RUN --to netx --bits 8"


@dataclass(frozen=True, eq=False)
class NetxLayer:
    """A layer as netx gets it: weight_exp 0, no bias.

    Attributes:
        weight: [n_out, n], even mantissas in [-256, 254]; as many columns as a source neuron needs, the bias last.
        sources: [n], the neuron of the layer before that feeds each column, ascending; its size stands for the bias.
        vth: threshold mantissa.
    """

    weight: Int
    sources: NDArray[np.intp]
    vth: int


def export_netx(policy: Policy, path: Path, force: bool = False) -> None:
    """Write the policy's core as netx HDF5; encoder and decoder stay on the host.

    Raises:
        SpikerlError: the policy is not quantized, a layer cannot be carried over exactly (it is named), or the file
            exists and `force` is false.
    """
    if policy.integers is None:
        raise SpikerlError("netx holds integers, the policy is not quantized", QUANTIZE_HINT)
    last = len(policy.integers) - 1
    layers = [
        netx_layer(index, layer, policy.time_steps, feeds=index < last) for index, layer in enumerate(policy.integers)
    ]
    with atomic_path(path, force) as temporary:
        with h5py.File(temporary, "w") as file:
            _write_header(file, policy, layers[0].sources)
            for index, (layer, netx) in enumerate(zip(policy.integers, layers, strict=True)):
                following = layers[index + 1].sources if index < last else None
                rows = np.arange(layer.weight.shape[0]) if following is None else following
                _write_layer(file.create_group(f"layer/{index}"), layer, netx, rows, feeds=index < last)
                file[f"neurons/{index}"] = rows.astype(np.int32)


def netx_layer(index: int, layer: IntegerLayer, time_steps: int, feeds: bool) -> NetxLayer:
    """The layer without bias and weight exponent, with the same spikes.

    Args:
        feeds: whether another layer follows, whose bias needs neurons here that fire at every step.

    Raises:
        SpikerlError: that is not possible; names the layer.
    """
    if layer.weight_exp < 0:
        raise SpikerlError(f"layer {index}: weight_exp {layer.weight_exp} is negative, netx has none", QUANTIZE_HINT)
    if max(layer.weight.max(), layer.bias.max()) <= 0:
        raise SpikerlError(
            f"layer {index}: no weight and no bias is positive, so it never spikes, and lava-dl misreads such weights",
            "train the policy further, or give its weights more bits: " + QUANTIZE_HINT,
        )
    exponent = needed_exponent(layer, time_steps)
    vth = layer.vth >> (layer.weight_exp - exponent)
    highest = ALWAYS_ON_THRESHOLD_MAX if feeds else THRESHOLD_MAX
    if vth > highest:
        raise SpikerlError(
            f"layer {index}: threshold {vth} is above {highest}, where netx has no neuron that fires at every step",
            "its weights are small beside its threshold: spikerl train --set v_threshold=0.25",
        )
    copies = max(math.ceil(layer.weight.max() / WEIGHT_MAX * 2**exponent), 1)
    copies = max(math.ceil(layer.weight.min() / WEIGHT_MIN * 2**exponent), copies)
    if copies > COPIES_MAX:
        raise SpikerlError(
            f"layer {index}: weight_exp {layer.weight_exp} needs {copies} copies of a neuron before it, "
            f"at most {COPIES_MAX} are made",
            "fewer time steps need a smaller weight_exp: spikerl train --set time_steps=5",
        )
    weight, sources = _share(layer.weight << exponent)
    bias, constant = _share(layer.bias[:, None] << exponent)
    n_in = layer.weight.shape[1]
    return NetxLayer(np.concatenate([weight, bias], axis=1), np.concatenate([sources, constant + n_in]), vth)


def needed_exponent(layer: IntegerLayer, time_steps: int) -> int:
    """Smallest exponent of the weights, 0 to weight_exp, with which no spike can change.

    With weight_exp itself the arithmetic is the same. A smaller one, with a threshold smaller by as much, leaves fewer
    bits below the unit; where neither of them loses a bit, both compute the same real numbers.
    """
    for exponent in range(layer.weight_exp if is_lossless(layer, time_steps) else 0):
        vth, remainder = divmod(layer.vth, 1 << (layer.weight_exp - exponent))
        if not remainder and is_lossless(replace(layer, weight_exp=exponent, vth=vth), time_steps):
            return exponent
    return layer.weight_exp


def _share(mantissas: Int) -> tuple[Int, NDArray[np.intp]]:
    """Columns in the range of a synapse, one or more for each given, that sum to it; and which one each is from."""
    parts, left = list[Int](), mantissas
    while not parts or left.any():
        parts.append(np.clip(left, WEIGHT_MIN, WEIGHT_MAX))
        left = left - parts[-1]
    shared = np.stack(parts, axis=2)  # [n_out, n_in, copies]
    needed = np.any(shared, axis=0) | (np.arange(len(parts)) == 0)
    return shared[:, needed], np.nonzero(needed)[0]


def _write_header(file: h5py.File, policy: Policy, sources: NDArray[np.intp]) -> None:
    """What a user needs to drive the network, as attributes; and which input spike each channel gets."""
    depth = len(policy.layers)
    file.attrs.update(
        {
            "format": FORMAT,
            "version": VERSION,
            "time_steps": policy.time_steps,
            "latency": depth,  # a Dense delays by one time step
            "reset_interval": policy.time_steps + depth,
            "reset_offset": 1,
            "input_shape": np.array([sources.size]),
            "n_in": policy.n_in,
            "n_out": policy.n_out,
            "constant_channels": int((sources == policy.n_in).sum()),
            "bits": policy.bits,
            "env_id": policy.env_id or "",
        }
    )
    file["input_channels"] = sources.astype(np.int32)
    file["provenance"] = json.dumps(policy.provenance, sort_keys=True)


def _write_layer(group: h5py.Group, layer: IntegerLayer, netx: NetxLayer, rows: NDArray[np.intp], feeds: bool) -> None:
    """One block: a row for each copy of a neuron that the following layer asks for, then those that always fire."""
    n_out = layer.weight.shape[0]
    weight = np.concatenate([netx.weight, np.zeros_like(netx.weight[:1])])[rows]
    group["type"] = _text("dense")
    group["shape"] = np.array([rows.size])
    group["inFeatures"], group["outFeatures"] = netx.weight.shape[1], rows.size
    group.create_dataset("weight", data=weight.astype(np.int16), compression="gzip")
    if feeds:
        group["bias"] = np.where(rows == n_out, BIAS_MANT_MAX, 0).astype(np.int32)
    neuron = group.create_group("neuron")
    neuron["type"] = _text("CUBA")
    for name, value in {"iDecay": layer.du + 1, "vDecay": layer.dv, "vThMant": netx.vth, "refDelay": 1}.items():
        neuron[name] = value


def _text(value: str) -> NDArray[Any]:
    """A text as netx reads it: fixed length, shape [1]."""
    return np.array([value.encode()], dtype="S10")
