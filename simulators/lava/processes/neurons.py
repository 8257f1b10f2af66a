"""All neurons of a network in one process, on Lava's own LIF arithmetic, each updated at its place in a period."""

from __future__ import annotations

from typing import Any

import numpy as np
from lava.magma.core.decorator import implements, requires, tag
from lava.magma.core.model.py.model import PyLoihiProcessModel
from lava.magma.core.model.py.ports import PyOutPort
from lava.magma.core.model.py.type import LavaPyType
from lava.magma.core.process.ports.ports import InPort, OutPort
from lava.magma.core.process.process import AbstractProcess
from lava.magma.core.process.variable import Var
from lava.magma.core.resources import CPU
from lava.magma.core.sync.protocols.loihi_protocol import LoihiProtocol
from lava.proc.lif.models import AbstractPyLifModelFixed, AbstractPyLifModelFloat

from spikerl_deploy.loihi import STATE_LIMIT

ROWS_IN_FLIGHT = 4  # a reader is at most two periods behind


class Neurons(AbstractProcess):
    """Neurons that sum their input over a period and update once in it; between updates they are silent.

    All arrays are [n]. Biases arrive as input, since NIR's enter the current.

    Args:
        du, dv: what the states lose in an update, in [0, 1]; for integers in 4096ths, in [0, 4096].
        vth: a neuron spikes where v > vth; for integers where v > vth * 64. v_reset: v after a spike.
        v: before the first update. spiking: whether a neuron spikes at all.
        phase: Lava step of the update, in [0, period). recorded: neurons whose states `receive` gives.
    """

    def __init__(
        self,
        *,
        du: np.ndarray,
        dv: np.ndarray,
        vth: np.ndarray,
        v_reset: np.ndarray,
        v: np.ndarray,
        spiking: np.ndarray,
        phase: np.ndarray,
        recorded: np.ndarray,
        period: int,
    ) -> None:
        super().__init__(spiking=spiking, phase=phase, recorded=recorded, period=period)
        shape = v.shape
        self.a_in = InPort(shape=shape)
        self.s_out = OutPort(shape=shape)
        self.states = OutPort(shape=(2, recorded.size + 1))
        self.states.flag_external_pipe(buffer_size=ROWS_IN_FLIGHT)
        self.u = Var(shape=shape, init=0)
        self.v = Var(shape=shape, init=v)
        self.du = Var(shape=shape, init=du)
        self.dv = Var(shape=shape, init=dv)
        self.vth = Var(shape=shape, init=vth)
        self.v_reset = Var(shape=shape, init=v_reset)

    def receive(self) -> np.ndarray:
        """Spikes, and voltages after the reset, of the recorded neurons in the next period, [2, n + 1]; waits for them.

        The last column is the first of all neurons whose state is no longer true, -1 for none: an integer voltage
        clipped, or infinities met.
        """
        rows: np.ndarray = self.states.external_pipe_csp_recv_port.recv()
        return rows


class _PeriodicModel(PyLoihiProcessModel):
    """What integers and floats share; the arithmetic is Lava's `subthr_dynamics`."""

    bias_mant: Any = 0  # in place of Lava's variables
    bias_exp: Any = 0

    def __init__(self, proc_params: Any) -> None:
        super().__init__(proc_params)
        self.period, self.recorded = proc_params["period"], proc_params["recorded"]
        self.due = [proc_params["phase"] == position for position in range(self.period)]
        self.spiking = proc_params["spiking"]
        self.pending: Any = 0
        self.fired = np.zeros(self.spiking.shape, dtype=bool)  # in this period

    def run_spk(self) -> None:
        position = (self.time_step - 1) % self.period  # Lava counts from 1
        due = self.due[position]
        self.pending = self.pending + self.a_in.recv()
        spikes = np.zeros(due.shape, dtype=bool)
        if due.any():
            u, v = self.u.copy(), self.v.copy()
            self.subthr_dynamics(activation_in=self.pending)
            self.u[~due], self.v[~due] = u[~due], v[~due]
            spikes = due & self.spiking & self.spiking_activation()
            self.v[spikes] = self.v_reset[spikes]
            self.fired[due] = spikes[due]
            self.pending[due] = 0
        self.s_out.send(spikes)
        if position == self.period - 1:
            states = np.stack([self.fired[self.recorded], self.v[self.recorded]])
            untrue = np.full((2, 1), first_of(self.untrue()), states.dtype)
            self.states.csp_ports[-1].send(np.append(states, untrue, axis=1))

    def untrue(self) -> np.ndarray:
        """Neurons whose state left what their numbers can hold."""
        raise NotImplementedError


def first_of(flags: np.ndarray) -> int:
    """Index of the first that is set, -1 for none."""
    return int(flags.argmax()) if flags.any() else -1


@implements(proc=Neurons, protocol=LoihiProtocol)
@requires(CPU)
@tag("fixed_pt")
class NeuronsModelFixed(_PeriodicModel, AbstractPyLifModelFixed):
    """Loihi's integers: currents wrap, voltages clip."""

    s_out: PyOutPort = LavaPyType(PyOutPort.VEC_DENSE, np.int32, precision=24)
    states: PyOutPort = LavaPyType(PyOutPort.VEC_DENSE, np.int32)
    du: np.ndarray = LavaPyType(np.ndarray, np.int32)
    dv: np.ndarray = LavaPyType(np.ndarray, np.int32)
    vth: np.ndarray = LavaPyType(np.ndarray, np.int32, precision=17)
    v_reset: np.ndarray = LavaPyType(np.ndarray, np.int32, precision=24)

    def __init__(self, proc_params: Any) -> None:
        super().__init__(proc_params)
        self.ds_offset = 0  # `du` is the whole decay here, not one less

    def spiking_activation(self) -> np.ndarray:
        """Thresholds are aligned as Lava's models align them."""
        spikes: np.ndarray = self.v > np.left_shift(self.vth, self.vth_shift)
        return spikes

    def untrue(self) -> np.ndarray:
        """Where the voltage clipped; one that spikes is reset at the upper end."""
        largest = STATE_LIMIT - 1
        clipped: np.ndarray = (self.v <= -largest) | (~self.spiking & (self.v >= largest))
        return clipped


@implements(proc=Neurons, protocol=LoihiProtocol)
@requires(CPU)
@tag("floating_pt")
class NeuronsModelFloat(_PeriodicModel, AbstractPyLifModelFloat):
    """The same in float64."""

    s_out: PyOutPort = LavaPyType(PyOutPort.VEC_DENSE, float)
    states: PyOutPort = LavaPyType(PyOutPort.VEC_DENSE, float)
    du: np.ndarray = LavaPyType(np.ndarray, float)
    dv: np.ndarray = LavaPyType(np.ndarray, float)
    vth: np.ndarray = LavaPyType(np.ndarray, float)
    v_reset: np.ndarray = LavaPyType(np.ndarray, float)

    def spiking_activation(self) -> np.ndarray:
        """As Lava's floating-point LIF has it."""
        spikes: np.ndarray = self.v > self.vth
        return spikes

    def untrue(self) -> np.ndarray:
        """Where infinities met: NaN is above no threshold, and would be silent for ever."""
        nan: np.ndarray = np.isnan(self.u) | np.isnan(self.v)
        return nan
