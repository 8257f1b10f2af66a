"""Energy tracking: inert when off, figures with their kind when on."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from spikerl_deploy.errors import SpikerlError
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


def test_emissions_follow_the_countrys_carbon_intensity() -> None:
    def intensity(country: str) -> float:
        tracker = CarbonTracker(True, country)
        sum(i * i for i in range(100_000))
        figures = tracker.stop()
        return figures["emissions_kg_co2eq"] / (figures["total_energy_joule"] / 3.6e6)

    assert intensity("FRA") < 0.15 < 0.5 < intensity("POL")  # kg CO2eq a kWh: nuclear, coal


def test_the_cpu_counts_as_measured_where_codecarbon_reads_rapl_and_only_there() -> None:
    tracker = CarbonTracker(True, "USA")
    modes = [getattr(part, "_mode", None) for part in tracker._tracker._hardware]
    assert any(modes), "CodeCarbon names its CPU mode otherwise now"
    assert (tracker.stop()["energy_joule"]["cpu"]["kind"] == "measured") == ("intel_rapl" in modes)


@pytest.mark.parametrize("country", ["Atlantis", "fra", ""])
def test_a_country_without_carbon_intensity_is_refused_not_replaced(country: str) -> None:
    with pytest.raises(SpikerlError, match=f"country '{country}'"):
        CarbonTracker(True, country)
