"""Whether a graph's numbers survive float32, for the backends that run it so."""

from __future__ import annotations

from dataclasses import fields

import numpy as np
from numpy.typing import NDArray

from spikerl_deploy.nir_order import OrderedGraph
from spikerl_deploy.nir_shapes import Floats, refused

FLOAT64_HINT = "use --backend lava-float, which runs float64"


def to_float32(name: str, field: str, values: Floats) -> NDArray[np.float32]:
    """Values in float32.

    Raises:
        SpikerlError: one of them is beyond float32, or so small that it would become 0; names node and field.
    """
    with np.errstate(over="ignore", under="ignore"):
        single = values.astype(np.float32)
    if not np.isfinite(single).all():
        raise refused(name, f"has {field} beyond float32", FLOAT64_HINT)
    if (single[values != 0] == 0).any():
        raise refused(name, f"has {field} so small that float32 takes it for 0", FLOAT64_HINT)
    return single


def check_float32(ordered: OrderedGraph) -> None:
    """Refuse a graph with a parameter that float32 does not hold.

    Raises:
        SpikerlError: names the node.
    """
    for name, node in ordered.nodes.items():
        for field in fields(node):
            value = getattr(node, field.name)
            if isinstance(value, np.ndarray) and value.dtype.kind == "f":
                to_float32(name, field.name, value.astype(np.float64))
