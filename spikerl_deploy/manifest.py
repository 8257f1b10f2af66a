"""Provenance of an artefact: what made it, from what, with which versions."""

from __future__ import annotations

import platform
import sys
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from spikerl_deploy._version import __version__
from spikerl_deploy.files import sha256_file

if TYPE_CHECKING:
    from spikerl_deploy.policy import Policy

RECORDED_PACKAGES = ("torch", "numpy", "gymnasium", "mujoco", "nir", "snntorch", "h5py", "codecarbon")


def package_versions() -> dict[str, str]:
    """Versions of the packages that decide a result, by distribution name."""
    found = {"spikerl-deploy": __version__, "python": platform.python_version()}
    for name in RECORDED_PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def build_manifest(seed: int | None = None, made_from: dict[str, Path] | None = None) -> dict[str, Any]:
    """Manifest of an artefact that the running command is about to write.

    Args:
        seed: the seed that decides the artefact, if one does.
        made_from: role -> input file; recorded by name and SHA-256, never by path.
    """
    return {
        "command": ["spikerl", *sys.argv[1:]],
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "seed": seed,
        "versions": package_versions(),
        "machine": {"system": platform.system(), "architecture": platform.machine()},
        "made_from": {
            role: {"name": path.name, "sha256": sha256_file(path)} for role, path in (made_from or {}).items()
        },
    }


def identify_policy(policy: Policy, policy_file: Path) -> dict[str, Any]:
    """Which policy a document is about: its file by name and SHA-256, its shape and its bits."""
    return {
        "file": policy_file.name,
        "sha256": sha256_file(policy_file),
        "sizes": list(policy.sizes),
        "time_steps": policy.time_steps,
        "bits": policy.bits,
    }
