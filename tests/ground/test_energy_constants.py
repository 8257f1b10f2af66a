"""The constants file and the energy section of a user's chip file: what is read, and what is refused."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from energy_networks import uneven_workload

from spikerl_deploy.chips import load_chips
from spikerl_deploy.energy import estimate_energy, load_energy_chips
from spikerl_deploy.energy_constants import CONSTANT_NAMES, KINDS, EnergyChips
from spikerl_deploy.errors import SpikerlError

ANN = (3, 4, 2)
MINE = """
[mine]
title = "My chip"
[mine.sources]
lab = { name = "lab book 2025, page 3", kind = "secondary" }
[mine.energy]
licence = "CC BY 4.0"
note = "at 0.8 V"
neuron_update = { value = 20, unit = "pJ", kind = "measured", source = "lab" }
static_power = { value = 5, unit = "mW", kind = "measured", source = "lab" }
[mine.energy.synaptic_operation]
low = { value = 2, unit = "pJ", kind = "measured", source = "lab", where = "line 1" }
high = { value = 0.003, unit = "nJ", kind = "simulated", source = "lab" }
"""
LIMITS = '[mine.limits]\nneurons = { value = 100, source = "lab" }\n'
PROCESSOR = """
[dsp]
title = "My processor"
[dsp.sources]
sheet = { name = "data sheet 2024", kind = "datasheet" }
[dsp.energy]
multiply_accumulate = { value = 7, unit = "pJ", kind = "datasheet", source = "sheet" }
"""


def write(folder: Path, text: str) -> Path:
    path = folder / "mine.toml"
    path.write_text(text)
    return path


def load(folder: Path, text: str) -> EnergyChips:
    return load_energy_chips(write(folder, text))


def test_every_built_in_constant_has_a_kind_and_a_dated_source() -> None:
    chips = load_energy_chips()
    assert chips.version == "2"
    assert set(chips.chips) == {
        "loihi1", "loihi2", "spinnaker", "spinnaker2", "truenorth", "speck", "xylo-a2", "cmos45",
        "h100", "gpu2015", "cpu2015", "arm2015",
    }  # fmt: skip
    for chip in chips.chips.values():
        values = [value for constant in chip.constants.values() for value in (constant.low, constant.high)]
        cited = values + [value for _, value in chip.memory]
        assert cited or chip.references
        for value in cited:
            assert value.kind in KINDS and value.value > 0
        for source in [value.source for value in cited] + [each.source for each in chip.references]:
            assert re.search(r"\b20[12]\d\b", source)


def test_the_floor_is_the_boards_power_over_its_peak_rate() -> None:
    constant = load_energy_chips().chips["h100"].constants["multiply_accumulate"]
    assert constant.low.value == pytest.approx(700 / (989e12 / 2) * 1e12, rel=0.02)
    assert constant.high.value == pytest.approx(700 / (67e12 / 2) * 1e12, rel=0.02)


def test_a_users_constants_come_beside_the_built_in_ones(tmp_path: Path) -> None:
    workload = uneven_workload(control_step_s=0.1)
    figures = {f["id"]: f for f in estimate_energy(workload, ANN, load(tmp_path, MINE))["figures"]}
    assert "loihi1/chip-dynamic" in figures
    updates = 6 * (5 + 2) * 20  # 6 neurons in each step of the pipeline
    dynamic, total = figures["mine/chip-dynamic"], figures["mine/chip-total"]
    assert (dynamic["low"] * 1e6, dynamic["high"] * 1e6) == pytest.approx((29 * 2 + updates, 29 * 3 + updates))
    assert total["low"] * 1e6 == pytest.approx(29 * 2 + updates + 5e-3 * 0.1 * 1e12)
    assert dynamic["sources"] == [
        "lab book 2025, page 3, line 1", "lab book 2025, page 3", "licence of the constants: CC BY 4.0",
    ]  # fmt: skip
    assert dynamic["constants_kind"] == ["measured", "simulated"] and "at 0.8 V" in dynamic["note"]


def test_the_high_set_may_lie_below_the_low_one(tmp_path: Path) -> None:
    figures = estimate_energy(uneven_workload(), ANN, load(tmp_path, MINE.replace("0.003", "0.001")))["figures"]
    (found,) = [f for f in figures if f["id"] == "mine/synops"]
    assert (found["low"] * 1e6, found["high"] * 1e6) == pytest.approx((29, 58))


def test_a_users_processor_runs_the_dense_ann(tmp_path: Path) -> None:
    chips = load(tmp_path, PROCESSOR)
    (found,) = [f for f in estimate_energy(uneven_workload(), ANN, chips)["baselines"] if f["target"] == "ann-dsp"]
    assert found["low"] * 1e6 == pytest.approx(20 * 7)


def test_one_file_may_hold_limits_energy_or_both(tmp_path: Path) -> None:
    both = write(tmp_path, MINE + LIMITS)
    assert load_chips(both)["mine"].number("neurons") == 100
    assert load_energy_chips(both).chips["mine"].title == "My chip"
    energy = write(tmp_path, MINE)
    assert not load_chips(energy)["mine"].limits
    limits = write(tmp_path, MINE[: MINE.index("[mine.energy]")] + LIMITS)
    with pytest.raises(SpikerlError, match="states no energy, only limits"):
        load_energy_chips(limits)


def test_the_example_of_the_docs_is_a_chip_file(tmp_path: Path) -> None:
    text = (Path(__file__).parents[2] / "docs" / "fit.md").read_text(encoding="utf-8")
    (example,) = re.findall(r"```toml\n(.*?)```", text, re.DOTALL)
    path = write(tmp_path, example)
    assert load_chips(path)["mine"].limits
    assert load_energy_chips(path).chips["mine"].constants["synaptic_operation"].high.value == pytest.approx(3.0)
    assert all(name in text for name in CONSTANT_NAMES if not name.startswith(("fp16", "int")))


def test_a_broken_energy_section_is_refused_by_spikerl_fit_too(tmp_path: Path) -> None:
    with pytest.raises(SpikerlError, match="unit"):
        load_chips(write(tmp_path, (MINE + LIMITS).replace('unit = "mW"', 'unit = "pJ"')))


def replaced(before: str, after: str) -> str:
    assert before in MINE
    return MINE.replace(before, after)


ACTIVE = '\nneuron_update_active = { value = 1, unit = "pJ", kind = "measured", source = "lab" }\n'
UPDATE = 'neuron_update = { value = 20, unit = "pJ", kind = "measured", source = "lab" }\n'
OPERATION = MINE[MINE.index("[mine.energy.synaptic_operation]") :]
ADDER = '\nint8_add = { value = 1, unit = "pJ", kind = "measured", source = "lab" }\n'
BROKEN = [
    (replaced("static_power", "static_powr"), "unknown energy constant 'mine.energy.static_powr'"),
    (replaced("value = 20", "value = -20"), "mine.energy.neuron_update.value = -20 must be positive and finite"),
    (replaced("value = 20", "value = 0"), "mine.energy.neuron_update.value = 0 must be positive and finite"),
    (replaced("value = 20", "value = nan"), "mine.energy.neuron_update.value = nan must be positive and finite"),
    (replaced("value = 20", "value = inf"), "mine.energy.neuron_update.value = inf must be positive and finite"),
    (replaced("value = 20", f"value = 1{'0' * 400}"), "mine.energy.neuron_update.value = inf must be positive"),
    (replaced("value = 20", "value = 1e13"), "mine.energy.neuron_update = 1e+13 pJ is above 1e+12 pJ"),
    (replaced('value = 20, unit = "pJ"', 'value = 1e308, unit = "uJ"'), "neuron_update = 1e+308 uJ is above 1e+12 pJ"),
    (replaced('value = 5, unit = "mW"', 'value = 2e6, unit = "W"'), "static_power = 2e+06 W is above 1e+06 W"),
    (replaced("value = 20", "value = true"), "mine.energy.neuron_update.value = True is no number"),
    (replaced("value = 20", 'value = "20"'), "mine.energy.neuron_update.value = '20' is no number"),
    (replaced("value = 20, ", ""), "mine.energy.neuron_update.value is missing"),
    (replaced('value = 20, unit = "pJ"', 'value = 20, unit = "mW"'), "unknown mine.energy.neuron_update.unit 'mW'"),
    (replaced('unit = "mW"', 'unit = "pJ"'), "unknown mine.energy.static_power.unit 'pJ'"),
    (replaced('unit = "nJ", kind = "simulated"', 'unit = "nJ", kind = "guessed"'), "high.kind 'guessed'"),
    (replaced('"lab", where', '"lap", where'), "unknown mine.energy.synaptic_operation.low.source 'lap'"),
    (replaced("where =", "page ="), "unknown key 'mine.energy.synaptic_operation.low.page'"),
    (MINE[: MINE.index("high =")], "mine.energy.synaptic_operation.high is missing"),
    (replaced('note = "at 0.8 V"', "note = 3"), "mine.energy.note = 3 is no text"),
    (replaced('licence = "CC BY 4.0"', 'licence = "a"\nlicense = "b"'), "both licence and license"),
    (replaced('licence = "CC BY 4.0"', 'licence = ""'), "mine.energy.licence = '' is no text"),
    (replaced(OPERATION, ""), "mine.energy has neuron_update, and synaptic_operation is missing"),
    (replaced(UPDATE, ACTIVE), "neuron_update_active, and neuron_update is missing"),
    (replaced(UPDATE, ADDER), "mine.energy states arithmetic, and fp32_add"),
    (MINE[: MINE.index("licence")], "mine.energy states no constant"),
    (MINE[: MINE.index("[mine.energy]")], "mine states neither limits nor energy"),
    (replaced("[mine.energy]", "[mine.energy]\nreferences = 3"), "mine.energy.references = 3 is no list"),
    (replaced("[mine.energy]", "[mine.energy]\nmemory_access = [3]"), "mine.energy.memory_access[0] = 3 is no table"),
    (MINE.replace("mine", "loihi2-x").replace("[loihi2-x", "[spinnaker"), "energy of chip 'spinnaker' is built in"),
    (MINE.replace("mine", "ann-fp32"), "'ann-fp32' cannot name a figure"),
    (PROCESSOR.replace("dsp", "int8"), "'int8' cannot name a figure"),
    (MINE.replace("mine", '"a/b"'), "'a/b' cannot name a figure"),
    ("mine = 3", "mine = 3 is no table"),
    ("", "holds no chip"),
    ("[mine", "is not TOML"),
]  # fmt: skip


@pytest.mark.parametrize(("text", "message"), BROKEN)
def test_a_broken_energy_file_is_refused_by_file_key_and_value(tmp_path: Path, text: str, message: str) -> None:
    path = write(tmp_path, text)
    with pytest.raises(SpikerlError) as refused:
        load_energy_chips(path)
    assert message in refused.value.message
    assert str(path) in refused.value.message and refused.value.hint and "\n" not in refused.value.message


def test_memory_sizes_must_rise(tmp_path: Path) -> None:
    point = '{{ bytes = {}, value = 1, unit = "pJ", kind = "measured", source = "lab" }}'
    points = ", ".join(point.format(size) for size in (64, 64))
    with pytest.raises(SpikerlError, match="bytes 64 after 64 must rise"):
        load(tmp_path, replaced("[mine.energy]", f"[mine.energy]\nmemory_access = [{points}]"))
    vast = point.format(f"1{'0' * 400}")
    with pytest.raises(SpikerlError, match=r"memory_access\[0\].bytes is above"):
        load(tmp_path, replaced("[mine.energy]", f"[mine.energy]\nmemory_access = [{vast}]"))


def test_a_file_that_cannot_be_read_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SpikerlError, match="cannot read chip file"):
        load_energy_chips(tmp_path / "none.toml")
