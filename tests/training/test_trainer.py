"""Whole short runs: artefacts, determinism, what is stored, and every way in which a run may end."""

from __future__ import annotations

import csv
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch

from simulators.torch_backend import TorchBackend
from spikerl_deploy.codec import decode, encode
from spikerl_deploy.errors import SpikerlError
from spikerl_deploy.policy import Policy
from training.checkpoint import load_checkpoint, policy_of
from training.settings import Settings, from_sources
from training.trainer import Result, Trainer, choose_device

ROOT = Path(__file__).parents[2]
TINY: dict[str, Any] = {
    "hidden": (8,), "critic_hidden": (8,), "population": 4, "batch_size": 16, "steps": 400, "start_steps": 60,
    "update_after": 60, "eval_every": 200, "eval_episodes": 2, "tensorboard": False, "carbon": False, "device": "cpu",
}  # fmt: skip


def tiny(**settings: Any) -> Settings:
    return Settings(**TINY | settings)


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)  # MuJoCo writes its warnings to the working folder


class Clock(gymnasium.Env[np.ndarray, np.ndarray]):
    """Observes (step of the episode, episode); episodes 0, 3, 6, ... terminate at step 4, 1, 4, ... at step 7, others
    never by themselves. The reward is the step. `bad` says what becomes NaN at the 30th step, or at the third reset."""

    def __init__(self, bad: str = "") -> None:
        self.observation_space = gymnasium.spaces.Box(-np.inf, np.inf, (2,), np.float64)
        self.action_space = gymnasium.spaces.Box(np.float32([-1, 0]), np.float32([1, 4]))
        self.bad, self.total, self.episode = bad, 0, -1
        self.seen: list[np.ndarray] = []

    def _observe(self) -> np.ndarray:
        self.seen.append(np.array([self.k, self.episode], dtype=np.float64))
        return self.seen[-1].copy()

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[np.ndarray, dict]:
        super().reset(seed=seed)
        self.k, self.episode = 0, self.episode + 1
        observation = self._observe()
        return (observation * np.nan if self.bad == "reset" and self.episode == 2 else observation), {}

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict]:
        assert self.action_space.contains(action) or np.isnan(action).any()
        self.k, self.total = self.k + 1, self.total + 1
        observation, reward = self._observe(), float(self.k)
        if self.total == 30:
            observation = observation * np.nan if self.bad == "observation" else observation
            reward = np.nan if self.bad == "reward" else reward
        return observation, reward, self.k == (4, 7, 99)[self.episode % 3], False, {}


class Echo(gymnasium.Env[np.ndarray, np.ndarray]):
    """Observes noise of its seed and pays the action."""

    observation_space = gymnasium.spaces.Box(-np.inf, np.inf, (3,), np.float64)
    action_space = gymnasium.spaces.Box(np.float32([-1, 0]), np.float32([1, 4]))

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[np.ndarray, dict]:
        super().reset(seed=seed)
        return self.np_random.normal(5, 2, 3), {}

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict]:
        return self.np_random.normal(5, 2, 3), float(action.sum()), False, False, {}


@pytest.fixture
def echo() -> Iterator[str]:
    gymnasium.register("Echo-v0", Echo, max_episode_steps=20, disable_env_checker=True)
    yield "Echo-v0"
    del gymnasium.registry["Echo-v0"]


@pytest.fixture
def clock() -> Iterator[str]:
    gymnasium.register("Clock-v0", Clock, max_episode_steps=7, disable_env_checker=True)
    yield "Clock-v0"
    del gymnasium.registry["Clock-v0"]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Settings, Result]:
    """A finished run with everything on."""
    folder = tmp_path_factory.mktemp("runs") / "pendulum"
    settings = tiny(tensorboard=True, carbon=True, seed=3)
    return folder, settings, Trainer(settings, folder, quiet=True).run()


def rows(folder: Path) -> list[dict[str, str]]:
    return list(csv.DictReader((folder / "metrics.csv").read_text().splitlines()))


def test_a_run_writes_all_its_artefacts_and_nothing_else(run: tuple[Path, Settings, Result]) -> None:
    folder = run[0]
    found = {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}
    events = {name for name in found if name.startswith("tensorboard/events.out.tfevents")}
    assert len(events) == 1
    assert found - events == {
        "config.toml", "manifest.json", "metrics.csv", "result.json", "emissions.json",
        "checkpoints/best.pt", "checkpoints/last.pt",
    }  # fmt: skip


def test_config_manifest_result_and_emissions_say_what_was_run(run: tuple[Path, Settings, Result]) -> None:
    folder, settings, result = run
    assert from_sources(folder / "config.toml") == settings
    manifest = json.loads((folder / "manifest.json").read_text())
    assert manifest["seed"] == 3 and manifest["versions"]["torch"] == version("torch")
    assert json.loads((folder / "result.json").read_text()) == vars(result)
    assert (result.steps, result.stopped) == (400, "steps")
    emissions = json.loads((folder / "emissions.json").read_text())
    assert emissions["tracked"] and emissions["total_energy_joule"] > 0
    assert 0 < emissions["duration_s"] <= result.seconds + 1


def test_the_metrics_agree_with_the_result(run: tuple[Path, Settings, Result]) -> None:
    folder, _, result = run
    evaluations = [(int(r["step"]), float(r["value"])) for r in rows(folder) if r["name"] == "return_mean"]
    assert [step for step, _ in evaluations] == [200, 400]
    assert evaluations[-1][1] == result.final_return
    assert max(value for _, value in evaluations) == result.best_return
    episodes = [float(r["value"]) for r in rows(folder) if r["kind"] == "episode"]
    assert len(episodes) > 5 and 300 < sum(episodes) <= 400  # InvertedPendulum pays 1 a step


def test_tensorboard_holds_the_values_of_the_csv(run: tuple[Path, Settings, Result]) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    board = EventAccumulator(str(run[0] / "tensorboard"))
    board.Reload()
    expected = {int(r["step"]): float(r["value"]) for r in rows(run[0]) if r["name"] == "return_mean"}
    assert {e.step: e.value for e in board.Scalars("eval/return_mean")} == pytest.approx(expected, rel=1e-6)


def deployed_return(policy: Policy, env: gymnasium.Env[Any, Any], seed: int) -> float:
    """Return of one episode by the deployment path: NumPy codec around a float backend."""
    observation, _ = env.reset(seed=seed)
    assert policy.decoder is not None
    total, done = 0.0, False
    with TorchBackend(device="cpu").open(policy) as session:
        while not done:
            counts = session.infer(encode(policy, observation[None], [])).output_counts
            action = decode(counts, policy.time_steps, policy.decoder)[0]
            observation, reward, terminated, truncated, _ = env.step(action)
            total, done = total + float(reward), terminated or truncated
    return total


@pytest.mark.parametrize("name", ["best", "last"])
def test_what_is_saved_earns_the_return_that_is_reported(run: tuple[Path, Settings, Result], name: str) -> None:
    folder, settings, result = run
    path = folder / "checkpoints" / f"{name}.pt"
    env = gymnasium.make(settings.env)
    returns = [deployed_return(policy_of(path), env, settings.eval_seed + index) for index in range(2)]
    expected = result.best_return if name == "best" else result.final_return
    assert np.mean(returns) == expected == load_checkpoint(path)["progress"]["eval_return"]


def test_evaluation_runs_the_policy_as_it_would_be_saved_on_one_seed_after_the_other(tmp_path: Path, echo: str) -> None:
    trainer = Trainer(tiny(env=echo, eval_episodes=3, eval_seed=50), tmp_path / "run", quiet=True)
    with torch.no_grad():
        for layer in trainer.agent.actor.layers:
            layer.weight *= 5
    for row in np.random.default_rng(0).normal(5, 2, (40, 3)):
        trainer.normalizer.observe(row)
    returns = trainer.evaluator(trainer.agent, trainer.normalizer)
    policy = trainer.agent.actor.to_policy(trainer.normalizer.snapshot(), echo)
    expected = [deployed_return(policy, gymnasium.make(echo), seed) for seed in (50, 51, 52)]
    np.testing.assert_allclose(returns, expected, atol=1e-3)
    assert len(set(returns.round(2))) == 3
    np.testing.assert_array_equal(trainer.evaluator(trainer.agent, trainer.normalizer), returns)


def test_exploration_noise_is_in_half_ranges_of_each_action(tmp_path: Path, echo: str) -> None:
    trainer = Trainer(tiny(env=echo, explore_noise=0.05), tmp_path / "run", quiet=True)
    actions = np.array([trainer._explore(np.zeros(3)) for _ in range(1500)])
    np.testing.assert_allclose(actions.std(axis=0), [0.05 * 1, 0.05 * 2], rtol=0.1)


def test_an_update_gets_normalised_observations_and_rewards_as_they_are(tmp_path: Path, echo: str) -> None:
    trainer = Trainer(tiny(env=echo, steps=80, seed=6), tmp_path / "run", quiet=True)
    trainer.run()
    assert trainer.replay.generator.initial_seed() == 6
    state = trainer.replay.generator.get_state()
    raw = trainer.replay.sample(16)
    trainer.replay.generator.set_state(state)
    batch = trainer._batch()
    mean, std = torch.from_numpy(trainer.normalizer.mean), torch.from_numpy(trainer.normalizer.std())
    for name in ("o_tm1", "o_t"):
        expected = ((getattr(raw, name) - mean) / std).clamp(-3, 3).float()
        torch.testing.assert_close(getattr(batch, name), expected, rtol=1e-4, atol=1e-5)
    for name in ("a_tm1", "r_t", "terminated"):
        assert torch.equal(getattr(batch, name), getattr(raw, name))


def test_the_seed_decides_every_parameter(tmp_path: Path) -> None:
    def parameters(name: str, seed: int) -> dict[str, torch.Tensor]:
        torch.manual_seed(ord(name))  # the run seeds itself
        Trainer(tiny(seed=seed, steps=200), tmp_path / name, quiet=True).run()
        agent = load_checkpoint(tmp_path / name / "checkpoints" / "last.pt")["agent"]
        return {f"{net}.{key}": v for net in ("actor", "critic", "critic_target") for key, v in agent[net].items()}

    first, again, other = parameters("a", 1), parameters("b", 1), parameters("c", 2)
    assert all(torch.equal(first[key], again[key]) for key in first)
    assert not any(torch.equal(first[key], other[key]) for key in first if "encoder" not in key)


def test_truncation_is_stored_as_going_on_and_termination_as_the_end(tmp_path: Path, clock: str) -> None:
    trainer = Trainer(tiny(env=clock, steps=36, start_steps=30, update_after=36), tmp_path / "run", quiet=True)
    trainer.run()
    # episodes: 4 steps terminated, 7 steps terminated at the limit, 7 steps truncated, and again
    lengths = [4, 7, 7, 4, 7, 7]
    ends = np.cumsum(lengths) - 1
    replay = trainer.replay
    assert replay.size == 36
    assert replay.terminated.nonzero().flatten().tolist() == [ends[0], ends[1], ends[3], ends[4]]
    k = np.concatenate([np.arange(length) for length in lengths])
    episode = np.repeat(np.arange(6), lengths)
    np.testing.assert_array_equal(replay.observations, np.stack([k, episode], 1))
    np.testing.assert_array_equal(replay.next_observations, np.stack([k + 1, episode], 1))
    np.testing.assert_array_equal(replay.rewards, k + 1)
    returns = [float(r["value"]) for r in rows(tmp_path / "run") if r["kind"] == "episode"]
    assert returns == [10, 28, 28, 10, 28, 28]


def test_the_normaliser_has_seen_every_observation_of_the_training_environment_once(tmp_path: Path, clock: str) -> None:
    trainer = Trainer(tiny(env=clock, steps=50), tmp_path / "run", quiet=True)
    trainer.run()
    seen = np.array(trainer.env.unwrapped.seen)  # type: ignore[attr-defined]
    assert trainer.normalizer.count == len(seen) > 50
    np.testing.assert_allclose(trainer.normalizer.mean, seen.mean(axis=0))
    np.testing.assert_allclose(trainer.normalizer.snapshot().std, np.sqrt(seen.var(axis=0) + 1e-4), rtol=1e-6)


def test_random_steps_fill_the_action_range_and_exploration_stays_in_it(tmp_path: Path, clock: str) -> None:
    settings = tiny(env=clock, steps=300, start_steps=200, update_after=250, explore_noise=5.0)
    trainer = Trainer(settings, tmp_path / "run", quiet=True)
    trainer.run()
    random, explored = trainer.replay.actions[:200].numpy(), trainer.replay.actions[200:].numpy()
    np.testing.assert_allclose(random.mean(0), [0, 2], atol=0.4)
    np.testing.assert_allclose(random.std(0), np.array([2, 4]) / np.sqrt(12), rtol=0.15)
    assert explored.min(0).tolist() == [-1, 0] and explored.max(0).tolist() == [1, 4]


@pytest.mark.parametrize(("update_every", "update_after", "updates"), [(1, 60, 41), (10, 60, 50), (1, 99, 2)])
def test_as_many_updates_follow_as_steps_since_updates_began(
    tmp_path: Path, update_every: int, update_after: int, updates: int
) -> None:
    trainer = Trainer(
        tiny(steps=100, update_every=update_every, update_after=update_after), tmp_path / "run", quiet=True
    )
    trainer.run()
    assert trainer.agent.updates == updates


def test_a_run_folder_is_not_overwritten_unless_forced(tmp_path: Path) -> None:
    settings, folder = tiny(steps=20, eval_every=20), tmp_path / "run"
    Trainer(settings, folder, quiet=True).run()
    (folder / "notes.txt").write_text("mine")
    with pytest.raises(SpikerlError, match=str(folder)):
        Trainer(settings, folder, quiet=True)
    assert (folder / "notes.txt").exists()
    Trainer(tiny(steps=30, eval_every=30), folder, force=True, quiet=True).run()
    assert not (folder / "notes.txt").exists()
    assert json.loads((folder / "result.json").read_text())["steps"] == 30


@pytest.mark.parametrize("files", [["thesis.txt"], ["config.toml", "content/post.md"], ["manifest.json"]])
def test_force_does_not_delete_a_folder_that_is_no_run(tmp_path: Path, files: list[str]) -> None:
    for name in files:  # other tools have a config.toml, too
        path = tmp_path / "folder" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text('title = "My site"\n')
    with pytest.raises(SpikerlError, match="folder"):
        Trainer(tiny(), tmp_path / "folder", force=True, quiet=True)
    assert all((tmp_path / "folder" / name).is_file() for name in files)


def test_force_does_not_replace_a_file(tmp_path: Path) -> None:
    (tmp_path / "run").write_text("mine")
    with pytest.raises(SpikerlError, match="run"):
        Trainer(tiny(), tmp_path / "run", force=True, quiet=True)
    assert (tmp_path / "run").read_text() == "mine"


def test_an_empty_folder_is_used(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    assert Trainer(tiny(steps=10), tmp_path / "run", quiet=True).run().steps == 10


def test_a_run_that_cannot_start_leaves_nothing_to_force_away(tmp_path: Path) -> None:
    with pytest.raises(SpikerlError, match="NoSuch-v5"):
        Trainer(tiny(env="NoSuch-v5"), tmp_path / "run", quiet=True)
    with pytest.raises(SpikerlError, match="Atlantis"):
        Trainer(tiny(carbon=True, country="Atlantis"), tmp_path / "run", quiet=True).run()
    if not torch.cuda.is_available():
        with pytest.raises(SpikerlError, match="cuda"):
            choose_device("cuda")
    assert Trainer(tiny(steps=10), tmp_path / "run", quiet=True).run().steps == 10


def test_stop_return_ends_the_run_at_the_first_evaluation_that_reaches_it(tmp_path: Path, clock: str) -> None:
    # the two evaluation environments' first episodes return 10, their second and third ones 28
    settings = tiny(env=clock, eval_every=50)
    assert Trainer(Settings(**vars(settings) | {"stop_return": 28.0}), tmp_path / "a", quiet=True).run().steps == 100
    result = Trainer(Settings(**vars(settings) | {"stop_return": 10.0}), tmp_path / "b", quiet=True).run()
    assert (result.steps, result.stopped, result.final_return) == (50, "stop_return", 10.0)
    result = Trainer(Settings(**vars(settings) | {"stop_return": 28.5}), tmp_path / "c", quiet=True).run()
    assert (result.steps, result.stopped, result.best_return) == (400, "steps", 28.0)


def test_best_stays_at_the_best_evaluation_and_last_goes_on(tmp_path: Path, clock: str) -> None:
    folder = tmp_path / "run"  # evaluations at 50, 100, 150, 200: 10, 28, 28, 10
    result = Trainer(tiny(env=clock, eval_every=50, steps=200), folder, quiet=True).run()
    best, last = (load_checkpoint(folder / "checkpoints" / f"{name}.pt")["progress"] for name in ("best", "last"))
    assert (best["step"], best["eval_return"]) == (100, 28.0)
    assert (last["step"], last["eval_return"]) == (200, 10.0)
    assert (result.best_return, result.final_return) == (28.0, 10.0)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_saves_the_last_checkpoint_and_reports_the_interruption(tmp_path: Path, number: int) -> None:
    folder = tmp_path / "run"
    program = (
        "import sys; from pathlib import Path; from training.settings import from_sources; "
        "from training.trainer import Trainer; "
        "print(Trainer(from_sources(Path(sys.argv[1])), Path(sys.argv[2])).run().stopped)"
    )
    (tmp_path / "settings.toml").write_text(tiny(steps=10_000_000, eval_every=1003).to_toml())
    child = subprocess.Popen(
        [sys.executable, "-c", program, str(tmp_path / "settings.toml"), str(folder)],
        env=os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        deadline = time.monotonic() + 120
        while not (folder / "checkpoints" / "best.pt").exists() and time.monotonic() < deadline:
            assert child.poll() is None, child.communicate()[1]
            time.sleep(0.05)
        time.sleep(0.05)
        child.send_signal(number)
        out, err = child.communicate(timeout=60)
    finally:
        child.kill()
    assert (child.returncode, out.split()) == (0, ["interrupted"])
    result = json.loads((folder / "result.json").read_text())
    assert result["stopped"] == "interrupted" and result["steps"] % 1003, "it went on to the next evaluation"
    assert f"interrupted at step {result['steps']}" in err
    assert load_checkpoint(folder / "checkpoints" / "last.pt")["progress"]["step"] == result["steps"]
    assert policy_of(folder / "checkpoints" / "last.pt").closed_loop_ready


@pytest.mark.parametrize("bad", ["observation", "reward", "reset"])
def test_a_value_of_the_environment_that_is_not_finite_stops_the_run(tmp_path: Path, clock: str, bad: str) -> None:
    gymnasium.registry[clock].kwargs["bad"] = bad
    trainer = Trainer(tiny(env=clock, eval_every=400, eval_episodes=1), tmp_path / "run", quiet=True)
    with pytest.raises(SpikerlError, match="not finite"):
        trainer.run()
    assert np.isfinite(trainer.normalizer.mean).all()
    assert trainer.replay.next_observations[: trainer.replay.size].isfinite().all()


@pytest.mark.parametrize("steps", [150, 400, 2_000])
def test_a_loss_that_is_not_finite_stops_the_run_and_spares_the_last_good_checkpoint(
    tmp_path: Path, clock: str, steps: int
) -> None:
    folder = tmp_path / "run"  # the critics overflow soon after step 150; evaluations at 60, 120, 180, ...
    settings = tiny(env=clock, steps=steps, update_after=100, eval_every=60, critic_lr=1e30)
    with pytest.raises(SpikerlError, match=r"nan|inf|not finite") as error:
        Trainer(settings, folder, quiet=True).run()
    assert "last.pt" in (error.value.hint or "")
    assert policy_of(folder / "checkpoints" / "last.pt").closed_loop_ready
