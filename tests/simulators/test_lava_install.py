"""Installation of the pinned wheel: offline from a file, refused when it is another, private to the worker."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from support import ROOT, run_cli

from simulators.lava import install as installer
from spikerl_deploy.errors import SpikerlError


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory, lava_folder: Path) -> Path:
    """The genuine wheel as a file, from the index."""
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--ignore-requires-python"]
    subprocess.run([*command, "--dest", str(folder), f"lava-nc=={installer.LAVA_VERSION}"], check=True, timeout=200)
    return next(folder.glob("*.whl"))


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv(installer.CACHE_VARIABLE, str(tmp_path / "cache"))
    return tmp_path / "cache"


def test_a_wheel_given_as_a_file_is_installed_without_an_index(
    cache: Path, wheel: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:9/simple")
    monkeypatch.setenv("PIP_FIND_LINKS", "")
    said: list[str] = []
    assert installer.installed_folder() is None
    folder = installer.install(wheel, said.append)
    assert folder == installer.installed_folder()
    assert (folder / "lava" / "magma").is_dir()
    assert len(said) == 1
    assert sorted(p.name for p in folder.parent.iterdir()) == [folder.name]  # no debris
    assert not (folder / "tests").exists()


def test_a_bare_environment_without_pip_installs(cache: Path, wheel: Path, tmp_path: Path) -> None:
    """The same for real: an environment that has no pip, as uv makes them."""
    bare = tmp_path / "bare"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(bare)], check=True)
    code = (
        f"import sys; sys.path.insert(0, {str(ROOT)!r}); from pathlib import Path\n"
        f"from simulators.lava.install import install; print(install(Path({str(wheel)!r})))"
    )
    done = subprocess.run(
        [str(bare / "bin" / "python"), "-c", code], capture_output=True, text=True, env=os.environ.copy(), check=False
    )
    assert done.returncode == 0, done.stderr
    assert (Path(done.stdout.strip()) / "lava").is_dir()


def test_another_wheel_is_refused_by_its_hash(cache: Path, tmp_path: Path) -> None:
    fake = tmp_path / "lava_nc-0.10.0-py3-none-any.whl"
    with zipfile.ZipFile(fake, "w") as archive:
        archive.writestr("lava/__init__.py", "raise SystemExit('executed')")
    with pytest.raises(SpikerlError, match=r"has SHA-256 .*, lava-nc 0\.10\.0 has d646723e"):
        installer.install(fake)
    with pytest.raises(SpikerlError, match="no wheel at"):
        installer.install(tmp_path / "none.whl")
    assert not cache.exists() or not any(cache.rglob("lava"))


def test_without_an_index_the_error_says_how_to_give_a_file(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:9/simple")
    monkeypatch.setenv("PIP_EXTRA_INDEX_URL", "")
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_FIND_LINKS", "")
    monkeypatch.setenv("PIP_RETRIES", "0")
    monkeypatch.setenv("PIP_NO_CACHE_DIR", "1")
    with pytest.raises(SpikerlError, match="pip could not install Lava") as caught:
        installer.install()
    assert caught.value.hint is not None
    assert "--wheel" in caught.value.hint
    assert installer.installed_folder() is None


def test_no_install_refuses_and_an_incomplete_folder_is_not_trusted(cache: Path, wheel: Path) -> None:
    installer.cache_folder().mkdir(parents=True)
    with pytest.raises(SpikerlError, match="--no-install") as caught:
        installer.ensure_installed(False, None, print)
    assert caught.value.hint == "spikerl backends install lava"
    assert (installer.ensure_installed(True, wheel, print) / "lava").is_dir()


def test_a_cache_that_cannot_be_written_is_one_clear_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv(installer.CACHE_VARIABLE, str(tmp_path / "file"))
    with pytest.raises(SpikerlError, match="cannot write the cache folder"):
        installer.install()


def test_the_main_process_does_not_see_lava(lava_folder: Path) -> None:
    done = subprocess.run([sys.executable, "-c", "import lava"], capture_output=True, text=True, check=False)
    assert "No module named 'lava'" in done.stderr


def test_the_command_installs_and_says_where(tmp_path: Path, wheel: Path) -> None:
    cache = str(tmp_path / "cache")
    done = run_cli("backends", "install", "lava", "--wheel", str(wheel), SPIKERL_CACHE_DIR=cache)
    assert (done.returncode, done.stdout) == (0, "")
    assert cache in done.stderr
    again = run_cli("backends", "install", "lava", SPIKERL_CACHE_DIR=cache, PIP_INDEX_URL="http://127.0.0.1:9/")
    assert again.returncode == 0
    assert "is installed in" in again.stderr
