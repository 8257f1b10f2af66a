"""The actor in NumPy against the one in torch, which it must follow wherever that goes."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from training.acting import Actions, NumpyActor, in_numpy
from training.actor import Actor, Spaces, SpikingActor
from training.actors import make_actor
from training.normalizer import RunningNormalizer
from training.settings import Settings
from training.stacked import generators_of

CPU = torch.device("cpu")
SPACES = Spaces(3, np.float32([-1, 0]), np.float32([3, 0.5]))


MLP: dict[str, Any] = {"actor": "mlp"}


def actor_of(seeds: tuple[int, ...] = (0,), **settings: Any) -> Actor:
    """An actor of any kind."""
    return make_actor(SPACES, Settings(**{"hidden": (24, 16), "population": 7} | settings), generators_of(seeds))


def actor(seeds: tuple[int, ...] = (0,), **settings: Any) -> SpikingActor:
    """Weights wide enough for every layer to spike, receptive fields off their grid and another of each seed."""
    made = actor_of(seeds, **settings)
    assert isinstance(made, SpikingActor)
    g = torch.Generator().manual_seed(1)
    with torch.no_grad():
        made.encoder.mean += 0.1 * torch.randn(made.encoder.mean.shape, generator=g)
        made.encoder.std *= 1 + 0.5 * torch.rand(made.encoder.std.shape, generator=g)
        for weight in made.weights:
            weight *= 5
        made.decoder_weight *= 3
    return made


def observations(seeds: int, count: int) -> NDArray[np.float32]:
    return np.random.default_rng(count).normal(0, 1.2, (seeds, count, 3)).astype(np.float32)


def generators(seeds: int, first: int = 0) -> list[np.random.Generator]:
    return [np.random.default_rng(first + i) for i in range(seeds)]


def in_torch(made: Actor, observation: np.ndarray) -> np.ndarray:
    with torch.no_grad():
        return made(torch.from_numpy(observation)).numpy()


def assert_nearly_all_equal(mine: np.ndarray, reference: np.ndarray) -> None:
    """A current that differs in its last bit may decide a spike otherwise, once in thousands of rows."""
    assert mine.dtype == np.float32 and mine.shape == reference.shape
    same = np.isclose(mine, reference, rtol=1e-4, atol=1e-4).all(axis=-1)
    assert same.mean() >= 0.99
    assert len(np.unique(reference.round(3))) > 1


@pytest.mark.parametrize("seeds", [(0,), (3, 0, 8)])
@pytest.mark.parametrize("count", [1, 7, 300])
@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"hidden": (12,), "time_steps": 1, "encoder_std": 0.8},
        {"current_decay": 0.25, "voltage_decay": 0.5, "v_threshold": 0.75, "time_steps": 8},
        {"readout": "membrane"},
        {"readout": "membrane", "time_steps": 1, "hidden": (12,)},
        {"readout": "membrane", "synaptic_norm": "batch", "current_decay": 0.25, "voltage_decay": 0.5},
    ],
)
def test_actions_equal_those_of_the_torch_actor(seeds: tuple[int, ...], count: int, settings: dict[str, Any]) -> None:
    made, observation = actor(seeds, **settings), observations(len(seeds), count)
    kept = observation.copy()
    actions = NumpyActor(made)(observation, generators(len(seeds)))
    assert_nearly_all_equal(actions, in_torch(made, observation))
    np.testing.assert_array_equal(observation, kept)


@pytest.mark.parametrize("seeds", [(0,), (3, 0, 8)])
@pytest.mark.parametrize("count", [1, 7])
@pytest.mark.parametrize("hidden", [(24, 16), (9,)])
def test_dense_actions_equal_those_of_the_torch_actor(seeds: tuple[int, ...], count: int, hidden: tuple[int]) -> None:
    made, observation = actor_of(seeds, **MLP, hidden=hidden), 3 * observations(len(seeds), count)
    kept = observation.copy()
    actions = in_numpy(made)(observation, [])
    assert actions.dtype == np.float32
    np.testing.assert_allclose(actions, in_torch(made, observation), rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(observation, kept)


@pytest.mark.parametrize("seeds", [(0,), (3, 0, 8)])
@pytest.mark.parametrize("count", [1, 7])
def test_poisson_actions_equal_the_torch_actors_with_the_same_draws(
    seeds: tuple[int, ...], count: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    made, observation = actor(seeds, coding="poisson"), observations(len(seeds), count)
    actions = NumpyActor(made)(observation, generators(len(seeds)))
    shape = (5, count, 21)  # time steps, rows, receptive fields
    draws = np.stack([generator.random(shape, np.float32) for generator in generators(len(seeds))])
    monkeypatch.setattr(torch, "rand", lambda *sizes, **_: torch.from_numpy(draws).reshape(sizes))
    assert_nearly_all_equal(actions, in_torch(made, observation))


def test_poisson_actions_are_distributed_like_the_torch_actors() -> None:
    torch.manual_seed(0)
    made = actor((3, 0), coding="poisson")
    row = observations(2, 1)
    mine = NumpyActor(made)(np.repeat(row, 4000, axis=1), generators(2))
    reference = in_torch(made, np.repeat(row, 4000, axis=1))
    np.testing.assert_allclose(mine.mean(axis=1), reference.mean(axis=1), atol=0.05)
    np.testing.assert_allclose(mine.std(axis=1), reference.std(axis=1), rtol=0.1)
    assert mine.std(axis=1).min() > 0.01


def test_each_seed_draws_from_its_own_generator() -> None:
    together = NumpyActor(actor((3, 0, 8), coding="poisson"))
    observation = observations(3, 6)
    first = together(observation, generators(3))
    other = generators(3)
    other[1] = np.random.default_rng(99)
    second = together(observation, other)
    np.testing.assert_array_equal(first[[0, 2]], second[[0, 2]])
    assert not np.array_equal(first[1], second[1])


def test_regular_coding_draws_nothing() -> None:
    drawn = generators(1)
    NumpyActor(actor())(observations(1, 4), drawn)
    assert drawn[0].random() == np.random.default_rng(0).random()


def in_place_changes(made: Actor, other: Actor) -> Iterator[str]:
    """Everything that moves parameters in a run."""
    optimizer = torch.optim.Adam(made.parameters(), lr=0.05, fused=True)
    for _ in range(3):
        made(torch.from_numpy(observations(2, 50))).square().sum().backward()
        optimizer.step()
    yield "optimizer"
    made.load_state_dict(other.state_dict())
    yield "state"
    with torch.no_grad():
        torch._foreach_lerp_(list(made.parameters()), [torch.ones_like(p) for p in made.parameters()], 0.1)
    yield "average"


@pytest.mark.parametrize("make", [actor, functools.partial(actor_of, **MLP)], ids=["spiking", "mlp"])
def test_it_sees_parameters_that_change_where_they_lie(make: Callable[..., Actor]) -> None:
    made, observation = make((3, 0)), observations(2, 50)
    fast = in_numpy(made)
    before = fast(observation, [])
    for change in in_place_changes(made, make((5, 6))):
        after = fast(observation, [])
        assert not np.allclose(before, after), change
        assert_nearly_all_equal(after, in_torch(made, observation))
        before = after


@pytest.mark.parametrize(
    ("make", "name"),
    [
        *((actor, name) for name in ("encoder.mean", "encoder.std", "weights.0", "biases.1", "weights.2")),
        (actor, "decoder_weight"),
        *((functools.partial(actor_of, **MLP), name) for name in ("weights.0", "biases.1", "weights.2", "biases.2")),
    ],
)
def test_every_parameter_counts(make: Callable[..., Actor], name: str) -> None:
    made, observation = make((3, 0)), observations(2, 50)
    fast = in_numpy(made)
    before = fast(observation, [])
    with torch.no_grad():
        dict(made.named_parameters())[name][1] *= 1.7
    after = fast(observation, [])
    np.testing.assert_array_equal(before[0], after[0])
    assert not np.allclose(before[1], after[1])


def test_a_collapsed_receptive_field_is_held_open_as_in_torch() -> None:
    made, observation = actor(), observations(1, 20)
    with torch.no_grad():
        made.encoder.std[0, 0, 2] = -0.2
        observation[0, :, 0] = made.encoder.mean[0, 0, 2].item() + np.linspace(0, 0.3, 20, dtype=np.float32)
    assert_nearly_all_equal(NumpyActor(made)(observation, []), in_torch(made, observation))


def test_raw_observations_are_normalised_by_each_seeds_statistics() -> None:
    made, rng = actor((3, 0)), np.random.default_rng(0)
    centres = np.array([[[0.0, 5, -1]], [[10, -5, 100]]])
    normalizer = RunningNormalizer(2, 3, 1.5, CPU)
    act = Actions(made, normalizer)
    normalizer.observe(rng.normal(centres, [1, 3, 0.2], (2, 100, 3)))
    normalizer.merge()  # after the making of `act`, which must follow
    raw = rng.normal(centres, [2, 6, 0.4], (2, 60, 3))
    kept = raw.copy()
    actions = act(raw, generators(2))
    scores = np.clip((raw - normalizer.mean[:, None]) / normalizer.std()[:, None], -1.5, 1.5)
    assert np.abs(scores).max() == 1.5
    assert_nearly_all_equal(actions, in_torch(made, scores.astype(np.float32)))
    np.testing.assert_array_equal(raw, kept)


def test_raw_observations_in_float32_are_left_alone() -> None:
    normalizer = RunningNormalizer(1, 3, 1.5, CPU)
    normalizer.observe(np.array([[[1.0, 2.0, 3.0], [3.0, 2.0, 1.0]]]))
    normalizer.merge()
    raw = observations(1, 4)
    kept = raw.copy()
    Actions(actor(), normalizer)(raw, [])
    np.testing.assert_array_equal(raw, kept)
