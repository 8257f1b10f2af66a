"""What a foreign reader takes for granted of a node without looking: conditions on its parameters."""

from __future__ import annotations

from typing import TypeAlias

import nir
import numpy as np
from numpy.typing import NDArray

from spikerl_deploy.nir_core import RELATIVE_TOLERANCE

Neuron: TypeAlias = nir.LIF | nir.CubaLIF | nir.IF
NEURONS = (nir.LIF, nir.CubaLIF, nir.IF)
ENDS = (nir.Input, nir.Output)


def values(node: nir.NIRNode, field: str) -> NDArray[np.float64]:
    """A parameter in float64."""
    return np.asarray(getattr(node, field), dtype=np.float64)


def near(found: NDArray[np.float64], wanted: NDArray[np.float64] | float) -> bool:
    """Whether numbers are the wanted ones but for float32 rounding."""
    return bool(np.all(np.abs(found - wanted) <= RELATIVE_TOLERANCE * np.abs(wanted)))


def is_uniform(array: NDArray[np.float64]) -> bool:
    """Whether all neurons have one value."""
    return np.unique(array).size == 1


def rest_refusal(node: Neuron) -> str | None:
    """Why a reader that leaves out leak and reset voltages, or starts the state there, cannot run a neuron."""
    for field in ("v_leak", "v_reset"):
        if hasattr(node, field) and values(node, field).any():
            return f"takes {field} 0 only"
    return None


def gain_refusal(node: Neuron, field: str, time_constant: str | None, dt: float) -> str | None:
    """Why a reader that assumes an input gain of (time constant or 1 s) / dt cannot run a neuron."""
    tau = 1.0 if time_constant is None else values(node, time_constant)
    if near(values(node, field), tau / dt):
        return None
    return f"takes {field} = {time_constant or 1} / dt only"


def affine_refusal(node: nir.Affine | nir.Linear) -> str | None:
    """Why torch's `Linear` cannot run a matrix product: it has one matrix for all leading axes, NIR one for each."""
    return None if np.ndim(node.weight) == 2 else "takes a weight of 2 dimensions only"


def convolution_refusal(node: nir.Conv1d | nir.Conv2d) -> str | None:
    """Why a reader that makes one group of channels cannot run a convolution."""
    return None if int(node.groups) == 1 else f"takes groups 1 only, not {int(node.groups)}"


def pool_refusal(node: nir.SumPool2d | nir.AvgPool2d) -> str | None:
    """Why torch's pooling cannot run a node: `LPPool2d` has no padding, `AvgPool2d` at most half a kernel of it."""
    padding, kernel = (np.broadcast_to(np.asarray(v), (2,)) for v in (node.padding, node.kernel_size))
    if isinstance(node, nir.SumPool2d):
        return "takes padding 0 only" if padding.any() else None
    return "takes a padding of at most half the kernel" if (2 * padding > kernel).any() else None
