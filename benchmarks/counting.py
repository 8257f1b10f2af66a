"""Share of a closed loop's time that counting spikes takes: the same control steps with counting and without.

    python -m benchmarks.counting --out benchmarks/results/counting.json

Episodes of the committed HalfCheetah policy in 8 bits on `fixed`, compiled. `loop`: beside a closed loop that does not
count. `all`: beside one whose backend does not sum the hidden layers' spikes either; it sums the output's, which the
decoder needs. All run in turn on one session, in one process; figures are medians of paired ratios of processor time.
"""

from __future__ import annotations

import argparse
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np

from benchmarks.machine import machine
from exporters.quantize import quantize
from simulators.fixed import COMPILE_AFTER, FixedBackend, FixedSession
from simulators.protocol import SpikeRecord, count_spikes
from simulators.rollout import _Play, rollout
from spikerl_deploy.codec import Spikes
from spikerl_deploy.files import write_json
from spikerl_deploy.manifest import package_versions
from spikerl_deploy.policy_file import load_policy

POLICY = Path(__file__).resolve().parent / "policies" / "half-cheetah.nir"
ENV = "HalfCheetah-v5"
BATCHES = (1, 16)
CALLS = 250  # of the backend, in each run
KINDS = ("", "loop", "all")  # what is left out


def count_output_only(rasters: tuple[Spikes, ...], keep: bool) -> SpikeRecord:
    return SpikeRecord((count_spikes(rasters[-1]),), rasters if keep else None)


def count_nothing(*_: object) -> None:
    return


def run(session: FixedSession, without: str) -> tuple[float, tuple[float, ...]]:
    """Processor seconds of the first control steps of the same episodes, and the returns so far."""
    with ExitStack() as patches:
        if without in ("loop", "all"):
            patches.enter_context(patch.object(_Play, "_count", count_nothing))
        if without == "all":
            patches.enter_context(patch("simulators.fixed.counts_of", count_output_only))
        started = time.process_time()
        result = rollout(session, ENV, range(session.batch), limit=CALLS * session.batch)
        seconds = time.process_time() - started
    assert bool(result.spike_totals[1].any()) == (without == "")
    return seconds, result.returns


def measure(batch: int, rounds: int) -> dict[str, Any]:
    policy, seconds = quantize(load_policy(POLICY), 8)[0], dict[str, list[float]]()
    with FixedBackend().open(policy, batch) as session:
        silence = np.zeros(session.input_shape, dtype=bool)
        for _ in range(COMPILE_AFTER // batch + 1):
            session.infer(silence)
        for done in range(rounds + 1):
            returns = set()
            for turn in range(len(KINDS)):
                without = KINDS[(turn + done) % len(KINDS)]
                taken, played = run(session, without)
                returns.add(played)
                seconds.setdefault(without, []).append(taken)
            assert len(returns) == 1, "counting changed the episodes"
    times = {without: np.array(taken[1:]) for without, taken in seconds.items()}  # the first round warms up
    row: dict[str, Any] = {"batch": batch, "control_step_ms": 1e3 * float(np.median(times[""])) / (CALLS * batch)}
    for without in ("loop", "all"):
        ratios = times[""] / times[without]
        row[without] = {"median": float(np.median(ratios)), "quartiles": np.quantile(ratios, (0.25, 0.75)).tolist()}
    return row


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--rounds", type=int, default=41)
    options = parser.parse_args()
    document = {
        "benchmark": "counting",
        "kind": "measured",
        "machine": machine(),
        "versions": package_versions(),
        "what": "processor time of a closed loop with counting over the same without",
        "env": ENV,
        "policy": POLICY.name,
        "bits": 8,
        "backend": "fixed",
        "calls_a_run": CALLS,
        "rounds": options.rounds,
        "rows": [measure(batch, options.rounds) for batch in BATCHES],
    }
    for row in document["rows"]:
        print(f"batch {row['batch']}: {row['loop']['median']:.3f} times the loop, {row['all']['median']:.3f} times all")
    write_json(options.out, document, force=True)


if __name__ == "__main__":
    main()
