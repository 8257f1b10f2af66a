"""Speed of training against a straightforward implementation: update, action, environment steps, memory, several seeds.

    python -m benchmarks.training --out benchmarks/results/training.json
    python -m benchmarks.training --device cuda --out benchmarks/results/training-cuda.json

The baseline is `benchmarks.popsan_baseline`: PopSAN-TD3, one module call a layer and time step, eager, float32. Sizes
are HalfCheetah's (17 observations, 6 actions, P 10, T 5, 256-256, batch 100). Baseline and ours alternate within one
process, round by round; what counts is the ratio of a round, of which the median and the range are given. A part runs
in a process of its own with the threads it says. Updates include sampling from the replay buffer.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.machine import machine
from benchmarks.popsan_baseline import BaselineTD3
from spikerl_deploy.files import write_json
from spikerl_deploy.manifest import package_versions
from training.acting import Actions
from training.actor import Spaces
from training.device import choose_device
from training.draws import Draws
from training.graphs import GraphedUpdate
from training.normalizer import RunningNormalizer
from training.replay import ReplayBuffer, row_width, unpack
from training.settings import Settings
from training.td3 import TD3
from training.trainer import Trainer

OBS_DIM, ACT_DIM, BATCH, HIDDEN, POPULATION, TIME_STEPS = 17, 6, 100, (256, 256), 10, 5
STORED = 50_000  # transitions to sample from
BUFFER_STEPS = 1_000_000
SPACES = Spaces(OBS_DIM, -np.ones(ACT_DIM, np.float32), np.ones(ACT_DIM, np.float32))


class Ours:
    """One update of ours with its sampling, as the trainer does it."""

    def __init__(self, rows: np.ndarray, device: torch.device, compiled: bool, settings: Settings) -> None:
        seeds = settings.seeds
        self.agent = TD3(SPACES, settings, device, range(seeds), compiled)
        self.replay = ReplayBuffer(seeds, rows.shape[-1], len(rows), device)
        self.replay.store(np.repeat(rows, seeds, axis=1))
        self.draws = Draws(range(seeds), 0, device)
        self.normalizer = RunningNormalizer(seeds, OBS_DIM, 3.0, device)
        self.normalizer.observe(np.repeat(rows[:, :, :OBS_DIM].swapaxes(0, 1), seeds, axis=0).astype(np.float64))
        self.normalizer.merge()
        self.updater = GraphedUpdate(self._one) if device.type == "cuda" and compiled else self._one

    def _one(self, with_actor: bool) -> dict[str, torch.Tensor]:
        rows = self.replay.gather(self.draws.index(self.replay.size, self.replay.window, self.agent.batches * BATCH))
        noise = self.draws.target_noise(BATCH, ACT_DIM)
        return self.agent.step(
            rows, noise, (self.normalizer.mean_tensor, self.normalizer.inverse_std_tensor), with_actor
        )

    def update(self) -> None:
        self.updater(self.agent.count_update())


class Baseline:
    """One update of the baseline with its sampling; its observations are stored normalised, which costs it nothing."""

    def __init__(self, rows: np.ndarray, device: torch.device) -> None:
        self.agent = BaselineTD3(OBS_DIM, ACT_DIM, HIDDEN, POPULATION, TIME_STEPS, str(device))
        batch = unpack(torch.from_numpy(rows), OBS_DIM, ACT_DIM)
        fields = (batch.o_tm1, batch.a_tm1, batch.r_t, batch.o_t, batch.terminated)
        self.stored = [field[:, 0].contiguous().to(device) for field in fields]

    def update(self) -> None:
        index = torch.randint(len(self.stored[0]), (BATCH,), device=self.stored[0].device)
        self.agent.update(*(field[index] for field in self.stored))


def transitions() -> np.ndarray:
    """Random rows [STORED, 1, width]: normal observations, uniform actions, a thousandth of them terminal."""
    rng = np.random.default_rng(0)
    rows = rng.standard_normal((STORED, 1, row_width(OBS_DIM, ACT_DIM)), np.float32)
    rows[..., OBS_DIM : OBS_DIM + ACT_DIM] = rng.uniform(-1, 1, (STORED, 1, ACT_DIM))
    rows[..., -1] = rng.random((STORED, 1)) < 0.001
    return rows


def paired(
    baseline: Callable[[], object], ours: dict[str, Callable[[], object]], calls: int, rounds: int, device: torch.device
) -> dict[str, Any]:
    """Milliseconds a call, medians over rounds, and the ratio to the baseline of the same round."""
    contenders = {"baseline": baseline, **ours}
    times: dict[str, list[float]] = {name: [] for name in contenders}
    for function in contenders.values():
        for _ in range(10):  # compiles, captures, warms up
            function()
    for _ in range(rounds):
        for name, function in contenders.items():
            _synchronize(device)
            started = time.perf_counter()
            for _ in range(calls):
                function()
            _synchronize(device)
            times[name].append((time.perf_counter() - started) / calls * 1e3)
    out: dict[str, Any] = {"baseline_ms": statistics.median(times["baseline"]), "calls": calls, "rounds": rounds}
    for name in ours:
        ratios = [slow / quick for slow, quick in zip(times["baseline"], times[name], strict=True)]
        out[name] = {
            "ms": statistics.median(times[name]),
            "times_faster": statistics.median(ratios),
            "range": [min(ratios), max(ratios)],
        }
    return out


def _synchronize(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize()


def time_updates(device: torch.device, calls: int, rounds: int, compile_too: bool = True) -> dict[str, Any]:
    """One update: the baseline against ours eager, compiled, and compiled with BF16 (on CUDA as CUDA graphs)."""
    rows = transitions()
    ours = {"eager": Ours(rows, device, False, Settings()).update}
    if compile_too:
        ours["compiled"] = Ours(rows, device, True, Settings()).update
        ours["compiled_bf16"] = Ours(rows, device, True, Settings(bf16=True)).update
    return paired(Baseline(rows, device).update, ours, calls, rounds, device)


def time_seeds(device: torch.device, calls: int, rounds: int, compile_too: bool = True) -> dict[str, Any]:
    """One update of five seeds at once against one of a single seed, both compiled."""
    rows = transitions()
    one, five = (Ours(rows, device, compile_too, Settings(seeds=seeds)) for seeds in (1, 5))
    times = paired(one.update, {"five": five.update}, calls, rounds, device)
    return {
        "one_seed_ms": times["baseline_ms"],
        "five_seeds_ms": times["five"]["ms"],
        "five_to_one": 1 / times["five"]["times_faster"],
    }


def time_actions(device: torch.device, calls: int, rounds: int) -> dict[str, Any]:
    """One action for one observation, exploration noise apart."""
    baseline = BaselineTD3(OBS_DIM, ACT_DIM, HIDDEN, POPULATION, TIME_STEPS, str(device))
    observation = _observation()
    return paired(
        lambda: baseline.act(torch.from_numpy(observation.astype(np.float32)).to(device)).cpu().numpy(),
        {"ours": acting(Settings(), device)},
        *(calls, rounds, device),
    )


def acting(settings: Settings, device: torch.device) -> Callable[[], np.ndarray]:
    """One action of ours, as the trainer takes it, for the same observation each time."""
    agent = TD3(SPACES, settings, device)
    actions = Actions(agent.actor, RunningNormalizer(1, OBS_DIM, 3.0, device), graphed=device.type == "cuda")
    observation = _observation()[None]
    return lambda: actions(observation, [])


def _observation() -> np.ndarray:
    return np.random.default_rng(0).standard_normal((1, OBS_DIM))


def time_environments(device: torch.device, num_envs: int, workers: bool, steps: int, updates: float) -> float:
    """Environment steps a second of the real loop on HalfCheetah-v5: acting, stepping, storing, updates if any."""
    marks: list[tuple[int, float]] = []
    with tempfile.TemporaryDirectory() as folder:
        settings = Settings(
            env="HalfCheetah-v5", steps=2 * steps, start_steps=0, update_after=200 if updates else 10**9,
            update_to_data=updates or 1.0, num_envs=num_envs, env_workers=workers, eval_every=steps, eval_episodes=1,
            tensorboard=False, carbon=False, device=device.type, threads=torch.get_num_threads(),
            compile="on" if updates else "off",
        )  # fmt: skip

        def note(step: int, _mean: float) -> bool:
            seconds = trainer.carbon.totals()["seconds"]
            marks.append((step, seconds["collecting"] + seconds["updating"]))
            return False

        trainer = Trainer(settings, Path(folder) / "run", quiet=True, on_evaluation=note)
        trainer.run()
    (first, started), (last, ended) = marks[0], marks[-1]  # the first half compiles and warms up
    return (last - first) / (ended - started)


def measure_buffer() -> dict[str, Any]:
    """Bytes of a HalfCheetah buffer of 1M steps, by its arrays and by what the process grew when it was filled."""
    before = _resident()
    buffer = ReplayBuffer(1, row_width(OBS_DIM, ACT_DIM), BUFFER_STEPS, torch.device("cpu"))
    rows = transitions()
    for _ in range(BUFFER_STEPS // STORED):
        buffer.store(rows)
    assert buffer.size == BUFFER_STEPS
    grown = _resident() - before
    return {"array_mb": buffer.rows.numel() * 4 / 1e6, "resident_growth_mb": grown / 1e6, "transitions": buffer.size}


def _resident() -> int:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize()


def run_part(part: str, device: torch.device, rounds: int) -> Any:
    """One part's figures; called in a process of its own."""
    if part == "update":
        return time_updates(device, 40, rounds)
    if part == "seeds":
        return time_seeds(device, 20, rounds)
    if part == "action":
        return time_actions(device, 300, rounds)
    if part == "buffer":
        return measure_buffer()
    if part == "environments":
        counts = [(1, False), (8, False), (16, False), (8, True), (16, True)]
        rows = [
            {"num_envs": n, "workers": w, "steps_per_second": time_environments(device, n, w, 8_000, 0.0)}
            for n, w in counts
        ]
        return {"without_updates": rows}
    rate = time_environments(device, 1, False, 4_000, 1.0)
    return {
        "num_envs": 1,
        "update_to_data": 1.0,
        "steps_per_second": rate,
        "hours_for_1m_steps_extrapolated": 1e6 / rate / 3600,
    }


def main() -> None:
    """Run every part in a process of its own and write one JSON file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/training.json"))
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda"))
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--part", help=argparse.SUPPRESS)
    parser.add_argument("--threads", type=int, default=1, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.part:
        torch.set_num_threads(arguments.threads)
        torch.set_flush_denormal(True)  # for the baseline too: what it gains by that is not ours to claim
        print(json.dumps(run_part(arguments.part, choose_device(arguments.device), arguments.rounds)))
        return
    parts = [
        ("update", 1),
        ("update", 2),
        ("action", 1),
        ("seeds", 1),
        ("environments", 1),
        ("training", 2),
        ("buffer", 1),
    ]
    if arguments.device == "cuda":
        parts = [("update", 1), ("action", 1), ("seeds", 1), ("environments", 1), ("training", 1)]
    results: dict[str, Any] = {}
    for part, threads in parts:
        name = f"{part}_{threads}_threads" if arguments.device == "cpu" and part == "update" else part
        command = [sys.executable, "-m", "benchmarks.training", "--part", part, "--threads", str(threads)]
        command += ["--device", arguments.device, "--rounds", str(arguments.rounds)]
        done = subprocess.run(
            command, env=os.environ | {"OMP_NUM_THREADS": str(threads)}, stdout=subprocess.PIPE, check=True
        )
        results[name] = {"threads": threads, **json.loads(done.stdout.splitlines()[-1])}
        print(name, json.dumps(results[name]), flush=True)
    write_json(arguments.out, document_of("training", arguments.device, results))


def document_of(name: str, device: str, results: dict[str, Any]) -> dict[str, Any]:
    """Results with what they were measured on, and of what."""
    sizes = {
        "obs_dim": OBS_DIM,
        "act_dim": ACT_DIM,
        "batch": BATCH,
        "hidden": list(HIDDEN),
        "T": TIME_STEPS,
        "P": POPULATION,
    }
    return {
        "benchmark": name,
        "kind": "measured",
        "machine": {**machine(), "gpu": torch.cuda.get_device_name() if device == "cuda" else None},
        "versions": package_versions(),
        "sizes": sizes,
        "results": results,
    }


if __name__ == "__main__":
    main()
