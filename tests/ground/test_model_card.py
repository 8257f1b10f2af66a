"""Cards: what one must hold, what contradicts itself, and that the pages for people say the same."""

from __future__ import annotations

import json
import math
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from card_support import SHIPPED, a_card

from spikerl_deploy.errors import SpikerlError
from spikerl_deploy.model_card import (
    card_markdown,
    card_schema,
    overview_markdown,
    read_card,
    remarks,
    summary,
    validate_card,
)
from spikerl_deploy.statistics import compare_paired, mean_interval

CARDS = sorted(SHIPPED.glob("*.json"))


def changed(path: str, value: Any) -> dict[str, Any]:
    """A real card with one place changed; the value may be a function of what was there."""
    card: Any = a_card()
    place = card
    *parents, last = path.split(".")
    for part in parents:
        place = place[part]
    place[last] = value(place[last]) if callable(value) else value
    return card


@pytest.mark.parametrize("path", CARDS, ids=lambda path: path.stem)
def test_the_pages_of_the_repository_are_what_the_cards_give(path: Path) -> None:
    assert path.with_suffix(".md").read_text(encoding="utf-8") == card_markdown(read_card(path))


def test_the_overview_of_the_repository_is_what_the_cards_give() -> None:
    overview = overview_markdown([read_card(path) for path in CARDS])
    assert (SHIPPED / "README.md").read_text(encoding="utf-8") == overview


@pytest.mark.parametrize("path", CARDS, ids=lambda path: path.stem)
def test_the_statistics_of_a_shipped_card_follow_from_its_returns(path: Path) -> None:
    evaluation = read_card(path)["evaluation"]
    torch = evaluation["backends"]["torch"]["returns"]
    for name, entry in evaluation["backends"].items():
        assert entry["mean_return"] == pytest.approx(np.mean(entry["returns"]))
        assert entry["std_return"] == pytest.approx(np.std(entry["returns"], ddof=1))
        assert entry["return_interval"] == pytest.approx(mean_interval(entry["returns"]))
        if name == "torch":
            continue
        paired, stated = compare_paired(entry["returns"], torch), evaluation["comparisons"][name]
        assert stated["retention"] == pytest.approx(paired.retention)
        assert stated["retention_interval"] == pytest.approx(paired.retention_interval)
        assert stated["mean_difference"] == pytest.approx(paired.mean_difference)


@pytest.mark.parametrize("path", CARDS, ids=lambda path: path.stem)
def test_the_counts_of_a_shipped_card_add_up(path: Path) -> None:
    card = read_card(path)
    workload, policy = card["workload"], card["policy"]
    layers, sums = workload["layers"], workload["per_inference"]
    assert [layer["neurons"] for layer in layers] == policy["sizes"][1:]
    assert sum(layer["synapses"] for layer in layers) == policy["synapses"]
    for key in ("spikes", "synaptic_operations"):
        assert math.fsum(layer[key] for layer in layers) == pytest.approx(sums[key])
    assert workload["firing_rate"] == pytest.approx(sums["spikes"] / policy["neurons"] / policy["time_steps"])
    for layer in layers:
        assert layer["firing_rate"] == pytest.approx(layer["spikes"] / layer["neurons"] / policy["time_steps"])


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("schema", "spikerl.card/2", "card/2"),
        ("name", "../etc", "name"),
        ("name", "other-v5", "its name 'other-v5'"),
        ("policy.file", "other-v5.nir", "its file is 'other-v5.nir'"),
        ("policy.file", "../x.nir", "policy.file"),
        ("policy.sha256", "0" * 63, "policy.sha256"),
        ("policy.bytes", 1_000_001, "policy.bytes"),
        ("policy.neurons", 1, "1 neurons"),
        ("policy.bits", 4, "4 bits"),
        ("policy.more", 1, "more"),
        ("training.checkpoint.step", 10**9, "later than the steps done"),
        ("training.energy", {"joule": -1.0, "kind": "measured"}, "training.energy"),
        ("training.settings", {"__import__('os')": 1}, "training.settings"),
        ("evaluation.seeds", [0, 0, *range(2, 10)], "a seed comes twice"),
        ("evaluation.seeds", list(range(9)), "there are 9 seeds"),
        ("evaluation.seeds", list(range(110, 120)), "seed 110 is reported and had a part in choosing the quantization"),
        ("training.selection.first_seed", 9, "seed 9 is reported and had a part in choosing the checkpoint"),
        ("quantization.calibration.first_seed", 5, "seed 5 is reported and had a part in choosing the calibration"),
        ("quantization.calibration", None, "its method is calibration, its calibration None"),
        ("quantization.selection.seeds", list(range(20)), "seed 0 is reported"),
        ("environment.id", "Hopper-v5", "its name is 'halfcheetah-v5', its environment Hopper-v5"),
        ("policy.float_weights", False, "float weights in the file: False; float policy in the file"),
        ("policy.time_steps", 500, "firing rate"),
        ("policy.synapses", 1, "1 synapses"),
        ("training.steps_asked", 2_000_000, "it ended by its steps, and had done 1,000,000 of 2,000,000"),
        ("training.finished", False, "finished is False, it stopped by steps"),
        ("training.seeds", 2, "2 seeds trained, chosen among 1"),
        ("training.energy", {"joule": 1.0, "kind": "measured"}, "source"),
        ("evaluation.backends.fixed.std_return", 1.0, "the std of fixed"),
        ("evaluation.backends.fixed.std_return", None, "the std of fixed is None"),
        ("evaluation.backends.lava.return_interval", [1.0, 2.0], "the mean return of lava, "),
        ("evaluation.comparisons.lava.retention", 1.9, "the retention on lava is not the ratio"),
        ("evaluation.comparisons.lava.retention", None, "the retention on lava is None"),
        ("evaluation.comparisons.lava.retention_interval", [5.0, 2.0], "is not within its interval, 5.0 to 2.0"),
        ("evaluation.comparisons.fixed.mean_difference", 1.0, "the mean difference on fixed"),
        ("evaluation.comparisons.fixed.difference_interval", [1e6, 2e6], "the mean difference on fixed, "),
        ("workload.firing_rate", 0.001, "firing rate"),
        ("workload.per_inference.spikes", 1.0, "the spikes of its layers"),
        ("workload.per_inference.synaptic_operations", 1.0, "the synaptic operations of its layers"),
        ("workload.layers", lambda layers: layers[:2], "the layers of its workload have [256, 256] neurons"),
        ("energy.figures", lambda figures: [figures[0] | {"kind": "measured"}, *figures[1:]], "is called measured"),
        ("energy.figures", lambda figures: [figures[0] | {"low": 9.0, "high": 1.0}, *figures[1:]], "9.0 to 1.0"),
        ("evaluation.backends.lava.mean_return", 1.0, "mean return of lava"),
        ("energy.headline", "loihi9/none", "none of its figures"),
        ("energy.figures", lambda figures: [{**figures[0], "kind": "guessed"}, *figures[1:]], "kind"),
        ("use.limits", [], "use.limits"),
        ("evaluation.backends.torch.mean_return", None, "mean_return"),
    ],
)
def test_a_card_that_is_wrong_is_refused_by_its_place(path: str, value: Any, message: str) -> None:
    with pytest.raises(SpikerlError) as error:
        validate_card(changed(path, value), "card")
    assert message in error.value.message, error.value.message
    assert "docs/policies.md" in str(error.value.hint)


def test_every_part_of_a_card_is_needed() -> None:
    for key in card_schema()["properties"]:
        card = a_card()
        del card[key]
        with pytest.raises(SpikerlError, match=key):
            validate_card(card, "card")


def test_an_unfinished_run_is_said_first() -> None:
    assert remarks(a_card()) == []
    card = changed("training", lambda old: old | {"finished": False, "stopped": None, "steps_asked": 10**7})
    validate_card(card, "card")
    (line,) = remarks(card)
    assert line.startswith("Unfinished: the run was asked for 10,000,000 environment steps and had done ")
    assert card_markdown(card).splitlines()[2] == f"> **{line}**"
    assert "unfinished, " in overview_markdown([card])


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("evaluation.comparisons.lava.retention", 0.95, "keeps 95.0 % of the float return, less than 99.0 %"),
        ("evaluation.float_policy", "in the checkpoint", "The file carries no float weights"),
        ("evaluation.backends.fixed.returns", lambda returns: returns[::-1], "did not give the same returns"),
    ],
)
def test_what_a_reader_must_know_is_said(path: str, value: Any, message: str) -> None:
    (line,) = remarks(changed(path, value))
    assert message in line


def with_returns(torch: list[float], lava: list[float]) -> dict[str, Any]:
    card = a_card()
    backends = card["evaluation"]["backends"]
    for name, returns in (("torch", torch), ("fixed", lava), ("lava", lava)):
        backends[name]["returns"] = returns
    card["evaluation"]["seeds"] = list(range(40, 40 + len(torch)))
    return card


@pytest.mark.parametrize(
    ("torch", "lava", "of"),
    [
        (
            [1000.0] * 9 + [-5.375],
            [1000.0] * 10,
            "Seed 49 decides .* returns -5 there, the integers 1,000. Without that seed it is 100.0 %",
        ),
        ([1000.0] * 10, [1000.0, 400.0] + [1000.0] * 8, "Seed 41 decides .* returns 1,000 there, the integers 400"),
        ([8.0] * 10, [8.0, 4.125] + [8.0] * 8, "Seed 41 decides .* returns 8.000 there, the integers 4.125"),
    ],
)
def test_a_seed_that_decides_the_retention_is_named(torch: list[float], lava: list[float], of: str) -> None:
    card = with_returns(torch, lava)
    (line,) = remarks(card)
    assert re.search(of, line), line
    assert line in overview_markdown([card])


@pytest.mark.parametrize(
    ("torch", "lava"),
    [
        ([1000.0] * 10, [850.0] * 10),  # all of them lose
        ([1000.0] * 10, [1000.0, 850.0] + [1000.0] * 8),  # without it 1.5 points more
        ([-5.0] * 10, [1000.0] * 10),  # undefined
        ([50.0, -1.0] + [0.0] * 8, [50.0, -1.0] + [0.0] * 8),  # undefined without the first, else the same
        ([1000.0], [700.0]),  # there is no other
    ],
)
def test_no_seed_is_named_where_none_decides(torch: list[float], lava: list[float]) -> None:
    assert not any("decides" in line for line in remarks(with_returns(torch, lava)))


def test_undefined_retention_is_said_and_not_shown_as_a_number() -> None:
    card = a_card()
    evaluation = card["evaluation"]
    for entry in evaluation["backends"].values():
        entry |= {"returns": [-value for value in entry["returns"]], "mean_return": -entry["mean_return"]}
        entry["return_interval"] = [-value for value in entry["return_interval"][::-1]]
    for entry in evaluation["comparisons"].values():
        entry |= {"retention": None, "retention_interval": None, "mean_difference": -entry["mean_difference"]}
        entry["difference_interval"] = [-value for value in entry["difference_interval"][::-1]]
    validate_card(card, "card")
    assert "Retention is undefined" in summary(card)
    assert "| undefined |" in overview_markdown([card])
    assert remarks(card) == []


def test_a_policy_chosen_among_seeds_says_so_and_whose_time_and_energy_it_states() -> None:
    page = card_markdown(a_card())
    assert "seeds of the recipe" not in page and "seeds together" not in page
    card = changed("training", lambda old: old | {"seeds": 3, "selection": old["selection"] | {"of_seeds": 5}})
    validate_card(card, "card")
    (line,) = remarks(card)
    assert line.startswith("Chosen among 5 seeds of the recipe: ")
    assert " steps, best of 5 seeds |" in overview_markdown([card, a_card()])
    assert "another seed is expected" in overview_markdown([card]).split("SynOps: ")[1]
    assert "best of" not in overview_markdown([a_card()]) and "another seed" not in overview_markdown([a_card()])
    page = card_markdown(card)
    assert ", and among 5 seeds of the recipe; a maximum is biased upward |" in page
    for what in ("time", "energy", "carbon"):
        (row,) = [line for line in page.splitlines() if line.startswith(f"| {what} |")]
        assert " of 3 seeds together" in row


def test_the_energy_of_training_has_its_kind_and_source() -> None:
    card = changed("training.energy", {"joule": 5000.0, "kind": "modelled", "source": "a model of memory"})
    assert "| energy | 5.000 kJ, the whole machine's, modelled, a model of memory |" in card_markdown(card)
    card["training"] |= {"energy": None, "carbon": None, "finished": False}
    page = card_markdown(card)
    assert "| energy | not recorded before the run ends |" in page and "| carbon | not recorded |" in page


def test_the_seeds_of_calibration_are_said() -> None:
    card = changed("quantization.calibration", {"first_seed": 4321, "control_steps": 10})
    assert "on recorded observations, seeds from 4321 on." in card_markdown(card)
    card["quantization"] |= {"method": "rounding", "calibration": None}
    validate_card(card, "card")
    assert "by rounding to the nearest integer. " in card_markdown(card)


def test_text_of_a_card_is_no_markup() -> None:
    card = changed("use.intended", "<script>alert(1)</script> | ![x](http://x) \n# Title `code`")
    card["reproduce"] = ["spikerl train\n```\n# out of the block"]
    validate_card(card, "card")
    page = card_markdown(card)
    assert "<script>" not in page
    assert "![x]" not in page
    assert "\n# Title" not in page
    assert "    spikerl train ``` # out of the block\n" in page


@pytest.mark.parametrize(
    ("path", "value", "said"),
    [
        ("evaluation.backends.lava.mean_return", 1234.5, "on Lava it returns 1,234"),
        ("evaluation.backends.torch.mean_return", 2345.6, "the float policy 2,346:"),
        ("evaluation.comparisons.lava.retention", 0.7654, "It keeps 76.54 % of the float return"),
        ("workload.per_inference.synaptic_operations", 98765.4, "takes 98,765 synaptic operations"),
        ("policy.time_steps", 9, "T 9, "),
        ("policy.bits", 3, "3-bit integer weights"),
    ],
)
def test_every_number_of_the_summary_is_the_cards(path: str, value: float, said: str) -> None:
    assert said not in summary(a_card())
    assert said in summary(changed(path, lambda _: value))


def test_every_energy_on_the_page_has_its_kind_and_source() -> None:
    card = a_card()
    page = card_markdown(card)
    for figure in [*card["energy"]["figures"], *card["energy"]["baselines"]]:
        rows = [line for line in page.splitlines() if line.startswith("| ") and f" {figure['kind']} |" in line]
        assert any(figure["sources"][0][:20] in line.replace("\\", "") for line in rows), figure["id"]


def test_an_empty_overview_says_so() -> None:
    assert overview_markdown([]).endswith("There is none yet.\n")


def test_a_card_is_read_back_as_it_was_written(tmp_path: Path) -> None:
    (tmp_path / "c.json").write_text(json.dumps(a_card()))
    assert read_card(tmp_path / "c.json") == a_card()
    with pytest.raises(SpikerlError, match="cannot read") as error:
        read_card(tmp_path / "none.json")
    assert "docs/policies.md" in str(error.value.hint)
