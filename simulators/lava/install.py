"""Installs the hash-pinned Lava wheel, and only that, into a private folder of the user's cache.

The wheel's own pins (CPython 3.10, numpy < 2) are past their time; `compat` says why it runs all the same.
What it imports (scipy, networkx, asteval, scikit-learn) are ordinary dependencies of ours.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from spikerl_deploy.errors import SpikerlError
from spikerl_deploy.files import sha256_file

LAVA_VERSION = "0.10.0"
WHEEL_SHA256 = "d646723e888a72868dac77d31beee3eef1f540366a8c1a8578a2dc3302470926"
CACHE_VARIABLE = "SPIKERL_CACHE_DIR"
INSTALL_SECONDS = 600.0
INSTALL_HINT = "spikerl backends install lava"
_COMPLETE = ".complete"  # written last: a folder without it is not trusted


def cache_folder() -> Path:
    """Where Lava lies or will lie: named by the wheel's hash, below SPIKERL_CACHE_DIR or the user's cache."""
    base = os.environ.get(CACHE_VARIABLE)
    user_cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return (Path(base) if base else user_cache / "spikerl") / "lava" / WHEEL_SHA256[:16]


def installed_folder() -> Path | None:
    """The folder of a complete installation, or None."""
    folder = cache_folder()
    return folder if (folder / _COMPLETE).is_file() else None


def ensure_installed(allowed: bool, wheel: Path | None, say: Callable[[str], None]) -> Path:
    """Folder with Lava, installed now if it is not there and that is allowed.

    Raises:
        SpikerlError: it is not there and may not be installed, or the installation failed.
    """
    folder = installed_folder()
    if folder is not None:
        return folder
    if not allowed:
        raise not_installed()
    return install(wheel, say)


def not_installed() -> SpikerlError:
    """Error for Lava that is not here and may not be installed."""
    return SpikerlError("Lava is not installed and --no-install was given", INSTALL_HINT)


def install(wheel: Path | None = None, say: Callable[[str], None] = lambda _: None) -> Path:
    """Install the wheel with pip, from the index or from a file.

    Args:
        wheel: the wheel as a local file, for machines without a package index.
        say: takes progress lines.

    Raises:
        SpikerlError: the file is missing or another one, pip cannot be had, or pip failed.
    """
    if wheel is not None:
        check_wheel(wheel)
    target = cache_folder()
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        work = Path(tempfile.mkdtemp(prefix=".installing-", dir=target.parent))
    except OSError as error:
        raise SpikerlError(
            f"cannot write the cache folder '{target.parent}': {error.strerror}",
            f"set {CACHE_VARIABLE} to a writable one",
        ) from error
    try:
        say(f"installing lava-nc {LAVA_VERSION} (8 MB, once) into {target}")
        _run_pip(work, wheel)
        shutil.rmtree(work / "packages" / "tests", ignore_errors=True)  # the wheel ships its tests
        packages = work / "packages"
        (packages / _COMPLETE).write_text(f"lava-nc {LAVA_VERSION} sha256:{WHEEL_SHA256}\n")
        try:
            packages.rename(target)
        except OSError:  # another process was first, or an incomplete folder lies there
            if installed_folder() is None:
                shutil.rmtree(target)
                packages.rename(target)
    finally:
        shutil.rmtree(work, ignore_errors=True)
    return target


def check_wheel(wheel: Path) -> None:
    """Refuse a file that is not the pinned wheel.

    Raises:
        SpikerlError: no such file, or another hash.
    """
    if not wheel.is_file():
        raise SpikerlError(f"no wheel at '{wheel}'", f"pip download --no-deps lava-nc=={LAVA_VERSION} gets it")
    found = sha256_file(wheel)
    if found != WHEEL_SHA256:
        raise SpikerlError(
            f"'{wheel}' has SHA-256 {found[:16]}..., lava-nc {LAVA_VERSION} has {WHEEL_SHA256[:16]}...",
            f"pip download --no-deps --ignore-requires-python lava-nc=={LAVA_VERSION}",
        )


def _run_pip(work: Path, wheel: Path | None) -> None:
    requirement = work / "requirement.txt"
    source = f"lava-nc=={LAVA_VERSION}" if wheel is None else f"lava-nc @ {wheel.resolve().as_uri()}"
    requirement.write_text(f"{source} --hash=sha256:{WHEEL_SHA256}\n")
    command, environment = _pip_command(work)
    command += ["install", "--quiet", "--disable-pip-version-check", "--no-input", "--no-deps"]
    command += ["--ignore-requires-python", "--only-binary", ":all:", "--require-hashes", "--no-compile"]
    command += ["--target", str(work / "packages"), "--requirement", str(requirement)]
    if wheel is not None:
        command.append("--no-index")
    try:
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=INSTALL_SECONDS)
    except subprocess.TimeoutExpired:
        raise SpikerlError(f"pip did not install Lava within {INSTALL_SECONDS:g} s", _offline_hint()) from None
    if done.returncode != 0:
        lines = [line for line in done.stderr.splitlines() if line.startswith("ERROR")] or done.stderr.splitlines()
        raise SpikerlError(f"pip could not install Lava: {lines[-1] if lines else 'no output'}", _offline_hint())


def _offline_hint() -> str:
    return f"without a package index, give the file: {INSTALL_HINT} --wheel lava_nc-{LAVA_VERSION}-py3-none-any.whl"


def _pip_command(work: Path) -> tuple[list[str], dict[str, str]]:
    """This interpreter's pip; where it has none (as in uv's environments), the one that Python carries along."""
    if importlib.util.find_spec("pip") is not None:
        return [sys.executable, "-m", "pip"], dict(os.environ)
    bootstrap = work / "pip"
    done = subprocess.run(
        [sys.executable, "-m", "ensurepip", "--root", str(bootstrap)], capture_output=True, text=True, timeout=120
    )
    found = sorted(bootstrap.rglob("pip/__main__.py"))
    if done.returncode != 0 or not found:
        raise SpikerlError("this Python has neither pip nor ensurepip, one is needed to install Lava", "install pip")
    return [sys.executable, "-m", "pip"], os.environ | {"PYTHONPATH": str(found[0].parent.parent)}
