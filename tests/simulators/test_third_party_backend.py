"""A backend of another distribution, found by its entry point: listed, run and compared without touching ours."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from support import quantized_policy, run_cli

from spikerl_deploy.policy_file import save_policy

BACKEND = '''
from simulators.fixed import FixedBackend

class Toy(FixedBackend):
    """The fixed backend under another name, with an option of its own."""
    name = "toy"
    summary = "a toy"
'''


@pytest.fixture
def distribution(tmp_path: Path) -> Path:
    folder = tmp_path / "site"
    information = folder / "toy_backend-1.0.dist-info"
    information.mkdir(parents=True)
    (folder / "toy_backend.py").write_text(BACKEND)
    (information / "METADATA").write_text("Metadata-Version: 2.1\nName: toy-backend\nVersion: 1.0\n")
    (information / "entry_points.txt").write_text(
        "[spikerl.backends]\ntoy = toy_backend:Toy\nbroken = toy_backend:Missing\nwrong = json:loads\n"
    )
    return folder


def test_it_is_listed_run_and_compared(distribution: Path, tmp_path: Path) -> None:
    save_policy(quantized_policy(), tmp_path / "p.nir")
    done = run_cli(
        *("simulate", "p.nir", "--backend", "toy", "--compare", "fixed", "--episodes", "2", "--format", "json"),
        cwd=tmp_path,
        PYTHONPATH=str(distribution),
    )
    assert done.returncode == 0, done.stderr
    backends = json.loads(done.stdout)["deployments"][0]["backends"]
    assert backends["toy"]["returns"] == backends["fixed"]["returns"]


@pytest.mark.parametrize(
    ("name", "message"),
    [("broken", "cannot be loaded from 'toy_backend:Missing'"), ("wrong", "is no simulators.protocol")],
)
def test_one_that_is_broken_is_named(distribution: Path, tmp_path: Path, name: str, message: str) -> None:
    save_policy(quantized_policy(), tmp_path / "p.nir")
    done = run_cli("simulate", "p.nir", "--backend", name, cwd=tmp_path, PYTHONPATH=str(distribution))
    assert done.returncode == 2
    assert message in done.stderr
    assert len(done.stderr.splitlines()) == 2
    listed = run_cli("backends", "list", "--format", "json", PYTHONPATH=str(distribution))
    rows = {row["name"]: row for row in json.loads(listed.stdout)["backends"]}
    assert rows["toy"]["ready"]
    assert not rows[name]["ready"]
    assert rows["lava"]["name"] == "lava"
