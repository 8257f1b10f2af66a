"""docs/energy.md: its tables are what the code says, and so are the discrepancies that it states in words."""

from __future__ import annotations

import pytest
from energy_docs import DOCS, LITERATURE, TABLES, dynamic, example, place


@pytest.mark.parametrize("name", TABLES)
def test_a_table_of_the_docs_is_what_the_code_says(name: str) -> None:
    (found,) = place(name).findall(DOCS.read_text(encoding="utf-8"))
    assert found == TABLES[name]() + "\n"


def test_the_estimate_is_below_what_was_measured_and_by_how_much() -> None:
    spotting, without_host, navigation = LITERATURE
    low, high = dynamic(spotting, 0.1)
    assert 39 < spotting.microjoules / high < spotting.microjoules / low < 62
    assert 5 < without_host.microjoules / high < without_host.microjoules / low < 9
    low, high = dynamic(navigation, 0.1)
    assert 5.5 < navigation.microjoules / high < navigation.microjoules / low < 9.5
    assert all(dynamic(each, rate)[1] < each.microjoules for each in LITERATURE for rate in each.rates)


def test_leakage_is_three_orders_above_the_dynamic_energy() -> None:
    by_id = {f["id"]: f for f in example()["figures"]}
    spikes, total = by_id["loihi1/chip-dynamic"], by_id["loihi1/chip-total"]
    assert total["low"] / spikes["high"] > 500 and total["high"] / spikes["low"] < 3500
