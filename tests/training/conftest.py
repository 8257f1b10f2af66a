"""What every test of training needs, two runs that several modules copy, and a quick compiler."""

from __future__ import annotations

import functools
import signal
from pathlib import Path

import pytest
import torch
from resume_support import HOPPING
from training_support import Fault, succeeded, train


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)  # MuJoCo writes its warnings to the working folder


@pytest.fixture(scope="session")
def hopping(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that nothing interrupted."""
    folder = tmp_path_factory.mktemp("reference")
    succeeded(train(folder, "run", **HOPPING))
    return folder / "run"


@pytest.fixture(scope="session")
def interrupted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that can be resumed, to be copied and spoilt."""
    folder = tmp_path_factory.mktemp("interrupted")
    done = train(folder, "run", Fault("step", count=110, number=signal.SIGINT), **HOPPING)
    assert done.returncode == 130
    return folder / "run"


@pytest.fixture
def quick_compiler(monkeypatch: pytest.MonkeyPatch) -> None:
    """Traced as always; the graph is run by torch itself, since making code of it takes half a minute."""
    torch.compiler.reset()
    monkeypatch.setattr("training.td3.torch.compile", functools.partial(torch.compile, backend="aot_eager"))
