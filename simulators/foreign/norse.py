"""The `norse` backend: Norse's `from_nir`, which nirtorch's older executor runs."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import nir

from simulators.foreign.backend import ForeignBackend
from simulators.foreign.install import NIRTORCH, Package
from simulators.foreign.rules import (
    affine_refusal,
    convolution_refusal,
    gain_refusal,
    near,
    pool_refusal,
    rest_refusal,
    values,
)

if TYPE_CHECKING:
    from torch import Tensor
    from torch.nn import Module


class NorseBackend(ForeignBackend):
    """Any dt, parameters of each neuron; its IF and LIF know no resistance."""

    name = "norse"
    summary = "the exported file in Norse"
    packages = (Package("norse", "1.1.0", "3f70b8579251316761f7a950680136029fcd9d92bbcc53531366d088a8aaf0c8"), NIRTORCH)

    def refusal(self, node: nir.NIRNode, dt: float) -> str | None:
        match node:
            case nir.Affine() | nir.Linear():
                return affine_refusal(node)
            case nir.Flatten():
                return None
            case nir.Conv2d():
                return convolution_refusal(node)
            case nir.SumPool2d():
                return pool_refusal(node)
            case nir.CubaLIF():
                return rest_refusal(node)
            case nir.LIF():
                return rest_refusal(node) or (None if near(values(node, "r"), 1.0) else "takes r = 1 only")
            case nir.IF():
                return rest_refusal(node) or gain_refusal(node, "r", None, dt)
        return "knows no such node"

    def load(self, graph: nir.NIRGraph, dt: float) -> Module:
        with warnings.catch_warnings():  # of torch.jit.script and nirtorch.load, which it calls
            warnings.simplefilter("ignore", DeprecationWarning)
            from norse.torch import from_nir

            module: Module = from_nir(graph, ignore_warnings=True, dt=dt)
        return module

    def order(self, module: Any, names: Sequence[str]) -> Sequence[str]:
        return [node.name for node in module.execution_order]

    def voltage(self, module: Any, given: Any, node: nir.NIRNode, dt: float) -> Tensor:
        state = given[1][1] if isinstance(node, nir.CubaLIF) else given[1]
        v: Tensor = state.v
        return v
