"""The ranks of a run: who they are, what they average, what they exchange. One rank needs no process group."""

from __future__ import annotations

import datetime
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor

from spikerl_deploy.errors import RankLost, SpikerlError

PATIENCE = datetime.timedelta(minutes=10)  # a rank that answers no longer is given up; evaluations take seconds
DEFAULT_PORT = "29500"  # torchrun's
# Rank, size and local rank as launchers put them into the environment.
LAUNCHERS = {
    "torchrun": ("RANK", "WORLD_SIZE", "LOCAL_RANK"),
    "Open MPI": ("OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE", "OMPI_COMM_WORLD_LOCAL_RANK"),
    "MPICH": ("PMI_RANK", "PMI_SIZE", "MPI_LOCALRANKID"),
    "Slurm": ("SLURM_PROCID", "SLURM_NTASKS", "SLURM_LOCALID"),
}
LOCAL_SIZES = ("OMPI_COMM_WORLD_LOCAL_SIZE", "MPI_LOCALNRANKS", "SLURM_NTASKS_PER_NODE")


@dataclass(frozen=True)
class Place:
    """Where this process stands among all: its rank, their number, its number on this machine, and who told."""

    rank: int = 0
    size: int = 1
    local_rank: int = 0
    launcher: str = ""


def find_place(environment: Mapping[str, str]) -> Place:
    """Read the place from the variables of torchrun, mpirun or srun.

    Raises:
        SpikerlError: a variable is not a number, or rank and size contradict each other.
    """
    for launcher, names in LAUNCHERS.items():
        rank, size, local = (environment.get(name) for name in names)
        if rank is None or size is None:
            continue
        if launcher == "Slurm" and "SLURM_STEP_ID" not in environment:
            continue  # inside an allocation, but not started by srun
        try:
            place = Place(int(rank), int(size), int(local if local is not None else rank), launcher)
        except ValueError:
            raise SpikerlError(
                f"{names[0]}={rank!r} and {names[1]}={size!r} are no rank and size", "unset them"
            ) from None
        if not 0 <= place.rank < place.size:
            raise SpikerlError(f"{names[0]}={rank} is no rank below {names[1]}={size}", "unset them, or use torchrun")
        return place
    return Place()


class Group:
    """The ranks of this run. Every method is a plain no-op or copy where there is one."""

    def __init__(self, place: Place, device: torch.device, backend: str = "auto") -> None:
        """Join the others.

        Raises:
            SpikerlError: torch lacks the backend, or the others cannot be reached.
        """
        self.rank, self.size, self.device = place.rank, place.size, device
        self.backend = None
        self._host: dist.ProcessGroup | None = None
        if self.size == 1:
            return
        self.backend = ("nccl" if device.type == "cuda" else "gloo") if backend == "auto" else backend
        check_backend(self.backend, device)
        if self.backend != "mpi":  # MPI knows its ranks by itself
            _meet(place, os.environ)
        try:
            dist.init_process_group(
                self.backend, rank=place.rank, world_size=place.size, timeout=PATIENCE, init_method="env://"
            )
        except (RuntimeError, ValueError) as error:
            where = f"{os.environ.get('MASTER_ADDR')}:{os.environ.get('MASTER_PORT')}"
            raise SpikerlError(
                f"rank {place.rank} cannot join {place.size} ranks at {where}: {_first_line(error)}",
                "check MASTER_ADDR and MASTER_PORT, or use --ranks N or torchrun, which set them",
            ) from error
        if self.backend == "nccl" and dist.is_gloo_available():
            self._host = dist.new_group(backend="gloo")  # small messages that wait for no GPU

    def average(self, tensors: list[Tensor]) -> None:
        """Mean over ranks of each tensor, in place, in one message."""
        flat = torch.cat([tensor.reshape(-1) for tensor in tensors])
        with _others(self.rank):
            dist.all_reduce(flat)
        flat /= self.size
        parts = flat.split([tensor.numel() for tensor in tensors])
        torch._foreach_copy_(tensors, [part.view_as(tensor) for part, tensor in zip(parts, tensors, strict=True)])

    def exchange(self, values: np.ndarray) -> list[np.ndarray]:
        """The float64 vectors of all ranks, in their order; small ones of equal length."""
        if self.size == 1:
            return [values]
        on_device = self.backend == "nccl" and self._host is None
        mine = torch.from_numpy(values).to(self.device if on_device else "cpu")
        everyone = [torch.empty_like(mine) for _ in range(self.size)]
        with _others(self.rank):
            dist.all_gather(everyone, mine, group=self._host)
        return [tensor.cpu().numpy() for tensor in everyone]

    def share(self, tensors: Sequence[Tensor]) -> None:
        """Give rank 0's tensors to all, in place."""
        if self.size > 1:
            for tensor in tensors:
                dist.broadcast(tensor.detach(), 0)

    def wait(self) -> None:
        """Go on when all have come here."""
        if self.size > 1:
            self.exchange(np.zeros(1))  # NCCL's barrier guesses a device; this uses the right one

    def leave(self) -> None:
        if self.size > 1 and dist.is_initialized():
            dist.destroy_process_group()


@contextmanager
def _others(rank: int) -> Iterator[None]:
    """Turn the loss of another rank into one line."""
    try:
        yield
    except RuntimeError as error:
        raise RankLost(
            f"rank {rank} lost another rank: {_first_line(error).partition('. This is')[0]}",
            "see what that rank said; then: spikerl train --resume RUN",
        ) from error


def check_backend(backend: str, device: torch.device) -> None:
    """Refuse a backend that this torch does not have.

    Raises:
        SpikerlError: it is missing, or cannot carry the device's tensors.
    """
    there: dict[str, bool] = {
        "gloo": dist.is_gloo_available(), "nccl": dist.is_nccl_available(), "mpi": dist.is_mpi_available()
    }  # fmt: skip
    if not there[backend]:
        have = ", ".join(name for name, available in there.items() if available)
        hint = "use --dist-backend auto" + ("; mpirun works with it" if backend == "mpi" else "")
        raise SpikerlError(f"torch {torch.__version__} has no '{backend}' backend, only {have}", hint)
    if backend == "nccl" and device.type != "cuda":
        raise SpikerlError("--dist-backend nccl needs CUDA, the device is the CPU", "use --dist-backend auto")


def _meet(place: Place, environment: Any) -> None:
    """Complete the variables by which the ranks find each other, for launchers that do not set them."""
    if place.launcher != "torchrun" and "MASTER_ADDR" not in environment:
        local = next((environment[name] for name in LOCAL_SIZES if name in environment), str(place.size))
        if local != str(place.size):
            raise SpikerlError(
                f"{place.size} ranks on several machines, and no MASTER_ADDR to meet at",
                "export MASTER_ADDR=HOST of rank 0 (mpirun -x MASTER_ADDR), or use torchrun",
            )
    environment.setdefault("MASTER_ADDR", "127.0.0.1")
    environment.setdefault("MASTER_PORT", DEFAULT_PORT)


def _first_line(error: Exception) -> str:
    return str(error).splitlines()[0] if str(error) else type(error).__name__
