"""An energy figure as report.json holds it (docs/report.md): a range with its constants' kinds and sources."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from spikerl_deploy.energy_arithmetic import Bounds
from spikerl_deploy.energy_constants import Value

PJ_PER_UJ = 1e6


def figure(
    target: str,
    title: str,
    model: str,
    what: str,
    energy: Bounds,
    *,
    control_step_s: float | None,
    constants: Iterable[Value],
    licence: str | None = None,
    note: str = "",
    derived: bool = False,
) -> dict[str, Any]:
    """A figure in microjoules per inference, and in microwatts at the control rate where that is known.

    Args:
        energy: in pJ; which of the two sets of constants gives the larger does not matter here.
        constants: all that the figure is made from. derived: whether one was scaled for it.
    """
    low, high = (value / PJ_PER_UJ for value in sorted(energy))
    used = list(constants)
    kinds = dict.fromkeys([value.kind for value in used] + (["derived"] if derived else []))
    sources = list(dict.fromkeys(value.source for value in used))
    if licence is not None:
        sources.append(f"licence of the constants: {licence}")
    return {
        "id": f"{target}/{model}",
        "target": target,
        "title": title,
        "model": model,
        "what": what,
        "low": low,
        "high": high,
        "per_second": None
        if control_step_s is None
        else {"low": low / control_step_s, "high": high / control_step_s, "unit": "uW"},
        "kind": "modelled",
        "constants_kind": list(kinds),
        "sources": sources,
        "note": note,
    }
