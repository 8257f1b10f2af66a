"""Several seeds in one process: each is the run that it would be alone."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from training_support import HOPPER, error_of, metrics_of, rows_of, spikerl, succeeded, tiny

from training.checkpoint import load_checkpoint, policy_of
from training.trainer import Trainer

SETTINGS: dict[str, Any] = {
    "env": HOPPER, "steps": 90, "seed": 5, "num_envs": 2, "start_steps": 40, "update_after": 60, "eval_every": 90,
    "actor_lr": 1e-6, "critic_lr": 1e-6,
}  # fmt: skip


@pytest.fixture(scope="module")
def together(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Trainer]:
    folder = tmp_path_factory.mktemp("seeds")
    trainer = Trainer(tiny(**SETTINGS, seeds=3), folder / "run", quiet=True)
    trainer.run()
    return folder / "run", trainer


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> list[tuple[Path, Trainer]]:
    folder = tmp_path_factory.mktemp("alone")
    trainers = [Trainer(tiny(**SETTINGS | {"seed": seed}), folder / str(seed), quiet=True) for seed in (5, 6, 7)]
    for trainer in trainers:
        trainer.run()
    return [(trainer.out, trainer) for trainer in trainers]


def test_each_seed_has_a_folder_and_the_run_one_state(together: tuple[Path, Trainer]) -> None:
    folder, own = together[0], ("metrics.csv", "checkpoints/best.pt", "checkpoints/last.pt")
    found = {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}
    assert found == {
        "config.toml", "manifest.json", "result.json", "emissions.json",
        "resume/latest.json", "resume/000000000090-rank0.pt", "resume/replay-rank0.bin",
        *(f"seed-{n}/{name}" for n in (5, 6, 7) for name in own),
    }  # fmt: skip


def test_a_seed_goes_the_way_that_it_goes_alone(
    together: tuple[Path, Trainer], alone: list[tuple[Path, Trainer]]
) -> None:
    rows = rows_of(together[1])
    for place, (_, single) in enumerate(alone):
        own = rows_of(single)[:, 0]
        np.testing.assert_array_equal(rows[:40, place], own[:40])  # random actions
        np.testing.assert_allclose(rows[:60, place], own[:60], rtol=1e-4, atol=1e-5)  # the first actor's
        assert (np.abs(rows[:, place] - own).max(axis=1) < 1e-2).mean() > 0.9  # a spike may tip over by rounding
    assert not np.array_equal(rows[:, 0], rows[:, 1])


def test_a_seed_learns_what_it_learns_alone(together: tuple[Path, Trainer], alone: list[tuple[Path, Trainer]]) -> None:
    ours = together[1]
    assert ours.agent.updates == alone[0][1].agent.updates == 32
    for place, (_, single) in enumerate(alone):
        np.testing.assert_allclose(ours.normalizer.mean[place], single.normalizer.mean[0], rtol=1e-3, atol=1e-3)
        for which in ("actor", "critic", "actor_target", "critic_target"):
            mine, theirs = (dict(getattr(t.agent, which).named_parameters()) for t in (ours, single))
            for name, value in theirs.items():
                torch.testing.assert_close(mine[name][place], value[0], rtol=1e-3, atol=5e-5)


def test_metrics_and_policies_are_each_seeds_own(
    together: tuple[Path, Trainer], alone: list[tuple[Path, Trainer]]
) -> None:
    folder, trainer = together
    result = json.loads((folder / "result.json").read_text())
    assert [own["seed"] for own in result["per_seed"]] == [5, 6, 7]
    for place, (single, _) in enumerate(alone):
        mine, theirs = metrics_of(folder / f"seed-{5 + place}"), metrics_of(single)
        keys = [[(r["step"], r["kind"], r["name"]) for r in rows if int(r["step"]) <= 60] for rows in (mine, theirs)]
        assert keys[0] == keys[1]
        last = load_checkpoint(folder / f"seed-{5 + place}" / "checkpoints" / "last.pt")
        own_return = [float(r["value"]) for r in mine if r["name"] == "return_mean"][-1]
        assert last["progress"]["eval_return"] == own_return == result["per_seed"][place]["final_return"]
        assert torch.equal(last["actor"]["decoder_weight"][0], trainer.agent.actor.decoder_weight[place])
        policy = policy_of(folder / f"seed-{5 + place}" / "checkpoints" / "last.pt")
        assert policy.normalization is not None
        np.testing.assert_allclose(policy.normalization.mean, trainer.normalizer.mean[place], rtol=1e-6)


def test_the_runs_return_is_the_mean_over_seeds(together: tuple[Path, Trainer]) -> None:
    result = json.loads((together[0] / "result.json").read_text())
    for name in ("best_return", "final_return"):
        assert result[name] == pytest.approx(np.mean([own[name] for own in result["per_seed"]]))


def test_a_seed_is_exported_by_its_folder_and_all_of_them_are_not(
    together: tuple[Path, Trainer], tmp_path: Path
) -> None:
    folder = together[0]
    error, hint = error_of(spikerl(["export", str(folder), "-o", "p.nir"], tmp_path))
    assert "holds 3 seeds, one policy was expected" in error
    assert f"give {folder / 'seed-5'}" in hint
    done = spikerl(["export", str(folder / "seed-6"), "-o", "p.nir", "--format", "json"], tmp_path)
    assert json.loads(succeeded(done).stdout)
    assert (tmp_path / "p.nir").is_file()
