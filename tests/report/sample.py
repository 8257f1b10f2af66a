"""Documents of the layout `spikerl.report/2` with drawn numbers, for tests of what is made from them."""

from __future__ import annotations

import copy
import itertools
from typing import Any

import numpy as np

SIZES = (170, 256, 256, 60)
TIME_STEPS = 5
COUNTS = (
    "synaptic_operations",
    "effective_acs",
    "effective_macs",
    "dense",
    "spikes",
    "input_spikes",
    "updates_active",
    "updates_inactive",
    "overhead_updates",
)
MODELS = {
    "synops": ("SynOps only", "synaptic operations at the energy of one"),
    "chip-dynamic": ("Chip, dynamic", "synaptic operations, neuron updates and spikes routed"),
    "chip-total": ("Chip, with static power", "dynamic energy and static power over the control step"),
    "memory-aware": ("Memory-aware, 45 nm", "operations, addressing and memory accesses (Lemaire 2022)"),
}


def manifest(*command: str) -> dict[str, Any]:
    return {
        "command": ["spikerl", *command],
        "created": "2026-11-21T15:30:27+00:00",
        "seed": 0,
        "versions": {"spikerl-deploy": "0.1.0", "python": "3.11.7", "numpy": "2.3.5", "nir": "1.0.8"},
        "machine": {"system": "Linux", "architecture": "x86_64"},
        "made_from": {"policy": {"name": "half-cheetah-8-bit.nir", "sha256": "9e12" * 16}},
    }


def workload(rng: np.random.Generator, seeds: int, rate: float, bits: int) -> dict[str, Any]:
    layers = []
    for index, (n_in, neurons) in enumerate(itertools.pairwise(SIZES)):
        events = rate * n_in * TIME_STEPS * rng.uniform(0.8, 1.2)
        spikes = rate * neurons * TIME_STEPS * rng.uniform(0.8, 1.2)
        synapses = int(n_in * neurons * 0.97)
        layers.append(
            {
                "name": f"layer {index + 1}",
                "n_in": n_in,
                "neurons": neurons,
                "synapses": synapses,
                "input_events": events,
                "effective_acs": events * neurons * 0.97,
                "effective_macs": 0.0,
                "dense": n_in * neurons * TIME_STEPS,
                "spikes": spikes,
                "updates_active": spikes,
                "updates_inactive": neurons * TIME_STEPS - spikes,
                "connection_sparsity": 0.03,
                "activation_sparsity": 1 - spikes / neurons / TIME_STEPS,
                "firing_rate": spikes / neurons / TIME_STEPS,
            }
        )
    total = {
        "synaptic_operations": sum(layer["effective_acs"] for layer in layers),
        "effective_acs": sum(layer["effective_acs"] for layer in layers),
        "effective_macs": 0.0,
        "dense": sum(layer["dense"] for layer in layers),
        "spikes": sum(layer["spikes"] for layer in layers),
        "input_spikes": layers[0]["input_events"],
        "updates_active": sum(layer["updates_active"] for layer in layers),
        "updates_inactive": sum(layer["updates_inactive"] for layer in layers),
        "overhead_updates": sum(SIZES[1:]) * 3,
    }
    return {
        "unit": "per inference: mean over all control steps",
        "time_steps": TIME_STEPS,
        "overhead_steps": 3,
        "control_steps": 1000 * seeds,
        "control_step_s": 0.05,
        "input": {
            "neurons": SIZES[0],
            "spikes": layers[0]["input_events"],
            "activation_sparsity": 1 - layers[0]["input_events"] / SIZES[0] / TIME_STEPS,
        },
        "layers": layers,
        "per_inference": total,
        "per_second": {name: value / 0.05 for name, value in total.items()},
        "per_episode": {
            "mean": {name: value * 1000 for name, value in total.items()},
            **{
                name: (total[name] * rng.uniform(950, 1050, seeds)).tolist()
                for name in ("synaptic_operations", "spikes", "input_spikes")
            },
        },
        "footprint": {
            "unit": "bytes",
            "weight_bits": bits,
            "weights": 124416,
            "biases": 1144,
            "neuron_states": 4576,
            "total": 130136,
            "note": "weights at their own width; biases and neuron state at 16 and 32 bits",
        },
    }


def figure(name: str, title: str, what: str, low: float, high: float, constants: str, source: str) -> dict[str, Any]:
    return {
        "id": name,
        "target": name.split("/")[0],
        "title": title,
        "model": name.split("/")[1],
        "what": what,
        "low": low,
        "high": high,
        "per_second": {"low": low / 0.05, "high": high / 0.05, "unit": "uW"},
        "kind": "modelled",
        "constants_kind": [constants],
        "sources": [source],
        "note": "a lower bound",
    }


def energy(counts: dict[str, float], bits: int) -> dict[str, Any]:
    operations, dense = counts["synaptic_operations"] / 1e6, counts["dense"] / 1e6
    chips = {
        "loihi1": ("Loihi 1", 23.6, 35.5, "simulated", "Davies et al. 2018, table 2"),
        "spinnaker": ("SpiNNaker", 13300.0, 13300.0, "measured", "Höppner et al. 2019"),
        "spinnaker2": ("SpiNNaker 2", 450.0, 450.0, "simulated", "Höppner et al. 2019"),
        "truenorth": ("TrueNorth", 2.3, 26.0, "measured", "Akopyan et al. 2015"),
    }
    figures = []
    for model, factor in (("synops", 1.0), ("chip-dynamic", 1.05)):
        for name, (title, low, high, kind, source) in chips.items():
            what = MODELS[model][1]
            figures.append(
                figure(
                    f"{name}/{model}", title, what, operations * low * factor, operations * high * factor, kind, source
                )
            )
    figures.append(
        figure("loihi1/chip-total", "Loihi 1", "with leakage of one chip", 5201.5, 5202.6, "measured", "Frady 2020")
    )
    memory = operations * 25, operations * 60
    figures.append(figure("45nm/memory-aware", "45 nm CMOS", "Lemaire 2022", *memory, "derived", "Horowitz 2014"))
    baselines = [
        figure("ann-fp32/synops", "Dense ANN, FP32", "the dense ANN 17-256-256-6", 0.327, 0.327, "derived", "Horowitz"),
        figure(
            "ann-int3/synops", "Dense ANN, 3-bit", "the dense ANN 17-256-256-6", 0.004, 0.011, "derived", "Horowitz"
        ),
        figure("gpu-floor/dense", "H100 at its peak", "the SNN as dense", dense * 1.4, dense * 21, "datasheet", "H100"),
        figure("gpu-2015/dense", "GPU, 2015", "the SNN as dense", dense * 300, dense * 300, "measured", "Degnan 2015"),
    ]
    rates = np.linspace(0.01, 0.3, 30)
    return {
        "constants_version": "2",
        "unit": "uJ per inference",
        "models": [{"model": name, "title": title, "what": what} for name, (title, what) in MODELS.items()],
        "figures": figures,
        "baselines": baselines,
        "break_even": [
            {
                "id": "yan-2024",
                "title": "Yan et al. 2024, T = 5",
                "what": "below this firing rate a spiking network spends less than a quantized ANN",
                "quantity": "firing rate",
                "threshold_low": 0.034,
                "threshold_high": 0.108,
                "here": counts["spikes"] / (sum(SIZES[1:]) * TIME_STEPS),
                "saves": None,
                "kind": "modelled",
                "source": "arXiv 2409.08290",
            }
        ],
        "references": [reference()],
        "headline": {"id": "loihi1/chip-dynamic"},
        "exclusions": ["encoder and decoder on the host", "input and output of the chip", "training"],
        "sweep": {
            "rates": rates.tolist(),
            "figures": [
                {"id": "loihi1/chip-dynamic", "low": (rates * 14).tolist(), "high": (rates * 22).tolist()},
                {"id": "ann-int3/synops", "low": [0.5] * 30, "high": [0.9] * 30},
            ],
            "here": counts["spikes"] / (sum(SIZES[1:]) * TIME_STEPS),
        },
    }


def reference() -> dict[str, Any]:
    return {
        "target": "loihi2",
        "title": "Loihi 2",
        "what": "a spiking force controller, dynamic energy",
        "value": 53.0,
        "spread": 17.0,
        "unit": "uJ per inference",
        "kind": "measured",
        "source": "arXiv 2403.08928",
        "note": "another network",
    }


def spikes(rng: np.random.Generator, rate: float, control_steps: int = 20) -> dict[str, Any]:
    layers = []
    for index, neurons in enumerate(SIZES):
        probability = np.clip(rng.beta(0.6, 0.6 / rate - 0.6, neurons), 0, 1)
        time, neuron = np.nonzero(rng.random((control_steps * TIME_STEPS, neurons)) < probability)
        name = f"layer {index}" if index else "input"
        layers.append({"name": name, "neurons": neurons, "time": time.tolist(), "neuron": neuron.tolist()})
    return {"control_steps": control_steps, "time_steps": TIME_STEPS, "seed": 0, "layers": layers}


def membranes(rng: np.random.Generator, control_steps: int = 20) -> dict[str, Any]:
    layers, steps = [], control_steps * TIME_STEPS
    for index, neurons in enumerate(SIZES[1:]):
        traces = []
        for drive in (16.0, 9.0, 3.0):
            voltage, fired, value = [], [], 0.0
            for step in range(steps):
                value = value * 0.75 + rng.normal(drive, 10)
                voltage.append(value)
                if value > 64:
                    fired.append(step)
                    value = 0.0
            traces.append({"neuron": int(rng.integers(neurons)), "voltage": voltage, "spikes": fired})
        layers.append({"name": f"layer {index + 1}", "threshold": [64.0] * 3, "traces": traces})
    return {
        "backend": "fixed",
        "what": "voltage after the update and before the reset; its spikes are those recorded on lava",
        "control_steps": control_steps,
        "time_steps": TIME_STEPS,
        "unit": "integer voltage of the chip, thresholds alike",
        "layers": layers,
    }


def deployment(bits: int | None = 8, backend: str = "lava", seeds: int = 10, rate: float = 0.12) -> dict[str, Any]:
    rng = np.random.default_rng(bits or 32)
    name = f"half-cheetah-{bits}-bit" if bits else "half-cheetah-float"
    loss = {None: 1.0, 8: 0.99, 6: 0.96, 4: 0.8}.get(bits, 0.9)
    baseline = rng.normal(3100, 90, seeds)
    deployed = baseline * loss + rng.normal(0, 25, seeds)

    def entry(returns: np.ndarray, runs: str, exactness: str) -> dict[str, Any]:
        counts = workload(rng, seeds, rate, bits if bits and exactness == "integer" else 32)
        spread = 1.96 * returns.std() / np.sqrt(seeds)
        return {
            "runs": runs,
            "exactness": exactness,
            "returns": returns.tolist(),
            "mean_return": float(returns.mean()),
            "std_return": float(returns.std(ddof=1)) if seeds > 1 else None,
            "return_interval": [float(returns.mean() - spread), float(returns.mean() + spread)],
            "lengths": [1000] * seeds,
            "control_steps": 1000 * seeds,
            "workload": counts,
            "energy": energy(counts["per_inference"], bits or 32),
            "wall_time": {
                "kind": "measured",
                "what": "backend's time for one control step of up to 10 episodes side by side",
                "unit": "ms",
                "median": 3.21,
                "p99": 5.5,
                "calls": 1000,
                "episodes_side_by_side": 10,
                "whole_rollout_s": 12.5,
            },
        }

    retention = float(deployed.mean() / baseline.mean())
    return {
        "id": f"{name}-{backend}",
        "title": f"{name}.nir on {backend}",
        "manifest": manifest("simulate", f"{name}.nir", "--backend", backend, "--compare", "torch", "-o", "report"),
        "policy": {
            "file": f"{name}.nir",
            "sha256": "9e12" * 16,
            "sizes": list(SIZES),
            "time_steps": TIME_STEPS,
            "bits": bits,
            "coding": "regular",
            "provenance": {"created": "2026-11-21T15:19:45+00:00", "made_from": {}},
        },
        "environment": {
            "id": "HalfCheetah-v5",
            "seeds": list(range(seeds)),
            "control_step_s": 0.05,
            "perturbation": None,
        },
        "backend": backend,
        "backends": {
            backend: entry(deployed, *(("integer weights", "integer") if bits else ("float weights", "float"))),
            "torch": entry(baseline, "float weights", "float"),
        },
        "comparison": {
            "backend": backend,
            "baseline": "torch",
            "differences": (deployed - baseline).tolist(),
            "mean_difference": float((deployed - baseline).mean()),
            "difference_interval": [-60.0, 10.0],
            "retention": retention,
            "retention_interval": [retention - 0.012, retention + 0.011],
            "interval": "95% percentile bootstrap over seeds, 10000 resamples, seed 0",
            "seeds": seeds,
        },
        "spikes": spikes(rng, rate),
        "membranes": membranes(rng),
        "firing_rates": [
            {"name": f"layer {index}" if index else "input", "rates": rng.beta(0.6, 4, size).tolist()}
            for index, size in enumerate(SIZES)
        ],
    }


def training_run(name: str, seconds: float, joule: float | None) -> dict[str, Any]:
    steps = np.arange(1, 41) * 25_000
    mean = 3200 * (1 - np.exp(-steps / 3e5)) + np.random.default_rng(len(name)).normal(0, 60, 40)
    sections = {"collecting": 0.1, "updating": 0.85, "evaluating": 0.05}
    return {
        "id": name,
        "title": name.replace("-", " "),
        "env": "HalfCheetah-v5",
        "folder": name,
        "seeds": 3,
        "steps": 3_000_000,
        "seconds": seconds,
        "finished": True,
        "stopped": "steps",
        "curve": [
            {
                "step": int(step),
                "seconds": seconds * step / 1e6,
                "mean_return": float(m),
                "low": float(m - 200),
                "high": float(m + 150),
            }
            for step, m in zip(steps, mean, strict=True)
        ],
        "best_return": float(mean.max()),
        "final_return": float(mean[-1]),
        "last_ten_mean": float(mean[-10:].mean()),
        "energy": None
        if joule is None
        else {
            "joule": joule,
            "kind": "modelled",
            "parts": {
                "cpu": {"value": joule * 0.3, "kind": "modelled"},
                "gpu": {"value": None, "kind": "unmeasured"},
                "ram": {"value": joule * 0.7, "kind": "modelled"},
            },
            "sections": {
                section: {"seconds": seconds * share, "energy_joule": joule * share, "kind": "modelled"}
                for section, share in sections.items()
            },
        },
        "carbon": None
        if joule is None
        else {
            "kg_co2eq": joule / 3.6e6 * 0.369,
            "kind": "modelled",
            "intensity": {"value": 369.0, "unit": "g CO2eq/kWh", "source": "mean of USA"},
        },
        "manifest": manifest("train", "HalfCheetah-v5"),
    }


def speedup(run: str, ratio: float, greenup: float | None) -> dict[str, Any]:
    return {
        "baseline": "float32-baseline",
        "run": run,
        "speedup": ratio,
        "greenup": greenup,
        "powerup": None if greenup is None else ratio / greenup,
        "quadrant": None if greenup is None else "green: faster on more power",
        "kind": "modelled",
        "what": "per environment step",
    }


def verified_policy() -> dict[str, Any]:
    return {
        "file": "half-cheetah-8-bit.nir",
        "sha256": "9e12" * 16,
        "sizes": list(SIZES),
        "time_steps": TIME_STEPS,
        "bits": 8,
    }


def conformance() -> dict[str, Any]:
    def row(name: str, status: str, mismatches: list[int] | None) -> dict[str, Any]:
        return {
            "name": name,
            "runs": "integer weights" if name in ("fixed", "lava") else "float weights",
            "status": status,
            "mismatches": mismatches,
            "either": None if mismatches is None else [51200, 23411, 4095],
            "action_error": None if mismatches is None else 0.0 if not any(mismatches) else 0.013,
            "returns": None,
        }

    return {
        "title": "half-cheetah-8-bit.nir",
        "policy": verified_policy(),
        "environment": "HalfCheetah-v5",
        "reference": {"name": "fixed", "spikes": [51200, 23411, 4095]},
        "passed": False,
        "rows": [
            row("fixed", "passed", [0, 0, 0]),
            row("lava", "passed", [0, 0, 0]),
            row("torch", "informational", [12, 44, 7]),
            row("norse", "failed", [1024, 5310, 871]),
            row("spikingjelly", "skipped", None),
        ],
    }


def inference() -> dict[str, Any]:
    rows = []
    for workload_name, scale in (("spiking policy", 1.0), ("dense ANN", 0.2)):
        for batch, per in ((1, 52_000.0), (64, 1_700.0)):
            mean = per * scale
            rows.append(
                {
                    "workload": workload_name,
                    "device": "cpu",
                    "mode": "eager",
                    "batch": batch,
                    "dtype": "float32",
                    "threads": 1,
                    "inferences_per_second": 1e6 / mean * 20,
                    "latency_ms": mean / 20e3 * batch,
                    "energy_uj": {
                        "total": {"mean": mean, "low": mean * 0.9, "high": mean * 1.2},
                        "above_idle": {"mean": mean * 0.4, "low": mean * 0.3, "high": mean * 0.5},
                    },
                    "kind": "measured" if batch == 1 else "modelled",
                    "meter": "RAPL",
                    "scope": "CPU package",
                    "windows": 3,
                    "window_s": 10.0,
                    "note": "",
                }
            )
    return {
        "schema": "spikerl.inference-energy/1",
        "manifest": manifest("measure", "half-cheetah-8-bit.nir"),
        "policy": verified_policy(),
        "ann": {"sizes": [17, 256, 256, 6], "note": "random weights"},
        "hardware": {"cpu": "a CPU", "cuda": None, "torch": "2.13.0"},
        "idle": [
            {
                "device": "cpu",
                "meter": "RAPL",
                "kind": "measured",
                "seconds": 10.0,
                "power_w": 21.0,
                "before_w": 20.5,
                "after_w": 21.5,
            }
        ],
        "rows": rows,
        "warnings": ["CPU idle power drifted by 1 W"],
    }


def report(*deployments: dict[str, Any], title: str = "HalfCheetah-v5 on lava") -> dict[str, Any]:
    """One deployment and nothing else, unless others are given."""
    chosen = deployments or (deployment(),)
    return {
        "schema": "spikerl.report/2",
        "manifest": manifest("simulate", "half-cheetah-8-bit.nir", "--backend", "lava", "-o", "report"),
        "title": title,
        "deployments": copy.deepcopy(list(chosen)),
        "training": [],
        "speedups": [],
        "conformance": [],
        "inference": [],
        "warnings": [],
    }


def full_report(*widths: int | None) -> dict[str, Any]:
    """Everything that a report can hold: several widths, training, conformance, measured inference."""
    chosen = widths or (8, 6, 4, None)
    document = report(*(deployment(bits) for bits in chosen), title=f"HalfCheetah-v5: {len(chosen)} widths")
    document["training"] = [
        training_run("float32-baseline", 9000.0, 450_000.0),
        training_run("bf16-stacked", 3100.0, 210_000.0),
        training_run("no-meter", 5000.0, None),
    ]
    document["speedups"] = [speedup("bf16-stacked", 2.9, 2.14), speedup("no-meter", 1.8, None)]
    document["conformance"] = [conformance()]
    document["inference"] = [inference()]
    document["warnings"] = ["the energy of training is modelled, not measured"]
    return document
