"""Normalised synaptic input after training: acting, export, checkpoints, resuming and ranks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from synaptic_norm_support import F32, OBS, SEEDS, actor, agent, arguments_of, normal, stir
from torch import Tensor
from training_support import HOPPER, assert_same_run, fingerprint, sets, start_ranks, state_of, succeeded, tiny, train

from simulators.torch_backend import TorchBackend
from spikerl_deploy.codec import encode
from spikerl_deploy.errors import SpikerlError
from spikerl_deploy.policy import Normalization, Policy
from training.acting import NumpyActor
from training.checkpoint import Progress, load_checkpoint, policy_of, save_checkpoint
from training.trainer import Trainer

# Acting and export.


@pytest.mark.parametrize("seeds", SEEDS)
@pytest.mark.parametrize("count", [1, 200])
def test_the_numpy_actor_acts_as_the_torch_actor(seeds: tuple[int, ...], count: int) -> None:
    made = actor(seeds)
    fast = NumpyActor(made)
    observation = np.random.default_rng(count).normal(0, 1.2, (len(seeds), count, OBS)).astype(np.float32)
    stir(made, 5)  # after it was made: it reads where they lie
    mine = fast(observation, [])
    with torch.no_grad():
        reference = made(torch.from_numpy(observation)).numpy()
    assert mine.dtype == np.float32
    assert np.isclose(mine, reference, rtol=1e-4, atol=1e-4).all(axis=-1).mean() >= 0.99
    np.testing.assert_array_equal(mine, fast(observation, []))


@pytest.mark.parametrize("name", ["norms.0.gamma", "norms.1.running_mean", "norms.2.running_var", "biases.1"])
def test_each_part_of_the_normalisation_counts_when_numpy_acts(name: str) -> None:
    made = actor((3, 0))
    fast, observation = NumpyActor(made), np.random.default_rng(0).normal(0, 1.2, (2, 60, OBS)).astype(np.float32)
    before = fast(observation, [])
    with torch.no_grad():
        made.state_dict()[name][1] *= 2.5
    after = fast(observation, [])
    np.testing.assert_array_equal(before[0], after[0])
    assert not np.allclose(before[1], after[1])


IDENTITY = Normalization(np.zeros(OBS), np.ones(OBS), clip=100.0)


def rasters(policy: Policy, spikes: np.ndarray) -> list[np.ndarray]:
    """Spikes [B, T, n] of every layer by the deployment's own float backend."""
    with TorchBackend(device="cpu").open(policy, len(spikes)) as session:
        found = session.infer(spikes, rasters=True).rasters
    assert found is not None
    return list(found)


@pytest.mark.parametrize("seeds", SEEDS)
def test_the_exported_policy_is_the_acting_actor_with_its_normalisation_folded_in(seeds: tuple[int, ...]) -> None:
    made = actor(seeds, hidden=(30, 20))
    observation = normal(len(seeds), 200, OBS, dtype=F32)
    for i in range(len(seeds)):
        policy = made.to_policy(IDENTITY, "x", i)
        spikes = encode(policy, observation[i].numpy(), [])  # [B, T, n]
        x = torch.from_numpy(spikes.swapaxes(0, 1).astype(np.float32)).expand(len(seeds), -1, -1, -1)
        with torch.no_grad():
            layers = made.core(x)
        for k, layer in enumerate(policy.layers):
            norm, drive = made.norms[k], x.flatten(1, 2)
            with torch.no_grad():
                current = norm(torch.bmm(drive, made.weights[k]), made.biases[k])[i]
            scale = current.abs().max().item()
            folded = drive[i].numpy() @ layer.weight.T + layer.bias
            np.testing.assert_allclose(folded, current.numpy(), rtol=1e-5, atol=1e-5 * scale)
            x = layers[k]
        theirs = rasters(policy, spikes)
        for own, other in zip(layers, theirs, strict=True):
            agreement = (own[i].numpy().swapaxes(0, 1) > 0) == other
            assert agreement.mean() > 0.999 and 0.02 < other.mean() < 0.9


def test_exporting_changes_nothing_of_the_actor() -> None:
    made = actor((0, 1))
    before = {name: value.clone() for name, value in made.state_dict().items()}
    made.to_policy(IDENTITY, "x", 1)
    for name, value in made.state_dict().items():
        assert value.dtype == F32 and torch.equal(value, before[name]), name


# What is kept.


@pytest.mark.parametrize("index", [0, 1])
def test_a_checkpoint_keeps_the_statistics_of_its_seed(tmp_path: Path, index: int) -> None:
    made = actor((4, 5))
    save_checkpoint(tmp_path / "last.pt", made, IDENTITY, made.settings, Progress(7, 2, None), index)
    stored = load_checkpoint(tmp_path / "last.pt")["actor"]
    assert {f"norms.{k}.{n}" for k in range(3) for n in ("gamma", "running_mean", "running_var")} <= set(stored)
    got, expected = policy_of(tmp_path / "last.pt"), made.to_policy(IDENTITY, "x", index)
    for mine, reference in zip(got.layers, expected.layers, strict=True):
        np.testing.assert_array_equal(mine.weight, reference.weight)
        np.testing.assert_array_equal(mine.bias, reference.bias)


def test_a_checkpoint_without_its_statistics_is_refused(tmp_path: Path) -> None:
    made, path = actor(), tmp_path / "last.pt"
    save_checkpoint(path, made, IDENTITY, made.settings, Progress(7, 2, None))
    document = load_checkpoint(path)
    del document["actor"]["norms.1.running_var"]
    torch.save(document, path)
    with pytest.raises(SpikerlError, match=r"norms\.1\.running_var"):
        policy_of(path)


def test_a_checkpoint_from_before_there_was_normalisation_is_read_as_one_without(tmp_path: Path) -> None:
    made, path = actor(synaptic_norm="none"), tmp_path / "last.pt"
    save_checkpoint(path, made, IDENTITY, made.settings, Progress(7, 2, None))
    document = load_checkpoint(path)
    for name in ("synaptic_norm", "norm_momentum"):
        start = document["settings"].index(f'"{name}"')
        end = document["settings"].index(", ", start) + 2
        document["settings"] = document["settings"][:start] + document["settings"][end:]
    assert "norm_" not in document["settings"]
    torch.save(document, path)
    np.testing.assert_array_equal(policy_of(path).layers[1].weight, made.weights[1].detach()[0].T)


RUN: dict[str, Any] = {
    "env": HOPPER, "steps": 200, "start_steps": 30, "update_after": 40, "eval_every": 100, "eval_episodes": 1,
    "synaptic_norm": "batch", "actor_lr": 1e-2,
}  # fmt: skip


def test_a_run_ended_and_resumed_ends_as_the_uninterrupted_one(tmp_path: Path) -> None:
    succeeded(train(tmp_path, "whole", **RUN))
    settings = tiny(**RUN)
    stopped = Trainer(settings, tmp_path / "run", quiet=True, on_evaluation=lambda step, _: step == 100).run()
    assert stopped.stopped == "pruned"
    Trainer(settings, tmp_path / "run", quiet=True, resume=True).run()
    assert_same_run(tmp_path / "run", tmp_path / "whole")
    for which in ("actor", "actor_target"):
        state = state_of(tmp_path / "run")["state"]["agent"][which]
        assert all((state[f"norms.{k}.running_mean"] != 0).any() for k in range(2))


def test_the_ranks_keep_the_same_statistics_to_the_bit(tmp_path: Path) -> None:
    arguments = ["train", "--out", str(tmp_path / "run"), *sets(**RUN | {"eval_every": 200, "eval_episodes": 2})]
    for child in start_ranks(arguments, tmp_path):
        succeeded(child.wait())
    found = fingerprint(tmp_path / "run")
    mine = {key.removeprefix("rank0/"): value for key, value in found.items() if key.startswith("rank0/agent/")}
    assert sum("running_" in key for key in mine) == 8  # actor and target, two layers
    assert [key for key, value in mine.items() if found[f"rank1/{key}"] != value] == []


def test_moments_are_averaged_over_ranks_with_the_gradients_and_before_they_count() -> None:
    tested, untouched = agent(policy_delay=1, norm_momentum=1.0), agent(policy_delay=1)
    seen: list[list[torch.Size]] = []

    def average(tensors: list[Tensor]) -> None:
        seen.append([tensor.shape for tensor in tensors])
        count = len(list(tested.actor.parameters()))
        if len(seen) == 2:
            for tensor in tensors[count:-1]:
                tensor.fill_(0.25)

    tested.average = average
    tested.update(*arguments_of((0,)))
    count = len(list(tested.actor.parameters()))
    assert seen[1][count:-1] == [value.shape for value in untouched.actor.statistics()]
    assert all((value == 0.25).all() for value in tested.actor.statistics())
    assert len(seen[0]) == len(list(tested.critic.parameters())) + 1
