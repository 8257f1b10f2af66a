"""Energy per inference out of windows beside a meter: pure arithmetic, and the rows of the document."""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from simulators.inference_cases import GOOD_WINDOW_S, Case, Timing
from spikerl_deploy.errors import SpikerlError
from spikerl_deploy.meters import Meter

DRIFT = 0.1  # of the idle power, from which on the reader is warned


@dataclass(frozen=True)
class Window:
    """What a meter counted in J over some seconds, and how many calls there were in them."""

    seconds: float
    joule: float
    calls: int = 0


def busy_window(
    call: Callable[[], object],
    synchronize: Callable[[], None],
    meter: Meter,
    seconds: float,
    chunk: int,
    clock: Callable[[], float] = time.perf_counter,
) -> Window:
    """Call over and over for at least so many seconds, `chunk` calls between looks at the clock."""
    synchronize()
    joule, began, calls = meter.joules(), clock(), 0
    while True:
        for _ in range(chunk):
            call()
        synchronize()
        calls += chunk
        passed = clock() - began
        if passed >= seconds:
            return Window(passed, meter.joules() - joule, calls)


def idle_window(
    meter: Meter,
    seconds: float,
    clock: Callable[[], float] = time.perf_counter,
    sleep: Callable[[float], None] = time.sleep,
) -> Window:
    """Do nothing for some seconds."""
    joule, began = meter.joules(), clock()
    sleep(seconds)
    return Window(clock() - began, meter.joules() - joule)


def energy_uj(windows: Sequence[Window], idle_w: Sequence[float], batch: int) -> dict[str, dict[str, float]]:
    """Energy per inference in uJ, in total and above idle: of all windows together, and the range of theirs.

    The range above idle takes in that of the idle power in W: the least energy less the most idling, and the other way.
    """
    counts = [window.calls * batch for window in windows]

    def above(watts: float) -> list[float]:
        return [window.joule - watts * window.seconds for window in windows]

    def each(joules: Sequence[float]) -> list[float]:
        return [joule / count * 1e6 for joule, count in zip(joules, counts, strict=True)]

    def mean(joules: Sequence[float]) -> float:
        return math.fsum(joules) / sum(counts) * 1e6

    total = each(above(0.0))
    return {
        "total": {"mean": mean(above(0.0)), "low": min(total), "high": max(total)},
        "above_idle": {
            "mean": mean(above(statistics.fmean(idle_w))),
            "low": min(each(above(max(idle_w)))),
            "high": max(each(above(min(idle_w)))),
        },
    }


def row_document(
    case: Case,
    windows: Sequence[Window],
    idle: Sequence[Window],
    meter: Meter,
    latency_ms: float,
    timing: Timing,
    runs: str = "",
) -> dict[str, Any]:
    """A row of the document. `runs`: which weights, where the policy's file has others too.

    Raises:
        SpikerlError: a meter that should count stood still.
    """
    unmeasured = meter.kind == "unmeasured"
    if not unmeasured and not all(window.joule > 0 for window in (*windows, *idle)):
        raise SpikerlError(f"{meter.name} stood still during {case}", "give longer windows: --window 10")
    energy = None if unmeasured else energy_uj(windows, [one.joule / one.seconds for one in idle], case.batch)
    notes = [note for note in (runs, meter.note) if note]
    if timing.window_s < GOOD_WINDOW_S:
        notes.append(f"windows of {timing.window_s:g} s, {GOOD_WINDOW_S:g} s are recommended")
    if energy is not None and energy["above_idle"]["low"] <= 0:
        notes.append("not above idle within the noise")
    return {
        "workload": case.workload,
        "device": case.device,
        "mode": case.mode,
        "batch": case.batch,
        "dtype": case.dtype,
        "threads": timing.threads,
        "inferences_per_second": sum(one.calls for one in windows) * case.batch / sum(one.seconds for one in windows),
        "latency_ms": latency_ms,
        "energy_uj": energy,
        "kind": meter.kind,
        "meter": meter.name,
        "scope": meter.scope,
        "windows": len(windows),
        "window_s": timing.window_s,
        "note": "; ".join(notes),
    }


def idle_document(device: str, idle: Sequence[Window], meter: Meter) -> dict[str, Any]:
    unmeasured = meter.kind == "unmeasured"
    before, after = (None if unmeasured else one.joule / one.seconds for one in idle)
    return {
        "device": device,
        "meter": meter.name,
        "kind": meter.kind,
        "seconds": sum(one.seconds for one in idle),
        "power_w": None if before is None or after is None else (before + after) / 2,
        "before_w": before,
        "after_w": after,
    }


def warnings_of(idle: dict[str, Any], meter: Meter) -> Iterator[str]:
    device, before, after = idle["device"], idle["before_w"], idle["after_w"]
    if meter.kind != "measured":
        yield f"the energy of {device} is {meter.kind}: {meter.note}"
    if before is not None and abs(after - before) > DRIFT * min(before, after):
        yield f"the idle power of {device} went from {before:.3g} to {after:.3g} W: what is above idle is uncertain"
