"""What quantization costs a trained policy in return, by bits and by method; and how long it and the exports take.

    make bench-quantization

Every quantized policy plays the same episodes as the float policy, on `fixed`, whose spikes are Lava's. Data for
calibration and training comes from other episodes. Time and memory are those of the installed command, alone.
"""

from __future__ import annotations

import argparse
import resource
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.machine import machine
from exporters.calibrate import calibrate, compare_recorded
from exporters.fine_tune import fine_tune
from exporters.quantize import quantize
from exporters.registry import exporter, exporter_names
from simulators.fixed import FixedBackend
from simulators.protocol import Backend
from simulators.recording import PARALLEL, record_observations
from simulators.rollout import rollout
from simulators.torch_backend import TorchBackend
from spikerl_deploy.files import sha256_file, write_json
from spikerl_deploy.manifest import package_versions
from spikerl_deploy.policy import Policy
from spikerl_deploy.policy_file import load_policy
from spikerl_deploy.statistics import compare_paired

EPISODES = 10
RECORD_SEED, HELD_OUT_SEED, TRAIN_SEED = 20_000, 50_000, 100_000  # far from the seeds that are played
STEPS = 10_000
TUNED_BITS = (4, 3, 2)
QAT_STEPS = 3_000


def returns(backend: Backend, policy: Policy) -> list[float]:
    """Returns of the episodes with seeds 0 to EPISODES - 1."""
    assert policy.env_id is not None
    with backend.open(policy, EPISODES) as session:
        return list(rollout(session, policy.env_id, range(EPISODES)).returns)


def entry(policy: Policy, baseline: list[float], recorded: NDArray[np.generic]) -> dict[str, Any]:
    """What a quantized policy returns on `fixed`, and how its actions differ on the recorded data."""
    found = returns(FixedBackend(), policy)
    paired = compare_paired(found, baseline)
    return {
        "returns": found,
        "mean_return": float(np.mean(found)),
        "retention": paired.retention,
        "interval": list(paired.retention_interval) if paired.retention_interval else None,
        "action_error": compare_recorded(policy, recorded).action_error,
    }


def by_bits(
    policy: Policy, recorded: NDArray[np.generic], baseline: list[float], all_bits: list[int]
) -> dict[str, Any]:
    """Rounding, calibration and, for few bits, training at each number of bits."""
    rows: dict[str, Any] = {}
    assert policy.env_id is not None
    held_out = record_observations(TorchBackend("cpu"), policy, policy.env_id, STEPS // 10, HELD_OUT_SEED)
    for bits in all_bits:
        rounded, _ = quantize(policy, bits)
        calibrated, reports = calibrate(policy, recorded, bits)
        row = {"rounding": entry(rounded, baseline, recorded), "calibration": entry(calibrated, baseline, recorded)}
        row["calibration"]["layers"] = [asdict(report) for report in reports]
        if bits in TUNED_BITS:
            started = time.perf_counter()
            tuned, result = fine_tune(calibrated, recorded, held_out, QAT_STEPS, collect=_collector())
            row["training"] = entry(tuned, baseline, recorded) | {
                "fine_tuning": asdict(result),
                "seconds": time.perf_counter() - started,
            }
        rows[str(bits)] = row
        print(bits, {name: (cell["retention"], cell["interval"]) for name, cell in row.items()}, flush=True)
    return rows


def _collector() -> Any:
    first = TRAIN_SEED

    def collect(policy: Policy) -> NDArray[np.generic]:
        nonlocal first
        first += STEPS * PARALLEL
        assert policy.env_id is not None
        return record_observations(FixedBackend(), policy, policy.env_id, STEPS, first)

    return collect


def command_cost(policy_file: Path, recorded: NDArray[np.generic]) -> dict[str, Any]:
    """Processor seconds and peak memory of `spikerl quantize --bits 8` on the recorded data."""
    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder) / "data.npz"
        np.savez(data, observations=recorded)
        command = [
            str(Path(sys.executable).parent / "spikerl"),
            "-q",
            "quantize",
            str(policy_file),
            "--data",
            str(data),
        ]
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run([*command, "-o", str(Path(folder) / "out.nir")], check=True, stdout=subprocess.DEVNULL)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return {
        "control_steps": len(recorded),
        "cpu_seconds": after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime,
        "peak_memory_mb": after.ru_maxrss / 1024,
    }


def export_times(policy: Policy) -> dict[str, Any]:
    """Seconds and bytes of every format, the policy in memory and quantized."""
    found = {}
    with tempfile.TemporaryDirectory() as folder:
        for name in exporter_names():
            path = Path(folder) / name
            write = exporter(name)
            started = time.perf_counter()
            write(policy, path, False)
            found[name] = {"seconds": time.perf_counter() - started, "bytes": path.stat().st_size}
    return found


def main() -> None:
    """Measure and write the result."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--policy", type=Path, required=True)
    parser.add_argument("--bits", default="8,6,5,4,3,2")
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    policy = load_policy(arguments.policy)
    assert policy.env_id is not None
    recorded = record_observations(TorchBackend("cpu"), policy, policy.env_id, STEPS, RECORD_SEED)
    cost = command_cost(arguments.policy, recorded)  # first, before this process grows: its peak would count
    baseline = returns(TorchBackend("cpu"), policy)
    print("float", np.mean(baseline), flush=True)
    document = {
        "schema": "spikerl.bench-quantization/1",
        "kind": "measured",
        "machine": machine(),
        "versions": package_versions(),
        "policy": {
            "file": arguments.policy.name,
            "sha256": sha256_file(arguments.policy),
            "env": policy.env_id,
            "sizes": list(policy.sizes),
            "provenance": policy.provenance,
        },
        "seeds": {
            "played": list(range(EPISODES)),
            "recorded_from": RECORD_SEED,
            "held_out_from": HELD_OUT_SEED,
            "visited_from": TRAIN_SEED,
        },
        "recorded_control_steps": STEPS,
        "qat_steps": QAT_STEPS,
        "float": {"returns": baseline, "mean_return": float(np.mean(baseline))},
        "bits": by_bits(policy, recorded, baseline, [int(bits) for bits in arguments.bits.split(",")]),
        "command": cost,
        "export": export_times(quantize(policy, 8)[0]),
    }
    if arguments.out is not None:
        write_json(arguments.out, document, force=True)


if __name__ == "__main__":
    main()
