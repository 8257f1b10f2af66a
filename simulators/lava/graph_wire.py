"""A lowered NIR network as a message to the worker, and back, in a number of arrays that does not grow with it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields
from typing import Any

import numpy as np
from scipy.sparse import coo_array, csr_array

from simulators.lava.wire import Arrays
from spikerl_deploy.network import (
    INPUT,
    ONE,
    Connection,
    FloatNetwork,
    FloatPopulation,
    IntegerNetwork,
    IntegerPopulation,
)

Network = IntegerNetwork | FloatNetwork


def pack_network(network: Network) -> tuple[dict[str, Any], Arrays]:
    """Fields and arrays of a message; arrays are float64 and int64."""
    populations: list[Any] = list(network.populations.values())
    message = {
        "integers": isinstance(network, IntegerNetwork),
        "keys": list(network.populations),
        "populations": [_scalars(population) for population in populations],
        "input_shape": network.input_shape,
        "output": network.output,
        "dt": network.dt,
    }
    arrays: Arrays = {}
    for name in _array_names(type(populations[0])):
        values = np.concatenate([getattr(population, name) for population in populations])
        arrays[name] = values.astype(np.int64 if values.dtype.kind == "i" else np.float64)
    return message, arrays | _pack_connections(network.connections, [INPUT, ONE, *network.populations])


def unpack_network(message: dict[str, Any], arrays: Arrays) -> Network:
    """The network that `pack_network` was given."""
    pair: tuple[Any, Any] = (IntegerNetwork, IntegerPopulation)
    whole, part = pair if message["integers"] else (FloatNetwork, FloatPopulation)
    sizes = [int(np.prod(scalars["shape"], dtype=int)) for scalars in message["populations"]]
    ends = np.cumsum(sizes)[:-1]
    split = {name: np.split(arrays[name], ends) for name in _array_names(part)}
    populations: dict[str, Any] = {}
    for index, (key, scalars) in enumerate(zip(message["keys"], message["populations"], strict=True)):
        values = scalars | {"shape": tuple(scalars["shape"])} | {name: parts[index] for name, parts in split.items()}
        populations[key] = part(**values)
    input_shape = tuple(message["input_shape"])
    names = [INPUT, ONE, *populations]
    connections = _unpack_connections(arrays, names, [int(np.prod(input_shape, dtype=int)), 1, *sizes])
    network: Network = whole(input_shape, populations, connections, message["output"], message["dt"])
    return network


def _array_names(kind: type) -> list[str]:
    """Names of a population's fields that are arrays with a value for each neuron."""
    return [field.name for field in fields(kind) if field.type in ("Floats", "Ints")]


def _scalars(population: IntegerPopulation | FloatPopulation) -> dict[str, Any]:
    names = {field.name for field in fields(population)} - set(_array_names(type(population)))
    return {name: getattr(population, name) for name in sorted(names)}


def _pack_connections(connections: Sequence[Connection], names: Sequence[str]) -> Arrays:
    """All weights one after the other, and [connection, (source, target, delay, weight_exp, weights)]."""
    index = {name: number for number, name in enumerate(names)}
    weights = [coo_array(connection.weight) for connection in connections]
    table = [
        (index[c.source], index[c.target], c.delay, c.weight_exp, w.nnz)
        for c, w in zip(connections, weights, strict=True)
    ]
    empty: list[Any] = [np.zeros(0)]
    return {
        "connections": np.array(table, dtype=np.int64).reshape(-1, 5),
        "weights": np.concatenate(empty + [w.data for w in weights]).astype(np.float64),  # mantissas fit exactly
        "rows": np.concatenate(empty + [w.coords[0] for w in weights]).astype(np.int64),
        "columns": np.concatenate(empty + [w.coords[1] for w in weights]).astype(np.int64),
    }


def _unpack_connections(arrays: Arrays, names: Sequence[str], sizes: Sequence[int]) -> tuple[Connection, ...]:
    connections, start = [], 0
    for source, target, delay, exponent, count in arrays["connections"].tolist():
        part = slice(start, start + count)
        place = (arrays["rows"][part], arrays["columns"][part])
        weight = csr_array((arrays["weights"][part], place), shape=(sizes[target], sizes[source]))
        connections.append(Connection(names[source], names[target], delay, weight, exponent))
        start += count
    return tuple(connections)
