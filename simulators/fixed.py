"""The `fixed` backend: Loihi's integer arithmetic in NumPy and Numba, batched; the reference of conformance."""

from __future__ import annotations

import numpy as np

from simulators.protocol import Availability, IntegerBackend, Session, SpikeRecord, counts_of
from spikerl_deploy.codec import Spikes
from spikerl_deploy.integer_core import IntegerCore
from spikerl_deploy.loihi import IntegerLayer
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
    """Integers in NumPy; agrees with `lava` on every spike."""

    name = "fixed"
    summary = "Loihi's integer arithmetic in NumPy, batched; bit-exact with lava"

    def availability(self) -> Availability:
        return Availability(True, f"numpy {np.__version__}")

    def open(self, policy: Policy, batch: int = 1) -> FixedSession:
        return FixedSession(policy, self.integers(policy), batch)
