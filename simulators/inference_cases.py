"""What `spikerl measure` measures: the rows that a machine can run, and how long each takes."""

from __future__ import annotations

import importlib.util
import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass

from spikerl_deploy.errors import SpikerlError, unknown

ALL = "all-available"
DEVICES = ("cpu", "cuda", ALL)
MODES = {"cpu": ("eager", "compiled"), "cuda": ("eager", "cuda-graph", "compiled")}
DEFAULT_MODES = {"cpu": ("eager",), "cuda": ("eager", "cuda-graph")}
SPIKING, DENSE = "spiking policy", "dense ANN"
GOOD_WINDOW_S = 10.0  # NVML's counter moves every 0.1 s, so this reads it to about 1 %
WARM_UP_S, SETTLE_S, LATENCY_S = 1.0, 2.0, 0.5  # before a row, before the idle window at the end, after a row


@dataclass(frozen=True)
class Case:
    """A row to measure."""

    workload: str
    device: str
    mode: str
    batch: int
    bf16: bool

    @property
    def dtype(self) -> str:
        return "bfloat16" if self.bf16 else "float32"

    def __str__(self) -> str:
        return f"{self.workload}, {self.device} {self.mode}, batch {self.batch}, {self.dtype}"


@dataclass(frozen=True)
class Timing:
    """How long to measure: seconds a window, windows a row, and torch's threads on the CPU."""

    window_s: float = GOOD_WINDOW_S
    repeats: int = 3
    threads: int = 1

    def seconds(self, cases: Sequence[Case]) -> float:
        """About how long the cases take, compiling left out."""
        devices = len({case.device for case in cases})
        return devices * (2 * self.window_s + SETTLE_S) + len(cases) * (
            self.repeats * self.window_s + WARM_UP_S + LATENCY_S
        )


def choose_cases(device: str, modes: Sequence[str], batches: Sequence[int], bf16: bool) -> tuple[list[Case], list[str]]:
    """The rows to measure here, and in words what was asked for and is left out.

    Args:
        modes: of `MODES`; none takes eager, and on CUDA CUDA graphs too.

    Raises:
        SpikerlError: an unknown device or mode, one that this machine lacks, or nothing is left to measure.
    """
    import torch

    if device not in DEVICES:
        raise unknown("device", device, DEVICES)
    for mode in modes:
        if mode not in MODES["cuda"]:
            raise unknown("mode", mode, MODES["cuda"])
    has_cuda = torch.cuda.is_available()
    if device == "cuda" and not has_cuda:
        raise SpikerlError("device 'cuda' asked for, torch finds none", "use --device cpu, or see: spikerl doctor")
    left_out = ["device cuda is left out: torch finds none"] if device == ALL and not has_cuda else []
    devices = [device] if device != ALL else ["cpu", "cuda"] if has_cuda else ["cpu"]
    cases = []
    for here in devices:
        fitting = [mode for mode in modes or DEFAULT_MODES[here] if mode in MODES[here]]
        unfit = [mode for mode in modes if mode not in MODES[here]]
        if unfit and device != ALL:
            raise SpikerlError(f"mode '{unfit[0]}' does not run on {device}", "leave it out")
        left_out += [f"mode {mode} is left out on {here}" for mode in unfit]
        if "compiled" in fitting:
            _need_compiler(here)
        kinds = [False, True] if bf16 else [False]
        cases += [
            Case(workload, here, mode, batch, kind)
            for kind in kinds for mode in dict.fromkeys(fitting)
            for batch in dict.fromkeys(batches) for workload in (SPIKING, DENSE)
        ]  # fmt: skip
    if not cases:
        raise SpikerlError(f"nothing to measure: {'; '.join(left_out)}", "add --mode eager")
    return cases, left_out


def _need_compiler(device: str) -> None:
    compiler = os.environ.get("CXX", "g++")
    missing = shutil.which(compiler) is None if device == "cpu" else importlib.util.find_spec("triton") is None
    if missing:
        what = f"the C++ compiler '{compiler}'" if device == "cpu" else "triton"
        raise SpikerlError(f"mode 'compiled' on {device} needs {what}, which is not there", "leave --mode compiled out")
