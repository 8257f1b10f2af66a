"""What the backends of other runtimes share: a graph goes through the runtime's own NIR reader, or is refused."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import nir
import numpy as np
from numpy.typing import NDArray

from simulators.foreign.graph import canonical_graph, canonical_names, schedule_refusal
from simulators.foreign.install import Package, install_hint, missing_package
from simulators.foreign.rules import ENDS, NEURONS
from simulators.protocol import Availability, Backend, GraphRecord, Session, SpikeRecord, counts_of
from spikerl_deploy.codec import Spikes
from spikerl_deploy.errors import SpikerlError
from spikerl_deploy.interrupts import pass_on_interrupt
from spikerl_deploy.loihi import IntegerLayer
from spikerl_deploy.nir_core import chain_edges, layers_to_nodes
from spikerl_deploy.nir_file import one_line
from spikerl_deploy.nir_float32 import check_float32
from spikerl_deploy.nir_order import OrderedGraph, check_input, check_record, order_graph
from spikerl_deploy.policy import Policy

if TYPE_CHECKING:
    from torch import Tensor
    from torch.nn import Module

# What a reader can raise at a graph that it does not take; they have no error type of their own.
READER_ERRORS = (AssertionError, AttributeError, IndexError, KeyError, RuntimeError, TypeError, ValueError)

NODES_MAX = 1000  # the time of nirtorch's reader grows much faster than their number


class ForeignBackend(Backend):
    """A runtime that reads the exported file itself.

    A node runs only where the reader is known to keep to its NIR definition, forward Euler at dt; `refusal` says where
    it does not. What is left is float32 rounding, whose order of operations is each runtime's own.

    Attributes:
        packages: what must be installed, in exactly these versions, since the rules are those of their readers.
        batched: whether an axis of episodes must lead even where there is one.
    """

    exactness = "float"
    packages: ClassVar[tuple[Package, ...]]
    batched: ClassVar[bool] = False

    @abstractmethod
    def refusal(self, node: nir.NIRNode, dt: float) -> str | None:
        """What the runtime would do that NIR does not say of a node at dt seconds a time step, or None."""

    def wiring_refusal(self, ordered: OrderedGraph) -> tuple[str, str] | None:
        """(node, why) where the reader would not connect nodes as NIR does, found before it is asked to; or None."""
        if len(ordered.sources[ordered.output]) > 1:
            return ordered.output, "takes one node there, not a sum"
        return None

    @abstractmethod
    def load(self, graph: nir.NIRGraph, dt: float) -> Module:
        """The graph through the runtime's reader: a module that maps (input, state or None) to (output, state)."""

    def order(self, module: Any, names: Sequence[str]) -> Sequence[str]:
        """The order in which the runtime visits the nodes `names` of a loaded graph."""
        return names

    @abstractmethod
    def voltage(self, module: Any, given: Any, node: nir.NIRNode, dt: float) -> Tensor:
        """Voltages after the reset of a neuron node in NIR's units; `given` is what its module returned."""

    def reset(self, module: Module) -> None:
        """Set states to zero that lie in the modules; others are not passed on."""
        return

    def availability(self) -> Availability:
        missing = missing_package(self.packages)
        if missing is not None:
            return Availability(False, missing, install_hint(self.name))
        return Availability(True, ", ".join(f"{package.name} {package.version}" for package in self.packages))

    def runs(self, policy: Policy) -> str:
        return "float32 weights of the NIR graph"

    def layer_weights(self, policy: Policy) -> tuple[NDArray[Any], ...]:
        return tuple(layer.weight for layer in policy.layers)

    def check(self, policy: Policy) -> None:
        self._ordered(_graph(policy), policy.dt)

    def open(self, policy: Policy, batch: int = 1) -> ForeignSession:
        network = ForeignNetwork(self, self._ordered(_graph(policy), policy.dt))
        return ForeignSession(policy, batch, network)

    def check_graph(self, graph: nir.NIRGraph, dt: float, integers: tuple[IntegerLayer, ...] | None = None) -> None:
        ForeignNetwork(self, self._ordered(graph, dt))

    def run_graph(
        self,
        graph: nir.NIRGraph,
        spikes: NDArray[Any],
        dt: float,
        record: Sequence[str] = (),
        integers: tuple[IntegerLayer, ...] | None = None,
    ) -> GraphRecord:
        ordered = self._ordered(graph, dt)
        inputs = np.asarray(check_input(ordered, spikes), dtype=np.float32)
        record = check_record(ordered, record)
        network = ForeignNetwork(self, ordered)
        output, rasters, voltages = network.run(inputs[:, None] if self.batched else inputs, record)
        if self.batched:
            output = output[:, 0]
            rasters = {name: raster[:, 0] for name, raster in rasters.items()}
            voltages = {name: voltage[:, 0] for name, voltage in voltages.items()}
        return GraphRecord(output, rasters, voltages)

    def _ordered(self, graph: nir.NIRGraph, dt: float) -> OrderedGraph:
        """The graph in order of evaluation.

        Raises:
            SpikerlError: the runtime is not installed, or cannot honour a node, which is named.
        """
        state = self.availability()
        if not state.ready:
            raise SpikerlError(f"backend '{self.name}': {state.detail}", state.hint)
        ordered = order_graph(graph, dt)
        if len(ordered.nodes) > NODES_MAX:
            raise SpikerlError(
                f"backend '{self.name}' takes graphs of at most {NODES_MAX} nodes, this one has {len(ordered.nodes)}",
                "use --backend torch",
            )
        for name, node in ordered.nodes.items():
            if not isinstance(node, ENDS) and (why := self.refusal(node, dt)) is not None:
                raise self.refused(name, why, node)
        check_float32(ordered)
        wiring = self.wiring_refusal(ordered)
        if wiring is not None:
            raise self.refused(*wiring, ordered.nodes[wiring[0]])
        return ordered

    def refused(self, name: str, why: str, node: nir.NIRNode) -> SpikerlError:
        """Error for a node that this runtime would not run as NIR defines it."""
        kind = type(node).__name__
        return SpikerlError(
            f"backend '{self.name}' cannot honour NIR node '{name}' ({kind}): its reader {why}", "use --backend torch"
        )


def _graph(policy: Policy) -> nir.NIRGraph:
    """The graph that the policy file holds."""
    nodes = layers_to_nodes(policy.layers, policy.dt)
    return nir.NIRGraph(nodes, chain_edges(nodes))


class ForeignNetwork:
    """A graph loaded in a runtime."""

    def __init__(self, backend: ForeignBackend, ordered: OrderedGraph) -> None:
        self.backend, self.ordered = backend, ordered
        self.names = canonical_names(ordered)
        try:
            self.module = backend.load(canonical_graph(ordered, self.names), ordered.dt).eval()
        except (ImportError, *READER_ERRORS) as error:
            pass_on_interrupt(error)
            raise SpikerlError(f"backend '{backend.name}' cannot load the graph: {one_line(error)}") from error
        own = {canonical: name for name, canonical in self.names.items()}
        order = [own[name] for name in backend.order(self.module, list(own))]
        refusal = schedule_refusal(ordered, order)
        if refusal is not None:
            raise backend.refused(*refusal, ordered.nodes[refusal[0]])

    def run(
        self, inputs: NDArray[np.float32], record: Sequence[str]
    ) -> tuple[NDArray[Any], dict[str, Spikes], dict[str, NDArray[np.float32]]]:
        """Output, spikes and voltages of neuron nodes, [T, ...], from zero state; an axis of episodes passes through.

        Raises:
            SpikerlError: the runtime failed.
        """
        import torch

        given: dict[str, list[Tensor]] = {name: [] for name in record}
        voltages: dict[str, list[Tensor]] = {name: [] for name in record}
        outputs, state = [], None
        watches = [
            self.module.get_submodule(self.names[name]).register_forward_hook(self._watch(name, given, voltages))
            for name in record
        ]
        self.backend.reset(self.module)
        try:
            with torch.no_grad():
                for values in torch.from_numpy(inputs):
                    output, state = self.module(values, state)
                    outputs.append(output)
        except READER_ERRORS as error:
            raise SpikerlError(f"backend '{self.backend.name}' failed: {one_line(error)}") from error
        finally:
            for watch in watches:
                watch.remove()
        (source, _), *_ = self.ordered.sources[self.ordered.output]
        output = torch.stack(outputs).numpy()
        return (
            output > 0 if isinstance(self.ordered.nodes[source], NEURONS) else output,
            {name: torch.stack(steps).numpy() > 0 for name, steps in given.items()},
            {name: torch.stack(steps).numpy() for name, steps in voltages.items()},
        )

    def _watch(self, name: str, given: dict[str, list[Tensor]], voltages: dict[str, list[Tensor]]) -> Any:
        node, backend, dt = self.ordered.nodes[name], self.backend, self.ordered.dt

        def watch(module: Module, _: Any, output: Any) -> None:
            given[name].append(output[0] if isinstance(output, tuple) else output)
            voltages[name].append(backend.voltage(module, output, node, dt))

        return watch


class ForeignSession(Session):
    """A policy's graph, episodes side by side."""

    def __init__(self, policy: Policy, batch: int, network: ForeignNetwork) -> None:
        super().__init__(policy, batch)
        self.network = network
        self.neurons = [name for name, node in network.ordered.nodes.items() if isinstance(node, NEURONS)]

    def _infer(self, spikes: Spikes, rasters: bool) -> SpikeRecord:
        inputs = np.ascontiguousarray(spikes.swapaxes(0, 1), dtype=np.float32)
        _, fired, _ = self.network.run(inputs, self.neurons)
        return counts_of(tuple(fired[name].swapaxes(0, 1) for name in self.neurons), rasters)
