"""What the long targets of the Makefile would run, by `make --dry-run`: training them again takes hours."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest
from support import ROOT

pytestmark = pytest.mark.skipif(shutil.which("make") is None, reason="no make here")
CARDS = [json.loads(path.read_text(encoding="utf-8")) for path in sorted((ROOT / "policies").glob("*.json"))]


def plan(*arguments: str, folder: Path = ROOT) -> str:
    """What make would run, as one text without line breaks."""
    command = ["make", "--dry-run", "--no-print-directory", "-C", str(folder), *arguments]
    environment = {name: value for name, value in os.environ.items() if name not in ("SEED", "REQUIRE", "TASK")}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=True)
    return " ".join(done.stdout.replace("\\\n", " ").split())


def with_state(folder: Path, run: str) -> Path:
    """The Makefile and what it reads, with a run in `out` that can be resumed."""
    for name in ("Makefile", "policies", "training/recipes", "pyproject.toml", "constraints.txt"):
        source, target = ROOT / name, folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        (shutil.copytree if source.is_dir() else shutil.copy)(source, target)
    (folder / "out" / run / "resume").mkdir(parents=True)
    (folder / "out" / run / "resume" / "latest.json").write_text("{}")
    return folder


@pytest.mark.parametrize("card", CARDS, ids=lambda card: str(card["name"]))
def test_reproducing_trains_the_settings_of_the_card_and_holds_the_return_against_it(card: dict) -> None:
    training = card["training"]
    text = plan("reproduce", f"TASK={training['recipe']}")
    (trained,) = [part for part in text.split(";") if "spikerl train --recipe" in part]
    beyond = {name: str(value).lower() for name, value in training["beyond_recipe"].items()}
    assert f" --recipe {training['recipe']} --seed {training['seed']} " in trained
    assert [word for word in trained.split() if "=" in word] == [f"{name}={value}" for name, value in beyond.items()]
    assert f"--compare-with policies/{card['name']}.json --require-return 0.8" in text
    assert f"took $(({int(training['seconds'])} / 60)) minutes" in text


def test_another_seed_bound_and_options_of_the_machine_are_taken() -> None:
    text = plan("reproduce", "TASK=ant", "SEED=5", "REQUIRE=0.5", "FLAGS=--set threads=2")
    assert "--recipe ant --seed 5 --set threads=2 --out out/reproduce/ant-5/run" in text
    assert "--require-return 0.5" in text


def test_what_was_interrupted_goes_on_with_the_options_of_the_machine(tmp_path: Path) -> None:
    folder = with_state(tmp_path, "seeds/hopper-mlp-3-of-2")
    text = plan("seeds", "TASK=hopper", "ACTOR=mlp", "FROM=3", "SEEDS=2", "FLAGS=--set threads=2", folder=folder)
    assert "spikerl train --resume out/seeds/hopper-mlp-3-of-2 --set threads=2;" in text
    assert "returns add out/seeds/hopper-mlp-3-of-2 --task hopper --group mlp" in text
