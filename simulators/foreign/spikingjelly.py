"""The `spikingjelly` backend: SpikingJelly's `import_from_nir`, with thresholds one float32 up."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

import nir
import numpy as np

from simulators.foreign.backend import ForeignBackend
from simulators.foreign.install import LOGURU, NIRTORCH, Package
from simulators.foreign.rules import (
    NEURONS,
    Neuron,
    affine_refusal,
    convolution_refusal,
    gain_refusal,
    is_uniform,
    near,
    pool_refusal,
    rest_refusal,
    values,
)

if TYPE_CHECKING:
    from torch import Tensor
    from torch.nn import Module


class SpikingJellyBackend(ForeignBackend):
    """Any dt; one value of each parameter a population, and the input gains that make a step u = a u + i, v = c v + u.

    It spikes where v >= v_threshold, NIR where v > v_threshold: it is given the next float32 above, which is the same
    for every v that is a float32.
    """

    name = "spikingjelly"
    summary = "the exported file in SpikingJelly"
    packages = (
        Package("spikingjelly", "2.0.0", "dee753bade33e8dca62e88fd4ba6e3c89e6bc56c6fdd9c8c151d5680222edac1"),
        NIRTORCH,
        LOGURU,
    )
    batched = True

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
            case nir.LIF() | nir.CubaLIF() | nir.IF():
                return _neuron_refusal(node, dt)
        return "knows no such node"

    def load(self, graph: nir.NIRGraph, dt: float) -> Module:
        from spikingjelly.activation_based.nir_exchange import import_from_nir

        # torch warns there that Triton is missing, which nothing here needs.
        logging.getLogger("torch._library.triton").setLevel(logging.ERROR)
        for node in graph.nodes.values():
            if isinstance(node, NEURONS):
                node.v_threshold = np.nextafter(np.asarray(node.v_threshold, dtype=np.float32), np.float32(np.inf))
        module: Module = import_from_nir(graph, dt=dt)
        return module

    def voltage(self, module: Any, given: Any, node: nir.NIRNode, dt: float) -> Tensor:
        v: Tensor = given[1][0]  # CUBALIFNode holds (v, c), the others (v,)
        return v


def _neuron_refusal(node: Neuron, dt: float) -> str | None:
    fields = {nir.IF: ("r",), nir.LIF: ("r", "tau"), nir.CubaLIF: ("r", "tau_mem", "tau_syn", "w_in")}[type(node)]
    for field in (*fields, "v_threshold"):
        if not is_uniform(values(node, field)):
            return f"takes one {field} for all neurons"
    if isinstance(node, nir.IF):
        return rest_refusal(node) or gain_refusal(node, "r", None, dt)
    if isinstance(node, nir.CubaLIF):
        return rest_refusal(node) or gain_refusal(node, "r", "tau_mem", dt) or gain_refusal(node, "w_in", "tau_syn", dt)
    if not values(node, "tau").min() > dt:
        return f"takes tau above dt = {dt:g} s only"
    if not near(values(node, "r"), 1.0) and gain_refusal(node, "r", "tau", dt) is not None:
        return "takes r = 1 and r = tau / dt only"
    return rest_refusal(node)
