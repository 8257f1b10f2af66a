"""Time of a control step on every backend, memory of `lava` over many, and the same episodes on `fixed` and `lava`.

    python -m benchmarks.backends --out benchmarks/results/backends.json

Part one feeds random spikes (10 % activity) to a network of HalfCheetah's size, 170-256-256-60, T 5. Part two
plays the same episodes of a trained policy on both integer backends, one at a time. Part three runs Lava on and on.
Ratios within one run are what counts: absolute times are those of the machine named in the result.
"""

from __future__ import annotations

import argparse
import itertools
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.machine import machine
from exporters.quantize import quantize
from simulators.fixed import COMPILE_AFTER, FixedSession
from simulators.lava.backend import LavaBackend
from simulators.lava.client import group_members
from simulators.protocol import Session
from simulators.registry import make_backend
from simulators.rollout import rollout
from spikerl_deploy.files import write_json
from spikerl_deploy.manifest import package_versions
from spikerl_deploy.policy import Policy, SpikingLayer
from spikerl_deploy.policy_file import load_policy

SIZES, TIME_STEPS, ACTIVITY = (170, 256, 256, 60), 5, 0.1
POLICY = Path(__file__).resolve().parent.parent / "tests" / "assets" / "inverted-double-pendulum.nir"
EPISODES = range(3)
WARM_UP = 20  # calls, beside the control steps after which `fixed` compiles
MEMORY_STEPS = 20_000


def halfcheetah_sized() -> Policy:
    """Random 8-bit core of HalfCheetah's sizes."""
    rng = np.random.default_rng(0)
    layers = tuple(
        SpikingLayer(rng.normal(0, 0.9 / n_in**0.5, (n_out, n_in)), rng.normal(0, 0.05, n_out))
        for n_in, n_out in itertools.pairwise(SIZES)
    )
    return quantize(Policy(layers=layers, time_steps=TIME_STEPS), 8)[0]


def step_times(session: Session, steps: int) -> dict[str, float]:
    """Median and 99th percentile, in ms, of `steps` control steps with fresh random spikes."""
    rng, seconds = np.random.default_rng(1), []
    warm_up = WARM_UP + (COMPILE_AFTER // session.batch if isinstance(session, FixedSession) else 0)
    for _ in range(steps + warm_up):
        spikes = rng.random(session.input_shape) < ACTIVITY
        started = time.perf_counter()
        session.infer(spikes)
        seconds.append(time.perf_counter() - started)
    milliseconds = np.array(seconds[warm_up:]) * 1e3
    return {
        "control_steps_per_s": session.batch * 1e3 / float(np.median(milliseconds)),
        "median_ms": float(np.median(milliseconds)),
        "p99_ms": float(np.percentile(milliseconds, 99)),
        "control_steps": steps,
    }


def time_steps(rows: Sequence[tuple[str, int, int]]) -> list[dict[str, Any]]:
    """Part one: (backend, episodes side by side, control steps) each."""
    policy, results = halfcheetah_sized(), []
    for name, batch, steps in rows:
        with make_backend(name, device="cpu").open(policy, batch) as session:
            times = step_times(session, steps)
        results.append({"backend": name, "side_by_side": batch, **times})
        print(f"{name:10} x{batch:<3} {times['median_ms']:8.3f} ms median {times['p99_ms']:8.3f} ms p99", flush=True)
    return results


def memory_growth(steps: int = MEMORY_STEPS) -> dict[str, Any]:
    """Part three: resident memory of all of Lava's processes together, early and late, in one session."""
    policy, rng = halfcheetah_sized(), np.random.default_rng(1)
    early = steps // 10
    with LavaBackend().open(policy) as session:
        blocks = rng.random((64, *session.input_shape)) < ACTIVITY
        resident = {}
        for step in range(1, steps + 1):
            session.infer(blocks[step % len(blocks)])
            if step in (early, steps):
                members = group_members(session.client.process.pid)
                resident[step] = sum(process.memory_info().rss for process in members)
    result = {"control_steps": [early, steps], "resident_mb": [resident[early] / 1e6, resident[steps] / 1e6]}
    print(f"memory: {result}")
    return result


def same_episodes() -> dict[str, Any]:
    """Part two: whole episodes on both integer backends, environment and host codec included."""
    policy = load_policy(POLICY)
    assert policy.env_id is not None
    played = {}
    for name in ("fixed", "lava"):
        with make_backend(name).open(policy) as session:
            played[name] = rollout(session, policy.env_id, EPISODES)
    fixed, lava = played["fixed"], played["lava"]
    result = {
        "env": policy.env_id,
        "seeds": list(EPISODES),
        "same_returns": fixed.returns == lava.returns,
        "control_steps": fixed.control_steps,
        "wall_s": {"fixed": fixed.wall_seconds, "lava": lava.wall_seconds},
        "median_ms": {name: float(np.median(r.infer_seconds)) * 1e3 for name, r in played.items()},
        "p99_ms": {name: float(np.percentile(r.infer_seconds, 99)) * 1e3 for name, r in played.items()},
        "fixed_faster_by": {
            "whole_episodes": lava.wall_seconds / fixed.wall_seconds,
            "backend_alone": float(lava.infer_seconds.sum() / fixed.infer_seconds.sum()),
        },
    }
    print(f"same episodes: {result['fixed_faster_by']}")
    return result


def main() -> None:
    """Run both parts and write the JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=1000, help="control steps of each row of part one")
    arguments = parser.parse_args()
    n = arguments.steps
    rows = [("fixed", 1, n), ("fixed", 8, n), ("fixed", 64, n), ("torch", 1, n), ("torch", 64, n)]
    rows += [("lava", 1, n), ("lava", 8, n // 2), ("lava", 32, n // 4), ("lava", 64, n // 4)]
    rows += [("lava-stock", 1, n // 2), ("lava-stock", 8, n // 4), ("lava-stock", 32, n // 20)]
    rows += [("lava-stock", 64, n // 20), ("lava-float", 1, n // 2)]
    document = {
        "benchmark": "backends",
        "network": {"sizes": list(SIZES), "time_steps": TIME_STEPS, "activity": ACTIVITY},
        "kind": "measured",
        "machine": {**machine(), "threads_a_process": 1},
        "versions": package_versions(),
        "control_step": time_steps(rows),
        "same_episodes": same_episodes(),
        "memory": memory_growth(),
    }
    write_json(arguments.out, document)


if __name__ == "__main__":
    main()
