"""Recorded episodes: whole, in order, the same after a file, and exact when replayed; watching changes nothing."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support import overflowing_policy, quantized_policy, random_policy

import simulators.episodes
from simulators.conformance import Divergence
from simulators.episodes import COLUMNS, Episodes, Recorder, load_episodes, save_episodes
from simulators.fixed import FixedBackend
from simulators.perturb import Perturbation
from simulators.registry import make_backend
from simulators.replay import replay
from simulators.rollout import Rollout, rollout
from simulators.torch_backend import TorchBackend
from spikerl_deploy.errors import SpikerlError

ENV, SEEDS = "InvertedPendulum-v5", range(7, 12)
POLICY = quantized_policy(time_steps=3)  # 3 * 10 outputs do not fill whole bytes


def recorded(batch: int = 1, **options: Any) -> tuple[Episodes, Rollout]:
    recorder = Recorder(POLICY)
    with FixedBackend().open(POLICY, batch) as session:
        played = rollout(session, ENV, SEEDS, observers=[recorder], **options)
    return recorder.episodes(SEEDS), played


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("recording") / "r.npz"
    save_episodes(recorded(3, perturbation=Perturbation(0.05, 1, 0.1))[0], path)
    return path


def rewrite(source: Path, target: Path, **changed: Any) -> Path:
    """The recording with arrays exchanged; None leaves one out."""
    with np.load(source) as arrays:
        kept = {**arrays, **changed}
    np.savez(target, **{name: array for name, array in kept.items() if array is not None})
    return target


def test_a_recording_is_what_the_rollout_itself_keeps() -> None:
    episodes, played = recorded(record=10_000, observe=10_000)
    assert len(episodes) == played.control_steps
    assert played.inputs is not None
    assert played.rasters is not None
    np.testing.assert_array_equal(episodes.columns["clean_observations"], played.observations)
    np.testing.assert_array_equal(episodes.columns["observations"], played.observations)
    for index, raster in enumerate((played.inputs, *played.rasters)):
        np.testing.assert_array_equal(episodes.raster(index), raster[:, 0])
        np.testing.assert_array_equal(episodes.raster(index, slice(2, 5)), raster[2:5, 0])
    for index, rows in enumerate(episodes.by_episode()):
        steps = rows.stop - rows.start
        assert (steps, episodes.columns["rewards"][rows].sum()) == (played.lengths[index], played.returns[index])
        np.testing.assert_array_equal(episodes.columns["step"][rows], np.arange(steps))
        np.testing.assert_array_equal(episodes.columns["episode"][rows], index)
        assert episodes.columns["terminated"][rows].tolist() == [False] * (steps - 1) + [True]
        assert not episodes.columns["truncated"][rows].any()


def test_episodes_side_by_side_are_recorded_as_one_after_the_other() -> None:
    alone, beside = recorded()[0], recorded(3)[0]
    for name in COLUMNS:
        np.testing.assert_array_equal(alone.columns[name], beside.columns[name])
    for x, y in zip(alone.spikes, beside.spikes, strict=True):
        np.testing.assert_array_equal(x, y)


def test_watching_changes_no_episode() -> None:
    with FixedBackend().open(POLICY, 3) as session:
        unwatched = rollout(session, ENV, SEEDS)
    watched = recorded(3)[1]
    assert (watched.returns, watched.lengths) == (unwatched.returns, unwatched.lengths)
    assert watched.rasters is None
    assert watched.observations is None


def test_some_episodes_only_are_kept_if_so_asked() -> None:
    everything, recorder = recorded(2)[0], Recorder(POLICY, only={0, 3})
    with FixedBackend().open(POLICY, 2) as session:
        rollout(session, ENV, SEEDS, observers=[recorder])
    some = recorder.episodes(SEEDS)
    rows = np.isin(everything.columns["episode"], (0, 3))
    for name in COLUMNS:
        np.testing.assert_array_equal(some.columns[name], everything.columns[name][rows])
    np.testing.assert_array_equal(some.spikes[2], everything.spikes[2][rows])
    assert len(some.by_episode()) == 2


def test_perturbed_recordings_hold_both_sides_of_the_perturbation() -> None:
    columns = recorded(2, perturbation=Perturbation(noise=0.05, delay=2))[0].columns
    assert (columns["observations"] != columns["clean_observations"]).all()
    for rows in recorded(2, perturbation=Perturbation(noise=0.05, delay=2))[0].by_episode():
        decided, applied = columns["actions"][rows], columns["applied"][rows]
        np.testing.assert_array_equal(applied, np.concatenate([np.zeros((2, 1)), decided[:-2]]))


def test_a_file_gives_back_what_was_saved_and_is_not_overwritten(tmp_path: Path) -> None:
    episodes, path = recorded()[0], tmp_path / "r.npz"
    save_episodes(episodes, path)
    loaded = load_episodes(path)
    assert loaded.about["seeds"] == list(SEEDS)
    assert (loaded.sizes, loaded.time_steps) == (POLICY.sizes, 3)
    for name, dtype in COLUMNS.items():
        assert loaded.columns[name].dtype == dtype
        np.testing.assert_array_equal(loaded.columns[name], episodes.columns[name])
    for index in range(len(POLICY.sizes)):
        np.testing.assert_array_equal(loaded.raster(index), episodes.raster(index))
    with pytest.raises(SpikerlError, match="not overwritten"):
        save_episodes(episodes, path)


@pytest.mark.parametrize("batch", [1, 7, 64])
def test_a_replay_on_the_same_integers_is_exact(file: Path, batch: int) -> None:
    with FixedBackend().open(POLICY, batch) as session:
        found = replay(file, session)
    assert found.exact
    assert found.mismatches == (0, 0, 0)
    assert found.largest_action_error == 0
    assert found.control_steps == len(load_episodes(file))
    assert found.spikes == sum(int(load_episodes(file).raster(index).sum()) for index in (1, 2, 3)) > 0


def test_lava_replays_what_fixed_recorded(file: Path, lava_folder: Path) -> None:
    with make_backend("lava").open(POLICY, 4) as session:
        assert replay(file, session).exact


def test_a_replay_on_floats_says_where_it_parts(file: Path) -> None:
    episodes = load_episodes(file)
    with TorchBackend("cpu").open(POLICY, 1) as session:
        found = replay(file, session)
        differing = []
        for index in range(len(episodes)):
            rasters = session.infer(episodes.raster(0, slice(index, index + 1)), rasters=True).rasters
            assert rasters is not None
            differing.append([int((r != episodes.raster(n, slice(index, index + 1))).sum())
                              for n, r in enumerate(rasters, start=1)])  # fmt: skip
    assert found.mismatches == tuple(np.sum(differing, axis=0)) != (0, 0, 0)
    assert found.first is not None
    seed, place = found.first
    row = int(np.flatnonzero(np.any(differing, axis=1))[0])
    assert seed == SEEDS[int(episodes.columns["episode"][row])]
    assert place.control_step == episodes.columns["step"][row]
    assert not found.exact
    assert found.actions_differ > 0
    assert found.largest_action_error > 0


def test_one_bit_of_a_spike_or_of_an_action_is_found(file: Path, tmp_path: Path) -> None:
    episodes = load_episodes(file)
    row = episodes.by_episode()[2].start + 1
    bits = episodes.raster(2).reshape(len(episodes), -1)
    bits[row, 2 * 20 + 5] ^= True
    spikes = rewrite(file, tmp_path / "s.npz", spikes_2=np.packbits(bits, axis=1))
    actions = episodes.columns["actions"].copy()
    actions[row] = np.nextafter(actions[row], np.float32(9))
    altered = rewrite(file, tmp_path / "a.npz", actions=actions)
    with FixedBackend().open(POLICY, 4) as session:
        found = replay(spikes, session)
        assert (found.mismatches, found.first) == ((0, 1, 0), (SEEDS[2], Divergence(1, 1, 2, 5)))
        found = replay(altered, session)
        assert (found.first, found.actions_differ, found.exact) == (None, 1, False)


@pytest.mark.parametrize("options", [{"hidden": (24, 21)}, {"time_steps": 4}])
def test_a_replay_on_another_policy_is_refused(file: Path, options: dict[str, Any]) -> None:
    with TorchBackend("cpu").open(random_policy(**{"time_steps": 3, **options})) as session:
        with pytest.raises(SpikerlError, match="records 40-24-20-10, T 3; the policy is"):
            replay(file, session)


def about_with(file: Path, **changed: Any) -> np.ndarray:
    with np.load(file) as arrays:
        return np.array(json.dumps({**json.loads(str(arrays["about"])), **changed}))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"about": None}, "about"),
        ({"about": np.array("{")}, "Expecting"),
        ({"about": {"schema": "spikerl.recording/2"}}, "schema is 'spikerl.recording/2'"),
        ({"about": {"sizes": [40, 24, 20]}, "spikes_2": None}, "spikes_2"),
        ({"about": {"sizes": [40, 24, 20, 90]}}, "'spikes_3' is uint8"),
        ({"about": {"seeds": [1]}}, "does not go through its 1 seeds"),
        ({"about": {"seeds": "abcdefgh"}}, "'seeds' is abcdefgh, a list of whole numbers"),
        ({"about": {"seeds": {"7": 0, "8": 1, "9": 2, "10": 3, "11": 4}}}, "a list of whole numbers"),
        ({"about": {"seeds": [7, 8, 9, 10, -1]}}, "'seeds' is .*whole numbers from 0"),
        ({"about": {"sizes": "1234"}}, "'sizes' is 1234"),
        ({"about": {"sizes": []}}, "'sizes' is .*from 1"),
        ({"step": lambda step: np.full_like(step, 7)}, "'step' does not count from 0"),
        ({"step": lambda step: np.arange(len(step), dtype=np.int32)}, "'step' does not count from 0"),
        ({"observations": lambda seen: seen[:, :1]}, r"'observations' is \(\d+, 1\), 'clean_observations' is"),
        ({"applied": lambda seen: np.repeat(seen, 2, axis=1)}, "'applied' is .* 'actions' is"),
        ({"rewards": lambda rewards: rewards * np.nan}, "'rewards' holds values that are not finite"),
        ({"actions": lambda actions: actions / np.float32(0)}, "'actions' holds values that are not finite"),
        ({"rewards": np.zeros(3)}, "'rewards' is float64"),
        ({"actions": np.array([{"a": 1}], dtype=object)}, "allow_pickle"),
        ({"step": np.zeros((0,), np.int32)}, "'episode' is int32"),
    ],
)
def test_a_broken_recording_is_refused_in_one_line(
    file: Path, tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    if isinstance(changes.get("about"), dict):
        changes = changes | {"about": about_with(file, **changes["about"])}
    with np.load(file) as arrays, np.errstate(all="ignore"):
        changes = {name: made(arrays[name]) if callable(made) else made for name, made in changes.items()}
    broken = rewrite(file, tmp_path / "b.npz", **changes)
    with pytest.raises(SpikerlError, match=message) as caught:
        load_episodes(broken)
    assert "\n" not in caught.value.message
    assert caught.value.hint


def test_what_is_no_recording_at_all_or_unpacks_to_too_much_is_refused(
    file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "text.npz").write_text("text")
    (tmp_path / "cut.npz").write_bytes(file.read_bytes()[:-100])
    for name in ("text.npz", "cut.npz"):
        with pytest.raises(SpikerlError, match="cannot read recording"):
            load_episodes(tmp_path / name)
    with pytest.raises(SpikerlError, match="no recording at"):
        load_episodes(tmp_path / "none.npz")
    monkeypatch.setattr(simulators.episodes, "BYTES_MAX", 1000)
    with pytest.raises(SpikerlError, match="at most 1000 are read"):
        load_episodes(file)


@pytest.mark.filterwarnings("error")
def test_an_action_that_is_no_number_is_the_largest_error(file: Path) -> None:
    with TorchBackend("cpu").open(overflowing_policy(time_steps=3), 4) as session:
        found = replay(file, session)
    assert np.isnan(found.largest_action_error) and not found.exact
