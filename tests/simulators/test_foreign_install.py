"""Installation of other projects' runtimes: pinned by version and hash, and nothing that they depend on."""

from __future__ import annotations

import hashlib
import os
import zipfile
from pathlib import Path

import pytest
from foreign_support import RUNTIMES, installed
from support import run_cli, run_here

from simulators.foreign.backend import ForeignBackend
from simulators.foreign.install import Package, install, missing_package
from simulators.registry import make_backend
from spikerl_deploy.errors import SpikerlError

OFFLINE = {
    "PIP_INDEX_URL": "http://127.0.0.1:9/simple",
    "PIP_EXTRA_INDEX_URL": "",
    "PIP_FIND_LINKS": "",
    "PIP_CONFIG_FILE": os.devnull,
    "PIP_RETRIES": "0",
    "PIP_NO_CACHE_DIR": "1",
}


@pytest.fixture
def runtime(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Package:
    """A distribution on the only index there is, which wants another torch; pip installs into `tmp_path / target`."""
    wheel = tmp_path / "index" / "toyruntime-1.0-py3-none-any.whl"
    wheel.parent.mkdir()
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr("toyruntime.py", "")
        information = "toyruntime-1.0.dist-info"
        archive.writestr(
            f"{information}/METADATA",
            "Metadata-Version: 2.1\nName: toyruntime\nVersion: 1.0\nRequires-Dist: torch==0.1\n",
        )
        archive.writestr(f"{information}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        archive.writestr(f"{information}/RECORD", f"toyruntime.py,,\n{information}/RECORD,,\n")
    for name, value in OFFLINE.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(wheel.parent))
    monkeypatch.setenv("PIP_TARGET", str(tmp_path / "target"))
    return Package("toyruntime", "1.0", hashlib.sha256(wheel.read_bytes()).hexdigest())


def test_the_pinned_file_is_installed_and_no_dependency(runtime: Package, tmp_path: Path) -> None:
    said: list[str] = []
    install([runtime], said.append)
    assert sorted(p.name for p in (tmp_path / "target").iterdir() if p.name != "__pycache__") == [
        "toyruntime-1.0.dist-info",
        "toyruntime.py",
    ]
    assert "toyruntime==1.0" in said[0]
    assert "without dependencies" in said[0]


@pytest.mark.parametrize(("version", "sha256"), [("1.0", "0" * 64), ("1.1", None)])
def test_another_file_or_version_is_refused(runtime: Package, tmp_path: Path, version: str, sha256: str | None) -> None:
    with pytest.raises(SpikerlError, match=f"pip could not install toyruntime=={version}: ") as caught:
        install([Package("toyruntime", version, sha256 or runtime.sha256)], print)
    assert "\n" not in caught.value.message
    assert caught.value.hint is not None
    assert f"pip install --no-deps toyruntime=={version}" in caught.value.hint
    assert not (tmp_path / "target").exists()


def test_versions_are_told_apart() -> None:
    assert missing_package([]) is None
    assert missing_package([Package("no-such-thing", "1.0", "")]) == "no-such-thing 1.0 is not installed"
    found = missing_package([Package("numpy", "0.1", "")])
    assert found is not None
    assert "is installed, its NIR reader is known in version 0.1" in found


@pytest.mark.parametrize("name", RUNTIMES)
def test_every_runtime_names_its_files(name: str) -> None:
    backend = make_backend(name)
    assert isinstance(backend, ForeignBackend)
    assert backend.packages[0].name == name
    assert "torch" not in {package.name for package in backend.packages}
    assert all(len(bytes.fromhex(package.sha256)) == 32 for package in backend.packages)


@pytest.mark.parametrize("name", RUNTIMES)
def test_the_command_leaves_an_installed_runtime_alone(name: str) -> None:
    version = installed(name).packages[0].version
    done = run_here("backends", "install", name)
    assert done.returncode == 0
    assert done.stderr.startswith(f"{name} is ready: {name} {version}")
    assert len(done.stderr.splitlines()) == 1


def test_without_an_index_the_command_fails_in_one_line(tmp_path: Path) -> None:
    information = tmp_path / "norse-9.9.dist-info"  # hides the one that may be installed
    information.mkdir()
    (information / "METADATA").write_text("Metadata-Version: 2.1\nName: norse\nVersion: 9.9\n")
    done = run_cli("backends", "install", "norse", PYTHONPATH=str(tmp_path), **OFFLINE)
    assert (done.returncode, done.stdout) == (2, "")
    said, error, hint = done.stderr.splitlines()
    assert said.startswith("installing norse==1.1.0, nirtorch==2.6 into ")
    assert error.startswith("Error: pip could not install norse==1.1.0: ERROR: ")
    assert hint.startswith("Hint: ")


def test_a_wheel_is_lavas_only() -> None:
    done = run_here("backends", "install", "norse", "--wheel", "x.whl")
    assert done.returncode == 2
    assert "--wheel is Lava's, backend 'norse' has none" in done.stderr
