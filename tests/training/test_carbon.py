"""Energy tracking: inert when off, figures with their kind when on, energy and time by section, runs that resume."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from dataclasses import asdict
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from training_support import tiny

import training.carbon
from spikerl_deploy.carbon import emissions_kg, read_training_energy, training_energy
from spikerl_deploy.cli.common import read_source
from spikerl_deploy.errors import SpikerlError
from training.carbon import SECTIONS, CarbonTracker, Totals
from training.settings import from_sources
from training.trainer import Trainer


def test_switched_off_it_is_inert_and_does_not_import_codecarbon() -> None:
    program = (
        "import sys; from training.carbon import CarbonTracker; "
        "figures = CarbonTracker(False, 'USA').stop(); assert figures['tracked'] is False; "
        "assert 'codecarbon' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", program], check=True, cwd=Path(__file__).parents[2])


def test_switched_on_it_gives_joules_with_their_kind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    tracker = CarbonTracker(True, "FRA")
    sum(i * i for i in range(2_000_000))
    figures = tracker.stop()
    assert figures["tracked"] and figures["country"] == "FRA" and figures["duration_s"] > 0
    parts = figures["energy_joule"]
    assert set(parts) == {"cpu", "gpu", "ram"}
    for part in parts.values():
        assert part["kind"] in ("measured", "modelled", "unmeasured")
        assert (part["value"] is None) == (part["kind"] == "unmeasured")
    known = [part["value"] for part in parts.values() if part["value"] is not None]
    assert figures["total_energy_joule"] == pytest.approx(sum(known), rel=1e-6) and min(known) > 0
    # a machine draws between 10 mW and 100 kW: the figures are joules, no kilowatt-hours
    assert 0.01 < figures["total_energy_joule"] / figures["duration_s"] < 1e5
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("country", "grams"), [("FRA", 56.0), ("POL", 662.0)])  # nuclear, coal; table of 2023
def test_emissions_follow_the_countrys_carbon_intensity_and_name_its_source(country: str, grams: float) -> None:
    figures = CarbonTracker(True, country).stop()
    used = figures["emissions_kg_co2eq"] * 1e3 / (figures["total_energy_joule"] / 3.6e6)
    assert used == pytest.approx(grams, rel=0.2)
    intensity = figures["carbon_intensity"]
    assert intensity["value"] == pytest.approx(used) and intensity["unit"] == "g CO2eq/kWh"
    assert f"mean of {country} in 20" in intensity["source"]


def test_an_intensity_set_in_codecarbons_own_configuration_is_not_called_the_countrys(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("CODECARBON_FORCE_CARBON_INTENSITY_G_CO2E_KWH", "10")
    intensity = CarbonTracker(True, "FRA").stop()["carbon_intensity"]
    assert intensity["value"] == pytest.approx(10) and "configuration" in intensity["source"]


def used_intensity(figures: dict[str, Any]) -> float:
    """g CO2eq/kWh out of emissions and energy."""
    return figures["emissions_kg_co2eq"] * 1e3 / (figures["total_energy_joule"] / 3.6e6)


def test_an_intensity_given_by_the_user_replaces_the_countrys_and_the_energy_stays(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("CODECARBON_FORCE_CARBON_INTENSITY_G_CO2E_KWH", "10")  # a setting of the run goes before it
    figures = CarbonTracker(True, "POL", carbon_intensity=123.5).stop()
    assert used_intensity(figures) == pytest.approx(123.5)
    intensity = figures["carbon_intensity"]
    assert intensity["value"] == pytest.approx(123.5) and "given by the user" in intensity["source"]
    watts = figures["total_energy_joule"] / figures["duration_s"]
    assert 0.01 < watts < 1e5


def resumed(before: float | None, after: float | None) -> tuple[dict[str, Any], dict[str, Any]]:
    """Figures of the first part of a run by one intensity, and of the whole by another."""
    first = CarbonTracker(True, "FRA", carbon_intensity=before)
    spend(first, updating=0.2)
    stored = json.loads(json.dumps(first.totals(), allow_nan=False))
    first.stop()
    second = CarbonTracker(True, "FRA", stored, after)
    spend(second, updating=0.2)
    return stored, second.stop()


def test_a_resumed_run_keeps_the_intensity_of_each_part_and_reports_the_mean_as_such() -> None:
    stored, figures = resumed(100.0, 900.0)
    first = sum(stored["joule"].values())
    expected = (first * 100 + (figures["total_energy_joule"] - first) * 900) / 3.6e6 / 1e3
    assert figures["emissions_kg_co2eq"] == pytest.approx(expected, rel=1e-3)
    intensity = figures["carbon_intensity"]
    assert 100 < intensity["value"] < 900 and "resumed" in intensity["source"]
    assert "given by the user" not in intensity["source"]


@pytest.mark.parametrize(("given", "source"), [(250.0, "given by the user"), (None, "mean of FRA")])
def test_a_run_resumed_with_its_own_intensity_names_it(given: float | None, source: str) -> None:
    _, figures = resumed(given, given)
    assert source in figures["carbon_intensity"]["source"]
    assert given is None or used_intensity(figures) == pytest.approx(given, rel=1e-3)


def test_totals_stored_before_there_was_such_a_setting_are_read() -> None:
    first = CarbonTracker(True, "FRA")
    spend(first, updating=0.1)
    stored = first.totals()
    first.stop()
    del stored["about"]["carbon_intensity"]
    assert "mean of FRA" in CarbonTracker(False, "FRA", stored).stop()["carbon_intensity"]["source"]


@pytest.mark.parametrize("value", ["0", "-1", "nan", "inf", "lots", "true"])
def test_an_intensity_that_is_no_positive_number_is_refused_by_name(value: str) -> None:
    with pytest.raises(SpikerlError, match="setting 'carbon_intensity' = "):
        from_sources(assignments=[f"carbon_intensity={value}"])


def test_the_intensity_is_a_setting_that_none_unsets() -> None:
    given = from_sources(assignments=["carbon_intensity=56.5"])
    assert given.carbon_intensity == 56.5 and "carbon_intensity = 56.5" in given.to_toml()
    assert from_sources(assignments=["carbon_intensity=none"]) == from_sources()


def test_a_run_writes_emissions_by_the_intensity_that_was_set(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = tiny(steps=60, start_steps=30, eval_every=60, eval_episodes=1, carbon=True, carbon_intensity=500.0)
    Trainer(settings, tmp_path / "run", quiet=True).run()
    figures = json.loads((tmp_path / "run" / "emissions.json").read_text())
    assert (
        used_intensity(figures) == pytest.approx(500) and "given by the user" in figures["carbon_intensity"]["source"]
    )
    policy, _ = read_source(tmp_path / "run")
    energy = training_energy({"origin": {"origin": policy.provenance}})  # as after two exports
    assert energy == {
        "joule": figures["total_energy_joule"],
        "kind": figures["total_energy_kind"],
        "kg_co2eq": figures["emissions_kg_co2eq"],
        "intensity": {name: figures["carbon_intensity"][name] for name in ("value", "unit", "source")},
        "seeds": 1,
    }
    assert energy["kg_co2eq"] == pytest.approx(emissions_kg(energy["joule"], 500))
    assert training_energy({"origin": None}) is training_energy(None) is None
    capsys.readouterr()
    damages = [json.dumps(figures | change) for change in DAMAGES]
    for text in ("{", "[]", "[" * 100_000, '"x"', "null", *damages):  # the policy is as good without
        (tmp_path / "run" / "emissions.json").write_text(text)
        assert "training_energy" not in read_source(tmp_path / "run")[0].provenance
        (line,) = capsys.readouterr().err.splitlines()
        assert "no energy of training goes into the provenance" in line and "emissions.json' cannot be read" in line


def intensity_of(**changes: Any) -> dict[str, Any]:
    return {
        "carbon_intensity": {"value": 360.0, "unit": "g CO2eq/kWh", "kind": "modelled", "source": "there"} | changes
    }


DAMAGES: list[dict[str, Any]] = [
    {"total_energy_joule": float("nan")},
    {"total_energy_joule": float("inf")},
    {"total_energy_joule": -5.0},
    {"total_energy_joule": 10**400},
    {"total_energy_joule": True},
    {"total_energy_joule": None},
    {"total_energy_kind": "magic"},
    {"total_energy_kind": "unmeasured"},
    {"total_energy_kind": ["measured"]},
    {"emissions_kg_co2eq": "much"},
    {"emissions_kg_co2eq": "1.0"},
    {"emissions_kg_co2eq": -0.1},
    {"carbon_intensity": None},
    {"carbon_intensity": "x"},
    {"carbon_intensity": {"value": 360.0}},
    intensity_of(value=float("nan")),
    intensity_of(value=-1),
    intensity_of(value=10**400),
    intensity_of(unit="kg CO2eq/kWh"),
    intensity_of(source=["there"]),
    intensity_of(source="\ud800"),
    intensity_of(source={"long": "x" * 10_000}),
]


def emissions(folder: Path, **changes: Any) -> None:
    document = {
        "tracked": True, "total_energy_joule": 10.0, "total_energy_kind": "modelled", "emissions_kg_co2eq": 0.001,
        **intensity_of(),
    }  # fmt: skip
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "emissions.json").write_text(json.dumps(document | changes))


def test_several_seeds_share_the_energy_of_their_run_and_say_so(tmp_path: Path) -> None:
    emissions(tmp_path / "run")
    checkpoint = tmp_path / "run" / "seed-3" / "checkpoints" / "best.pt"
    found = read_training_energy(checkpoint, 4)
    assert found is not None and (found["joule"], found["seeds"]) == (10.0, 4)
    assert read_training_energy(checkpoint, 1) is None  # a run of one seed has it beside its checkpoints
    assert read_training_energy(tmp_path / "run" / "copies" / "best.pt", 1) is None  # a copy is of no run
    assert read_training_energy(tmp_path / "run" / "a" / "b" / "best.pt", 4) is None


@pytest.mark.parametrize("changes", DAMAGES, ids=lambda changes: next(iter(changes)))
def test_damaged_emissions_are_an_error_with_the_files_name(tmp_path: Path, changes: dict[str, Any]) -> None:
    emissions(tmp_path, **changes)
    with pytest.raises(SpikerlError, match=r"emissions.json' cannot be read") as caught:
        read_training_energy(tmp_path / "checkpoints" / "best.pt", 1)
    assert len(caught.value.message) < len(str(tmp_path)) + 300 and "\n" not in caught.value.message


def test_whole_numbers_and_zeros_are_figures_too(tmp_path: Path) -> None:
    emissions(tmp_path, total_energy_joule=10, emissions_kg_co2eq=0, **intensity_of(value=0))
    found = read_training_energy(tmp_path / "checkpoints" / "best.pt", 1)
    assert found is not None and (found["joule"], found["kg_co2eq"], found["intensity"]["value"]) == (10.0, 0.0, 0.0)


def test_an_untracked_run_gives_no_energy(tmp_path: Path) -> None:
    emissions(tmp_path, tracked=False)
    assert read_training_energy(tmp_path / "checkpoints" / "best.pt", 1) is None


def test_the_cpu_counts_as_measured_where_codecarbon_reads_rapl_and_only_there() -> None:
    tracker = CarbonTracker(True, "USA")
    modes = [getattr(part, "_mode", None) for part in tracker._tracker._hardware]
    assert any(modes), "CodeCarbon names its CPU mode otherwise now"
    figures = tracker.stop()
    assert (figures["energy_joule"]["cpu"]["kind"] == "measured") == ("intel_rapl" in modes)
    assert figures["total_energy_kind"] == "modelled"  # the RAM always is


@pytest.mark.parametrize("kilowatt_hours", [0.0, 0.001])
def test_a_counter_that_stands_still_measures_nothing(kilowatt_hours: float) -> None:
    data = SimpleNamespace(cpu_energy=kilowatt_hours, gpu_energy=0.0, ram_energy=0.001, duration=10.0)
    parts = training.carbon._components(data)
    assert (parts["cpu"].kind == "unmeasured") == (kilowatt_hours == 0)
    assert parts["cpu"].joule == kilowatt_hours * 3.6e6
    assert (parts["gpu"].kind, parts["ram"].kind) == ("unmeasured", "modelled")


@pytest.mark.parametrize("country", ["Atlantis", "fra", ""])
def test_a_country_without_carbon_intensity_is_refused_not_replaced(country: str) -> None:
    with pytest.raises(SpikerlError, match=f"country '{country}'"):
        CarbonTracker(True, country)


def spend(tracker: CarbonTracker, **seconds: float) -> None:
    for section, duration in seconds.items():
        tracker.section(section)
        time.sleep(duration)


def test_sections_get_their_seconds_and_add_up_to_the_whole_energy() -> None:
    tracker = CarbonTracker(True, "FRA")
    spend(tracker, collecting=0.2, updating=0.5)
    spend(tracker, collecting=0.1, evaluating=0.05, updating=0.1)
    figures = tracker.stop()
    sections = figures["sections"]
    assert tuple(sections) == SECTIONS
    assert sections["collecting"]["seconds"] == pytest.approx(0.3, abs=0.1)
    assert sections["updating"]["seconds"] == pytest.approx(0.6 + 0.06, abs=0.15)  # with the last measurement
    assert 0.04 < sections["evaluating"]["seconds"] < 0.2
    seconds = sum(part["seconds"] for part in sections.values())
    assert seconds == pytest.approx(figures["duration_s"], abs=0.05) and figures["untracked_s"] == 0
    assert sum(part["energy_joule"] for part in sections.values()) == pytest.approx(figures["total_energy_joule"])
    assert sum(part["share"] for part in sections.values()) == pytest.approx(1)
    assert {part["kind"] for part in sections.values()} == {"modelled"}
    assert "15 s" in figures["division"]


def test_each_interval_is_divided_by_its_own_time_not_by_that_of_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    tracker = CarbonTracker(True, "FRA")
    meter = iter([10.0, 100.0, 100.0, 140.0])  # joules in all, as CodeCarbon would report them

    def measured() -> None:
        tracker._latest.data.energy_consumed = next(meter) / 3.6e6

    monkeypatch.setattr(tracker._tracker, "flush", measured)
    monkeypatch.setattr(tracker._tracker, "stop", measured)
    clock = iter(
        [
            {"setup": 1.0, "collecting": 0.0, "updating": 0.0, "evaluating": 0.0, "saving": 0.0},  # 10 J of set-up
            {"setup": 1.0, "collecting": 3.0, "updating": 6.0, "evaluating": 0.0, "saving": 0.0},  # 90 J in 9 s
            {
                "setup": 1.0,
                "collecting": 3.0,
                "updating": 7.0,
                "evaluating": 0.0,
                "saving": 0.0,
            },  # the meter stands still: waits
            {"setup": 1.0, "collecting": 3.0, "updating": 7.0, "evaluating": 3.0, "saving": 0.0},  # 40 J in 4 s
        ]
    )
    tracker._divided_s, tracker._divided_joule = dict.fromkeys(SECTIONS, 0.0), 0.0
    tracker._joule = dict.fromkeys(SECTIONS, 0.0)
    monkeypatch.setattr(tracker._clock, "read", lambda: next(clock))
    for last in (False, False, False, True):
        tracker._measure(last)
    assert tracker._joule == pytest.approx(
        {"setup": 10, "collecting": 30, "updating": 60 + 10, "evaluating": 30, "saving": 0}
    )
    tracker._stopping.set()


def test_the_energy_of_a_section_includes_the_time_up_to_the_end() -> None:
    tracker = CarbonTracker(True, "FRA")
    spend(tracker, updating=0.1)
    before = tracker.totals()
    spend(tracker, evaluating=0.4)
    figures = tracker.stop()
    watts = figures["total_energy_joule"] / figures["duration_s"]
    evaluating = figures["sections"]["evaluating"]
    assert evaluating["energy_joule"] == pytest.approx(watts * evaluating["seconds"], rel=0.3)
    assert before["joule"]["evaluating"] == 0 < before["joule"]["updating"]


def test_a_run_of_milliseconds_has_the_energy_of_milliseconds_not_none() -> None:
    tracker = CarbonTracker(True, "FRA")
    tracker.section("collecting")
    figures = tracker.stop()
    # CodeCarbon models no machine below a watt; a run that took no measurement at its end would have a thousandth
    assert figures["total_energy_joule"] > 1.0 * figures["duration_s"] > 0
    assert figures["sections"]["collecting"]["energy_joule"] > 0


def test_measurements_come_by_themselves_during_a_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(training.carbon, "INTERVAL_S", 0.1)
    tracker = CarbonTracker(True, "FRA")
    tracker.section("updating")
    deadline = time.monotonic() + 5
    while tracker._joule["updating"] == 0 and time.monotonic() < deadline:
        time.sleep(0.02)
    assert tracker._joule["updating"] > 0
    tracker.stop()
    assert not tracker._thread.is_alive()


def test_a_resumed_run_adds_to_what_it_had_spent() -> None:
    first = CarbonTracker(True, "FRA")
    spend(first, updating=0.3)
    stored = json.loads(json.dumps(first.totals(), allow_nan=False))  # as a checkpoint holds it
    first.stop()
    second = CarbonTracker(True, "FRA", stored)
    spend(second, updating=0.2)
    figures = second.stop()
    alone = second._joule["updating"]
    assert figures["sections"]["updating"]["energy_joule"] == pytest.approx(stored["joule"]["updating"] + alone)
    assert figures["sections"]["updating"]["seconds"] >= 0.5
    assert figures["duration_s"] == pytest.approx(stored["tracked_s"] + 0.26, abs=0.2)
    values = [part["value"] for part in figures["energy_joule"].values() if part["value"] is not None]
    assert figures["total_energy_joule"] == pytest.approx(sum(values), rel=1e-6)
    assert figures["total_energy_joule"] > sum(stored["joule"].values()) > 0
    assert figures["emissions_kg_co2eq"] > stored["emissions_kg"] > 0
    assert "mean of FRA" in figures["carbon_intensity"]["source"]


def test_a_run_resumed_without_tracking_keeps_its_energy_and_says_for_how_long_there_is_none() -> None:
    first = CarbonTracker(True, "FRA")
    spend(first, updating=0.1)
    stored = first.totals()
    first.stop()
    second = CarbonTracker(False, "FRA", stored)
    spend(second, collecting=0.2)
    figures = second.stop()
    assert figures["tracked"] and figures["total_energy_joule"] == pytest.approx(sum(stored["joule"].values()))
    assert figures["duration_s"] == stored["tracked_s"] and figures["untracked_s"] == pytest.approx(0.2, abs=0.1)


def test_a_gpu_metered_in_one_part_of_a_run_keeps_the_seconds_it_was_metered() -> None:
    first = CarbonTracker(False, "FRA").totals()
    first["components"] = {"gpu": {"joule": 50.0, "kind": "measured", "seconds": 2.0}}
    first["joule"]["updating"] = 50.0
    first["tracked_s"], first["about"] = 2.0, {"source": "", "country": "FRA", "cpu_model": "", "gpu_model": "H100"}
    second = CarbonTracker(True, "FRA", first)
    if second.totals()["components"]["gpu"]["seconds"] > 2.0:
        pytest.skip("this machine meters a GPU")
    figures = second.stop()
    assert figures["energy_joule"]["gpu"] == {"value": 50.0, "kind": "measured", "seconds": 2.0}
    assert figures["gpu_model"] == "H100"


def test_every_processor_that_was_counted_is_named_in_turn() -> None:
    stored = CarbonTracker(False, "FRA").totals()
    told = []
    for cpu, gpu in (("A", ""), ("B", "H100"), ("B", ""), ("A", "H100")):
        stored = asdict(Totals.read(stored) + Totals(about={"cpu_model": cpu, "gpu_model": gpu}))
        told.append((stored["about"]["cpu_model"], stored["about"]["gpu_model"]))
    assert told == [
        ("A", ""), ("A, resumed with B", "H100"), ("A, resumed with B", "H100"),
        ("A, resumed with B, resumed with A", "H100"),
    ]  # fmt: skip


def test_without_tracking_the_sections_still_have_their_seconds() -> None:
    tracker = CarbonTracker(False, "USA")
    spend(tracker, collecting=0.1)
    figures = tracker.stop()
    collecting = figures["sections"]["collecting"]
    assert 0.09 < collecting["seconds"] < 0.3
    assert (collecting["energy_joule"], collecting["kind"]) == (None, "unmeasured")


def test_stopping_twice_gives_the_same_document() -> None:
    tracker = CarbonTracker(True, "FRA")
    assert tracker.stop() == tracker.stop()


@pytest.mark.parametrize("damage", [{"components": None}, {"seconds": {}}, {"extra": 1}, {"joule": {"setup": "1"}}])
def test_stored_totals_that_are_damaged_are_refused_in_a_line(damage: dict[str, object]) -> None:
    stored = CarbonTracker(False, "USA").totals()
    with pytest.raises(SpikerlError, match="stored energy totals cannot be read"):
        CarbonTracker(False, "USA", stored | damage)


def test_an_unknown_section_is_refused() -> None:
    with pytest.raises(ValueError, match="no section 'lunch'"):
        CarbonTracker(False, "USA").section("lunch")


def test_a_switch_costs_microseconds_and_a_checkpoint_milliseconds() -> None:
    tracker = CarbonTracker(True, "FRA")
    seconds, checkpoints = [], []
    for _ in range(5):
        started = time.perf_counter()
        for _ in range(5_000):
            tracker.section("collecting")
            tracker.section("updating")
        seconds.append((time.perf_counter() - started) / 10_000)
        started = time.perf_counter()
        tracker.totals()
        checkpoints.append(time.perf_counter() - started)
    tracker.stop()
    assert min(seconds) < 5e-6  # 0.5 microseconds where nothing else runs
    assert min(checkpoints) < 20e-3
