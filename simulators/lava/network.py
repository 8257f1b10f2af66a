"""A policy's integers on Lava, made for speed: two processes, whatever the number of layers and episodes.

Synapses delay by one time step, as Lava's `Dense` does, so T time steps through L layers take a window of T + L.
`stock_network` is the same in Lava's stock processes: several times slower, and what this one is held against.
"""

from __future__ import annotations

import numpy as np
from lava.magma.core.run_conditions import RunSteps
from lava.magma.core.run_configs import Loihi2SimCfg

from simulators.lava.processes.chain import ChainNeurons, ChainNeuronsModel, ChainSynapses, ChainSynapsesModel
from simulators.lava.rasters import split_layers
from spikerl_deploy.loihi import IntegerLayer


class LavaNetwork:
    """The network, its runtime, and one control step of it."""

    def __init__(self, layers: list[IntegerLayer], time_steps: int, batch: int) -> None:
        self.time_steps, self.batch = time_steps, batch
        self.outputs = [layer.weight.shape[0] for layer in layers]
        window = time_steps + len(layers)
        self.synapses = ChainSynapses(layers, time_steps, window, batch)
        self.neurons = ChainNeurons(layers, time_steps, window, batch)
        self.synapses.a_out.connect(self.neurons.a_in)
        self.neurons.s_out.connect(self.synapses.s_in)
        models = {ChainSynapses: ChainSynapsesModel, ChainNeurons: ChainNeuronsModel}
        self.config = Loihi2SimCfg(select_tag="fixed_pt", exception_proc_model_map=models)
        self.condition = RunSteps(window, blocking=False)
        self.synapses.create_runtime(run_cfg=self.config)

    def infer(self, spikes: np.ndarray) -> list[np.ndarray]:
        """Rasters [B, T, n] of every layer for input spikes [B, T, n_in], all booleans."""
        self.synapses.run(condition=self.condition, run_cfg=self.config)
        self.synapses.send(spikes.swapaxes(0, 1).astype(np.int32))
        rasters = self.neurons.receive().astype(bool)
        self.synapses.wait()
        sizes = [self.batch * n_out for n_out in self.outputs]
        return split_layers(rasters, sizes, self.outputs, self.batch)

    def close(self) -> None:
        """Stop Lava's runtime and its processes."""
        self.synapses.stop()
