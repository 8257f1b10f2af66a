"""The `lava-float` backend: stock Lava processes with their floating-point models, in a worker."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import nir
from numpy.typing import NDArray

from simulators.lava.backend import LavaBackend
from simulators.lava.client import DEFAULT_TIMEOUT
from simulators.lava.session import LavaSession, Layers
from simulators.lava.wire import Arrays
from simulators.protocol import Availability, Backend, GraphRecord
from spikerl_deploy.loihi import IntegerLayer
from spikerl_deploy.policy import Policy

_NEURON = ("current_decay", "voltage_decay", "v_threshold")


def float_layers(policy: Policy) -> Layers:
    """The policy file's floats, for the worker."""
    arrays: Arrays = {}
    for index, layer in enumerate(policy.layers):
        arrays |= {f"weight{index}": layer.weight, f"bias{index}": layer.bias}
    return Layers("float", tuple({name: getattr(layer, name) for name in _NEURON} for layer in policy.layers), arrays)


class LavaFloatBackend(Backend):
    """The policy file's float layers in float64; of a quantized policy, what its integers stand for.

    Args:
        timeout, install, wheel, say: as for `LavaBackend`.
    """

    name = "lava-float"
    summary = "stock Lava processes with floating-point models, in float64"
    exactness = "float"

    def __init__(
        self,
        timeout: float = DEFAULT_TIMEOUT,
        install: bool = True,
        wheel: Path | None = None,
        say: Callable[[str], None] = lambda _: None,
    ) -> None:
        self._lava = LavaBackend(timeout=timeout, install=install, wheel=wheel, say=say)  # checks its options

    def availability(self) -> Availability:
        return self._lava.availability()

    def runs(self, policy: Policy) -> str:
        return "float64 weights of the NIR graph"

    def layer_weights(self, policy: Policy) -> tuple[NDArray[Any], ...]:
        return tuple(layer.weight for layer in policy.layers)

    def check(self, policy: Policy) -> None:
        self._lava.check_installed()

    def open(self, policy: Policy, batch: int = 1) -> LavaSession:
        self.check(policy)
        return LavaSession(policy, batch, float_layers(policy), self._lava.worker(), self._lava.say)

    def check_graph(self, graph: nir.NIRGraph, dt: float, integers: tuple[IntegerLayer, ...] | None = None) -> None:
        from spikerl_deploy.nir_lowering import lower_graph
        from spikerl_deploy.nir_order import order_graph

        lower_graph(order_graph(graph, dt))

    def run_graph(
        self,
        graph: nir.NIRGraph,
        spikes: NDArray[Any],
        dt: float,
        record: Sequence[str] = (),
        integers: tuple[IntegerLayer, ...] | None = None,
    ) -> GraphRecord:
        """As the protocol says; the graph's floats are run, whether there are integers or not."""
        from simulators.graph_run import float_run
        from simulators.lava.graph_client import run_in_worker

        run = float_run(graph, spikes, dt, record)  # refuses before anything is started
        return run_in_worker(run, self._lava.worker(), self._lava.say)
