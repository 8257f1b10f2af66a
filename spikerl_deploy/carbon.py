"""Carbon of energy, and CodeCarbon driven without its hooks, signal handlers and files."""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from spikerl_deploy.errors import SpikerlError, unknown

JOULES_PER_KWH = 3.6e6
INTENSITY_UNIT = "g CO2eq/kWh"
STALE_S = 0.06  # CodeCarbon skips a measurement that follows the last one by less than 50 ms
KINDS = ("measured", "modelled")  # of an energy that there is
MAX_REASON = 200  # characters; a damaged file may hold any
UNSCHEDULED_S = 1e8  # CodeCarbon's own timer never fires: it takes no lock, so a flush beside it would count twice


def emissions_kg(joule: float, grams_per_kwh: float) -> float:
    """Emissions in kg CO2eq of an energy in J at a carbon intensity in g CO2eq/kWh."""
    return joule / JOULES_PER_KWH * grams_per_kwh / 1e3


class Latest:
    """An output of CodeCarbon that keeps the figures of the last flush; there are no live ones, and no tasks."""

    data: Any = None

    def out(self, total: Any, delta: Any) -> None:
        """CodeCarbon hands over its sums since the start, in kWh."""
        self.data = total

    def exit(self) -> None: ...


def start_codecarbon(country: str, output: Latest, carbon_intensity: float | None = None) -> Any:
    """A running tracker of the whole machine, which measures at `flush` only and leaves its figures in `output`.

    The offline tracker is used always: the online one, without a network, silently assumes a country.

    Args:
        country: ISO 3166 alpha-3. carbon_intensity: g CO2eq/kWh instead of the country's mean.

    Raises:
        SpikerlError: CodeCarbon has no carbon intensity for the country.
    """
    from codecarbon import OfflineEmissionsTracker

    known = energy_mix()
    if country not in known:  # it would take another figure, and go on
        raise unknown("country", country, known, "ISO 3166 alpha-3, such as --set country=FRA")
    logging.getLogger("codecarbon").setLevel(logging.ERROR)
    given = {} if carbon_intensity is None else {"force_carbon_intensity_g_co2e_kwh": carbon_intensity}
    tracker = OfflineEmissionsTracker(
        country_iso_code=country,
        output_methods=[],
        output_handlers=[output],
        api_call_interval=-1,
        measure_power_secs=UNSCHEDULED_S,
        log_level="error",
        allow_multiple_runs=True,
        **given,
    )
    tracker.start()
    return tracker


def energy_mix() -> dict[str, dict[str, Any]]:
    """CodeCarbon's table of countries, by ISO 3166 alpha-3 code: `carbon_intensity` in g CO2eq/kWh and its `year`."""
    from codecarbon.input import DataSource

    mix: dict[str, dict[str, Any]] = DataSource().get_global_energy_mix_data()
    return mix


def read_training_energy(checkpoint: Path, seeds: int) -> dict[str, Any] | None:
    """Energy and carbon of the run that a checkpoint lies in, for the policy's provenance; None where it tracked none.

    Args:
        seeds: that the run trained side by side; the figures are of all of them.

    Raises:
        SpikerlError: the run's emissions.json cannot be read, lacks figures, or holds what no report can.
    """
    if checkpoint.absolute().parent.name != "checkpoints":
        return None  # a lone file: what lies beside it is of another run
    run = checkpoint.absolute().parent.parent  # RUN/checkpoints/best.pt, or RUN/seed-0/checkpoints/best.pt
    found = [folder / "emissions.json" for folder in (run, run.parent)[: 1 if seeds == 1 else 2]]
    path = next((path for path in found if path.is_file()), None)
    if path is None:
        return None
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
        if not document["tracked"]:
            return None
        return {**_figures(document), "seeds": seeds}
    except (OSError, ValueError, KeyError, TypeError, OverflowError, RecursionError) as error:
        reason = f"no {error}" if isinstance(error, KeyError) else " ".join(str(error).split())[:MAX_REASON]
        raise SpikerlError(f"'{path}' cannot be read: {reason}", "move it away to go on without it") from error


def _figures(document: Mapping[str, Any]) -> dict[str, Any]:
    """Energy, emissions and intensity of an emissions.json; a figure that is none of those raises."""
    kind, intensity = document["total_energy_kind"], document["carbon_intensity"]
    if kind not in KINDS:
        raise ValueError(f"total_energy_kind {kind!r} is none of {', '.join(KINDS)}")
    if intensity["unit"] != INTENSITY_UNIT:
        raise ValueError(f"carbon_intensity.unit {intensity['unit']!r} is not '{INTENSITY_UNIT}'")
    source = intensity["source"]
    if not isinstance(source, str):
        raise TypeError(f"carbon_intensity.source {source!r} is no text")
    source.encode()  # half a surrogate pair cannot be written
    return {
        "joule": _amount(document, "total_energy_joule"),
        "kind": kind,
        "kg_co2eq": _amount(document, "emissions_kg_co2eq"),
        "intensity": {"value": _amount(intensity, "value"), "unit": INTENSITY_UNIT, "source": source},
    }


def _amount(document: Mapping[str, Any], name: str) -> float:
    """A number of the document, finite and not negative."""
    value = document[name]
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError(f"{name} {value!r} is no number")
    if not (math.isfinite(value) and value >= 0):
        raise ValueError(f"{name} {value} is not finite and at least 0")
    return float(value)


def training_energy(provenance: Mapping[str, Any] | None) -> dict[str, Any] | None:
    """What `read_training_energy` gave, out of a policy's provenance, however often the policy was exported since."""
    while isinstance(provenance, Mapping):
        found = provenance.get("training_energy")
        if isinstance(found, dict):
            return found
        provenance = provenance.get("origin")
    return None
