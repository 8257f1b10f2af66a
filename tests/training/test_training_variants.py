"""What kinds of actors and targets cost: each is timed as what it is, and ratios are the right way up."""

from __future__ import annotations

import pytest

from benchmarks import training_variants
from benchmarks.tables import variants_table
from benchmarks.training import Ours, transitions
from benchmarks.training_variants import ACTORS, CPU, VARIANTS, time_actions, time_updates
from training.mlp_actor import MLPActor
from training.settings import Settings


def test_every_variant_is_timed_beside_the_default() -> None:
    updates, actions = time_updates(1, 1, compiled=False), time_actions(1, 5)
    assert updates.keys() == VARIANTS.keys() | {"default_ms", "calls", "rounds"}
    assert actions.keys() == set(ACTORS) | {"default_ms", "calls", "rounds"}
    for row in (updates[name] for name in VARIANTS):
        assert row["range"][0] == row["times_the_default"] == row["range"][1] > 0  # one round
        assert row["times_the_default"] == pytest.approx(row["ms"] / updates["default_ms"])


def test_what_is_timed_is_what_its_name_says() -> None:
    rows = transitions()
    agents = {name: Ours(rows, CPU, False, Settings(**settings)).agent for name, settings in VARIANTS.items()}
    for name, agent in agents.items():
        assert isinstance(agent.actor, MLPActor) == (name == "--actor mlp")
        assert bool(getattr(agent.actor, "norms", [])) == (name == "synaptic_norm=batch")
        assert (agent.settings.readout == "membrane") == (name == "readout=membrane")
        assert (name in ACTORS) == bool(VARIANTS[name].keys() & {"actor", "synaptic_norm", "readout"})


def test_a_proxy_learns_from_as_many_batches_as_it_takes_steps() -> None:
    rows = transitions()
    for name, batches in (("target_actor=proxy", 3), ("target_actor=proxy proxy_steps=1", 1), ("--actor mlp", 1)):
        ours = Ours(rows, CPU, False, Settings(**VARIANTS[name]))
        assert ours.agent.batches == batches
        losses = ours.updater(False)
        assert ("proxy_loss" in losses) == ("proxy" in name)


def test_the_table_has_the_median_its_range_and_what_acts_as_the_default() -> None:
    times = {"baseline_ms": 10.0, "calls": 1, "rounds": 3}
    slow = {"ms": 20.0, "times_faster": 0.5, "range": [0.4, 0.8]}
    part = training_variants._ratios(times | {"target_actor=proxy": slow})
    table = variants_table({"results": {"eager": part, "compiled": part, "action": {"default_ms": 0.1234}}})
    assert table.splitlines()[2:] == [
        "| `target_actor=proxy` | 2.00 (1.25 to 2.50) | 2.00 (1.25 to 2.50) | as the default |",
        "| the default | 10 ms | 10 ms | 0.123 ms |",
    ]
