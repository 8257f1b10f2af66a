"""The `fixed` backend: Loihi's integer arithmetic in NumPy and Numba, batched; the reference of conformance."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import nir
import numpy as np
from numpy.typing import NDArray

from simulators.protocol import Availability, GraphRecord, IntegerBackend, Session, SpikeRecord, counts_of
from spikerl_deploy.codec import Spikes
from spikerl_deploy.integer_core import IntegerCore
from spikerl_deploy.loihi import IntegerLayer
from spikerl_deploy.network import IntegerNetwork
from spikerl_deploy.policy import Policy

COMPILE_AFTER = 20_000  # control steps: the seconds that compiling takes at most are then soon won back


class FixedSession(Session):
    """The policy's integers, ready to run; compiled where many control steps are asked for."""

    def __init__(self, policy: Policy, layers: tuple[IntegerLayer, ...], batch: int) -> None:
        super().__init__(policy, batch)
        self.core = IntegerCore(layers, policy.time_steps)
        self._served, self._compiled = 0, False

    def _infer(self, spikes: Spikes, rasters: bool) -> SpikeRecord:
        self._served += self.batch
        if self._served > COMPILE_AFTER and not self._compiled:
            self._compiled = True
            self.core.compile()
        outputs = self.core(spikes.swapaxes(0, 1))
        return counts_of(tuple(output.swapaxes(0, 1) for output in outputs), rasters)


class FixedBackend(IntegerBackend):
    """Integers in NumPy; agrees with `lava` on every spike.

    Args:
        rounding: of a graph that has no exact integers, run the nearest.

    Attributes:
        rounded: after `run_graph`, the largest relative error of each of the graph's populations; empty where the
            integers were given.
    """

    name = "fixed"
    summary = "Loihi's integer arithmetic in NumPy and Numba, batched; bit-exact with lava"

    def __init__(self, rounding: bool = False) -> None:
        self.rounding = rounding
        self.rounded: dict[str, float] = {}

    def availability(self) -> Availability:
        return Availability(True, f"numpy {np.__version__}")

    def open(self, policy: Policy, batch: int = 1) -> FixedSession:
        return FixedSession(policy, self.integers(policy), batch)

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
        from spikerl_deploy.integer_network import run_integers

        run = integer_run(graph, spikes, dt, record, self.rounding, integers)
        assert isinstance(run.network, IntegerNetwork)
        self.rounded = run.rounded
        output, fired, voltages = run_integers(run.network, run.values, run.record, run.clips)
        last = run.network.output
        if run.network.populations[last].spiking:
            return run.record_of(fired | {last: output}, voltages)
        return run.record_of(fired, voltages | {last: output})
