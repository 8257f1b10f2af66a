"""What a backend is: it opens a policy and turns input spikes into output spikes. It knows no environment."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, Self

import nir
import numpy as np
from numpy.typing import NDArray

from spikerl_deploy.codec import Spikes
from spikerl_deploy.errors import SpikerlError
from spikerl_deploy.loihi import IntegerLayer
from spikerl_deploy.policy import Policy

SMALL = 4096  # spikes that are summed fastest as they are
Exactness = Literal["integer", "float"]
Counts = NDArray[np.int32]


@dataclass(frozen=True, eq=False)
class SpikeRecord:
    """Spikes of one control step.

    Attributes:
        counts: for each layer [B, n], spikes of each neuron over the T time steps.
        rasters: for each layer [B, T, n] booleans, if they were asked for.
    """

    counts: tuple[Counts, ...]
    rasters: tuple[Spikes, ...] | None = None

    @property
    def output_counts(self) -> Counts:
        """Counts of the last layer, [B, n_out]."""
        return self.counts[-1]


@dataclass(frozen=True)
class Availability:
    """Whether a backend can run here: `detail` says with what, or why not; `hint` mends it."""

    ready: bool
    detail: str
    hint: str | None = None


@dataclass(frozen=True, eq=False)
class GraphRecord:
    """What a backend computed for a NIR graph.

    Attributes:
        output: [T, ...output shape]: booleans where the last node spikes, else its values in float32.
        spikes: of each recorded node that spikes, [T, ...shape] booleans.
        voltages: of each recorded node that has one, [T, ...shape] float32, after the reset of the time step.
    """

    output: NDArray[Any]
    spikes: dict[str, Spikes]
    voltages: dict[str, NDArray[np.float32]]


class Session(ABC):
    """A policy opened for `batch` episodes side by side. Each control step starts from zero state.

    Attributes:
        policy: the one that is executed: its encoder gives the input spikes, its decoder reads the output.
    """

    def __init__(self, policy: Policy, batch: int) -> None:
        if batch < 1:
            raise SpikerlError(f"batch {batch} must be at least 1")
        self.policy, self.batch = policy, batch
        self.input_shape = (batch, policy.time_steps, policy.n_in)

    def infer(self, spikes: Spikes, rasters: bool = False) -> SpikeRecord:
        """Run one control step for every episode.

        Args:
            spikes: [B, T, n_in] booleans.
            rasters: also return which neuron spiked when.

        Raises:
            SpikerlError: another shape or type, or the backend failed.
        """
        if spikes.shape != self.input_shape or spikes.dtype != np.bool_:
            raise SpikerlError(
                f"input spikes are {spikes.dtype} {spikes.shape}, the session takes bool {self.input_shape}"
            )
        return self._infer(spikes, rasters)

    @abstractmethod
    def _infer(self, spikes: Spikes, rasters: bool) -> SpikeRecord: ...

    def close(self) -> None:
        """Release what the session holds; may be called twice."""
        return

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class Backend(ABC):
    """A way to run a policy. Options are keyword arguments of the constructor."""

    name: ClassVar[str]
    summary: ClassVar[str]
    exactness: ClassVar[Exactness]

    @abstractmethod
    def availability(self) -> Availability:
        """Whether it can run here, found out without running it."""

    @abstractmethod
    def runs(self, policy: Policy) -> str:
        """Which of the policy's weights it executes, in words for a report."""

    @abstractmethod
    def layer_weights(self, policy: Policy) -> tuple[NDArray[Any], ...]:
        """The weights [n_out, n_in] of each layer that it executes; a zero is no synapse."""

    def check(self, policy: Policy) -> None:
        """Find out, without running it, whether `open` would refuse the policy.

        Raises:
            SpikerlError: the policy cannot run on this backend, or the backend not here.
        """
        return

    @abstractmethod
    def open(self, policy: Policy, batch: int = 1) -> Session:
        """Make the policy ready to run.

        Raises:
            SpikerlError: the policy cannot run on this backend, or the backend is not ready.
        """

    def check_graph(self, graph: nir.NIRGraph, dt: float, integers: tuple[IntegerLayer, ...] | None = None) -> None:
        """Find out whether `run_graph` would refuse the graph; arguments and errors are the same."""
        if type(self).run_graph is Backend.run_graph:
            raise self._runs_no_graph()

    def run_graph(
        self,
        graph: nir.NIRGraph,
        spikes: NDArray[Any],
        dt: float,
        record: Sequence[str] = (),
        integers: tuple[IntegerLayer, ...] | None = None,
    ) -> GraphRecord:
        """Run a NIR graph by forward Euler, states starting at zero.

        Args:
            graph: any graph. spikes: [T, ...input shape]. dt: seconds a time step.
            record: nodes whose spikes and voltages are wanted; `subgraph.node` for one within a subgraph.
            integers: of a quantized policy, whose core the graph is: what an integer backend then runs.

        Raises:
            SpikerlError: something in the graph that this backend cannot honour (names the node), an unknown node to
                record, or the backend is not ready or failed.
        """
        raise self._runs_no_graph()

    def _runs_no_graph(self) -> SpikerlError:
        return SpikerlError(f"backend '{self.name}' runs policies, not graphs", "spikerl backends list")


class IntegerBackend(Backend):
    """A backend that runs a quantized policy's integers."""

    exactness = "integer"

    def runs(self, policy: Policy) -> str:
        return f"{policy.bits}-bit integers"

    def layer_weights(self, policy: Policy) -> tuple[NDArray[Any], ...]:
        return tuple(layer.weight for layer in self.integers(policy))

    def check(self, policy: Policy) -> None:
        self.integers(policy)

    def integers(self, policy: Policy) -> tuple[IntegerLayer, ...]:
        """The policy's integer layers.

        Raises:
            SpikerlError: the policy is not quantized.
        """
        if policy.integers is None:
            raise SpikerlError(
                f"backend '{self.name}' runs integers, the policy holds floats only",
                "quantize it: spikerl export POLICY --to nir --bits 8 -o quantized.nir",
            )
        return policy.integers


def counts_of(rasters: tuple[Spikes, ...], keep: bool) -> SpikeRecord:
    """Record of full rasters [B, T, n], which are kept or dropped after counting."""
    return SpikeRecord(tuple(map(count_spikes, rasters)), rasters if keep else None)


def count_spikes(raster: Spikes) -> Counts:
    """Spikes of each neuron over the time steps of a raster [B, T, n]: [B, n]."""
    if raster.size <= SMALL:
        few: Counts = np.add.reduce(raster, 1, np.int32)
        return few
    narrow = np.uint8 if raster.shape[1] < 256 else np.int32  # sums of bytes are much faster, if they can hold T
    counts: Counts = raster.view(np.uint8).sum(axis=1, dtype=narrow).astype(np.int32)
    return counts
