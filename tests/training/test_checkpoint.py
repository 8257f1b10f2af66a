"""Checkpoints: what comes back is what was saved, and nothing in a file is executed or trusted."""

from __future__ import annotations

import dataclasses
import json
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch

from spikerl_deploy.errors import SpikerlError
from training.actor import Spaces
from training.checkpoint import FORMAT, VERSION, Progress, load_checkpoint, policy_of, save_checkpoint
from training.normalizer import RunningNormalizer
from training.settings import Settings
from training.td3 import TD3

CPU = torch.device("cpu")
SPACES = Spaces(3, np.float32([-1, 0]), np.float32([1, 5]))
SETTINGS = Settings(hidden=(9, 8), critic_hidden=(7,), population=4, env="Some-v0", observation_clip=2.0, time_steps=3)


def save(path: Path, seeds: tuple[int, ...] = (1,), index: int = 0) -> tuple[TD3, RunningNormalizer]:
    agent = TD3(SPACES, SETTINGS, CPU, seeds)
    normalizer = RunningNormalizer(len(seeds), 3, SETTINGS.observation_clip, CPU)
    normalizer.observe(np.random.default_rng(0).normal(2, 3, (len(seeds), 50, 3)))
    normalizer.merge()
    save_checkpoint(path, agent.actor, normalizer.snapshot(index), SETTINGS, Progress(70, 20, 12.5), index)
    return agent, normalizer


@pytest.mark.parametrize("index", [0, 1, 2])
def test_the_policy_of_a_checkpoint_is_that_of_the_seeds_actor_to_the_bit(tmp_path: Path, index: int) -> None:
    agent, normalizer = save(tmp_path / "last.pt", (4, 5, 6), index)
    got = policy_of(tmp_path / "last.pt")
    expected = agent.actor.to_policy(normalizer.snapshot(index), "Some-v0", index)
    assert got.sizes == expected.sizes == (12, 9, 8, 8)
    assert (got.env_id, got.time_steps) == ("Some-v0", 3)
    for mine, reference in zip(got.layers, expected.layers, strict=True):
        np.testing.assert_array_equal(mine.weight, reference.weight)
        np.testing.assert_array_equal(mine.bias, reference.bias)
    for part in ("normalization", "encoder", "decoder"):
        mine, reference = vars(getattr(got, part)), vars(getattr(expected, part))
        for name, value in reference.items():
            np.testing.assert_array_equal(mine[name], value)
    assert got.provenance["progress"] == {"step": 70, "updates": 20, "eval_return": 12.5}
    assert got.provenance["settings"]["population"] == 4


def test_a_checkpoint_holds_one_policy_and_nothing_that_only_training_needs(tmp_path: Path) -> None:
    agent, normalizer = save(tmp_path / "last.pt", (4, 5), 1)
    document = load_checkpoint(tmp_path / "last.pt")
    assert set(document) == {"format", "version", "settings", "spaces", "progress", "normalizer", "actor"}
    state = agent.actor.state_dict()
    assert set(document["actor"]) == set(state)
    for name, value in document["actor"].items():
        assert torch.equal(value, state[name][1:2]), name
    np.testing.assert_array_equal(document["normalizer"]["mean"].numpy(), normalizer.mean[1].astype(np.float32))
    np.testing.assert_array_equal(document["normalizer"]["std"].numpy(), normalizer.std()[1].astype(np.float32))
    assert document["spaces"]["obs_dim"] == 3
    for name in ("action_low", "action_high"):
        np.testing.assert_array_equal(document["spaces"][name].numpy(), getattr(SPACES, name))


@pytest.mark.parametrize(
    ("kind", "reason"),
    [
        ({"actor": "mlp"}, "dense baseline.*no spikes to export"),
        ({"readout": "membrane"}, "output neurons do not spike"),
    ],
)
def test_an_actor_that_no_chip_can_run_is_kept_and_refused_as_a_policy(
    tmp_path: Path, kind: dict[str, str], reason: str
) -> None:
    settings = dataclasses.replace(SETTINGS, **kind)
    agent = TD3(SPACES, settings, CPU, (4, 5))
    normalization = RunningNormalizer(2, 3, 2.0, CPU).snapshot(1)
    save_checkpoint(tmp_path / "best.pt", agent.actor, normalization, settings, Progress(70, 20, 12.5), 1)
    document = load_checkpoint(tmp_path / "best.pt")
    for name, value in agent.actor.state_dict().items():
        assert torch.equal(document["actor"][name], value[1:2]), name
    with pytest.raises(SpikerlError, match=rf"best\.pt.*{reason}") as refusal:
        policy_of(tmp_path / "best.pt")
    assert refusal.value.exit_code == 2 and "\n" not in refusal.value.message


def test_a_checkpoint_of_before_there_were_kinds_of_actors_is_a_spiking_one(tmp_path: Path) -> None:
    save(tmp_path / "last.pt")
    document, expected = load_checkpoint(tmp_path / "last.pt"), policy_of(tmp_path / "last.pt")
    stored = json.loads(document["settings"])
    for name in ("actor", "readout", "target_actor", "proxy_hidden", "proxy_lr", "proxy_steps"):
        del stored[name]
    torch.save(document | {"settings": json.dumps(stored)}, tmp_path / "last.pt")
    np.testing.assert_array_equal(policy_of(tmp_path / "last.pt").layers[0].weight, expected.layers[0].weight)


def test_what_is_saved_does_not_change_when_training_goes_on(tmp_path: Path) -> None:
    agent, normalizer = save(tmp_path / "last.pt")
    before = policy_of(tmp_path / "last.pt")
    with torch.no_grad():
        for parameter in agent.actor.parameters():
            parameter.zero_()
    normalizer.observe(np.ones((1, 50, 3)))
    normalizer.merge()
    np.testing.assert_array_equal(policy_of(tmp_path / "last.pt").layers[0].weight, before.layers[0].weight)


def test_the_settings_that_made_a_policy_come_with_it(tmp_path: Path) -> None:
    save(tmp_path / "last.pt")
    stored = policy_of(tmp_path / "last.pt").provenance["settings"]
    assert Settings(**stored) == SETTINGS


def test_a_file_truncated_anywhere_is_refused_with_its_name(tmp_path: Path) -> None:
    save(tmp_path / "last.pt")
    content = (tmp_path / "last.pt").read_bytes()
    broken = tmp_path / "broken.pt"
    for length in (0, 1, 4, 100, len(content) // 2, len(content) - 1):
        broken.write_bytes(content[:length])
        with pytest.raises(SpikerlError, match=r"broken\.pt"):
            policy_of(broken)


def test_a_damaged_pickle_is_refused_whatever_it_raises_inside(tmp_path: Path) -> None:
    path = tmp_path / "broken.pt"
    rng = np.random.default_rng(0)
    good = np.frombuffer(pickle.dumps({"format": FORMAT, "version": VERSION, "agent": [1, "x"]}, 2), np.uint8)
    for _ in range(300):
        bad = good.copy()
        bad[rng.integers(2, len(bad))] = rng.integers(256)
        path.write_bytes(bad.tobytes())
        with pytest.raises(SpikerlError, match=r"broken\.pt"):
            policy_of(path)


def test_a_missing_file_and_a_folder_are_refused(tmp_path: Path) -> None:
    for path in (tmp_path / "none.pt", tmp_path):
        with pytest.raises(SpikerlError, match=path.name):
            policy_of(path)


@pytest.mark.parametrize(
    "foreign", [{"weight": torch.zeros(3)}, [1, 2], torch.zeros(2), {"format": "other", "version": VERSION}, "text"]
)
def test_a_foreign_torch_file_is_refused(tmp_path: Path, foreign: object) -> None:
    torch.save(foreign, tmp_path / "foreign.pt")
    with pytest.raises(SpikerlError, match=r"foreign\.pt.*no spikerl checkpoint"):
        policy_of(tmp_path / "foreign.pt")


@pytest.mark.parametrize("version", [VERSION + 1, 0, None, "1"])
def test_another_version_is_refused_and_named(tmp_path: Path, version: object) -> None:
    save(tmp_path / "last.pt")
    document = load_checkpoint(tmp_path / "last.pt") | {"version": version}  # 1 was with all networks in one file
    torch.save(document, tmp_path / "last.pt")
    with pytest.raises(SpikerlError, match=f"version {version}"):
        load_checkpoint(tmp_path / "last.pt")


@pytest.mark.parametrize("part", ["settings", "spaces", "actor", "normalizer", "progress"])
@pytest.mark.parametrize("value", [None, "nonsense", 3])
def test_a_missing_or_misshapen_part_is_refused(tmp_path: Path, part: str, value: object) -> None:
    path = tmp_path / "last.pt"
    save(path)
    document = load_checkpoint(path)
    if value is None:
        del document[part]
    else:
        document[part] = value
    torch.save(document, path)
    if part == "progress" and value is not None:
        return  # told on, not interpreted
    with pytest.raises(SpikerlError, match=r"last\.pt"):
        policy_of(path)


def test_weights_of_another_shape_are_refused(tmp_path: Path) -> None:
    save(tmp_path / "last.pt")
    document = load_checkpoint(tmp_path / "last.pt")
    document["actor"]["weights.0"] = torch.zeros(1, 13, 9)
    torch.save(document, tmp_path / "last.pt")
    with pytest.raises(SpikerlError, match=r"weights\.0"):
        policy_of(tmp_path / "last.pt")


class Malicious:
    """Creates a file when it is unpickled."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[object, tuple[object, ...]]:
        return Path.touch, (self.marker,)


@pytest.mark.parametrize("container", ["torch", "pickle"])
def test_a_malicious_pickle_is_refused_and_not_executed(tmp_path: Path, container: str) -> None:
    path, marker = tmp_path / "evil.pt", tmp_path / "executed"
    document = {"format": FORMAT, "version": VERSION, "settings": Malicious(marker)}
    if container == "torch":
        torch.save(document, path)
        torch.load(path, weights_only=False)
    else:
        path.write_bytes(pickle.dumps(document, 2))
        pickle.loads(path.read_bytes())
    assert marker.exists(), "the payload does not work, so the test would show nothing"
    marker.unlink()
    with pytest.raises(SpikerlError, match=r"evil\.pt"):
        policy_of(path)
    assert not marker.exists()


def test_saving_replaces_the_old_file_and_leaves_no_other(tmp_path: Path) -> None:
    (tmp_path / "last.pt").write_bytes(b"old")
    save(tmp_path / "last.pt")
    assert [path.name for path in tmp_path.iterdir()] == ["last.pt"]
    assert policy_of(tmp_path / "last.pt").n_in == 12
