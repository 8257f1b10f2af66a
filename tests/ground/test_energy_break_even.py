"""Break-even against the estimate itself: at the threshold the policy spends what the quantized ANN spends."""

from __future__ import annotations

from typing import Any

import pytest
from energy_networks import ANN, POLICY, even_workload, uneven_workload
from hypothesis import given, settings
from hypothesis import strategies as st

from spikerl_deploy.break_even import PUBLISHED, Line
from spikerl_deploy.energy import estimate_energy, load_energy_chips
from spikerl_deploy.energy_models import firing_rate, scale_activity
from spikerl_deploy.workload import Workload

CHIPS = load_energy_chips()
RIVALS = {
    "cmos45/synops": "ann-int3/synops",
    "cmos45/memory-aware": "ann-int3/memory-aware",
    "loihi1/chip-dynamic": "ann-int3/memory-aware",
}


def estimate(workload: Workload) -> dict[str, Any]:
    return estimate_energy(workload, ANN, CHIPS)


def by_id(entries: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    return {each["id"]: each for each in entries}


@pytest.mark.parametrize("name", RIVALS)
def test_at_the_threshold_the_policy_spends_what_the_quantized_ann_spends(name: str) -> None:
    workload = even_workload(POLICY, 0.08, 5)
    document = estimate(workload)
    found = by_id(document["break_even"])[name]
    rival = by_id(document["baselines"])[RIVALS[name]]
    assert found["here"] == pytest.approx(0.08) and 0 < found["threshold_low"] < found["threshold_high"] < 1
    for threshold, mine, theirs in (("threshold_low", "high", "low"), ("threshold_high", "low", "high")):
        there = scale_activity(workload, found[threshold] / 0.08)
        assert by_id(estimate(there)["figures"])[name][mine] == pytest.approx(rival[theirs])


def test_a_policy_saves_below_the_range_and_not_above_it() -> None:
    base = even_workload(POLICY, 0.08, 5)
    found = by_id(estimate(base)["break_even"])["loihi1/chip-dynamic"]
    low, high = found["threshold_low"], found["threshold_high"]
    for rate, saves in ((low * 0.99, True), (low * 1.01, None), (high * 0.99, None), (high * 1.01, False)):
        there = by_id(estimate(scale_activity(base, rate / 0.08))["break_even"])["loihi1/chip-dynamic"]
        assert there["saves"] is saves
        assert (there["threshold_low"], there["threshold_high"]) == pytest.approx((low, high))


def test_static_power_alone_costs_more_than_the_ann_at_any_rate() -> None:
    found = by_id(estimate(even_workload(POLICY, 0.01, 5))["break_even"])["loihi1/chip-total"]
    assert (found["threshold_low"], found["threshold_high"], found["saves"]) == (None, None, False)


def test_the_firing_rate_is_weighted_by_synapses() -> None:
    assert firing_rate(uneven_workload()) == pytest.approx((17 + 12) / (5 * (7 + 5)))
    assert firing_rate(even_workload(POLICY, 0.13, 5)) == pytest.approx(0.13)


def test_the_sweep_passes_through_the_figures_and_the_ann_stays_flat() -> None:
    workload = even_workload(POLICY, 0.25, 5)
    document = estimate(workload)
    sweep, figures = document["sweep"], by_id(document["figures"] + document["baselines"])
    assert sweep["here"] == pytest.approx(0.25) and sweep["rates"][0] == 0 and sweep["rates"][-1] == pytest.approx(1)
    place = 10
    assert sweep["rates"][place] == pytest.approx(0.25)
    assert {line["id"] for line in sweep["figures"]} == {*RIVALS, *RIVALS.values()}
    for line in sweep["figures"]:
        figure = figures[line["id"]]
        assert (line["low"][place], line["high"][place]) == pytest.approx((figure["low"], figure["high"]))
        if line["id"].startswith("ann-"):
            assert len(set(line["low"])) == len(set(line["high"])) == 1
        else:
            assert line["high"] == sorted(line["high"]) and line["high"][0] < line["high"][-1]


def test_the_sweep_ends_where_a_layer_would_fire_in_every_step() -> None:
    workload = uneven_workload()  # busiest: the inputs, 9 of 15
    sweep = estimate(workload)["sweep"]
    assert sweep["rates"][-1] == pytest.approx(firing_rate(workload) / (9 / 15))
    assert sweep["here"] in [pytest.approx(rate, abs=0.02) for rate in sweep["rates"]]


def test_a_silent_policy_is_swept_as_if_it_fired_evenly() -> None:
    silent, even = estimate(even_workload(POLICY, 0.0, 5)), estimate(even_workload(POLICY, 0.5, 5))
    assert silent["sweep"]["here"] == 0.0 and silent["sweep"]["rates"] == pytest.approx(even["sweep"]["rates"])
    ours, theirs = by_id(silent["sweep"]["figures"]), by_id(even["sweep"]["figures"])
    assert ours["loihi1/chip-dynamic"]["high"] == pytest.approx(theirs["loihi1/chip-dynamic"]["high"])
    assert all(each["saves"] for each in silent["break_even"] if not each["id"].endswith("chip-total"))


def test_published_break_evens_say_where_the_policy_stands() -> None:
    found = by_id(estimate(even_workload(POLICY, 0.2, 5))["break_even"])
    yan, davidson, dampfhoffer = (found[name] for name in ("yan2024", "davidson2021", "dampfhoffer2022"))
    assert (yan["here"], yan["saves"]) == (pytest.approx(0.2), False)
    assert (davidson["here"], davidson["saves"]) == (pytest.approx(1.0), True)  # 0.2 spikes in each of 5 steps
    assert (dampfhoffer["here"], dampfhoffer["saves"]) == (pytest.approx(1.0), None)
    assert all(found[each.id]["source"] == each.source for each in PUBLISHED)


def test_nothing_is_said_of_a_number_of_time_steps_that_nothing_is_published_for() -> None:
    found = by_id(estimate(even_workload(POLICY, 0.01, 8))["break_even"])
    yan = found["yan2024"]
    assert (yan["threshold_low"], yan["threshold_high"], yan["saves"]) == (None, None, None)
    assert yan["here"] == pytest.approx(0.01) and "nothing is published for T = 8" in yan["what"]
    assert found["davidson2021"]["saves"] is True and "ann-int4/memory-aware" in found["cmos45/memory-aware"]["what"]


@settings(max_examples=50, deadline=None)
@given(rest=st.floats(0, 1e6), slope=st.floats(0, 1e6), energy=st.floats(0, 2e6))
def test_a_line_stays_below_an_energy_up_to_the_rate_given(rest: float, slope: float, energy: float) -> None:
    line = Line((rest, rest), (slope, slope))
    rate = line.rate_of(energy, 0)
    if rate is None:
        assert rest > energy
    else:
        assert 0 <= rate <= 1 and line.at(rate)[0] <= energy * (1 + 1e-9) + 1e-9
        assert rate == 1 or line.at(rate)[0] == pytest.approx(energy, abs=1e-6)
