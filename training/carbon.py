"""Energy and carbon of a run, by CodeCarbon's offline tracker."""

from __future__ import annotations

import logging
import os
import shutil
from typing import Any

from spikerl_deploy.errors import unknown

JOULES_PER_KWH = 3.6e6


class CarbonTracker:
    """Tracks the whole machine while a run lasts; inert if switched off.

    The offline tracker is used always: the online one, without a network, silently assumes a country.
    """

    def __init__(self, enabled: bool, country: str) -> None:
        self._tracker: Any = None
        self.country = country
        if enabled:
            from codecarbon import OfflineEmissionsTracker

            _check_country(country)
            logging.getLogger("codecarbon").setLevel(logging.ERROR)
            self._tracker = OfflineEmissionsTracker(
                country_iso_code=country,
                output_methods=[],
                measure_power_secs=15,
                log_level="error",
                allow_multiple_runs=True,
            )
            self._tracker.start()

    def stop(self) -> dict[str, Any]:
        """End tracking and return the figures, each with its unit and kind."""
        if self._tracker is None:
            return {"tracked": False}
        self._tracker.stop()
        data = self._tracker.final_emissions_data
        gpu_meter = shutil.which("nvidia-smi") is not None
        parts = {
            "cpu": (data.cpu_energy, "measured" if _rapl_is_readable() else "modelled"),
            "gpu": (data.gpu_energy, "measured" if gpu_meter and data.gpu_energy else "unmeasured"),
            "ram": (data.ram_energy, "modelled"),
        }
        return {
            "tracked": True,
            "source": f"CodeCarbon {data.codecarbon_version}, offline",
            "duration_s": data.duration,
            "energy_joule": {
                name: {"value": None if kind == "unmeasured" else kwh * JOULES_PER_KWH, "kind": kind}
                for name, (kwh, kind) in parts.items()
            },
            "total_energy_joule": data.energy_consumed * JOULES_PER_KWH,
            "emissions_kg_co2eq": data.emissions,
            "emissions_kind": "modelled",
            "country": self.country,
            "cpu_model": data.cpu_model,
            "gpu_model": data.gpu_model,
        }


def _rapl_is_readable() -> bool:
    """Whether the CPU's own energy counter can be read; where it cannot, CodeCarbon scales a constant by load."""
    return os.access("/sys/class/powercap/intel-rapl:0/energy_uj", os.R_OK)


def _check_country(code: str) -> None:
    """Refuse a country that CodeCarbon has no carbon intensity for; it would take another figure, and go on.

    Raises:
        SpikerlError: the code is unknown.
    """
    from codecarbon.input import DataSource

    known = DataSource().get_global_energy_mix_data()
    if code not in known:
        raise unknown("country", code, known, "ISO 3166 alpha-3, such as --set country=FRA")
