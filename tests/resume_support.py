"""A run to be interrupted and resumed, and what the tests do to its files in between."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from training_support import HOPPER

# Contacts, a buffer that wraps, a state every 40 steps: what is hardest to take up again.
HOPPING: dict[str, Any] = {
    "env": HOPPER, "steps": 480, "start_steps": 30, "update_after": 40, "eval_every": 80, "eval_episodes": 1,
    "checkpoint_every": 40, "buffer_size": 100,
}  # fmt: skip


def cut(path: Path, length: float) -> None:
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * length)])


def edit_state(path: Path, **parts: Any) -> None:
    document = torch.load(path, weights_only=True)
    for name, value in parts.items():
        where = document if name in document else document["state"]
        if value is None:
            del where[name]
        else:
            where[name] = value
    torch.save(document, path)


def state_file(run: Path) -> Path:
    (path,) = (run / "resume").glob("0*-rank0.pt")
    return path
