"""The `lava` backend as the protocol has it: a session is a worker with one network."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import ClassVar

from simulators.lava.client import DEFAULT_TIMEOUT, MAX_TIMEOUT, WorkerClient, WorkerFailed
from simulators.lava.install import (
    INSTALL_HINT,
    LAVA_VERSION,
    check_wheel,
    ensure_installed,
    installed_folder,
    not_installed,
)
from simulators.lava.wire import Arrays
from simulators.protocol import Availability, IntegerBackend, Session, SpikeRecord, counts_of
from spikerl_deploy.codec import Spikes
from spikerl_deploy.errors import SpikerlError
from spikerl_deploy.loihi import ALWAYS_ON_THRESHOLD_MAX, IntegerLayer
from spikerl_deploy.policy import Policy

REPLACED_MAX = 5  # workers of one session that may fail before its end


class LavaSession(Session):
    """A worker process that runs the policy's network; closing ends it.

    A worker that fails is replaced, and the control step that it failed in is repeated once: a control step
    depends on its input spikes alone, so the episode goes on as if nothing had been.

    Args:
        start: starts a worker. stock: whether the network is made of stock processes only.
        say: takes a line about each worker that is replaced.
    """

    def __init__(
        self,
        policy: Policy,
        integers: tuple[IntegerLayer, ...],
        batch: int,
        start: Callable[[], WorkerClient],
        stock: bool = False,
        say: Callable[[str], None] = lambda _: None,
    ) -> None:
        super().__init__(policy, batch)
        self._start, self._say, self.replaced = start, say, 0
        self._arrays: Arrays = {}
        layers = []
        for index, layer in enumerate(integers):
            scalars = {key: value for key, value in asdict(layer).items() if key not in ("weight", "bias")}
            layers.append(scalars)
            self._arrays |= {f"weight{index}": layer.weight, f"bias{index}": layer.bias}
        self._fields = {
            "op": "open",
            "stock": stock,
            "layers": layers,
            "time_steps": policy.time_steps,
            "batch": batch,
        }
        self.client = self._opened()

    def _opened(self) -> WorkerClient:
        client = self._start()
        client.forget_processes()
        client.request(self._fields, "opened", self._arrays)
        client.remember_processes()
        return client

    def _infer(self, spikes: Spikes, rasters: bool) -> SpikeRecord:
        try:
            arrays = self._request(spikes)
        except WorkerFailed as failure:
            if self.replaced == REPLACED_MAX:
                raise WorkerFailed(
                    f"{failure.message}; {REPLACED_MAX} before it failed, too", failure.hint
                ) from failure
            self.replaced += 1
            self._say(f"{failure.message}: the control step is repeated by a new one")
            self.client = self._opened()
            arrays = self._request(spikes)
        return counts_of(tuple(arrays[f"layer{index}"] for index in range(len(self.policy.layers))), rasters)

    def _request(self, spikes: Spikes) -> Arrays:
        return self.client.request({"op": "infer"}, "spikes", {"spikes": spikes})

    def close(self) -> None:
        self.client.close()


class LavaBackend(IntegerBackend):
    """Lava's bit-accurate neurons, all synapses and all neurons in one Lava process each.

    Args:
        timeout: seconds that start-up and every answer of the worker may take.
        install: whether Lava may be installed on first use. wheel: the wheel as a local file.
        say: takes progress lines of the installation.
    """

    name = "lava"
    summary = "Lava's bit-accurate neurons in two Lava processes, on Lava's CPU simulator"
    stock: ClassVar[bool] = False

    def __init__(
        self,
        timeout: float = DEFAULT_TIMEOUT,
        install: bool = True,
        wheel: Path | None = None,
        say: Callable[[str], None] = lambda _: None,
    ) -> None:
        if not 0 < timeout <= MAX_TIMEOUT:
            raise SpikerlError(
                f"worker time limit {timeout:g} s must be positive, and at most {MAX_TIMEOUT:g}",
                "use --worker-timeout 60",
            )
        self.timeout, self.install, self.wheel, self.say = timeout, install, wheel, say

    def availability(self) -> Availability:
        if sys.platform == "win32":
            return Availability(False, "Lava forks its processes, which Windows cannot", "use Linux, or WSL")
        if installed_folder() is None:
            return Availability(False, f"lava-nc {LAVA_VERSION} is not installed", INSTALL_HINT)
        return Availability(True, f"lava-nc {LAVA_VERSION}")

    def check(self, policy: Policy) -> None:
        for index, layer in enumerate(self.integers(policy)):
            if self.stock and layer.vth > ALWAYS_ON_THRESHOLD_MAX:
                raise SpikerlError(
                    f"layer {index}: threshold {layer.vth} exceeds {ALWAYS_ON_THRESHOLD_MAX}, above which no neuron "
                    "can fire at every step to carry the next layer's bias",
                    "export it again with spikerl, which keeps below",
                )
        if self.wheel is not None:
            check_wheel(self.wheel)
        if installed_folder() is None and not self.install:
            raise not_installed()

    def open(self, policy: Policy, batch: int = 1) -> LavaSession:
        self.check(policy)
        folder = ensure_installed(self.install, self.wheel, self.say)
        start = partial(WorkerClient, folder, self.timeout)
        return LavaSession(policy, self.integers(policy), batch, start, self.stock, self.say)


class LavaStockBackend(LavaBackend):
    """The same network in stock Lava processes only, one a layer's synapses and one a layer's neurons: slow."""

    name = "lava-stock"
    summary = "stock Lava processes with bit-accurate models: slow, and what lava is held against"
    stock = True
