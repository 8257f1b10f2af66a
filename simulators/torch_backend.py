"""The `torch` backend: the policy as trained, in float32 or BF16, on CPU or CUDA. The baseline of comparisons."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import nir
import numpy as np
from numpy.typing import NDArray

from simulators.protocol import Availability, Backend, GraphRecord, Session, SpikeRecord, counts_of
from spikerl_deploy.codec import Spikes
from spikerl_deploy.errors import SpikerlError, unknown
from spikerl_deploy.loihi import IntegerLayer
from spikerl_deploy.policy import Policy

if TYPE_CHECKING:
    import torch

    from spikerl_deploy.nir_order import OrderedGraph

DEVICES = ("auto", "cpu", "cuda")
WEIGHTS = ("trained", "graph")


class TorchSession(Session):
    """The float core in torch, without gradients, through the function that training uses."""

    def __init__(self, policy: Policy, batch: int, device: torch.device, bf16: bool) -> None:
        import torch

        from training.lif import lif_sequence
        from training.surrogate import make_surrogate

        super().__init__(policy, batch)
        self._torch, self._lif, self._slope = torch, lif_sequence, make_surrogate("rectangular", 0.5)
        self.device, self.bf16 = device, bf16
        self.layers = [
            (torch.tensor(layer.weight, device=device), torch.tensor(layer.bias, device=device), layer)
            for layer in policy.layers
        ]

    def _infer(self, spikes: Spikes, rasters: bool) -> SpikeRecord:
        torch = self._torch
        with torch.inference_mode(), torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=self.bf16):
            current = torch.from_numpy(np.ascontiguousarray(spikes.swapaxes(0, 1))).to(self.device).float()
            outputs = []
            for weight, bias, layer in self.layers:
                drive = torch.nn.functional.linear(current, weight, bias)
                current = self._lif(drive, layer.current_decay, layer.voltage_decay, layer.v_threshold, self._slope)
                outputs.append((current > 0).cpu().numpy().swapaxes(0, 1))
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
