"""Counters by hand, and the arithmetic of the estimate against the figures of its sources."""

from __future__ import annotations

import numpy as np
import pytest

from spikerl_deploy.energy import Activity, constants, estimate_energy, measure_activity


def test_synaptic_operations_by_hand() -> None:
    weights = (np.array([[1, 0, 2], [3, 0, 0]]), np.array([[0, 5]]))  # fan-outs 2, 0, 1 and 0, 1
    totals = (np.array([10, 20, 30]), np.array([4, 6]), np.array([7]))
    activity = measure_activity(totals, weights, control_steps=2, time_steps=5)
    assert activity.synaptic_operations == ((10 * 2 + 20 * 0 + 30 * 1) / 2, (4 * 0 + 6 * 1) / 2)
    assert activity.spikes == (30.0, 5.0, 3.5)
    assert activity.dense_macs == (6, 2)
    assert activity.neurons == (2, 1)
    assert activity.activity == (5 / 10, 3.5 / 5)
    assert activity.overhead_steps == 2


def figures(activity: Activity, control_step: float | None = None) -> dict[str, float]:
    return {f["name"]: f["value"] for f in estimate_energy(activity, control_step)["figures"]}


def test_each_term_of_the_chip_model_by_hand() -> None:
    activity = Activity((0.0, 10.0), (4,), (1000.0,), (8,), time_steps=5, overhead_steps=1)
    picojoules = 1000 * 23.6 + (24 - 10) * 52.0 + 10 * 81.0 + 10 * 1.7
    assert figures(activity)["loihi1-davies"] == pytest.approx(picojoules / 1e6)
    assert figures(activity)["gpu-floor"] == pytest.approx(8 * 5 * 1.4 / 1e6)


def test_estimate_of_the_papers_network_is_in_the_published_range() -> None:
    """170-256-256-60, T 5, 10 % activity, 62k operations: 1.6 to 1.8 uJ by Davies, 2.4 to 2.7 by SANA-FE."""
    activity = Activity((85.0, 128.0, 128.0, 30.0), (256, 256, 60), (20e3, 34e3, 8e3), (1, 1, 1), 5, 3)
    assert 1.6 < figures(activity)["loihi1-davies"] < 1.8
    assert 2.4 < figures(activity)["loihi1-sanafe"] < 2.7


def test_leakage_is_power_times_the_control_step() -> None:
    activity = Activity((0.0, 0.0), (1,), (0.0,), (1,), 5, 1)
    assert figures(activity, 0.05)["loihi1-static"] == pytest.approx(5200.0)  # 104 mW over 50 ms is 5.2 mJ
    assert "loihi1-static" not in figures(activity)


def test_every_constant_has_unit_kind_and_source() -> None:
    for name, entry in constants().items():
        if name == "version":
            continue
        assert entry["source"]
        assert entry["kind"] in {"measured", "simulated", "fitted", "derived", "datasheet"}
        values = [value for value in entry.values() if isinstance(value, dict)]
        assert values
        assert all(value["unit"] in ("pJ", "mW") and value["value"] > 0 for value in values)
