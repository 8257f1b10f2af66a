"""Choice of the device, for training and for the torch backend."""

from __future__ import annotations

import torch

from spikerl_deploy.errors import SpikerlError


def choose_device(name: str) -> torch.device:
    """Device by setting; `auto` takes CUDA where there is one.

    Raises:
        SpikerlError: CUDA was asked for and is not there.
    """
    available = torch.cuda.is_available()
    if name == "cuda" and not available:
        raise SpikerlError("device 'cuda' asked for, torch finds none", "use --device cpu, or see: spikerl doctor")
    return torch.device("cuda" if name in ("auto", "cuda") and available else "cpu")
