"""The `snntorch` backend: snnTorch's `import_from_nir`, whose time step is 1e-4 s."""

from __future__ import annotations

import contextlib
import io
from typing import TYPE_CHECKING, Any

import nir
import numpy as np
from numpy.typing import NDArray

from simulators.foreign.backend import ForeignBackend
from simulators.foreign.install import NIRTORCH, Package
from simulators.foreign.rules import (
    affine_refusal,
    convolution_refusal,
    gain_refusal,
    is_uniform,
    near,
    pool_refusal,
    rest_refusal,
    values,
)
from spikerl_deploy.nir_order import OrderedGraph

if TYPE_CHECKING:
    from torch import Tensor
    from torch.nn import Module

READER_DT = 1e-4  # seconds; written into its reader


class SnnTorchBackend(ForeignBackend):
    """Time step 1e-4 s only. One threshold a population; an input gain that is not 1 goes into the threshold."""

    name = "snntorch"
    summary = "the exported file in snnTorch"
    packages = (
        Package("snntorch", "1.0.0", "b5a85f6f44c6d27c8a1dcea16cb18a630d00b8d2f3cfec85b7e580cb177e606b"),
        NIRTORCH,
    )

    def refusal(self, node: nir.NIRNode, dt: float) -> str | None:
        match node:
            case nir.Affine() | nir.Linear():
                return affine_refusal(node)
            case nir.Flatten():
                return None
            case nir.Conv1d() | nir.Conv2d():
                return convolution_refusal(node)
            case nir.SumPool2d() | nir.AvgPool2d():
                return pool_refusal(node)
            case nir.LIF() | nir.CubaLIF():
                return _neuron_refusal(node, dt)
            case nir.IF():
                return "lets it leak and resets it by subtraction"
        return "knows no such node"

    def wiring_refusal(self, ordered: OrderedGraph) -> tuple[str, str] | None:
        targets: dict[str, list[str]] = {name: [] for name in ordered.nodes}
        for name, pairs in ordered.sources.items():
            for source, _ in pairs:
                targets[source].append(name)
        for name, node in ordered.nodes.items():
            sources = [source for source, _ in ordered.sources[name]]
            alone = isinstance(node, nir.Affine | nir.Linear) and len(sources) == 1 and sources == targets[name]
            if alone and isinstance(ordered.nodes[sources[0]], nir.LIF | nir.CubaLIF):
                return name, f"would send the input of '{sources[0]}' through it, too"
        return super().wiring_refusal(ordered)

    def load(self, graph: nir.NIRGraph, dt: float) -> Module:
        from snntorch import SpikingNeuron
        from snntorch.import_nir import import_from_nir

        kept = len(SpikingNeuron.instances)
        with contextlib.redirect_stdout(io.StringIO()):  # it prints its progress
            module: Module = import_from_nir(graph)
        del SpikingNeuron.instances[kept:]  # a list of every neuron ever made, which would keep them for good
        return module

    def voltage(self, module: Any, given: Any, node: nir.NIRNode, dt: float) -> Tensor:
        import torch

        assert isinstance(node, nir.LIF | nir.CubaLIF)
        gain = float(_gain(node).ravel()[0])
        return torch.clone(module.mem) if np.allclose(gain, 1.0) else module.mem * gain

    def reset(self, module: Module) -> None:
        from snntorch import SpikingNeuron

        for part in module.modules():
            if isinstance(part, SpikingNeuron):
                part.reset_mem()


def _gain(node: nir.LIF | nir.CubaLIF) -> NDArray[np.float64]:
    """What a time step multiplies the input by; the reader divides the threshold by it instead."""
    if isinstance(node, nir.LIF):
        return np.asarray(values(node, "r") * READER_DT / values(node, "tau"))
    return np.asarray(values(node, "w_in") * READER_DT / values(node, "tau_syn"))


def _neuron_refusal(node: nir.LIF | nir.CubaLIF, dt: float) -> str | None:
    gain = _gain(node)
    if not near(np.array(dt), READER_DT):
        return f"takes dt = {READER_DT:g} s only, not {dt:g} s"
    if not is_uniform(values(node, "v_threshold")) or values(node, "v_threshold").min() < 0:
        return "takes one v_threshold for all neurons, at least 0"
    if isinstance(node, nir.CubaLIF) and (why := gain_refusal(node, "r", "tau_mem", dt)) is not None:
        return why
    if not near(gain, 1.0):
        if gain.min() <= 0 or not near(gain, gain.ravel()[0]):
            return "takes one positive input gain for all neurons"
        if np.allclose(gain, 1.0):
            return f"would take its input gain {gain.ravel()[0]:.8g} for 1"
    return rest_refusal(node)
