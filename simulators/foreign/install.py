"""Pinned installation of other projects' runtimes into this environment, without their dependencies.

Those would bring another torch of several gigabytes (through torchvision), which none of their NIR readers needs.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import importlib.util
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from spikerl_deploy.errors import SpikerlError

INSTALL_SECONDS = 600.0


@dataclass(frozen=True)
class Package:
    """A distribution in the one version whose NIR reader our rules describe, with the SHA-256 of its file on PyPI."""

    name: str
    version: str
    sha256: str


NIRTORCH = Package("nirtorch", "2.6", "c114565ce42a95c0b2763f0db1107f2c5de452a4eec593e12cac37e9716838ab")
LOGURU = Package("loguru", "0.7.3", "31a33c10c8e1e10422bfd431aeb5d351c7cf7fa671e3c4df004162264b28220c")


def install_hint(backend: str) -> str:
    """How to install what a backend needs."""
    return f"spikerl backends install {backend}"


def missing_package(packages: Sequence[Package]) -> str | None:
    """What is not installed here, or is in another version; None if all is there."""
    for package in packages:
        try:
            found = importlib.metadata.version(package.name)
        except importlib.metadata.PackageNotFoundError:
            return f"{package.name} {package.version} is not installed"
        if found != package.version:
            return f"{package.name} {found} is installed, its NIR reader is known in version {package.version}"
    return None


def install(packages: Sequence[Package], say: Callable[[str], None]) -> None:
    """Install packages with pip into the running interpreter's environment; nothing else is installed or changed.

    Args:
        say: takes progress lines.

    Raises:
        SpikerlError: pip is not there or failed (no index, no right to write).
    """
    named = [f"{package.name}=={package.version}" for package in packages]
    if importlib.util.find_spec("pip") is None:
        raise SpikerlError("this environment has no pip", f"install by its own means: {' '.join(named)}")
    say(f"installing {', '.join(named)} into {sys.prefix}, without dependencies")
    with tempfile.TemporaryDirectory(prefix="spikerl-install-") as folder:
        requirements = Path(folder) / "requirements.txt"
        lines = [f"{name} --hash=sha256:{package.sha256}\n" for name, package in zip(named, packages, strict=True)]
        requirements.write_text("".join(lines))
        command = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-input"]
        command += ["--no-deps", "--require-hashes", "--requirement", str(requirements)]
        hint = f"without a package index, install the files yourself: pip install --no-deps {' '.join(named)}"
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=INSTALL_SECONDS, check=False)
        except subprocess.TimeoutExpired:
            raise SpikerlError(f"pip did not install {named[0]} within {INSTALL_SECONDS:g} s", hint) from None
    if done.returncode != 0:
        lines = [line for line in done.stderr.splitlines() if line.upper().startswith("ERROR")]
        last = (lines or done.stderr.splitlines() or ["no output"])[-1]
        raise SpikerlError(f"pip could not install {named[0]}: {last}", hint)
    importlib.invalidate_caches()
