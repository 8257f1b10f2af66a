"""The import rules of the design, read off the sources and tried in fresh interpreters."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest
from support import ROOT, run_cli

PACKAGES = ("spikerl_deploy", "training", "exporters", "simulators")
MAY_IMPORT = {
    "spikerl_deploy": set(),
    "training": {"spikerl_deploy"},
    "exporters": {"spikerl_deploy", "training"},
    "simulators": {"spikerl_deploy", "training"},
    "spikerl_deploy.cli": set(PACKAGES),
}
SOURCES = [path for package in PACKAGES for path in sorted((ROOT / package).rglob("*.py"))]


def imported_packages(path: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            found.add(node.module.split(".")[0])
    return found


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_no_import_runs_upward_or_across(path: Path) -> None:
    relative = path.relative_to(ROOT)
    part = "spikerl_deploy.cli" if relative.parts[:2] == ("spikerl_deploy", "cli") else relative.parts[0]
    crossing = (imported_packages(path) & set(PACKAGES)) - MAY_IMPORT[part] - {relative.parts[0]}
    assert not crossing, f"{relative} imports {crossing}"


def test_only_the_torch_backend_of_simulators_imports_training() -> None:
    users = [p.name for p in (ROOT / "simulators").rglob("*.py") if "training" in imported_packages(p)]
    assert users == ["torch_backend.py"]


@pytest.mark.parametrize(
    ("module", "forbidden"),
    [
        ("spikerl_deploy", ("torch", "gymnasium", "numpy")),
        ("spikerl_deploy.policy_file", ("torch", "gymnasium")),
        ("spikerl_deploy.environments", ("torch", "gymnasium")),
        ("spikerl_deploy.cli", ("torch", "gymnasium", "numpy", "h5py", "matplotlib", "mujoco")),
        ("training", ("torch",)),
        ("training.settings", ("torch",)),
        ("training.compare_runs", ("torch",)),
        ("training.sweep_space", ("torch", "optuna")),
        ("simulators.lava.worker", ("torch", "gymnasium")),
        ("simulators.lava.backend", ("torch", "lava")),
    ],
)
def test_import_stays_light(module: str, forbidden: tuple[str, ...]) -> None:
    code = f"import sys, {module}; print([m for m in {forbidden!r} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("name", ["training", "exporters", "simulators"])
def test_a_shadowing_folder_is_named(tmp_path: Path, name: str) -> None:
    shadow = tmp_path / name
    shadow.mkdir()
    (shadow / "__init__.py").write_text("")
    code = f"import sys; sys.path.insert(0, {str(tmp_path)!r}); import spikerl_deploy"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode != 0
    assert f"'{name}' is shadowed by {shadow}" in done.stderr.splitlines()[-1]
    command = run_cli("--help", PYTHONPATH=str(tmp_path))
    assert command.returncode == 2
    assert [line.split(":")[0] for line in command.stderr.splitlines()] == ["Error", "Hint"]
