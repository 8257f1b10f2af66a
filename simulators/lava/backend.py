"""The `lava` backend as the protocol has it: a session is a worker with one network."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import nir
from numpy.typing import NDArray

from simulators.lava.client import DEFAULT_TIMEOUT, MAX_TIMEOUT, WorkerClient
from simulators.lava.install import (
    INSTALL_HINT,
    LAVA_VERSION,
    check_wheel,
    ensure_installed,
    installed_folder,
    not_installed,
)
from simulators.lava.session import LavaSession, Layers
from simulators.lava.wire import Arrays
from simulators.protocol import Availability, Backend, GraphRecord, IntegerBackend
from spikerl_deploy.errors import SpikerlError
from spikerl_deploy.loihi import ALWAYS_ON_THRESHOLD_MAX, IntegerLayer
from spikerl_deploy.policy import Policy


def integer_layers(network: str, integers: tuple[IntegerLayer, ...]) -> Layers:
    """A policy's integers, for the worker."""
    arrays: Arrays = {}
    scalars = []
    for index, layer in enumerate(integers):
        scalars.append({key: value for key, value in asdict(layer).items() if key not in ("weight", "bias")})
        arrays |= {f"weight{index}": layer.weight, f"bias{index}": layer.bias}
    return Layers(network, tuple(scalars), arrays)


class LavaBackend(IntegerBackend):
    """Lava's bit-accurate neurons, all synapses and all neurons in one Lava process each.

    Args:
        timeout: seconds that start-up and every answer of the worker may take.
        install: whether Lava may be installed on first use. wheel: the wheel as a local file, checked here.
        say: takes progress lines of the installation.
        rounding: of a graph that has no exact integers, run the nearest.

    Attributes:
        rounded: after `run_graph`, the largest relative error of each of the graph's populations; empty where the
            integers were given.
    """

    name = "lava"
    summary = "Lava's bit-accurate neurons in two Lava processes, on Lava's CPU simulator"
    network: ClassVar[str] = "chain"

    def __init__(
        self,
        timeout: float = DEFAULT_TIMEOUT,
        install: bool = True,
        wheel: Path | None = None,
        say: Callable[[str], None] = lambda _: None,
        rounding: bool = False,
    ) -> None:
        if not 0 < timeout <= MAX_TIMEOUT:
            raise SpikerlError(
                f"worker time limit {timeout:g} s must be positive, and at most {MAX_TIMEOUT:g}",
                "use --worker-timeout 60",
            )
        if wheel is not None:
            check_wheel(wheel)
        self.timeout, self.install, self.wheel, self.say = timeout, install, wheel, say
        self.rounding = rounding
        self.rounded: dict[str, float] = {}

    def availability(self) -> Availability:
        if sys.platform == "win32":
            return Availability(False, "Lava forks its processes, which Windows cannot", "use Linux, or WSL")
        if installed_folder() is None:
            return Availability(False, f"lava-nc {LAVA_VERSION} is not installed", INSTALL_HINT)
        return Availability(True, f"lava-nc {LAVA_VERSION}")

    def check(self, policy: Policy) -> None:
        for index, layer in enumerate(self.integers(policy)):
            if self.network == "stock" and layer.vth > ALWAYS_ON_THRESHOLD_MAX:
                raise SpikerlError(
                    f"layer {index}: threshold {layer.vth} exceeds {ALWAYS_ON_THRESHOLD_MAX}, above which no neuron "
                    "can fire at every step to carry the next layer's bias",
                    "export it again with spikerl, which keeps below",
                )
        self.check_installed()

    def check_installed(self) -> None:
        """Find out whether Lava is here, or may be installed.

        Raises:
            SpikerlError: neither.
        """
        if installed_folder() is None and not self.install:
            raise not_installed()

    def open(self, policy: Policy, batch: int = 1) -> LavaSession:
        self.check(policy)
        layers = integer_layers(self.network, self.integers(policy))
        return LavaSession(policy, batch, layers, self.worker(), self.say)

    def worker(self) -> Callable[[], WorkerClient]:
        """What starts a worker; Lava is installed first, if it must be and may be."""
        return partial(WorkerClient, ensure_installed(self.install, self.wheel, self.say), self.timeout)

    def check_graph(self, graph: nir.NIRGraph, dt: float, integers: tuple[IntegerLayer, ...] | None = None) -> None:
        from simulators.graph_run import check_integers

        check_integers(graph, dt, self.rounding, integers)

    def run_graph(
        self,
        graph: nir.NIRGraph,
        spikes: NDArray[Any],
        dt: float,
        record: Sequence[str] = (),
        integers: tuple[IntegerLayer, ...] | None = None,
    ) -> GraphRecord:
        from simulators.graph_run import integer_run
        from simulators.lava.graph_client import run_in_worker

        run = integer_run(graph, spikes, dt, record, self.rounding, integers)  # refuses before anything is started
        self.rounded = run.rounded
        return run_in_worker(run, self.worker(), self.say)


class LavaStockBackend(LavaBackend):
    """The same network in stock Lava processes only, one a layer's synapses and one a layer's neurons: slow."""

    name = "lava-stock"
    summary = "stock Lava processes with bit-accurate models: slow, and what lava is held against"
    network = "stock"
    run_graph = Backend.run_graph  # refuses: a graph's neurons are no stock processes
    check_graph = Backend.check_graph
