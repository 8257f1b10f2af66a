"""A NIR graph in torch, node by node and time step by time step, by forward Euler in float32."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from graphlib import TopologicalSorter

import nir
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from simulators.nir_torch_nodes import Delay, Neuron, Op, Parameters, stateless
from simulators.protocol import GraphRecord
from spikerl_deploy.errors import SpikerlError
from spikerl_deploy.nir_file import one_line
from spikerl_deploy.nir_float32 import FLOAT64_HINT
from spikerl_deploy.nir_order import OrderedGraph, check_input, check_record
from spikerl_deploy.nir_shapes import NEURONS, SPIKING

VOLTAGE = tuple(kind for kind in NEURONS if kind is not nir.Threshold)


def run_ordered(
    ordered: OrderedGraph, spikes: NDArray[np.generic], record: Sequence[str], device: torch.device
) -> GraphRecord:
    """Run a graph for T time steps, states starting at zero.

    Args:
        spikes: [T, ...input shape], finite numbers or booleans. record: nodes whose spikes and voltages are wanted.

    Raises:
        SpikerlError: the input has another shape, a node to record is none that spikes or has a voltage, or torch
            cannot run a node (no memory).
    """
    spikes, record = check_input(ordered, spikes), check_record(ordered, record)
    with np.errstate(over="ignore"):
        spikes = spikes if spikes.dtype == np.bool_ else spikes.astype(np.float32)
    if not np.isfinite(spikes).all():
        raise SpikerlError(f"NIR node '{ordered.input}': input spikes hold values beyond float32")
    # TF32, which cuDNN takes for convolutions unless told not to, would round weights to 10 bits.
    with torch.inference_mode(), torch.backends.cudnn.flags(allow_tf32=False):
        return _run(_Run(ordered, len(spikes), device), torch.tensor(spikes, device=device), record)


def _run(run: _Run, inputs: Tensor, record: Sequence[str]) -> GraphRecord:
    nodes, (source, *others) = run.ordered.nodes, run.ordered.sources[run.ordered.output]
    spiking_output = not others and isinstance(nodes[source[0]], SPIKING)
    output = run.trace(run.ordered.output, torch.bool if spiking_output else torch.float32)
    rasters = {name: run.trace(name, torch.bool) for name in record if isinstance(nodes[name], SPIKING)}
    voltages = {name: run.trace(name, torch.float32) for name in record if isinstance(nodes[name], VOLTAGE)}
    for t in range(run.time_steps):
        values = run.step(inputs[t].to(torch.float32))
        output[t] = values[run.ordered.output]
        for name, raster in rasters.items():
            raster[t] = values[name]
        for name, voltage in voltages.items():
            voltage[t] = run.neurons[name].v
    run.check_states()
    return GraphRecord(
        output.cpu().numpy(),
        {name: raster.cpu().numpy() for name, raster in rasters.items()},
        {name: voltage.cpu().numpy() for name, voltage in voltages.items()},
    )


class _Run:
    """The graph's nodes with their states; one call of `step` is one time step."""

    def __init__(self, ordered: OrderedGraph, time_steps: int, device: torch.device) -> None:
        self.ordered, self.time_steps, self.device = ordered, time_steps, device
        self.neurons: dict[str, Neuron] = {}
        self.delays: dict[str, Delay] = {}
        self.ops: dict[str, Op] = {}
        for name, node in ordered.nodes.items():
            if name == ordered.input:
                continue
            try:
                self.ops[name] = self._op(name, node)
            except RuntimeError as error:
                raise _cannot_run(name, error) from error
        self.previous = self._silent() if any(late for pairs in ordered.sources.values() for _, late in pairs) else {}

    def _op(self, name: str, node: nir.NIRNode) -> Op:
        shape = self.ordered.shapes[name]
        if isinstance(node, nir.Delay):
            self.delays[name] = Delay(self.ordered.delays[name], self.time_steps, self.device)
            return self.delays[name]
        given = Parameters(name, node, shape, self.device)
        if isinstance(node, VOLTAGE):
            self.neurons[name] = Neuron(given, self.ordered.dt)
            return self.neurons[name]
        return stateless(given, self.ordered.shapes[self.ordered.sources[name][0][0]], shape)

    def trace(self, name: str, dtype: torch.dtype) -> Tensor:
        """Where a node's values of all time steps go, [T, ...shape]."""
        try:
            return torch.empty((self.time_steps, *self.ordered.shapes[name]), dtype=dtype, device=self.device)
        except RuntimeError as error:
            raise _cannot_run(name, error) from error

    def step(self, inputs: Tensor) -> Mapping[str, Tensor]:
        """Output of every node, for inputs [...input shape]."""
        values = {self.ordered.input: inputs}
        for name, op in self.ops.items():
            delay = self.delays.get(name)
            try:
                # A delay of every element gives what it holds: what arrives at it may come from later in the order.
                values[name] = delay.past() if delay is not None and delay.whole else op(self._arriving(name, values))
            except RuntimeError as error:
                raise _cannot_run(name, error) from error
        for name, delay in self.delays.items():
            delay.keep(self._arriving(name, values))
        self.previous = values
        return values

    def check_states(self) -> None:
        """Refuse a run in which infinities met: NaN stays, and is silent, since it is above no threshold.

        Raises:
            SpikerlError: names the node.
        """
        for name, neuron in self.neurons.items():
            if bool(torch.isnan(neuron.v).any() or torch.isnan(neuron.u).any()):
                raise SpikerlError(f"NIR node '{name}': its state overflowed float32", FLOAT64_HINT)

    def _arriving(self, name: str, values: Mapping[str, Tensor]) -> Tensor:
        """Sum of what a node's sources give; a feedback edge carries the previous time step's."""
        (source, late), *others = self.ordered.sources[name]
        total = (self.previous if late else values)[source]
        for source, late in others:
            total = total + (self.previous if late else values)[source]
        return total

    def _silent(self) -> dict[str, Tensor]:
        """What every node gives in the first time step where input and neurons are silent: biases."""
        linear: dict[str, list[str]] = {}  # sources of each node that is not silent itself
        self.previous = {}
        for name, node in self.ordered.nodes.items():
            if isinstance(node, (nir.Input, *NEURONS)) or (name in self.delays and self.delays[name].whole):
                self.previous[name] = torch.zeros(self.ordered.shapes[name], device=self.device)
            else:
                linear[name] = [source for source, _ in self.ordered.sources[name]]
        for name in TopologicalSorter(linear).static_order():
            if name in linear:
                self.previous[name] = self.ops[name](self._arriving(name, self.previous))
        return self.previous


def _cannot_run(name: str, error: RuntimeError) -> SpikerlError:
    return SpikerlError(f"NIR node '{name}': torch cannot run it: {one_line(error)}", "spikerl backends list")
