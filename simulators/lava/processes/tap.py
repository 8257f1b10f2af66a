"""A process that collects the spikes of every layer over a control step and hands them out in one message."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
from lava.magma.core.decorator import implements, requires
from lava.magma.core.model.py.model import PyLoihiProcessModel
from lava.magma.core.model.py.ports import PyInPort, PyOutPort
from lava.magma.core.model.py.type import LavaPyType
from lava.magma.core.process.ports.ports import InPort, OutPort
from lava.magma.core.process.process import AbstractProcess
from lava.magma.core.resources import CPU
from lava.magma.core.sync.protocols.loihi_protocol import LoihiProtocol


class SpikeTap(AbstractProcess):
    """Ports `s0`, `s1`, ... take the spikes of the layers; `out` gives [T * sum(sizes)] once a window.

    Args:
        sizes: neurons of each layer.
        time_steps: T. window: time steps a control step takes, T + number of layers.
    """

    def __init__(self, sizes: tuple[int, ...], time_steps: int, window: int) -> None:
        super().__init__(sizes=sizes, time_steps=time_steps, window=window)
        for index, size in enumerate(sizes):
            setattr(self, port_name(index), InPort(shape=(size,)))
        self.out = OutPort(shape=(time_steps * sum(sizes),))
        self.out.flag_external_pipe(buffer_size=2)

    def receive(self) -> np.ndarray:
        """Rasters of the last window, [T, sum(sizes)]; waits for them."""
        flat: np.ndarray = self.out.external_pipe_csp_recv_port.recv()
        return flat.reshape(self.proc_params["time_steps"], -1)


def port_name(index: int) -> str:
    """Name of the port of layer `index`."""
    return f"s{index}"


class _SpikeTapModel(PyLoihiProcessModel):
    """Layer k sees its input k + 1 steps after the window begins, since every Dense delays by one step."""

    def __init__(self, proc_params: Any) -> None:
        super().__init__(proc_params)
        self.sizes, self.time_steps = proc_params["sizes"], proc_params["time_steps"]
        self.window = proc_params["window"]
        self.rasters = np.zeros((self.time_steps, sum(self.sizes)), dtype=np.int32)

    def run_spk(self) -> None:
        position = (self.time_step - 1) % self.window
        start = 0
        for index, size in enumerate(self.sizes):
            spikes = getattr(self, port_name(index)).recv()
            t = position - (index + 1)
            if 0 <= t < self.time_steps:
                self.rasters[t, start : start + size] = spikes
            start += size
        if position == self.window - 1:
            self.out.csp_ports[-1].send(self.rasters.ravel())


@cache
def tap_model(n_layers: int) -> type[PyLoihiProcessModel]:
    """Process model with one port a layer; Lava reads ports off the class, so each number has its own."""
    ports = {port_name(index): LavaPyType(PyInPort.VEC_DENSE, np.int32) for index in range(n_layers)}
    name = f"SpikeTapModel{n_layers}"
    body = {"out": LavaPyType(PyOutPort.VEC_DENSE, np.int32), **ports, "__module__": __name__}
    model = type(name, (_SpikeTapModel,), body)
    marked: type[PyLoihiProcessModel] = requires(CPU)(implements(proc=SpikeTap, protocol=LoihiProtocol)(model))
    globals()[name] = marked  # Lava looks a process's models up in the namespace of its module
    return marked
