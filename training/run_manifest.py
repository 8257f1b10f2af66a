"""Manifests of a run: of its start and of each time that it went on, with the code, the machine, threads and ranks."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from spikerl_deploy.errors import SpikerlError
from spikerl_deploy.files import write_json
from spikerl_deploy.manifest import build_manifest
from spikerl_deploy.processor import processor
from training.settings import Settings

STARTED, RESUMED = "manifest.json", "manifest-resumed.json"
DIGITS = 12  # of the hash: enough to tell states of the code apart


def trainer_code() -> str:
    """Start of the SHA-256 of this package's modules: two states of the code may have one version."""
    digest = hashlib.sha256()
    for path in sorted(Path(__file__).parent.glob("*.py")):
        digest.update(b"%s\0%s\0" % (path.name.encode(), path.read_bytes()))
    return digest.hexdigest()[:DIGITS]


def write_manifest(out: Path, settings: Settings, ranks: int = 1, resumed_at: int | None = None) -> None:
    """Write the manifest of a run that starts, or add that of one that goes on from a step.

    `manifest-resumed.json` is the manifest of the last stretch, with those of the stretches between it and the start
    in `earlier`, and the `step` that each went on from. The version of spikerl-deploy has the trainer's code behind a
    plus sign.

    Raises:
        SpikerlError: what is there already cannot be read.
    """
    manifest = build_manifest(settings.seed)
    manifest["versions"]["spikerl-deploy"] += f"+{trainer_code()}"
    manifest["machine"] |= {"processor": processor(), "threads": str(settings.threads)}
    if ranks > 1:
        manifest["machine"]["ranks"] = str(ranks)
    if resumed_at is None:
        write_json(out / STARTED, manifest)
        return
    last = _read(out / RESUMED)
    before = [*last.pop("earlier", []), last] if last else []
    earlier = [one for one in before if one.get("step", 0) < resumed_at]  # without those that came to no new state
    write_json(out / RESUMED, {**manifest, "step": resumed_at, "earlier": earlier})


def _read(path: Path) -> dict[str, Any]:
    if not path.is_file():
        return {}
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(document, dict) or not isinstance(document.get("earlier", []), list):
            raise ValueError("no manifest")
    except (OSError, ValueError, RecursionError) as error:
        raise SpikerlError(f"cannot read '{path}': {error}", "restore it, or remove it to go on without it") from error
    return document
