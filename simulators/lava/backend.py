"""The `lava` backend as the protocol has it: a session is a worker with one network."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

from simulators.lava.client import DEFAULT_TIMEOUT, MAX_TIMEOUT, WorkerClient
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


class LavaSession(Session):
    """A worker process that runs the policy's network; closing ends it."""

    def __init__(
        self, policy: Policy, integers: tuple[IntegerLayer, ...], batch: int, folder: Path, timeout: float
    ) -> None:
        super().__init__(policy, batch)
        self.client = WorkerClient(folder, timeout)
        arrays: Arrays = {}
        layers = []
        for index, layer in enumerate(integers):
            scalars = {key: value for key, value in asdict(layer).items() if key not in ("weight", "bias")}
            layers.append(scalars)
            arrays |= {f"weight{index}": layer.weight, f"bias{index}": layer.bias}
        fields = {"op": "open", "layers": layers, "time_steps": policy.time_steps, "batch": batch}
        self.client.request(fields, "opened", arrays)
        self.client.remember_processes()

    def _infer(self, spikes: Spikes, rasters: bool) -> SpikeRecord:
        arrays = self.client.request({"op": "infer"}, "spikes", {"spikes": spikes})
        return counts_of(tuple(arrays[f"layer{index}"] for index in range(len(self.policy.layers))), rasters)

    def close(self) -> None:
        self.client.close()


class LavaBackend(IntegerBackend):
    """Stock Lava processes, bit-accurate models.

    Args:
        timeout: seconds that start-up and every answer of the worker may take.
        install: whether Lava may be installed on first use. wheel: the wheel as a local file.
        say: takes progress lines of the installation.
    """

    name = "lava"
    summary = "stock Lava processes with bit-accurate models, on Lava's CPU simulator"

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
            if layer.vth > ALWAYS_ON_THRESHOLD_MAX:
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
        return LavaSession(policy, self.integers(policy), batch, folder, self.timeout)
