"""The policy file: one `.nir` that any NIR reader opens, whose graph metadata makes it a whole policy.

Metadata keys are flat, since NIR metadata does not nest; docs/policy-file.md lists them.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import nir
import numpy as np

from spikerl_deploy.errors import SpikerlError
from spikerl_deploy.files import atomic_path
from spikerl_deploy.loihi import IntegerLayer
from spikerl_deploy.nir_core import chain_edges, layers_from_graph, layers_to_nodes, stored_threshold
from spikerl_deploy.nir_file import READ_ERRORS, one_line, read_graph, write_graph
from spikerl_deploy.policy import (
    DEFAULT_DT,
    Normalization,
    Policy,
    PopulationDecoder,
    PopulationEncoder,
    SpikingLayer,
    is_positive_scalar,
)

Part = TypeVar("Part")
FORMAT, VERSION = "spikerl-policy", 1
EXPORT_HINT = "make a new one: spikerl export RUN --to nir -o policy.nir"
DECAY_TOLERANCE = 2e-6  # float32 rounding of the time constants
_DECAYS = ("current_decay", "voltage_decay")
_LAYER_SCALARS = (*_DECAYS, "v_threshold")
_NORMALIZATION = ("mean", "std", "clip")
_ENCODER = ("mean", "std", "coding", "threshold")
_DECODER = ("weight", "bias", "action_low", "action_high")
_INTEGER_SCALARS = ("weight_exp", "du", "dv", "vth", "scale")


def policy_to_graph(policy: Policy) -> nir.NIRGraph:
    """The policy as a NIR graph with everything else in its metadata."""
    nodes = layers_to_nodes(policy.layers, policy.dt)
    metadata = _metadata(policy)
    metadata["content_sha256"] = _content_hash(policy.layers, metadata)
    return nir.NIRGraph(nodes=nodes, edges=chain_edges(nodes), metadata=metadata)


def save_policy(policy: Policy, path: Path, force: bool = False) -> None:
    """Write a policy file atomically.

    Raises:
        SpikerlError: the file exists and `force` is false, or cannot be written.
    """
    graph = policy_to_graph(policy)
    with atomic_path(path, force) as temporary:
        write_graph(temporary, graph)


def load_policy(path: Path, dt: float = DEFAULT_DT) -> Policy:
    """Read a policy file, or any NIR file as a core alone.

    Args:
        dt: seconds a time step, for a file that does not state it.

    Raises:
        SpikerlError: the file is missing, truncated, foreign, of a newer version, or was changed after writing.
    """
    if not path.is_file():
        raise SpikerlError(f"no policy file at '{path}'", EXPORT_HINT)
    return policy_from_graph(read_graph(path, EXPORT_HINT), str(path), dt)


def policy_from_graph(graph: nir.NIRGraph, name: str, dt: float = DEFAULT_DT) -> Policy:
    """Inverse of `policy_to_graph`; `name` is what errors call the graph."""
    try:
        return _from_graph(graph, dt)
    except SpikerlError as error:
        raise SpikerlError(f"'{name}': {error.message}", error.hint or EXPORT_HINT) from error
    except READ_ERRORS as error:
        raise SpikerlError(f"'{name}' has broken metadata: {one_line(error)}", EXPORT_HINT) from error


def _from_graph(graph: nir.NIRGraph, dt: float) -> Policy:
    metadata = graph.metadata
    if "spikerl.format" not in metadata:
        dt = float(metadata.get("dt", dt))
        if not is_positive_scalar(dt):
            raise SpikerlError(f"dt {dt} s is not a positive time step")
        return Policy(layers=layers_from_graph(graph, dt), dt=dt)
    if metadata["spikerl.format"] != FORMAT:
        raise SpikerlError(f"format {metadata['spikerl.format']!r} is not '{FORMAT}'")
    version = int(metadata["spikerl.version"])
    if version != VERSION:
        raise SpikerlError(f"policy version {version}, this is {VERSION}", "install the matching spikerl-deploy")
    policy = _from_metadata(graph, metadata)
    if _content_hash(policy.layers, metadata) != metadata.get("content_sha256"):
        raise SpikerlError("the file was changed after it was written: its content hash differs")
    return policy


def _metadata(policy: Policy) -> dict[str, Any]:
    data: dict[str, Any] = {
        "spikerl.format": FORMAT,
        "spikerl.version": VERSION,
        "time_steps": policy.time_steps,
        "dt": policy.dt,
        "provenance": json.dumps(_strict_json(json.dumps(policy.provenance)), sort_keys=True, allow_nan=False),
    }
    _put_layers(data, "layer", policy.layers, with_weights=False)
    if policy.env_id is not None:
        data["env_id"] = policy.env_id
    if policy.bits is not None:
        data["bits"] = policy.bits
    _put(data, "normalization", policy.normalization, _NORMALIZATION)
    _put(data, "encoder", policy.encoder, _ENCODER)
    _put(data, "decoder", policy.decoder, _DECODER)
    for index, layer in enumerate(policy.integers or ()):
        data[f"integer.{index}.weight"] = layer.weight.astype(np.int16)
        data[f"integer.{index}.bias"] = layer.bias.astype(np.int16)
        _put(data, f"integer.{index}", layer, _INTEGER_SCALARS)
    if policy.trained is not None:
        _put_layers(data, "trained", policy.trained, with_weights=True)
    _put(data, "trained.encoder", policy.trained_encoder, _ENCODER)
    return data


def _put(data: dict[str, Any], prefix: str, part: object | None, names: Sequence[str]) -> None:
    if part is not None:
        for name in names:
            value = getattr(part, name)
            data[f"{prefix}.{name}"] = np.array(value) if isinstance(value, np.ndarray) else value


def _put_layers(data: dict[str, Any], prefix: str, layers: Sequence[SpikingLayer], with_weights: bool) -> None:
    names = ("weight", "bias", *_LAYER_SCALARS) if with_weights else _LAYER_SCALARS
    for index, layer in enumerate(layers):
        _put(data, f"{prefix}.{index}", layer, names)


def _get(data: Mapping[str, Any], prefix: str, names: Sequence[str]) -> dict[str, Any]:
    return {name: _plain(data[f"{prefix}.{name}"]) for name in names}


def _part(kind: Callable[..., Part], data: Mapping[str, Any], prefix: str, names: Sequence[str]) -> Part | None:
    """A part of the policy, or None where the file has not its first field."""
    return kind(**_get(data, prefix, names)) if f"{prefix}.{names[0]}" in data else None


def _plain(value: Any) -> Any:
    """NumPy scalars as Python's; arrays as they are."""
    return value.item() if isinstance(value, np.generic) else value


def _from_metadata(graph: nir.NIRGraph, data: Mapping[str, Any]) -> Policy:
    dt = float(data["dt"])
    nodes = layers_from_graph(graph, dt)
    layers = tuple(
        SpikingLayer(layer.weight, layer.bias, **_get(data, f"layer.{index}", _LAYER_SCALARS))
        for index, layer in enumerate(nodes)
    )
    _check_nodes(nodes, layers)
    count = range(len(layers))
    integers = trained = None
    if "bits" in data:
        integers = tuple(
            IntegerLayer(data[f"integer.{i}.weight"], data[f"integer.{i}.bias"],
                         **_get(data, f"integer.{i}", _INTEGER_SCALARS))
            for i in count
        )  # fmt: skip
    if "trained.0.weight" in data:
        trained = tuple(SpikingLayer(**_get(data, f"trained.{i}", ("weight", "bias", *_LAYER_SCALARS))) for i in count)
    return Policy(
        layers=layers,
        time_steps=int(data["time_steps"]),
        dt=dt,
        normalization=_part(Normalization, data, "normalization", _NORMALIZATION),
        encoder=_part(PopulationEncoder, data, "encoder", _ENCODER),
        decoder=_part(PopulationDecoder, data, "decoder", _DECODER),
        env_id=data.get("env_id"),
        integers=integers,
        trained=trained,
        trained_encoder=_part(PopulationEncoder, data, "trained.encoder", _ENCODER),
        bits=int(data["bits"]) if "bits" in data else None,
        provenance=_strict_json(data["provenance"]),
    )


def _strict_json(text: str) -> Any:
    """What JSON text says; a number that is not finite, such as the return of a run that never evaluated, is null."""
    return json.loads(text, parse_constant=lambda _: None, parse_float=_finite)


def _finite(text: str) -> float | None:
    value = float(text)
    return value if math.isfinite(value) else None


def _check_nodes(nodes: Sequence[SpikingLayer], layers: Sequence[SpikingLayer]) -> None:
    """The neurons that a foreign reader sees must be those that the metadata states."""
    for index, (node, layer) in enumerate(zip(nodes, layers, strict=True)):
        same = {name: abs(getattr(node, name) - getattr(layer, name)) < DECAY_TOLERANCE for name in _DECAYS}
        same["v_threshold"] = node.v_threshold == stored_threshold(layer.v_threshold)
        for name, agrees in same.items():
            if not agrees:
                raise ValueError(
                    f"{name} of layer {index} is {getattr(layer, name)}, its NIR node says {getattr(node, name)}"
                )


def _content_hash(layers: Sequence[SpikingLayer], metadata: Mapping[str, Any]) -> str:
    """SHA-256 over weights and metadata, whatever the HDF5 layout or compression."""
    digest = hashlib.sha256()
    items: dict[str, Any] = {key: value for key, value in metadata.items() if key != "content_sha256"}
    for index, layer in enumerate(layers):
        items |= {f"node.{index}.weight": layer.weight, f"node.{index}.bias": layer.bias}
    for key in sorted(items):
        value = items[key]
        digest.update(key.encode() + b"\0")
        if isinstance(value, np.ndarray):
            digest.update(f"{value.dtype.str}{value.shape}".encode() + np.ascontiguousarray(value).tobytes())
        else:
            digest.update(json.dumps(_plain(value)).encode())
    return digest.hexdigest()
