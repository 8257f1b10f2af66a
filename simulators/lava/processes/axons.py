"""A process that carries the input and all spikes of a network to its synapses, each as late as it should arrive."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from lava.magma.core.decorator import implements, requires
from lava.magma.core.model.py.model import PyLoihiProcessModel
from lava.magma.core.model.py.ports import PyInPort, PyOutPort
from lava.magma.core.model.py.type import LavaPyType
from lava.magma.core.process.ports.ports import InPort, OutPort
from lava.magma.core.process.process import AbstractProcess
from lava.magma.core.resources import CPU
from lava.magma.core.sync.protocols.loihi_protocol import LoihiProtocol


class Bundle(NamedTuple):
    """Sources [start, stop) that arrive `hold` Lava steps later than they could."""

    start: int
    stop: int
    hold: int


class Axons(AbstractProcess):
    """Sources are the values that `send` is given, then all neurons; `s_out` is the bundles, one after the other.

    Args:
        n_driven: values that `send` takes, at the first Lava step of each period. n_neurons: of `s_in`.
        graded: whether the values are numbers, or only 0 and 1. bundles: what `s_out` gives. period: in Lava steps.
    """

    def __init__(self, n_driven: int, n_neurons: int, graded: bool, bundles: list[Bundle], period: int) -> None:
        super().__init__(n_driven=n_driven, graded=graded, bundles=bundles, period=period)
        self.drive = InPort(shape=(n_driven,))
        self.drive.flag_external_pipe(buffer_size=4)
        self.s_in = InPort(shape=(n_neurons,))
        self.s_out = OutPort(shape=(sum(bundle.stop - bundle.start for bundle in bundles),))

    def send(self, values: np.ndarray) -> None:
        """Give the values [n_driven] of the next period."""
        self.drive.external_pipe_csp_send_port.send(values)


@implements(proc=Axons, protocol=LoihiProtocol)
@requires(CPU)
class AxonsModel(PyLoihiProcessModel):
    """What is held back lies in one ring a bundle."""

    drive: PyInPort = LavaPyType(PyInPort.VEC_DENSE, float)
    s_in: PyInPort = LavaPyType(PyInPort.VEC_DENSE, float)
    s_out: PyOutPort = LavaPyType(PyOutPort.VEC_DENSE, float)

    def __init__(self, proc_params: Any) -> None:
        super().__init__(proc_params)
        self.period, self.bundles = proc_params["period"], proc_params["bundles"]
        self.silence = np.zeros(proc_params["n_driven"])
        numbers_end = proc_params["n_driven"] if proc_params["graded"] else 0
        self.rings = [
            np.zeros((hold, stop - start), dtype=float if start < numbers_end else bool)
            for start, stop, hold in self.bundles
        ]

    def run_spk(self) -> None:
        step = self.time_step - 1  # Lava counts from 1
        driven = self.drive.csp_ports[-1].recv() if step % self.period == 0 else self.silence
        sources = np.concatenate([driven, self.s_in.recv()])
        parts = []
        for (start, stop, hold), ring in zip(self.bundles, self.rings, strict=True):
            part = sources[start:stop]
            if hold:
                row = ring[step % hold]
                part, row[:] = row.astype(float), part
            parts.append(part)
        self.s_out.send(np.concatenate(parts))
