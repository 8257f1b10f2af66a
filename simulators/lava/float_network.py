"""A policy's float weights as stock Lava processes with floating-point models (float64). Runs in the worker only.

The network is that of `stock_network`, in floats: `Injector -> Dense -> LIFReset -> ... -> SpikeTap`, T + L Lava
steps a control step. One always-firing neuron a layer carries the next layer's bias, whose weights need no grid here.
"""

from __future__ import annotations

import numpy as np
from lava.magma.core.run_conditions import RunSteps
from lava.magma.core.run_configs import Loihi2SimCfg
from lava.proc.dense.process import Dense
from lava.proc.io.injector import Injector, PyLoihiInjectorModel
from lava.proc.lif.process import LIFReset
from lava.proc.sparse.process import Sparse
from scipy.sparse import block_diag, csr_matrix, hstack, vstack

from simulators.lava.processes.tap import SpikeTap, port_name, tap_model
from simulators.lava.rasters import play_window, split_layers
from spikerl_deploy.policy import SpikingLayer

_GRADED = 1  # message bits; above 0 a connection is one product, which is faster than Lava's sum of columns


class FloatPolicyNetwork:
    """The network, its runtime, and one control step of it."""

    def __init__(self, layers: list[SpikingLayer], time_steps: int, batch: int) -> None:
        self.time_steps, self.batch, self.window = time_steps, batch, time_steps + len(layers)
        self.outputs = [layer.n_out for layer in layers]
        self.n_in = layers[0].n_in
        self.width = self.n_in * batch + 1
        self.injector = Injector(shape=(self.width,))
        sizes = tuple(n_out * batch + (index + 1 < len(layers)) for index, n_out in enumerate(self.outputs))
        self.tap = SpikeTap(sizes, time_steps, self.window)
        source = self.injector.out_port
        for index, layer in enumerate(layers):
            always_on = index + 1 < len(layers)
            connection, neurons = self._connection(layer, always_on), self._neurons(layer, index, always_on)
            source.connect(connection.s_in)
            connection.a_out.connect(neurons.a_in)
            source = neurons.s_out
            source.connect(getattr(self.tap, port_name(index)))
        self.sizes = sizes
        models = {Injector: PyLoihiInjectorModel, SpikeTap: tap_model(len(layers))}
        self.config = Loihi2SimCfg(select_tag="floating_pt", exception_proc_model_map=models)
        self.condition = RunSteps(self.window, blocking=False)
        self.injector.create_runtime(run_cfg=self.config)

    def _connection(self, layer: SpikingLayer, always_on: bool) -> Dense | Sparse:
        """Weights of all episodes, the bias as last column, and nothing for the always-firing neuron."""
        weight, bias = layer.weight.astype(np.float64), layer.bias.astype(np.float64)
        if self.batch == 1:
            both = np.column_stack([weight, bias])
            return Dense(weights=np.pad(both, ((0, int(always_on)), (0, 0))), num_message_bits=_GRADED)
        blocks = block_diag([weight] * self.batch, format="csr")
        stacked = hstack([blocks, csr_matrix(np.tile(bias, self.batch)[:, None])], format="csr")
        if always_on:
            stacked = vstack([stacked, csr_matrix((1, stacked.shape[1]))], format="csr")
        return Sparse(weights=csr_matrix(stacked), num_message_bits=_GRADED)

    def _neurons(self, layer: SpikingLayer, index: int, always_on: bool) -> LIFReset:
        voltage_bias = np.zeros(layer.n_out * self.batch + always_on)
        voltage_bias[layer.n_out * self.batch :] = 2.0 * layer.v_threshold
        return LIFReset(
            shape=voltage_bias.shape,
            du=1.0 - layer.current_decay,
            dv=1.0 - layer.voltage_decay,
            vth=layer.v_threshold,
            bias_mant=voltage_bias,
            reset_interval=self.window,
            reset_offset=index + 2,
        )

    def infer(self, spikes: np.ndarray) -> list[np.ndarray]:
        """Rasters [B, T, n] of every layer for input spikes [B, T, n_in], all booleans."""
        drive = np.zeros((self.window, self.width))
        drive[: self.time_steps, :-1] = spikes.swapaxes(0, 1).reshape(self.time_steps, -1)
        drive[: self.time_steps, -1] = 1.0
        rasters = play_window(self.injector, self.tap, self.condition, self.config, drive)
        return split_layers(rasters, self.sizes, self.outputs, self.batch)

    def close(self) -> None:
        """Stop Lava's runtime and its processes."""
        self.injector.stop()
