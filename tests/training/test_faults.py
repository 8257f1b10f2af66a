"""Numbers that are not finite: noted at their update by the tensor's name, and the end of a run."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from td3_support import ACT, CPU, OBS, PROXY, agent, noise_of, rows_of, statistics_of
from torch import Tensor

from spikerl_deploy.errors import SpikerlError
from training.distributed import Group, Place
from training.faults import Faults
from training.td3 import TD3


def faulty(made: TD3, number: int) -> None:
    made.update(rows_of(made.seeds, number), noise_of(made.seeds, number), statistics_of(made.seeds))


def test_finite_updates_have_no_fault() -> None:
    tested = agent((0, 1), policy_delay=1)
    assert tested.watch.fault() is None
    for number in range(3):
        faulty(tested, number)
    assert tested.watch.fault() is None
    assert (tested.watch.first == -1).all()


@pytest.mark.parametrize(
    ("column", "bad"),
    [  # an infinite observation is clipped like any that is too large; those are for check_environment
        *((column, math.nan) for column in (0, OBS, OBS + ACT, OBS + ACT + 1)),
        *((column, sign * math.inf) for column in (OBS, OBS + ACT) for sign in (1, -1)),
    ],
)
def test_a_row_that_is_not_finite_is_noted_at_its_update_and_stays_noted(column: int, bad: float) -> None:
    tested = agent((0, 1), policy_delay=2)
    faulty(tested, 0)
    rows = rows_of((0, 1), 1)
    rows[1, 5, column] = bad
    rows[..., -1] = 0
    tested.update(rows, noise_of((0, 1), 1), statistics_of((0, 1)))
    found = tested.watch.fault()
    assert found is not None and found[0] == 2 and found[1].startswith("critic.")
    for number in (2, 3):
        faulty(tested, number)
        assert tested.watch.fault() == found


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("decoder_weight", "actor.decoder_weight"),
        ("biases.1", "actor.encoder.mean"),
    ],
)
def test_a_weight_of_the_actor_that_is_not_finite_is_noted_at_the_first_actor_update(name: str, expected: str) -> None:
    tested = agent((0, 1), policy_delay=3, surrogate="arctan")
    for number in range(2):
        faulty(tested, number)
    with torch.no_grad():
        dict(tested.actor.named_parameters())[name][1].fill_(math.nan)
    assert tested.watch.fault() is None
    faulty(tested, 2)
    found = tested.watch.fault()
    assert found is not None and found[0] == 3 and found[1].startswith("actor.")
    noted = {name for name, update in zip(tested.watch.names, tested.watch.first.tolist(), strict=True) if update == 3}
    assert expected in noted and not any(name.startswith("critic.") for name in noted)


def test_the_first_fault_wins_and_is_called_by_the_name_of_its_tensor() -> None:
    """Also one that another rank had: what is averaged ends with a size of each gradient."""
    tested = agent(policy_delay=1)
    names = [*(f"critic.{name}" for name, _ in tested.critic.named_parameters()), "critic_loss[seed 0]"]
    count = len(names)
    names += [f"actor.{name}" for name, _ in tested.actor.named_parameters()]
    plan = {(3, 1): [2], (4, 0): [1], (4, 1): [2], (5, 1): [2, 3], (6, 0): [1]}  # (update, network): places
    calls = 0

    def average(grads: list[Tensor]) -> None:
        nonlocal calls
        for place in plan.get((calls // 2 + 1, calls % 2), []):
            grads[-1][place] = math.inf if place == 2 else math.nan
        calls += 1

    tested.average = average
    found = []
    for number in range(7):
        faulty(tested, number)
        found.append(tested.watch.fault())
    assert found == [None, None] + [(3, names[count + 2])] * 5
    noted = {place: update for place, update in enumerate(tested.watch.first.tolist()) if update >= 0}
    assert noted == {count + 2: 3, 1: 4, count + 3: 5}


def test_faults_are_counted_on_from_the_updates_of_a_state() -> None:
    first = agent()
    for number in range(4):
        faulty(first, number)
    resumed = agent()
    resumed.load_state_dict(first.state_dict())
    rows = rows_of([0], 4)
    rows[0, 0, OBS + ACT] = math.nan
    resumed.update(rows, noise_of([0], 4), statistics_of([0]))
    found = resumed.watch.fault()
    assert found is not None and found[0] == 5


def watcher(tmp_path: Path, made: TD3) -> Faults:
    return Faults(tmp_path, "Some-v0", made, Group(Place(), CPU))


def test_the_run_is_stopped_with_the_update_and_the_tensor_named(tmp_path: Path) -> None:
    tested = agent()
    watch = watcher(tmp_path, tested)
    faulty(tested, 0)
    watch.check(10)
    with torch.no_grad():
        tested.critic.biases[-1].fill_(math.nan)
    faulty(tested, 1)
    with pytest.raises(SpikerlError, match=r"gradient of critic\.\S+ is not finite at update 2, found at step 11") as e:
        watch.check(11)
    assert "last good" not in (e.value.hint or "")
    (tmp_path / "resume").mkdir()
    (tmp_path / "resume" / "latest.json").write_text("{}")
    with pytest.raises(SpikerlError) as e:
        watch.check(11)
    assert "last good checkpoint" in (e.value.hint or "") and "\n" not in e.value.message + (e.value.hint or "")


@pytest.mark.parametrize(("learner", "name"), [("proxy", "weights.0"), ("critic", "biases.1"), ("actor", "weights.1")])
def test_a_parameter_that_is_not_finite_is_named_before_it_is_saved(tmp_path: Path, learner: str, name: str) -> None:
    tested = agent((0, 1), **PROXY)
    watch = watcher(tmp_path, tested)
    watch.check_parameters(6)
    with torch.no_grad():
        dict(tested.learners[learner].named_parameters())[name][1].view(-1)[-1] = math.inf
    with pytest.raises(SpikerlError, match=rf"^{learner}\.{name} is not finite at step 7"):
        watch.check_parameters(7)


def test_an_environments_number_that_is_not_finite_is_named(tmp_path: Path) -> None:
    watch = watcher(tmp_path, agent())
    observations, rewards = np.zeros((3, 4)), np.zeros(3)
    watch.check_environment(1, observations)
    watch.check_environment(1, observations, rewards)
    rewards[2] = math.inf
    with pytest.raises(SpikerlError, match=r"'Some-v0' gave reward = inf at step 7 \(environment 2, rank 0\)"):
        watch.check_environment(7, observations, rewards)
    watch.check_environment(7, observations)
    observations[1, 3] = math.nan
    with pytest.raises(
        SpikerlError, match=r"'Some-v0' gave observation\[3\] = nan at step 8 \(environment 1, rank 0\)"
    ):
        watch.check_environment(8, observations, rewards)
