"""The `torch` backend: the policy as trained, in float32 or BF16, on CPU or CUDA. The baseline of comparisons."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from simulators.protocol import Availability, Backend, Session, SpikeRecord, counts_of
from spikerl_deploy.codec import Spikes
from spikerl_deploy.errors import unknown
from spikerl_deploy.policy import Policy

if TYPE_CHECKING:
    import torch

DEVICES = ("auto", "cpu", "cuda")


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
    """Float execution. `device` is auto, cpu or cuda; `bf16` runs the matrix products in BF16."""

    name = "torch"
    summary = "the policy as trained, float32 or BF16, on CPU or CUDA"
    exactness = "float"

    def __init__(self, device: str = "auto", bf16: bool = False) -> None:
        if device not in DEVICES:
            raise unknown("device", device, DEVICES)
        self.device, self.bf16 = device, bf16

    def availability(self) -> Availability:
        try:
            import torch
        except ImportError as error:
            return Availability(False, f"torch cannot be imported: {error}", "pip install torch==2.13.0")
        where = torch.cuda.get_device_name() if torch.cuda.is_available() else "CPU"
        return Availability(True, f"torch {torch.__version__} on {where}")

    def runs(self, policy: Policy) -> str:
        kind = "BF16" if self.bf16 else "float32"
        return f"{kind} weights {'as trained' if policy.trained is not None else 'of the NIR graph'}"

    def layer_weights(self, policy: Policy) -> tuple[NDArray[Any], ...]:
        return tuple(layer.weight for layer in policy.as_trained().layers)

    def check(self, policy: Policy) -> None:
        from training.device import choose_device

        choose_device(self.device)

    def open(self, policy: Policy, batch: int = 1) -> TorchSession:
        from training.device import choose_device

        return TorchSession(policy.as_trained(), batch, choose_device(self.device), self.bf16)
