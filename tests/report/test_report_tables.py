"""How a report writes numbers, and that its tables hold every figure of the document."""

from __future__ import annotations

import math
from typing import Any

import pytest
import sample
from hypothesis import given
from hypothesis import strategies as st

from spikerl_deploy.report.document import validate
from spikerl_deploy.report.table import compact, joule_span, joules, number, percent, printable, shorten, span
from spikerl_deploy.report.tables import (
    backends_table,
    counts_table,
    episodes_table,
    footprint_table,
    layers_table,
    membranes_table,
    rates_table,
    returns_table,
    spikes_table,
)
from spikerl_deploy.report.tables_energy import baselines_table, break_even_table, energy_table, references_table
from spikerl_deploy.report.tables_overview import inference_table, sections_table, summary_table, training_table


def test_the_documents_of_these_tests_are_valid_reports() -> None:
    validate(sample.report(), "sample")
    validate(sample.full_report(), "sample")


@pytest.mark.parametrize(
    ("value", "written"),
    [
        (None, "\N{EN DASH}"),
        (0.0, "0"),
        (7, "7"),
        (1234567, "1,234,567"),
        (1234.5, "1,234"),
        (-0.125, "-0.1250"),
        (0.99971, "0.9997"),
        (12.0, "12.00"),
        (2e-7, "2.000e-07"),
        (3.2e13, "3.200e+13"),
    ],
)
def test_numbers_are_written_in_four_digits(value: float | None, written: str) -> None:
    assert number(value) == written


@given(st.floats(-1e15, 1e15, allow_nan=False), st.integers(2, 6))
def test_a_written_number_is_the_number_to_its_digits(value: float, digits: int) -> None:
    written = float(number(value, digits).replace(",", ""))
    assert math.isclose(written, value, rel_tol=0.5000001 * 10 ** (1 - digits))


@pytest.mark.parametrize(
    ("low", "high", "written"),
    [
        (1.806, 2.717, "1.81 to 2.72 µJ"),
        (0.168, 1.9, "168 nJ to 1.90 µJ"),
        (5200.0, 5200.4, "5.20 mJ"),
        (0.0, 0.0, "0 µJ"),
        (2.5e6, 4e6, "2.50 to 4.00 J"),
        (4e-5, 4e-5, "40.0 pJ"),
        (2e8, 3e12, "200 J to 3.00 MJ"),
        (None, 1.0, "\N{EN DASH}"),
    ],
)
def test_energies_take_the_prefix_of_their_size(low: float | None, high: float | None, written: str) -> None:
    assert joule_span(low, high) == written


@given(st.floats(1e-9, 1e9))
def test_a_written_energy_is_the_energy(value: float) -> None:
    text, unit = joules(value, 5).split(" ")
    factor = {"kJ": 1e9, "J": 1e6, "mJ": 1e3, "µJ": 1.0, "nJ": 1e-3, "pJ": 1e-6}[unit]
    assert math.isclose(float(text.replace(",", "")) * factor, value, rel_tol=1e-4)


def test_counts_are_compact_where_there_is_little_room() -> None:
    assert [compact(value) for value in (3, 0.0, 71.5, 29_496.0, 1_234_567, 2e9)] == [
        "3",
        "0",
        "71.5",
        "29.5k",
        "1.23M",
        "2.00G",
    ]


def test_ranges_and_shares() -> None:
    assert (span(1.0, 1.0001), span(1.0, 2.0)) == ("1.00", "1.00 to 2.00")
    assert (percent(0.117), percent(None)) == ("11.7 %", "\N{EN DASH}")
    assert shorten("a\n b" * 20, 10) == "a ba ba b…"


def test_characters_that_no_page_can_hold_are_replaced() -> None:
    bad = {"title": "a\x00\x1b[2J\ud800b", "list": ["\uffff", {"x": "\x85"}], "fine": "ü 🦾 \u202e", "n": [1, 2]}
    seen = printable(bad)
    assert seen["title"] == "a\ufffd\ufffd[2J\ufffdb"
    assert seen["list"] == ["\ufffd", {"x": "\ufffd"}]
    assert (seen["fine"], seen["n"]) == (bad["fine"], [1, 2])


def cells(table: Any) -> list[Any]:
    return [cell for row in table.rows for cell in row]


def test_tables_hold_the_numbers_of_the_document() -> None:
    document = sample.full_report()
    deployment = document["deployments"][0]
    entries = deployment["backends"]
    lava = entries["lava"]
    returns = returns_table(deployment)
    assert [row[1] for row in returns.rows] == lava["returns"]
    assert [row[3] for row in returns.rows] == entries["torch"]["returns"]
    assert [row[5] for row in returns.rows] == deployment["comparison"]["differences"]
    assert {lava["mean_return"], lava["std_return"], *lava["return_interval"]} <= set(cells(backends_table(deployment)))
    workload = lava["workload"]
    for layer, row in zip(workload["layers"], layers_table(deployment).rows, strict=True):
        assert set(layer.values()) == set(row)
    counts = counts_table(deployment)
    assert [row[1] for row in counts.rows] == [workload["per_inference"][key] for key in sample.COUNTS]
    assert [row[2] for row in counts.rows] == [workload["per_second"][key] for key in sample.COUNTS]
    assert [row[3] for row in counts.rows] == [workload["per_episode"]["mean"][key] for key in sample.COUNTS]
    assert [row[1] for row in episodes_table(deployment).rows] == workload["per_episode"]["synaptic_operations"]
    assert [row[1] for row in footprint_table(deployment).rows] == [124416, 1144, 4576, 130136]
    assert [row[4:6] for row in summary_table(document["deployments"]).rows] == [
        (item["backends"]["lava"]["mean_return"], item["comparison"]["retention"]) for item in document["deployments"]
    ]
    run = document["training"][0]
    assert {run["best_return"], run["final_return"], run["last_ten_mean"], run["steps"]} <= set(
        training_table(document["training"]).rows[0]
    )
    for trained, row in zip(document["training"], training_table(document["training"]).rows, strict=True):
        energy, carbon = trained["energy"], trained["carbon"]
        assert row[-2] == (f"{number(energy['joule'] / 1e3)} ({energy['kind']})" if energy else "unmeasured")
        assert row[-1] == (f"{number(carbon['kg_co2eq'] * 1e3)} ({carbon['kind']})" if carbon else "unknown")
    sections = sections_table(document["training"])
    assert {part["energy_joule"] for part in run["energy"]["sections"].values()} <= set(cells(sections))
    assert {part["value"] for part in run["energy"]["parts"].values()} <= set(cells(sections))
    measured = document["inference"][0]
    for row, shown in zip(measured["rows"], inference_table(measured).rows, strict=True):
        assert {*row["energy_uj"]["total"].values(), *row["energy_uj"]["above_idle"].values()} <= set(shown)
        assert {row["kind"], row["inferences_per_second"], row["latency_ms"], row["batch"]} <= set(shown)


def test_spikes_rates_and_voltages_are_summed_up() -> None:
    deployment = sample.deployment()
    deployment["spikes"]["layers"] = [{"name": "input", "neurons": 4, "time": [0, 1, 7], "neuron": [3, 3, 0]}]
    deployment["firing_rates"] = [{"name": "input", "rates": [0.0, 0.5, 0.25, 0.0]}]
    traces = [{"neuron": 9, "voltage": [1.0, -2.0, 5.0], "spikes": [2]}]
    deployment["membranes"]["layers"] = [{"name": "layer 1", "threshold": [4.0], "traces": traces}]
    spikes, rates, membranes = spikes_table(deployment), rates_table(deployment), membranes_table(deployment)
    assert spikes is not None
    assert rates is not None
    assert membranes is not None
    assert spikes.rows == (("input", 4, 3, 3 / 100, 2),)
    assert rates.rows == (("input", 4, 0.1875, 0.125, 0.5, 2),)
    assert membranes.rows == (("layer 1", "9", 4.0, -2.0, 5.0, 1),)


@given(st.lists(st.tuples(st.floats(0, 1e12), st.floats(0, 1e12)), min_size=1, max_size=8), st.booleans())
def test_every_energy_figure_and_threshold_is_in_a_table(ranges: list[tuple[float, float]], rate_known: bool) -> None:
    deployment = sample.deployment(seeds=2)
    energy = deployment["backends"]["lava"]["energy"]
    for part in ("figures", "baselines"):
        energy[part] = []
        for index, ends in enumerate(ranges):
            item = sample.figure(
                f"{part}{index}/synops", f"chip {index}", "what", *sorted(ends), "derived", f"s{index}"
            )
            energy[part].append(item if rate_known else item | {"per_second": None})
    for part, table in (("figures", energy_table(deployment)), ("baselines", baselines_table(deployment))):
        for item, row in zip(energy[part], table.rows, strict=True):
            assert row[1:5] == (item["what"], item["low"], item["high"], item["kind"])
            assert row[5:7] == ((item["low"] / 0.05, item["high"] / 0.05) if rate_known else (None, None))
            assert row[7:9] == ("derived", item["sources"][0])
    (row,) = break_even_table(deployment).rows
    entry = energy["break_even"][0]
    assert row[3:] == (0.034, 0.108, entry["here"], "undecided", "modelled", "arXiv 2409.08290")


def test_published_figures_of_other_networks_stand_apart() -> None:
    deployment = sample.deployment(seeds=2)
    energy = deployment["backends"]["lava"]["energy"]
    energy["references"] = []
    assert references_table(deployment) is None
    energy["references"] = [sample.reference()]
    table = references_table(deployment)
    assert table is not None
    assert table.rows[0][2:6] == (53.0, 17.0, "uJ per inference", "measured")
    assert 53.0 not in cells(energy_table(deployment))
