"""A real report for the tests: a short rollout on `fixed` beside `torch`, and inputs of the other kinds."""

from __future__ import annotations

import copy
import json
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from support import quantized_policy

from simulators.compare import report_document
from simulators.registry import make_backend
from simulators.rollout import rollout
from simulators.traces import TRACE_STEPS
from spikerl_deploy.energy import load_energy_chips
from spikerl_deploy.policy_file import save_policy

ENV = "InvertedPendulum-v5"


@cache
def _report(seeds: tuple[int, ...]) -> dict[str, Any]:
    policy, runs = quantized_policy(), []
    for name in ("fixed", "torch"):
        backend = make_backend(name, device="cpu")
        with backend.open(policy, 2) as session:
            runs.append((backend, rollout(session, ENV, seeds, record=TRACE_STEPS)))
    with TemporaryDirectory() as folder:
        file = Path(folder) / "p.nir"
        save_policy(policy, file)
        document = report_document(policy, file, ENV, 0.04, runs, load_energy_chips())
    return json.loads(json.dumps(document, allow_nan=False))


def real_report(*seeds: int) -> dict[str, Any]:
    """A report of its own for the caller to change; seeds 0 to 2 by default."""
    return copy.deepcopy(_report(seeds or (0, 1, 2)))


def write_run(
    folder: Path, seconds: float, joule: float | None, returns: tuple[tuple[float, ...], ...] = ((10.0, 20.0),)
) -> None:
    """A run folder: for each seed its mean returns, an evaluation every 1000 steps."""
    folder.mkdir(parents=True)
    steps = 1000 * len(returns[0])
    (folder / "config.toml").write_text(f'env = "{ENV}"\nsteps = {steps}\n')
    (folder / "manifest.json").write_text(json.dumps({"machine": {"system": "Linux"}, "versions": {}}))
    (folder / "result.json").write_text(json.dumps({"steps": steps, "seconds": seconds, "stopped": "steps"}))
    for seed, values in enumerate(returns):
        place = folder / f"seed-{seed}" if len(returns) > 1 else folder
        place.mkdir(exist_ok=True)
        rows = [
            f"{1000 * number},{seconds * number / len(values)},1,eval,return_mean,{value}"
            for number, value in enumerate(values, start=1)
        ]
        (place / "metrics.csv").write_text("\n".join(["step,seconds,steps_per_second,kind,name,value", *rows, ""]))
    figures: dict[str, Any] = {"tracked": False}
    if joule is not None:
        figures = {
            "tracked": True,
            "duration_s": seconds,
            "total_energy_joule": joule,
            "source": "by hand",
            "energy_joule": {
                "cpu": {"value": joule, "kind": "measured"},
                "gpu": {"value": None, "kind": "unmeasured"},
            },
            "sections": {"updating": {"seconds": seconds, "energy_joule": joule, "kind": "modelled", "share": 1.0}},
            "emissions_kg_co2eq": joule / 3.6e6 * 0.4,
            "carbon_intensity": {"value": 400.0, "unit": "g CO2eq/kWh", "kind": "modelled", "source": "by hand"},
        }
    (folder / "emissions.json").write_text(json.dumps(figures))


def measurement() -> dict[str, Any]:
    """A document of `spikerl measure`."""
    row = {
        "workload": "spiking policy",
        "device": "cpu",
        "mode": "eager",
        "batch": 1,
        "dtype": "float32",
        "threads": 1,
        "inferences_per_second": 500.0,
        "latency_ms": 2.0,
        "energy_uj": {"total": {"mean": 90.0, "low": 80.0, "high": 100.0}, "above_idle": None},
        "kind": "modelled",
        "meter": "CodeCarbon 3",
        "scope": "CPU package",
        "windows": 3,
        "window_s": 10.0,
        "note": "",
    }
    idle = {"device": "cpu", "meter": "CodeCarbon 3", "kind": "modelled", "seconds": 10.0}
    return {
        "schema": "spikerl.inference-energy/1",
        "manifest": {},
        "policy": {"file": "p.nir", "sha256": "0" * 64, "sizes": [40, 24, 20, 10], "time_steps": 5, "bits": 8},
        "ann": {"sizes": [4, 24, 20, 1], "note": ""},
        "hardware": {"cpu": "a processor", "cuda": None, "torch": "2"},
        "idle": [{**idle, "power_w": 3.0, "before_w": 3.0, "after_w": 3.0}],
        "rows": [row],
        "warnings": [],
    }
