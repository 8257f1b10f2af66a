"""What the kinds of actor and target cost beside the default: time of an update and of an action, as ratios.

    OMP_NUM_THREADS=1 python -m benchmarks.training_variants --out benchmarks/results/training-variants.json

Sizes and measuring are those of `benchmarks.training`: variant and default alternate within one process, round by
round; what counts is the ratio of a round, of which the median and the range are given. One CPU thread.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import torch

from benchmarks.training import Ours, acting, document_of, paired, transitions
from spikerl_deploy.files import write_json
from training.settings import Settings

VARIANTS: dict[str, dict[str, Any]] = {
    "--actor mlp": {"actor": "mlp"},
    "synaptic_norm=batch": {"synaptic_norm": "batch"},
    "target_actor=proxy": {"target_actor": "proxy"},
    "target_actor=proxy proxy_steps=1": {"target_actor": "proxy", "proxy_steps": 1},
    "readout=membrane": {"readout": "membrane"},
}
ACTORS = ("--actor mlp", "synaptic_norm=batch", "readout=membrane")  # the others act as the default does
CPU = torch.device("cpu")


def time_updates(rounds: int, calls: int, compiled: bool) -> dict[str, Any]:
    """One update of each variant over one of the default."""
    rows = transitions()
    ours = {name: Ours(rows, CPU, compiled, Settings(**settings)).update for name, settings in VARIANTS.items()}
    return _ratios(paired(Ours(rows, CPU, compiled, Settings()).update, ours, calls, rounds, CPU))


def time_actions(rounds: int, calls: int) -> dict[str, Any]:
    """One action for one observation, of each actor over that of the default."""
    ours = {name: acting(Settings(**VARIANTS[name]), CPU) for name in ACTORS}
    return _ratios(paired(acting(Settings(), CPU), ours, calls, rounds, CPU))


def _ratios(times: dict[str, Any]) -> dict[str, Any]:
    """`paired` tells how many times faster each is; a cost reads better as its inverse."""
    out = {name: times[name] for name in ("calls", "rounds")} | {"default_ms": times["baseline_ms"]}
    for name in (name for name in VARIANTS if name in times):
        low, high = times[name]["range"]
        ratio = 1 / times[name]["times_faster"]
        out[name] = {"ms": times[name]["ms"], "times_the_default": ratio, "range": [1 / high, 1 / low]}
    return out


def main() -> None:
    """Measure and write one JSON file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/training-variants.json"))
    parser.add_argument("--rounds", type=int, default=9)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    results = {
        "eager": time_updates(arguments.rounds, 40, compiled=False),
        "compiled": time_updates(arguments.rounds, 40, compiled=True),
        "action": time_actions(arguments.rounds, 5000),
    }
    write_json(arguments.out, document_of("training-variants", "cpu", results))


if __name__ == "__main__":
    main()
