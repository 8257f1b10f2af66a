"""The numbers on top of a report say what the document says, the unwelcome ones too."""

from __future__ import annotations

from typing import Any

import pytest
import sample

from spikerl_deploy.report.headline import FAIREST, facts


def told(**line: Any) -> dict[str, str]:
    """Name and value of each fact, where the fairest break-even has these entries."""
    deployment = sample.deployment()
    energy = deployment["backends"][deployment["backend"]]["energy"]
    (first,) = [one for one in energy["break_even"] if one["id"] == FAIREST] or energy["break_even"][:1]
    first |= {"id": FAIREST, "title": "45 nm CMOS, memory-aware", "kind": "modelled"} | line
    return {fact.name: f"{fact.value}: {fact.detail} ({fact.kind})" for fact in facts(deployment)}


@pytest.mark.parametrize(
    ("saves", "words"), [(True, "saves: "), (False, "does not save: "), (None, "undecided: ")], ids=str
)
def test_the_verdict_against_the_quantized_ann_is_that_of_the_break_even(saves: bool | None, words: str) -> None:
    verdict = told(saves=saves, threshold_low=0.0975, threshold_high=0.1119, here=0.2304)["Against a quantized ANN"]
    assert verdict.startswith(words)
    assert (
        "firing rate 23.0 %, weighted by synapses, break-even at 9.75 % to 11.2 %; 45 nm CMOS, memory-aware (modelled)"
        in verdict
    )


def test_a_policy_that_no_firing_rate_would_save_is_told_so() -> None:
    verdict = told(saves=False, threshold_low=None, threshold_high=None, here=0.1)["Against a quantized ANN"]
    assert verdict.startswith("does not save: firing rate 10.0 %, weighted by synapses, no firing rate would")


def test_without_a_rate_there_is_no_verdict() -> None:
    assert "Against a quantized ANN" not in told(here=None)
    assert "Energy" in told(here=None)
