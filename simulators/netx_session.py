"""A policy's integers in the form of a netx file, executed by the `fixed` backend."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from simulators.protocol import Session, SpikeRecord, counts_of
from spikerl_deploy.codec import Spikes
from spikerl_deploy.integer_core import IntegerCore
from spikerl_deploy.loihi import IntegerLayer
from spikerl_deploy.policy import Policy


class NetxSession(Session):
    """Layers that are wider than the policy's, since neurons have copies and some always fire.

    Args:
        policy: the one that the file was made of.
        layers: as the file has them, the constant inputs and always-firing neurons included.
        channels: [n], the input spike that each input of the first layer gets; `n_in` is a constant 1.
        neurons: for each layer, the policy's neuron that each of its neurons stands for.
    """

    def __init__(
        self,
        policy: Policy,
        batch: int,
        layers: Sequence[IntegerLayer],
        channels: NDArray[np.integer],
        neurons: Sequence[NDArray[np.integer]],
    ) -> None:
        super().__init__(policy, batch)
        self._core, self._channels = IntegerCore(layers, policy.time_steps), channels
        self._rows = [  # the first copy of each neuron; those that always fire come last
            np.unique(stands_for, return_index=True)[1][: layer.n_out]
            for stands_for, layer in zip(neurons, policy.layers, strict=True)
        ]

    def _infer(self, spikes: Spikes, rasters: bool) -> SpikeRecord:
        with_constant = np.pad(spikes, ((0, 0), (0, 0), (0, 1)), constant_values=True)
        outputs = self._core(with_constant[:, :, self._channels].swapaxes(0, 1))
        picked = (output[:, :, rows].swapaxes(0, 1) for output, rows in zip(outputs, self._rows, strict=True))
        return counts_of(tuple(picked), rasters)
