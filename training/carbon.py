"""Energy and carbon of a run, by CodeCarbon's offline tracker."""

from __future__ import annotations

import logging
import shutil
from typing import Any

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
            "cpu": (data.cpu_energy, "measured" if "rapl" in self._cpu_mode() else "modelled"),
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

    def _cpu_mode(self) -> str:
        return str(self._tracker._conf.get("cpu_tracking_mode", "")).lower() if hasattr(self._tracker, "_conf") else ""
