"""A short run that the tests of publishing take from."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from training_support import PENDULUM, tiny

from training.trainer import Trainer


@pytest.fixture(scope="session")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run of 400 steps."""
    folder = tmp_path_factory.mktemp("trained") / "run"
    Trainer(tiny(env=PENDULUM, seed=3), folder).run()
    return folder


@pytest.fixture
def copy(run: Path, tmp_path: Path) -> Path:
    """A copy of the run for a test to damage."""
    return Path(shutil.copytree(run, tmp_path / "copy"))
