"""The state of a run on the disk: whole at every moment, also while it is written, also with several ranks.

Each rank writes `STEP-rankR.pt`; when all have, rank 0 points `latest.json` at that step, and only then is the step
before it removed. A process killed at any point leaves `latest.json` pointing at files that are whole.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch

from spikerl_deploy.errors import SpikerlError
from spikerl_deploy.files import write_json
from training.checkpoint import read_torch, write_torch
from training.settings import Settings

FOLDER, POINTER = "resume", "latest.json"
FORMAT, VERSION = "spikerl-resume", 1


def replay_file(out: Path, rank: int) -> Path:
    """Where a rank's replay buffer lies."""
    return out / FOLDER / f"replay-rank{rank}.bin"


def save_state(
    out: Path, step: int, rank: int, ranks: int, settings: Settings, state: dict[str, Any], wait: Callable[[], None]
) -> None:
    """Write one rank's state; `wait` returns once all ranks have called it.

    Raises:
        SpikerlError: the disk is full or cannot be written; the state before this one stays in force.
    """
    folder = out / FOLDER
    document = {
        "format": FORMAT,
        "version": VERSION,
        "settings": json.dumps(asdict(settings)),
        "state": _to_tensors(state),
    }
    write_torch(folder / _name(step, rank), document)
    wait()
    if rank == 0:
        write_json(folder / POINTER, {"step": step, "ranks": ranks})
    wait()
    for path in folder.glob(f"*-rank{rank}.pt"):
        if path.name != _name(step, rank):
            path.unlink()


def read_settings(out: Path) -> tuple[Settings, int]:
    """Settings and number of ranks of a run that can be resumed.

    Raises:
        SpikerlError: there is no such run, or its state cannot be read.
    """
    document, pointer = _read(out, 0)
    try:
        return Settings(**json.loads(document["settings"])), int(pointer["ranks"])
    except (KeyError, TypeError, ValueError) as error:
        raise SpikerlError(f"the state in '{out / FOLDER}' has no settings: {error}", "train again") from error


def read_state(out: Path, rank: int) -> dict[str, Any]:
    """One rank's state as it was saved.

    Raises:
        SpikerlError: it is missing or cannot be read.
    """
    document, _ = _read(out, rank)
    state = document.get("state")
    parts = ("step", "total", "marks", "seconds", "carbon", "evaluated", "last")
    if not isinstance(state, dict) or not all(name in state for name in parts) or not isinstance(state["step"], int):
        raise SpikerlError(f"the state in '{out / FOLDER}' has missing parts", "restore it, or train again")
    arrays: dict[str, Any] = _to_arrays(state)
    return arrays


def _read(out: Path, rank: int) -> tuple[dict[str, Any], dict[str, int]]:
    pointer = out / FOLDER / POINTER
    if not pointer.is_file():
        start = f"start a run there: spikerl train --out {out}"
        hint = (
            start if not out.exists() else "give the folder of a run; one keeps its state there from its first step on"
        )
        raise SpikerlError(f"nothing to resume in '{out}' ({FOLDER}/{POINTER} is missing)", hint)
    try:
        where = {name: int(value) for name, value in json.loads(pointer.read_text(encoding="utf-8")).items()}
        path = out / FOLDER / _name(where["step"], rank)
    except (OSError, ValueError, KeyError, AttributeError, TypeError) as error:
        raise SpikerlError(f"'{pointer}' cannot be read: {error}", "train again") from error
    if not path.is_file():
        raise SpikerlError(f"'{path}' is missing, though '{pointer.name}' points at it", "restore it, or train again")
    return read_torch(path, FORMAT, VERSION, "train again"), where


def _name(step: int, rank: int) -> str:
    return f"{step:012d}-rank{rank}.pt"


def _to_tensors(value: Any) -> Any:
    """NumPy arrays as marked tensors: what is loaded without executing anything are tensors and plain values."""
    if isinstance(value, np.ndarray):
        return {"__array__": torch.from_numpy(np.ascontiguousarray(value)), "shape": list(value.shape)}
    if isinstance(value, dict):
        return {key: _to_tensors(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_to_tensors(item) for item in value]
    return value.item() if isinstance(value, np.generic) else value


def _to_arrays(value: Any) -> Any:
    if isinstance(value, dict):
        if "__array__" in value:
            return value["__array__"].numpy().reshape(value["shape"])
        return {key: _to_arrays(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_to_arrays(item) for item in value]
    return value
