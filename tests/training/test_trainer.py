"""Whole short runs: artefacts, determinism, what is stored, what is learnt from."""

from __future__ import annotations

import json
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from training_support import (
    HOPPER,
    Clock,
    deployed_return,
    fingerprint,
    metrics_of,
    observed,
    replay_of,
    rows_of,
    state_of,
    tiny,
)

from training.checkpoint import load_checkpoint, policy_of
from training.draws import REPLAY, TARGET, stream
from training.settings import Settings, from_sources
from training.trainer import Result, Trainer


def run(folder: Path, name: str = "run", **settings: Any) -> Trainer:
    """A trainer after its run."""
    trainer = Trainer(tiny(**settings), folder / name, quiet=True)
    trainer.run()
    return trainer


@pytest.fixture(scope="module")
def full(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Settings, Result]:
    """A finished run with everything on."""
    folder = tmp_path_factory.mktemp("runs") / "pendulum"
    settings = tiny(tensorboard=True, carbon=True, seed=3)
    return folder, settings, Trainer(settings, folder, quiet=True).run()


def test_a_run_writes_all_its_artefacts_and_nothing_else(full: tuple[Path, Settings, Result]) -> None:
    folder = full[0]
    found = {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}
    events = {name for name in found if name.startswith("tensorboard/events.out.tfevents")}
    assert len(events) == 1
    assert found - events == {
        "config.toml", "manifest.json", "metrics.csv", "result.json", "emissions.json",
        "checkpoints/best.pt", "checkpoints/last.pt",
        "resume/latest.json", "resume/000000000400-rank0.pt", "resume/replay-rank0.bin",
    }  # fmt: skip


def test_config_manifest_result_and_emissions_say_what_was_run(full: tuple[Path, Settings, Result]) -> None:
    folder, settings, result = full
    assert from_sources(folder / "config.toml") == settings
    manifest = json.loads((folder / "manifest.json").read_text())
    assert manifest["seed"] == 3 and manifest["versions"]["torch"] == version("torch")
    document = json.loads((folder / "result.json").read_text())
    assert document == json.loads(json.dumps(result.document()))
    assert (result.steps, result.updates, result.stopped, result.ranks) == (400, 341, "steps", 1)
    assert document["steps_per_second"] == pytest.approx(400 / result.seconds)
    assert document["per_seed"] == [{"seed": 3, "best_return": result.best_return, "final_return": result.final_return}]
    emissions = json.loads((folder / "emissions.json").read_text())
    assert emissions["tracked"] and emissions["total_energy_joule"] > 0
    assert 0 < emissions["duration_s"] <= result.seconds + 2


def test_the_metrics_agree_with_the_result(full: tuple[Path, Settings, Result]) -> None:
    folder, _, result = full
    rows = metrics_of(folder)
    evaluations = [(int(r["step"]), float(r["value"])) for r in rows if r["name"] == "return_mean"]
    assert [step for step, _ in evaluations] == [200, 400]
    assert evaluations[-1][1] == result.final_return
    assert max(value for _, value in evaluations) == result.best_return
    episodes = [float(r["value"]) for r in rows if r["kind"] == "episode"]
    assert len(episodes) > 5 and 300 < sum(episodes) <= 400  # InvertedPendulum pays 1 a step


def test_tensorboard_holds_the_values_of_the_csv(full: tuple[Path, Settings, Result]) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    board = EventAccumulator(str(full[0] / "tensorboard"))
    board.Reload()
    expected = {int(r["step"]): float(r["value"]) for r in metrics_of(full[0]) if r["name"] == "return_mean"}
    assert {e.step: e.value for e in board.Scalars("eval/return_mean")} == pytest.approx(expected, rel=1e-6)


def test_losses_are_logged_now_and_then(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("training.trainer.LOG_EVERY", 70)
    trainer = run(tmp_path, steps=150, eval_every=150, num_envs=4)
    losses = [r for r in metrics_of(tmp_path / "run") if r["kind"] == "train"]
    assert [(int(r["step"]), r["name"]) for r in losses] == [
        (step, f"{name}_loss") for step in (72, 140) for name in ("critic", "actor")
    ]
    assert all(float(r["value"]) != 0 for r in losses)
    assert trainer.step == 152, "four at a time"


@pytest.mark.parametrize("name", ["best", "last"])
def test_what_is_saved_earns_the_return_that_is_reported(full: tuple[Path, Settings, Result], name: str) -> None:
    folder, settings, result = full
    path = folder / "checkpoints" / f"{name}.pt"
    env = gymnasium.make(settings.env)
    returns = [deployed_return(policy_of(path), env, settings.eval_seed + index) for index in range(2)]
    expected = result.best_return if name == "best" else result.final_return
    assert np.mean(returns) == expected == load_checkpoint(path)["progress"]["eval_return"]


def test_the_state_holds_the_policy_that_is_saved(full: tuple[Path, Settings, Result]) -> None:
    state, last = state_of(full[0])["state"], load_checkpoint(full[0] / "checkpoints" / "last.pt")
    assert all(torch.equal(state["agent"]["actor"][name], value) for name, value in last["actor"].items())
    assert state["agent"]["updates"] == last["progress"]["updates"] == 341


def test_exploration_noise_is_in_half_ranges_of_each_action(tmp_path: Path) -> None:
    # the actor's step size is nearly zero, so its actions in the same situation differ by the noise only
    settings = {"env": "Echo-v0", "steps": 700, "start_steps": 0, "eval_every": 700, "update_after": 10_000}
    quiet, loud = (rows_of(run(tmp_path, f"{std}", explore_noise=std, **settings))[:, 0] for std in (0.0, 0.05))
    np.testing.assert_array_equal(quiet[:, :3], loud[:, :3])  # Echo's observations do not depend on actions
    noise = loud[:, 3:5] - quiet[:, 3:5]
    np.testing.assert_allclose(noise.std(axis=0), [0.05 * 1, 0.05 * 2], rtol=0.1)
    np.testing.assert_allclose(noise.mean(axis=0), [0, 0], atol=0.015)


@pytest.mark.parametrize("target", [{}, {"target_actor": "proxy", "proxy_hidden": (9,), "proxy_steps": 2}])
def test_an_update_is_that_of_the_stored_rows_the_streams_and_the_statistics(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, target: dict[str, Any]
) -> None:
    seen: list[tuple[torch.Tensor, ...]] = []
    settings = tiny(env="Echo-v0", steps=63, eval_every=63, seed=6, **target)
    trainer, count = Trainer(settings, tmp_path / "run", quiet=True), 16 * target.get("proxy_steps", 1)
    step = trainer.agent.step

    def watch(rows: torch.Tensor, normal: torch.Tensor, statistics: Any, with_actor: bool) -> Any:
        seen.append((rows.clone(), normal.clone(), statistics[0].clone(), statistics[1].clone()))
        assert with_actor == (len(seen) % 2 == 0)
        return step(rows, normal, statistics, with_actor)

    monkeypatch.setattr(trainer.agent, "step", watch)
    trainer.run()
    assert len(seen) == 4  # owed by steps 60, 61, 62 and 63
    stored, index, target = rows_of(trainer)[:, 0], stream(6, 0, REPLAY), stream(6, 0, TARGET)
    for number, (rows, normal, mean, inverse) in enumerate(seen):
        size = 60 + number
        np.testing.assert_array_equal(rows[0], stored[index.integers(size, size=count)])
        np.testing.assert_array_equal(normal[0], target.standard_normal((16, 2), np.float32))
        observed = np.concatenate([stored[:size:20, :3], stored[:size, 6:9]])
        if size % 20 == 0:  # an episode has ended, the next one's first observation is in
            observed = np.concatenate([observed, stored[size : size + 1, :3]])
        np.testing.assert_allclose(mean[0], observed.mean(axis=0), rtol=1e-5)
        np.testing.assert_allclose(inverse[0], 1 / np.sqrt(observed.var(axis=0) + 1e-4), rtol=1e-4)


def test_the_seed_decides_everything(tmp_path: Path) -> None:
    def everything(name: str, seed: int) -> dict[str, str]:
        torch.manual_seed(ord(name))  # the run seeds itself
        run(tmp_path, name, seed=seed, steps=200, coding="poisson")
        return fingerprint(tmp_path / name)

    first, again, other = everything("a", 1), everything("b", 1), everything("c", 2)
    assert first == again
    learnt = [key for key in first if "/agent/" in key and "encoder" not in key and "optimizer" not in key]
    assert len(learnt) > 10
    assert not [key for key in learnt if first[key] == other[key] and "updates" not in key]
    assert first["rank0/replay"] != other["rank0/replay"]


def test_truncation_is_stored_as_going_on_and_termination_as_the_end(tmp_path: Path) -> None:
    rows = rows_of(run(tmp_path, env="Clock-v0", steps=36, start_steps=30, update_after=36))[:, 0]
    # episodes: 4 steps terminated, 7 steps terminated at the limit, 7 steps truncated, and again
    lengths = [4, 7, 7, 4, 7, 7]
    ends = np.cumsum(lengths) - 1
    assert rows.shape == (36, 2 + 2 + 1 + 2 + 1)
    assert rows[:, -1].nonzero()[0].tolist() == [ends[0], ends[1], ends[3], ends[4]]
    k = np.concatenate([np.arange(length) for length in lengths])
    episode = np.repeat(np.arange(6), lengths)
    np.testing.assert_array_equal(rows[:, :2], np.stack([k, episode], 1))
    np.testing.assert_array_equal(rows[:, 5:7], np.stack([k + 1, episode], 1))
    np.testing.assert_array_equal(rows[:, 4], k + 1)
    returns = [float(r["value"]) for r in metrics_of(tmp_path / "run") if r["kind"] == "episode"]
    assert returns == [10, 28, 28, 10, 28, 28]


def test_side_by_side_each_environment_has_its_own_episodes_and_true_last_observations(tmp_path: Path) -> None:
    trainer = run(tmp_path, env="Clock-v0", steps=54, num_envs=3, seeds=2, start_steps=54, update_after=54)
    rows = rows_of(trainer)
    assert rows.shape[:2] == (54, 2)
    k = np.concatenate([np.arange(length) for length in (4, 7, 7)])
    for seed in range(2):
        for env in range(3):
            own = rows[env::3, seed]
            np.testing.assert_array_equal(own[:, 0], k)
            np.testing.assert_array_equal(own[:, 5], k + 1)
            np.testing.assert_array_equal(own[:, 4], k + 1)
            assert own[:, -1].nonzero()[0].tolist() == [3, 10]
        metrics = [r for r in metrics_of(tmp_path / "run" / f"seed-{seed}") if r["kind"] == "episode"]
        ends = [(12, 10.0), (33, 28.0), (54, 28.0)]
        assert [(int(r["step"]), float(r["value"])) for r in metrics] == [end for end in ends for _ in range(3)]
    actions = rows[:, :, 2:4].reshape(54 * 2, 2)
    assert len(np.unique(actions, axis=0)) == len(actions), "environments or seeds share their exploration"


@pytest.mark.parametrize(("seeds", "num_envs"), [(1, 1), (2, 3)])
def test_the_normaliser_has_seen_every_observation_of_the_training_environments_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seeds: int, num_envs: int
) -> None:
    made: list[Clock] = []
    monkeypatch.setattr(Clock, "made", made)
    trainer = run(tmp_path, env="Clock-v0", steps=51, seeds=seeds, num_envs=num_envs, eval_every=51)
    for seed in range(seeds):
        envs = made[seed * num_envs : (seed + 1) * num_envs]  # those of the evaluation are reset later
        seen = np.concatenate([env.seen for env in envs])
        assert trainer.normalizer.count[seed, 0] == len(seen) > 51
        np.testing.assert_allclose(trainer.normalizer.mean[seed], seen.mean(axis=0))
        np.testing.assert_allclose(trainer.normalizer.snapshot(seed).std, np.sqrt(seen.var(axis=0) + 1e-4), rtol=1e-6)


def test_where_one_environment_begins_anew_the_others_are_not_counted_again(tmp_path: Path) -> None:
    trainer = run(tmp_path, env=HOPPER, steps=90, num_envs=3, start_steps=90, update_after=90, eval_every=90)
    seen = observed(rows_of(trainer)[:, 0], trainer.observation)
    assert trainer.normalizer.count[0, 0] == len(seen) > 93
    np.testing.assert_allclose(trainer.normalizer.mean[0], seen.mean(axis=0), rtol=1e-5, atol=1e-6)


def test_random_steps_fill_the_action_range_and_exploration_stays_in_it(tmp_path: Path) -> None:
    settings = {"env": "Clock-v0", "steps": 300, "start_steps": 200, "update_after": 250, "explore_noise": 5.0}
    actions = rows_of(run(tmp_path, **settings))[:, 0, 2:4]
    random, explored = actions[:200], actions[200:]
    np.testing.assert_allclose(random.mean(0), [0, 2], atol=0.4)
    np.testing.assert_allclose(random.std(0), np.array([2, 4]) / np.sqrt(12), rtol=0.15)
    assert explored.min(0).tolist() == [-1, 0] and explored.max(0).tolist() == [1, 4]


@pytest.mark.parametrize(
    ("settings", "updates"),
    [
        ({}, 41),
        ({"update_after": 99}, 2),
        ({"update_every": 10}, 40),  # bursts of 10, the last step owes one more
        ({"update_to_data": 0.5}, 20),
        ({"update_to_data": 2}, 82),
        ({"update_to_data": 0.5, "update_every": 8}, 20),
        ({"num_envs": 2}, 42),  # 21 turns of two steps
        ({"num_envs": 5, "update_to_data": 0.5}, 22),  # 9 turns of 5 steps
        ({"num_envs": 2, "update_every": 10}, 40),
        ({"num_envs": 2, "seeds": 2}, 42),
    ],
)
def test_as_many_updates_follow_as_steps_since_updates_began(
    tmp_path: Path, settings: dict[str, Any], updates: int
) -> None:
    trainer = run(tmp_path, **{"steps": 100, "eval_every": 100, "eval_episodes": 1} | settings)
    assert trainer.agent.updates == updates
    assert trainer.step == 100


def test_updates_come_in_bursts_as_many_at_once_as_fell_due(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trainer = Trainer(tiny(steps=100, update_every=10, eval_every=100, eval_episodes=1), tmp_path / "run", quiet=True)
    sizes: list[int] = []
    step = trainer.agent.step
    monkeypatch.setattr(trainer.agent, "step", lambda *values: (sizes.append(trainer.replay.size), step(*values))[1])
    trainer.run()
    assert sizes == [size for size in (69, 79, 89, 99) for _ in range(10)]


WORKERS = {"steps": 60, "start_steps": 20, "update_after": 20, "eval_every": 30, "env": HOPPER, "num_envs": 2}


def test_environments_in_worker_processes_give_the_same_run_to_the_bit(tmp_path: Path) -> None:
    for name, workers in (("in", False), ("out", True)):
        run(tmp_path, name, env_workers=workers, **WORKERS)
    mine, theirs = (fingerprint(tmp_path / name) for name in ("in", "out"))
    different = {key for key in mine if mine[key] != theirs[key]}
    assert {key for key in different if "settings" not in key} == set()
    assert mine.keys() == theirs.keys()


def test_no_worker_process_outlives_the_run(tmp_path: Path) -> None:
    import psutil

    def workers() -> set[int]:
        return {p.pid for p in psutil.Process().children(recursive=True) if p.status() != psutil.STATUS_ZOMBIE}

    trainer = Trainer(tiny(env_workers=True, **WORKERS), tmp_path / "run", quiet=True)
    during = workers()
    trainer.run()
    deadline = time.monotonic() + 5
    while len(during - workers()) < 2 and time.monotonic() < deadline:
        time.sleep(0.05)
    assert len(during - workers()) == 2


def test_a_short_buffer_holds_the_last_transitions(tmp_path: Path) -> None:
    trainer = run(tmp_path, env="Clock-v0", steps=90, num_envs=2, buffer_size=31, checkpoint_every=20, eval_every=90)
    long = run(tmp_path, "long", env="Clock-v0", steps=90, num_envs=2, eval_every=90, start_steps=90, update_after=90)
    short = run(tmp_path, "short", env="Clock-v0", steps=90, num_envs=2, buffer_size=31, eval_every=90, start_steps=90,
                update_after=90)  # fmt: skip
    assert rows_of(trainer).shape[0] == trainer.replay.size == 31
    np.testing.assert_array_equal(rows_of(short), rows_of(long)[-31:])
    np.testing.assert_array_equal(replay_of(tmp_path / "short"), rows_of(short))


@pytest.mark.parametrize(
    ("bf16", "hardware", "warned"), [(True, False, 1), (True, True, 0), (True, None, 0), (False, False, 0)]
)
def test_a_run_that_starts_in_emulated_bf16_warns_once_and_says_how_to_train_without(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
    bf16: bool, hardware: bool | None, warned: int,
) -> None:  # fmt: skip
    monkeypatch.setattr("training.trainer.bf16_in_hardware", {torch.device("cpu"): hardware}.__getitem__)
    Trainer(tiny(bf16=bf16, steps=30, eval_every=30), tmp_path / "run").run()
    captured = capsys.readouterr()
    lines = [line for line in captured.err.splitlines() if "BF16 is emulated" in line]
    assert len(lines) == warned and captured.out == ""
    assert all(line.startswith("warning: ") and "--no-bf16" in line for line in lines)
    Trainer(tiny(bf16=bf16, steps=40, eval_every=30), tmp_path / "run", resume=True).run()
    assert "BF16" not in capsys.readouterr().err  # nothing could be done about it
