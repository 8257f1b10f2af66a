"""Checkpoints of a policy: what a run keeps to be exported or looked at, loaded without executing anything."""

from __future__ import annotations

import io
import json
import pickle
import zipfile
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from spikerl_deploy.errors import SpikerlError
from spikerl_deploy.files import atomic_path
from spikerl_deploy.policy import Normalization, Policy
from training.actor import Actor, Spaces, SpikingActor
from training.settings import Settings
from training.stacked import generators_of

FORMAT, VERSION = "spikerl-checkpoint", 2
# What torch.load can raise on a file that is truncated, damaged, foreign or hostile.
_READ_ERRORS = (
    *(pickle.UnpicklingError, zipfile.BadZipFile, RuntimeError, EOFError, OSError),
    *(ValueError, KeyError, IndexError, TypeError, AttributeError),
)


@dataclass(frozen=True)
class Progress:
    """Where a run stands: environment steps done, updates done, and the last evaluation's mean return."""

    step: int
    updates: int
    eval_return: float | None


def save_checkpoint(
    path: Path,
    actor: Actor,
    normalization: Normalization,
    settings: Settings,
    progress: Progress,
    index: int = 0,
) -> None:
    """Write one seed's policy atomically, the seed given by its place: actor, statistics, settings, counters."""
    spaces = actor.spaces
    document = {
        "format": FORMAT,
        "version": VERSION,
        "settings": json.dumps(asdict(settings)),
        "spaces": {
            "obs_dim": spaces.obs_dim,
            "action_low": torch.from_numpy(np.array(spaces.action_low)),
            "action_high": torch.from_numpy(np.array(spaces.action_high)),
        },
        "progress": asdict(progress),
        "normalizer": {"mean": torch.tensor(normalization.mean), "std": torch.tensor(normalization.std)},
        "actor": {name: value[index : index + 1].detach().cpu().clone() for name, value in actor.state_dict().items()},
    }
    write_torch(path, document)


def write_torch(path: Path, document: dict[str, Any]) -> None:
    """Write a document atomically in torch's format."""
    buffer = io.BytesIO()
    torch.save(document, buffer)
    with atomic_path(path) as temporary:
        temporary.write_bytes(buffer.getbuffer())


def read_torch(path: Path, kind: str, version: int, hint: str) -> dict[str, Any]:
    """Read a document of a kind and version without executing anything in it.

    Raises:
        SpikerlError: the file is truncated, of another kind or of another version.
    """
    try:
        document = torch.load(path, map_location="cpu", weights_only=True)
    except _READ_ERRORS as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise SpikerlError(
            f"'{path}' is not a checkpoint that can be read: {reason}", f"it may be truncated or foreign; {hint}"
        ) from error
    if not isinstance(document, dict) or document.get("format") != kind:
        raise SpikerlError(f"'{path}' is a torch file, but no spikerl checkpoint", "give a run folder of spikerl train")
    if document.get("version") != version:
        raise SpikerlError(
            f"'{path}' has checkpoint version {document.get('version')}, this is {version}",
            "install the matching spikerl",
        )
    return document


def load_checkpoint(path: Path) -> dict[str, Any]:
    """Read and check a checkpoint.

    Raises:
        SpikerlError: the file is missing, truncated, of another kind or of a newer version.
    """
    if not path.is_file():
        raise SpikerlError(f"no checkpoint at '{path}'", "train one: spikerl train --out RUN")
    return read_torch(path, FORMAT, VERSION, "train again")


def policy_of(path: Path) -> Policy:
    """The float policy that a checkpoint holds.

    Raises:
        SpikerlError: as `load_checkpoint`, its actor is none that a chip could run, or its parts do not fit together.
    """
    document = load_checkpoint(path)
    try:
        stored, progress = json.loads(document["settings"]), dict(document["progress"])
        settings = Settings(**stored)
        if settings.undeployable is not None:
            raise SpikerlError(
                f"'{path}': {settings.undeployable}", "its returns: spikerl report RUN; to deploy, train a spiking one"
            )
        spaces = document["spaces"]
        shape = Spaces(spaces["obs_dim"], spaces["action_low"].numpy(), spaces["action_high"].numpy())
        actor = SpikingActor(shape, settings, generators_of([0]))
        actor.load_state_dict(document["actor"])
        moments = document["normalizer"]
        normalization = Normalization(moments["mean"].numpy(), moments["std"].numpy(), settings.observation_clip)
    except (KeyError, TypeError, ValueError, RuntimeError, AttributeError) as error:
        reason = " ".join(str(error).split())
        raise SpikerlError(f"checkpoint '{path}' has missing or misshapen parts: {reason}", "train again") from error
    provenance = {"settings": stored, "progress": progress, "checkpoint": path.name}
    return replace(actor.to_policy(normalization, settings.env), provenance=provenance)
