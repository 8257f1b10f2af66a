"""Energy tracking: inert when off, figures with their kind when on."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from training.carbon import CarbonTracker


def test_switched_off_it_is_inert_and_does_not_import_codecarbon() -> None:
    program = (
        "import sys; from training.carbon import CarbonTracker; "
        "assert CarbonTracker(False, 'USA').stop() == {'tracked': False}; assert 'codecarbon' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", program], check=True, cwd=Path(__file__).parents[2])


def test_switched_on_it_gives_joules_with_their_kind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    tracker = CarbonTracker(True, "FRA")
    sum(i * i for i in range(300_000))
    figures = tracker.stop()
    assert figures["tracked"] and figures["country"] == "FRA" and figures["duration_s"] > 0
    parts = figures["energy_joule"]
    assert set(parts) == {"cpu", "gpu", "ram"}
    for part in parts.values():
        assert part["kind"] in ("measured", "modelled", "unmeasured")
        assert (part["value"] is None) == (part["kind"] == "unmeasured")
    known = [part["value"] for part in parts.values() if part["value"] is not None]
    assert figures["total_energy_joule"] == pytest.approx(sum(known), rel=1e-6) and min(known) > 0
    # a machine draws between 1 W and 100 kW: the figures are joules, no kilowatt-hours
    assert 1 < figures["total_energy_joule"] / figures["duration_s"] < 1e5
    assert list(tmp_path.iterdir()) == []


def test_emissions_follow_the_countrys_carbon_intensity() -> None:
    def intensity(country: str) -> float:
        tracker = CarbonTracker(True, country)
        sum(i * i for i in range(100_000))
        figures = tracker.stop()
        return figures["emissions_kg_co2eq"] / (figures["total_energy_joule"] / 3.6e6)

    assert intensity("FRA") < 0.15 < 0.5 < intensity("POL")  # kg CO2eq a kWh: nuclear, coal


def test_how_the_cpus_energy_was_found_is_known() -> None:
    # Without it a CPU that RAPL did measure would be reported as modelled.
    tracker = CarbonTracker(True, "USA")
    try:
        assert tracker._cpu_mode() != ""
    finally:
        tracker.stop()
