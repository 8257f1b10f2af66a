"""lava-dl, whose netx reader runs our files: a pinned wheel in a folder of its own, beside Lava's."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from simulators.lava.install import cache_folder

LAVA_DL_VERSION = "0.6.0"
LAVA_DL_SHA256 = "bcb448f2bb85dc0da4b4dbbbae16543d2a978c1da7279acc522ad621fc68c437"


@pytest.fixture(scope="session")
def lava_dl_folder() -> Path:
    """Folder with lava-dl's netx, installed now if it is not there; skips where the index cannot be reached."""
    target = cache_folder().parent.parent / "lava-dl" / LAVA_DL_SHA256[:16]
    if target.is_dir():
        return target
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent) as work:
        requirement, packages = Path(work) / "requirement.txt", Path(work) / "packages"
        requirement.write_text(f"lava-dl=={LAVA_DL_VERSION} --hash=sha256:{LAVA_DL_SHA256}\n")
        command = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-input"]
        command += [
            "--no-deps",
            "--ignore-requires-python",
            "--only-binary",
            ":all:",
            "--require-hashes",
            "--no-compile",
        ]
        done = subprocess.run(
            [*command, "--target", str(packages), "--requirement", str(requirement)], capture_output=True, text=True
        )
        if done.returncode != 0:
            pytest.skip(f"lava-dl {LAVA_DL_VERSION} (68 MB) cannot be installed: {done.stderr.strip()[-300:]}")
        shutil.rmtree(packages / "tests")  # 100 MB that are not used here
        shutil.rmtree(packages / "lava" / "lib" / "dl" / "slayer")
        try:
            packages.rename(target)
        except OSError:  # another process was first
            assert target.is_dir()
    return target
