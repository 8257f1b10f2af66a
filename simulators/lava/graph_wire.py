"""A lowered NIR network as a message to the worker, and back."""

from __future__ import annotations

from dataclasses import fields, is_dataclass
from typing import Any

import numpy as np
from scipy.sparse import csr_array

from simulators.lava.wire import Arrays
from spikerl_deploy.network import Connection, FloatNetwork, FloatPopulation, IntegerNetwork, IntegerPopulation

Network = IntegerNetwork | FloatNetwork


def pack_network(network: Network) -> tuple[dict[str, Any], Arrays]:
    """Fields and arrays of a message; arrays are float64 and int64."""
    arrays: Arrays = {}
    populations = [_pack(p, f"population{i}", arrays) for i, p in enumerate(network.populations.values())]
    connections = [_pack(c, f"connection{i}", arrays) for i, c in enumerate(network.connections)]
    return {
        "integers": isinstance(network, IntegerNetwork),
        "keys": list(network.populations),
        "populations": populations,
        "connections": connections,
        "input_shape": network.input_shape,
        "output": network.output,
        "dt": network.dt,
    }, arrays


def unpack_network(message: dict[str, Any], arrays: Arrays) -> Network:
    """The network that `pack_network` was given."""
    whole, part = (IntegerNetwork, IntegerPopulation) if message["integers"] else (FloatNetwork, FloatPopulation)
    populations = [_unpack(part, scalars, f"population{i}", arrays) for i, scalars in enumerate(message["populations"])]
    connections = [
        _unpack(Connection, scalars, f"connection{i}", arrays) for i, scalars in enumerate(message["connections"])
    ]
    return whole(
        tuple(message["input_shape"]),
        dict(zip(message["keys"], populations, strict=True)),
        tuple(connections),
        message["output"],
        message["dt"],
    )


def _pack(part: Any, prefix: str, arrays: Arrays) -> dict[str, Any]:
    assert is_dataclass(part)
    scalars: dict[str, Any] = {}
    for field in fields(part):
        value = getattr(part, field.name)
        if isinstance(value, csr_array):
            scalars[field.name] = value.shape
            arrays[f"{prefix}.data"] = value.data.astype(np.float64)  # integer mantissas fit exactly
            arrays[f"{prefix}.indices"] = value.indices.astype(np.int64)
            arrays[f"{prefix}.indptr"] = value.indptr.astype(np.int64)
        elif isinstance(value, np.ndarray):
            arrays[f"{prefix}.{field.name}"] = value.astype(np.int64 if value.dtype.kind == "i" else np.float64)
        else:
            scalars[field.name] = value
    return scalars


def _unpack(kind: type, scalars: dict[str, Any], prefix: str, arrays: Arrays) -> Any:
    values: dict[str, Any] = {}
    for field in fields(kind):
        if f"{prefix}.{field.name}" in arrays:
            values[field.name] = arrays[f"{prefix}.{field.name}"]
        elif field.name == "weight":
            parts = tuple(arrays[f"{prefix}.{name}"] for name in ("data", "indices", "indptr"))
            values["weight"] = csr_array(parts, shape=tuple(scalars["weight"]))
        elif field.name == "shape":
            values["shape"] = tuple(scalars["shape"])
        else:
            values[field.name] = scalars[field.name]
    return kind(**values)
