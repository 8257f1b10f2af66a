"""The wheel, built and installed elsewhere: the shipped policies are in it, and run by name without the repository."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest
from card_support import SHIPPED
from support import ROOT

NAMES = sorted(path.stem for path in SHIPPED.glob("*.json"))
SMALLEST = min(NAMES, key=lambda name: (SHIPPED / f"{name}.nir").stat().st_size)


def build(kind: str, out: Path) -> Path:
    """The distribution of the sources as they are, without fetching anything."""
    done = subprocess.run(
        [sys.executable, "-m", "build", f"--{kind}", "--no-isolation", "--outdir", str(out), str(ROOT)],
        capture_output=True,
        text=True,
        timeout=250,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    (file,) = out.iterdir()
    return file


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build("wheel", tmp_path_factory.mktemp("wheel"))


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that the wheel was unpacked into, as an installer does with a pure one."""
    folder = tmp_path_factory.mktemp("installed")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder)
    return folder


def run_installed(installed: Path, folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """The command from that folder; a line of stderr says where it was loaded from."""
    code = (
        "import sys, spikerl_deploy.cli as c; print(c.__file__, file=sys.stderr); "
        "sys.argv = ['spikerl', *sys.argv[1:]]; c.main()"
    )
    return subprocess.run(
        [sys.executable, "-P", "-c", code, *arguments],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": str(installed), "OMP_NUM_THREADS": "1", "NO_COLOR": "1"},
        capture_output=True,
        text=True,
        timeout=250,
        check=False,
    )


def test_the_wheel_holds_every_shipped_policy_to_the_byte(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        inside = {name for name in archive.namelist() if name.startswith("spikerl_deploy/policies/")}
        assert inside == {f"spikerl_deploy/policies/{path.name}" for path in SHIPPED.iterdir()}
        for path in SHIPPED.iterdir():
            assert archive.read(f"spikerl_deploy/policies/{path.name}") == path.read_bytes()
        assert "spikerl_deploy/data/card.schema.json" in archive.namelist()


def test_the_source_distribution_holds_them_too(tmp_path: Path) -> None:
    with tarfile.open(build("sdist", tmp_path)) as archive:
        inside = {name.partition("/")[2] for name in archive.getnames()}
    assert {f"policies/{path.name}" for path in SHIPPED.iterdir()} <= inside


def test_a_policy_runs_by_name_from_the_installed_wheel_alone(installed: Path, tmp_path: Path) -> None:
    arguments = ["simulate", SMALLEST.upper(), "--backend", "fixed", "--episodes", "1", "--format", "json"]
    done = run_installed(installed, tmp_path, *arguments)
    assert done.returncode == 0, done.stderr
    where, said, *_ = done.stderr.splitlines()
    assert Path(where).is_relative_to(installed)
    assert said.startswith(f"{SMALLEST}: the policy shipped with spikerl ")
    (deployment,) = json.loads(done.stdout)["deployments"]
    card = json.loads((SHIPPED / f"{SMALLEST}.json").read_text())
    assert deployment["policy"]["sha256"] == card["policy"]["sha256"]
    entry = card["evaluation"]["backends"]["fixed"]
    spread = 3 * entry["std_return"] + 0.05 * abs(entry["mean_return"])
    assert deployment["backends"]["fixed"]["mean_return"] == pytest.approx(entry["returns"][0], abs=spread)


def test_the_installed_wheel_lists_and_checks_its_policies(installed: Path, tmp_path: Path) -> None:
    done = run_installed(installed, tmp_path, "policies", "--check", "--format", "json")
    assert done.returncode == 0, done.stderr
    assert [one["name"] for one in json.loads(done.stdout)["policies"]] == NAMES
    file = installed / "spikerl_deploy" / "policies" / f"{SMALLEST}.nir"
    content = file.read_bytes()
    try:
        file.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
        assert run_installed(installed, tmp_path, "policies", "--check").returncode == 1
        refused = run_installed(installed, tmp_path, "simulate", SMALLEST, "--backend", "fixed")
        assert refused.returncode == 2
        assert f"the shipped policy '{SMALLEST}' is damaged" in refused.stderr
    finally:
        file.write_bytes(content)
