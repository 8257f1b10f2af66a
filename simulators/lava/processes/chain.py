"""Two processes that hold a whole policy: one all its synapses, one all its neurons.

Lava's time goes into messages: each process costs a few of them a time step, however many neurons it holds. The
neurons' arithmetic is Lava's own (`AbstractPyLifModelFixed`), with decays and thresholds for each neuron.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from lava.magma.core.decorator import implements, requires
from lava.magma.core.model.py.model import PyLoihiProcessModel
from lava.magma.core.model.py.ports import PyInPort, PyOutPort
from lava.magma.core.model.py.type import LavaPyType
from lava.magma.core.process.ports.ports import InPort, OutPort
from lava.magma.core.process.process import AbstractProcess
from lava.magma.core.process.variable import Var
from lava.magma.core.resources import CPU
from lava.magma.core.sync.protocols.loihi_protocol import LoihiProtocol
from lava.proc.lif.models import AbstractPyLifModelFixed

from spikerl_deploy.integer_core import exact_dtype
from spikerl_deploy.loihi import IntegerLayer


class ChainSynapses(AbstractProcess):
    """All layers' weights and biases, for `batch` episodes that share them. Delays by one time step, as `Dense` does.

    Args:
        layers: of integers. window: time steps that a control step takes, time_steps + number of layers.
    """

    def __init__(self, layers: list[IntegerLayer], time_steps: int, window: int, batch: int) -> None:
        super().__init__(layers=layers, time_steps=time_steps, window=window, batch=batch)
        size = batch * sum(layer.weight.shape[0] for layer in layers)
        self.s_in = InPort(shape=(size,))
        self.a_out = OutPort(shape=(size,))
        self.drive = InPort(shape=(time_steps * batch * layers[0].weight.shape[1],))
        self.drive.flag_external_pipe(buffer_size=2)

    def send(self, spikes: np.ndarray) -> None:
        """Give the input spikes [T, B, n_in] of the next window."""
        self.drive.external_pipe_csp_send_port.send(spikes.ravel())


class ChainNeurons(AbstractProcess):
    """All layers' neurons, [B, n] of the first layer, then of the next; hands out their spikes once a window."""

    def __init__(self, layers: list[IntegerLayer], time_steps: int, window: int, batch: int) -> None:
        sizes = [batch * layer.weight.shape[0] for layer in layers]
        super().__init__(sizes=sizes, time_steps=time_steps, window=window)
        size = sum(sizes)
        self.a_in = InPort(shape=(size,))
        self.s_out = OutPort(shape=(size,))
        self.rasters = OutPort(shape=(time_steps * size,))
        self.rasters.flag_external_pipe(buffer_size=2)
        for name in ("u", "v", "bias_mant", "bias_exp"):
            setattr(self, name, Var(shape=(size,), init=0))
        for name in ("du", "dv", "vth"):
            values = [getattr(layer, name) for layer in layers]
            setattr(self, name, Var(shape=(size,), init=np.repeat(values, sizes)))

    def receive(self) -> np.ndarray:
        """Spikes of the window's layers, [T, size]; waits for them."""
        flat: np.ndarray = self.rasters.external_pipe_csp_recv_port.recv()
        return flat.reshape(self.proc_params["time_steps"], -1)


@implements(proc=ChainSynapses, protocol=LoihiProtocol)
@requires(CPU)
class ChainSynapsesModel(PyLoihiProcessModel):
    """Layer k's input of time step t is summed at position k + t of the window, and arrives one step later.

    At other positions a layer's neurons are given what is left from before: they are reset after it, or nobody
    reads them any more.
    """

    s_in: PyInPort = LavaPyType(PyInPort.VEC_DENSE, np.int32)
    a_out: PyOutPort = LavaPyType(PyOutPort.VEC_DENSE, np.int32)
    drive: PyInPort = LavaPyType(PyInPort.VEC_DENSE, np.int32)

    def __init__(self, proc_params: Any) -> None:
        super().__init__(proc_params)
        self.time_steps, self.window = proc_params["time_steps"], proc_params["window"]
        self.batch = proc_params["batch"]
        self.layers: list[IntegerLayer] = proc_params["layers"]
        # Sums of integers below 2^24 (2^53) are exact in float32 (float64) in any order, so BLAS may do them.
        types = [exact_dtype(layer) for layer in self.layers]
        self.weights = [np.ascontiguousarray(w.weight.T, dtype) for w, dtype in zip(self.layers, types, strict=True)]
        sizes = [self.batch * layer.weight.shape[0] for layer in self.layers]
        ends = np.cumsum(sizes)
        self.parts = [slice(end - size, end) for end, size in zip(ends, sizes, strict=True)]
        self.activation = np.zeros(ends[-1], np.int32)
        self.input = np.zeros(0, np.int32)

    def run_spk(self) -> None:
        position = (self.time_step - 1) % self.window
        self.a_out.send(self.activation)
        if position == 0:
            self.input = self.drive.csp_ports[-1].recv().reshape(self.time_steps, -1)
        spikes = self.s_in.recv()
        for k, (layer, weight, part) in enumerate(zip(self.layers, self.weights, self.parts, strict=True)):
            if not k <= position < k + self.time_steps:
                continue
            source = self.input[position] if k == 0 else spikes[self.parts[k - 1]]
            total = (source.reshape(self.batch, -1).astype(weight.dtype) @ weight).astype(np.int64) + layer.bias
            exponent = layer.weight_exp
            shifted = np.left_shift(total, exponent) if exponent > 0 else np.right_shift(total, -exponent)
            self.activation[part] = shifted.astype(np.int32).ravel()


@implements(proc=ChainNeurons, protocol=LoihiProtocol)
@requires(CPU)
class ChainNeuronsModel(AbstractPyLifModelFixed):
    """As Lava's LIFReset, with the values of each neuron and one reset a layer: layer k's at position k + 1."""

    a_in: PyInPort = LavaPyType(PyInPort.VEC_DENSE, np.int32)
    s_out: PyOutPort = LavaPyType(PyOutPort.VEC_DENSE, np.int32)
    rasters: PyOutPort = LavaPyType(PyOutPort.VEC_DENSE, np.int32)
    du: np.ndarray = LavaPyType(np.ndarray, np.int32)
    dv: np.ndarray = LavaPyType(np.ndarray, np.int32)
    vth: np.ndarray = LavaPyType(np.ndarray, np.int32)

    def __init__(self, proc_params: Any) -> None:
        super().__init__(proc_params)
        self.time_steps, self.window = proc_params["time_steps"], proc_params["window"]
        sizes = proc_params["sizes"]
        ends = np.cumsum(sizes)
        self.parts = [slice(end - size, end) for end, size in zip(ends, sizes, strict=True)]
        self.spikes = np.zeros((self.time_steps, ends[-1]), dtype=np.int32)
        self.effective_vth = np.zeros(ends[-1], dtype=np.int32)

    def scale_threshold(self) -> None:
        """As Lava's models align it."""
        self.effective_vth = np.left_shift(self.vth, self.vth_shift)
        self.isthrscaled = True

    def run_spk(self) -> None:
        position = (self.time_step - 1) % self.window
        activation = self.a_in.recv()
        if not self.isthrscaled:
            self.scale_bias()
            self.scale_threshold()
        if 1 <= position <= len(self.parts):
            self.u[self.parts[position - 1]] = 0
            self.v[self.parts[position - 1]] = 0
        self.subthr_dynamics(activation)
        fired = self.v > self.effective_vth
        self.reset_voltage(fired)
        self.s_out.send(fired)
        for k, part in enumerate(self.parts):
            t = position - (k + 1)
            if 0 <= t < self.time_steps:
                self.spikes[t, part] = fired[part]
        if position == self.window - 1:
            self.rasters.csp_ports[-1].send(self.spikes.ravel())
