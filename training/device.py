"""Choice of the device, for training and for the torch backend; whether to compile for it."""

from __future__ import annotations

import importlib.util
import os
import shutil

import torch

from spikerl_deploy.errors import SpikerlError
from spikerl_deploy.processor import has_bf16
from training.settings import Settings

COMPILE_FROM = 100_000  # updates; compiled ones are some 3 ms shorter, so these save five minutes


def choose_device(name: str, local_rank: int = 0) -> torch.device:
    """Device by setting; `auto` takes CUDA where there is one, and of several the one of this rank.

    Raises:
        SpikerlError: CUDA was asked for and is not there.
    """
    available = torch.cuda.is_available()
    if name == "cuda" and not available:
        raise SpikerlError("device 'cuda' asked for, torch finds none", "use --device cpu, or see: spikerl doctor")
    if name == "cpu" or not available:
        return torch.device("cpu")
    if local_rank >= torch.cuda.device_count():
        raise SpikerlError(
            f"rank {local_rank} of this machine has no GPU of its own, there are {torch.cuda.device_count()}",
            "start as many ranks as GPUs, or use --device cpu",
        )
    device = torch.device("cuda", local_rank)
    torch.cuda.set_device(device)
    return device


def bf16_in_hardware(device: torch.device) -> bool | None:
    """Whether a device multiplies BF16 in hardware; None where it is not known. Emulated, it is slower than float32."""
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))  # the current device: choose_device set it
    return has_bf16()


def wants_compiling(settings: Settings, device: torch.device, ranks: int) -> bool:
    """Whether the update is compiled: as set, and with `auto` where its 20 to 40 seconds come back many times over.

    Raises:
        SpikerlError: it is asked for, and there is no compiler.
    """
    if settings.compile == "off":
        return False
    compiler = os.environ.get("CXX", "g++")
    missing = shutil.which(compiler) is None if device.type == "cpu" else importlib.util.find_spec("triton") is None
    if settings.compile == "on" and missing:
        what = f"the C++ compiler '{compiler}'" if device.type == "cpu" else "triton"
        raise SpikerlError(
            f"--compile needs {what}, which is not there", "install it (apt-get install g++), or --no-compile"
        )
    updates = settings.steps / ranks * settings.update_to_data
    return settings.compile == "on" or (updates >= COMPILE_FROM and not missing)
