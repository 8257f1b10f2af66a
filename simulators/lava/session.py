"""A session whose control steps run in a worker. A worker that fails is replaced, and its control step repeated."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from simulators.lava.client import WorkerClient, WorkerFailed
from simulators.lava.wire import Arrays
from simulators.protocol import Session, SpikeRecord, counts_of
from spikerl_deploy.codec import Spikes
from spikerl_deploy.policy import Policy

REPLACED_MAX = 5  # workers of one session that may fail before its end


@dataclass(frozen=True, eq=False)
class Layers:
    """What the worker builds its network from.

    Attributes:
        network: which one: `chain`, `stock` or `float`.
        scalars: for each layer, its fields but weight and bias. arrays: `weight0`, `bias0`, `weight1`, ...
    """

    network: str
    scalars: tuple[Mapping[str, Any], ...]
    arrays: Arrays


class LavaSession(Session):
    """A worker process that runs the policy's network; closing ends it.

    A control step depends on its input spikes alone. So where a worker dies, hangs or answers nonsense, another one
    repeats the control step, once, and the episode goes on as if nothing had been.

    Args:
        start: starts a worker. say: takes a line about each worker that is replaced.
    """

    def __init__(
        self,
        policy: Policy,
        batch: int,
        layers: Layers,
        start: Callable[[], WorkerClient],
        say: Callable[[str], None] = lambda _: None,
    ) -> None:
        super().__init__(policy, batch)
        self._layers, self._start, self._say, self.replaced = layers, start, say, 0
        self.client = self._opened()

    def _opened(self) -> WorkerClient:
        client = self._start()
        client.forget_processes()
        layers = self._layers
        fields = {"op": "open", "network": layers.network, "layers": layers.scalars}
        client.request(fields | {"time_steps": self.policy.time_steps, "batch": self.batch}, "opened", layers.arrays)
        client.remember_processes()
        return client

    def _infer(self, spikes: Spikes, rasters: bool) -> SpikeRecord:
        try:
            arrays = self._request(spikes)
        except WorkerFailed as failure:
            if self.replaced == REPLACED_MAX:
                text = f"{failure.message}; {REPLACED_MAX} before it failed, too"
                raise WorkerFailed(text, failure.hint) from failure
            self.replaced += 1
            self._say(f"{failure.message}: the control step is repeated by a new one")
            self.client = self._opened()
            arrays = self._request(spikes)
        return counts_of(tuple(arrays[f"layer{index}"] for index in range(len(self.policy.layers))), rasters)

    def _request(self, spikes: Spikes) -> Arrays:
        return self.client.request({"op": "infer"}, "spikes", {"spikes": spikes})

    def close(self) -> None:
        self.client.close()
