"""The `torch` backend: the policy as trained, in float32 or BF16, on CPU or CUDA. The baseline of comparisons."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import nir
import numpy as np
from numpy.typing import NDArray

from simulators.protocol import Availability, Backend, GraphRecord, Session, SpikeRecord, counts_of
from spikerl_deploy.codec import Spikes
from spikerl_deploy.errors import SpikerlError, unknown
from spikerl_deploy.interrupts import pass_on_interrupt
from spikerl_deploy.loihi import IntegerLayer
from spikerl_deploy.policy import Policy

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from spikerl_deploy.nir_order import OrderedGraph

DEVICES = ("auto", "cpu", "cuda")
WEIGHTS = ("trained", "graph")


def core_function(policy: Policy, device: torch.device, bf16: bool) -> Callable[[Tensor], list[Tensor]]:
    """The float core in torch, through the function that training uses.

    The function returned takes input spikes [T, B, n_in] (0 or 1) and gives those of every layer, float32 [T, B, n].
    With `bf16`, weights, biases and synaptic input are BF16, the neurons' states float32, as under autocast.
    """
    import torch

    from training.lif import lif_sequence
    from training.surrogate import make_surrogate

    slope, dtype = make_surrogate("rectangular", 0.5), torch.bfloat16 if bf16 else torch.float32
    layers = [
        (torch.tensor(layer.weight, device=device).to(dtype), torch.tensor(layer.bias, device=device).to(dtype), layer)
        for layer in policy.layers
    ]

    def core(spikes: Tensor) -> list[Tensor]:
        outputs = []
        for weight, bias, layer in layers:
            drive = torch.nn.functional.linear(spikes.to(dtype), weight, bias)
            spikes = lif_sequence(drive, layer.current_decay, layer.voltage_decay, layer.v_threshold, slope)
            outputs.append(spikes)
        return outputs

    return core


def as_cuda_graph(function: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    """The function, for CUDA and always one shape, replayed as a CUDA graph; its value is valid until the next call."""
    from training.graphs import GraphedForward

    return GraphedForward(function)


class TorchSession(Session):
    """The float core in torch, without gradients."""

    def __init__(self, policy: Policy, batch: int, device: torch.device, bf16: bool) -> None:
        super().__init__(policy, batch)
        self.device = device
        self._core = core_function(policy, device, bf16)

    def _infer(self, spikes: Spikes, rasters: bool) -> SpikeRecord:
        import torch

        with torch.inference_mode():
            current = torch.from_numpy(np.ascontiguousarray(spikes.swapaxes(0, 1))).to(self.device)
            outputs = [(layer > 0).cpu().numpy().swapaxes(0, 1) for layer in self._core(current)]
        return counts_of(tuple(outputs), rasters)


class TorchBackend(Backend):
    """Float execution.

    Args:
        device: auto, cpu or cuda. bf16: run the matrix products in BF16.
        weights: `trained` are those before quantization, where the policy carries them; `graph` those of the NIR graph.
    """

    name = "torch"
    summary = "the policy as trained, float32 or BF16, on CPU or CUDA"
    exactness = "float"

    def __init__(self, device: str = "auto", bf16: bool = False, weights: str = "trained") -> None:
        if device not in DEVICES:
            raise unknown("device", device, DEVICES)
        if weights not in WEIGHTS:
            raise unknown("weights", weights, WEIGHTS)
        self.device, self.bf16, self.weights = device, bf16, weights

    def availability(self) -> Availability:
        try:
            import torch
        except ImportError as error:
            pass_on_interrupt(error)
            return Availability(False, f"torch cannot be imported: {error}", "pip install torch==2.13.0")
        where = torch.cuda.get_device_name() if torch.cuda.is_available() else "CPU"
        return Availability(True, f"torch {torch.__version__} on {where}")

    def runs(self, policy: Policy) -> str:
        kind = "BF16" if self.bf16 else "float32"
        trained = self.weights == "trained" and policy.trained is not None
        return f"{kind} weights {'as trained' if trained else 'of the NIR graph'}"

    def layer_weights(self, policy: Policy) -> tuple[NDArray[Any], ...]:
        return tuple(layer.weight for layer in self._executed(policy).layers)

    def check(self, policy: Policy) -> None:
        from training.device import choose_device

        choose_device(self.device)

    def open(self, policy: Policy, batch: int = 1) -> TorchSession:
        from training.device import choose_device

        return TorchSession(self._executed(policy), batch, choose_device(self.device), self.bf16)

    def check_graph(self, graph: nir.NIRGraph, dt: float, integers: tuple[IntegerLayer, ...] | None = None) -> None:
        from spikerl_deploy.nir_order import order_graph

        ordered = order_graph(graph, dt)
        self._run(ordered, np.zeros((1, *ordered.input_shape), dtype=np.bool_), ())

    def run_graph(
        self,
        graph: nir.NIRGraph,
        spikes: NDArray[Any],
        dt: float,
        record: Sequence[str] = (),
        integers: tuple[IntegerLayer, ...] | None = None,
    ) -> GraphRecord:
        from spikerl_deploy.nir_order import order_graph

        return self._run(order_graph(graph, dt), spikes, record)

    def _run(self, ordered: OrderedGraph, spikes: NDArray[Any], record: Sequence[str]) -> GraphRecord:
        from simulators.nir_torch import run_ordered
        from training.device import choose_device

        if self.bf16:
            raise SpikerlError("backend 'torch' runs graphs in float32, BF16 was asked for", "leave BF16 out")
        return run_ordered(ordered, spikes, record, choose_device(self.device))

    def _executed(self, policy: Policy) -> Policy:
        return policy if self.weights == "graph" else policy.as_trained()
