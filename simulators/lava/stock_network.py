"""A policy's integers as a network of stock Lava processes. Runs in the worker only.

Injector -> Dense -> LIFReset -> ... -> SpikeTap. A Dense delays by one time step, so T time steps through L
layers take a window of T + L. LIFReset zeroes layer k (from 0) at step k + 2 of the window, before it adds
its input, which also discards what the last window left in the Dense buffers.

Bias: Lava's `bias_mant` enters the voltage, ours the current. So neurons that fire at every step, one or more, are
appended to each layer, and their columns in the next Dense are that layer's bias; the first layer has constant
input channels. Episodes side by side are blocks of block-diagonal Sparse weights and share these neurons.
"""

from __future__ import annotations

import numpy as np
from lava.magma.core.run_conditions import RunSteps
from lava.magma.core.run_configs import Loihi2SimCfg
from lava.proc.dense.process import Dense
from lava.proc.io.injector import Injector, PyLoihiInjectorModel
from lava.proc.lif.process import LIFReset
from lava.proc.sparse.process import Sparse
from lava.utils.weightutils import SignMode
from scipy.sparse import block_diag, csr_matrix, hstack, vstack

from simulators.lava.processes.tap import SpikeTap, port_name, tap_model
from simulators.lava.rasters import play_window, split_layers
from spikerl_deploy.loihi import BIAS_EXP_MAX, BIAS_MANT_MAX, IntegerLayer, bias_columns

Weights = np.ndarray | csr_matrix


class StockNetwork:
    """The network, its runtime, and one control step of it."""

    def __init__(self, layers: list[IntegerLayer], time_steps: int, batch: int) -> None:
        self.time_steps, self.batch = time_steps, batch
        self.window = time_steps + len(layers)
        self.n_in, self.outputs = layers[0].weight.shape[1], [layer.weight.shape[0] for layer in layers]
        biases = [bias_columns(layer) for layer in layers]
        self.constants = biases[0].shape[1]
        self.injector = Injector(shape=(self.n_in * batch + self.constants,))
        source, neurons = self.injector.out_port, []
        for index, layer in enumerate(layers):
            always_on = biases[index + 1].shape[1] if index + 1 < len(layers) else 0
            connection = self._connection(layer, biases[index], always_on)
            population = self._population(layer, index, always_on)
            source.connect(connection.s_in)
            connection.a_out.connect(population.a_in)
            neurons.append(population)
            source = population.s_out
        sizes = tuple(population.s_out.shape[0] for population in neurons)
        self.tap = SpikeTap(sizes, time_steps, self.window)
        for index, population in enumerate(neurons):
            population.s_out.connect(getattr(self.tap, port_name(index)))
        self.sizes = sizes
        models = {Injector: PyLoihiInjectorModel, SpikeTap: tap_model(len(layers))}
        self.config = Loihi2SimCfg(select_tag="fixed_pt", exception_proc_model_map=models)
        self.condition = RunSteps(self.window, blocking=False)
        self.injector.create_runtime(run_cfg=self.config)

    def _connection(self, layer: IntegerLayer, bias: np.ndarray, always_on: int) -> Dense | Sparse:
        """Weights of all episodes, the bias as last columns, and no input for the always-firing neurons.

        Their sign mode is stated: Lava would take weights that are all negative for inhibitory ones, and -256 for -255.
        """
        if self.batch == 1:
            weights = np.hstack([layer.weight, bias])
            padded = np.pad(weights, ((0, always_on), (0, 0)))
            return Dense(weights=padded, weight_exp=layer.weight_exp, sign_mode=SignMode.MIXED)
        blocks = block_diag([layer.weight] * self.batch, format="csr")
        stacked = hstack([blocks, csr_matrix(np.tile(bias, (self.batch, 1)))], format="csr")
        if always_on:
            nothing = csr_matrix((always_on, stacked.shape[1]), dtype=stacked.dtype)
            stacked = vstack([stacked, nothing], format="csr")
        return Sparse(weights=stacked, weight_exp=layer.weight_exp, sign_mode=SignMode.MIXED)

    def _population(self, layer: IntegerLayer, index: int, always_on: int) -> LIFReset:
        size = layer.weight.shape[0] * self.batch
        bias_mant = np.zeros(size + always_on, dtype=int)
        bias_mant[size:] = BIAS_MANT_MAX
        return LIFReset(
            shape=bias_mant.shape,
            du=layer.du,
            dv=layer.dv,
            vth=layer.vth,
            bias_mant=bias_mant,
            bias_exp=BIAS_EXP_MAX,
            reset_interval=self.window,
            reset_offset=index + 2,
        )

    def infer(self, spikes: np.ndarray) -> list[np.ndarray]:
        """Rasters [B, T, n] of every layer for input spikes [B, T, n_in], all booleans."""
        drive = np.zeros((self.window, self.n_in * self.batch + self.constants))
        drive[: self.time_steps, : -self.constants] = spikes.swapaxes(0, 1).reshape(self.time_steps, -1)
        drive[: self.time_steps, -self.constants :] = 1.0
        rasters = play_window(self.injector, self.tap, self.condition, self.config, drive)
        return split_layers(rasters, self.sizes, self.outputs, self.batch)

    def close(self) -> None:
        """Stop Lava's runtime and its processes."""
        self.injector.stop()
