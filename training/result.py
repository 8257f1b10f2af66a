"""How a run ended: what the trainer returns, and result.json."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from training.run_reader import FINISHED

RESULT = "result.json"


@dataclass(frozen=True)
class Result:
    """Outcome of a run. `stopped` says why: `steps`, `stop_return`, `pruned` or `interrupted`.

    Attributes:
        best_return, final_return: means over the seeds.
        per_seed: seed, best and final return of each.
    """

    steps: int
    updates: int
    seconds: float
    best_return: float
    final_return: float
    stopped: str
    ranks: int = 1
    per_seed: tuple[tuple[int, float, float], ...] = ()

    def document(self) -> dict[str, Any]:
        """The result for JSON, which knows no NaN: what is not finite becomes null."""
        seeds = [dict(zip(("seed", "best_return", "final_return"), own, strict=True)) for own in self.per_seed]
        rate = self.steps * len(seeds) / max(self.seconds, 1e-9)
        values = vars(self) | {"per_seed": [_finite(own) for own in seeds], "steps_per_second": rate}
        return _finite(values)


def _finite(values: dict[str, Any]) -> dict[str, Any]:
    return {
        name: None if isinstance(value, float) and not math.isfinite(value) else value for name, value in values.items()
    }


def read_result(out: Path, step: int) -> Result | None:
    """The result of a run that did all it was asked for and ended at a step; None if there is none of that."""
    try:
        document = json.loads((out / RESULT).read_text(encoding="utf-8"))
        if document["stopped"] not in FINISHED or document["steps"] != step:
            return None
        seeds = tuple((int(own["seed"]), _number(own["best_return"]), _number(own["final_return"]))
                      for own in document["per_seed"])  # fmt: skip
        return Result(
            *(step, int(document["updates"]), float(document["seconds"])),
            *(_number(document["best_return"]), _number(document["final_return"]), str(document["stopped"])),
            *(int(document["ranks"]), seeds),
        )
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _number(value: float | None) -> float:
    return math.nan if value is None else float(value)
