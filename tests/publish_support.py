"""What the tests of publishing know of the run that is published."""

from __future__ import annotations

import csv
from pathlib import Path

RECIPE = "inverted-pendulum"
EMISSIONS = {
    "tracked": True, "source": "a meter", "duration_s": 9.0, "total_energy_joule": 2000.0,
    "total_energy_kind": "measured", "emissions_kg_co2eq": 0.5, "cpu_model": "P", "gpu_model": "",
    "energy_joule": {"cpu": {"value": 2000.0, "kind": "measured", "seconds": 9.0}}, "sections": {},
    "carbon_intensity": {"value": 400.0, "unit": "g CO2eq/kWh", "kind": "modelled", "source": "a table"},
}  # fmt: skip


def evaluations(run: Path) -> dict[int, float]:
    """Mean returns of a run by step, as its metrics have them."""
    rows = csv.DictReader((run / "metrics.csv").open())
    return {int(row["step"]): float(row["value"]) for row in rows if row["name"] == "return_mean"}
