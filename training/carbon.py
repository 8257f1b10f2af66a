"""Energy and carbon of a run, by CodeCarbon's offline tracker, divided among the sections of the training loop."""

from __future__ import annotations

import math
import os
import threading
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from spikerl_deploy.carbon import JOULES_PER_KWH, STALE_S, Latest, energy_mix, start_codecarbon
from spikerl_deploy.errors import SpikerlError
from training.run_reader import RESUMED_WITH

SCHEMA = "spikerl.emissions/1"
SECTIONS = ("setup", "collecting", "updating", "evaluating", "saving")
INTERVAL_S = 15.0  # between measurements; RAPL's counter wraps after minutes, so a run is no single interval
DIVISION = (
    f"the energy between two measurements, at most about {INTERVAL_S:.0f} s apart, goes to the sections by their share "
    "of the wall time between them; power within such an interval is taken as even, so sections that alternate "
    "faster than that get the same mean power"
)


@dataclass(frozen=True)
class Component:
    """Energy of a part of the machine, and the seconds during which it was metered or modelled."""

    joule: float = 0.0
    kind: str = "unmeasured"  # or measured, modelled
    seconds: float = 0.0

    def __add__(self, later: Component) -> Component:
        kind = next(name for name in ("modelled", "measured", "unmeasured") if name in (self.kind, later.kind))
        return Component(self.joule + later.joule, kind, self.seconds + later.seconds)


def _together(before: Mapping[str, str], after: Mapping[str, str]) -> dict[str, str]:
    """What is told of two stretches: the later one's words, but every processor and GPU that was counted."""
    both = {**before, **after}
    for name in ("cpu_model", "gpu_model"):
        old, new = before.get(name), after.get(name)
        if old:
            both[name] = f"{old}{RESUMED_WITH}{new}" if new and new != old.split(RESUMED_WITH)[-1] else old
    return both


def _no_sections() -> dict[str, float]:
    return dict.fromkeys(SECTIONS, 0.0)


@dataclass(frozen=True)
class Totals:
    """Sums over a run, its resumptions included. `seconds` and `joule` are by section, `components` by part."""

    seconds: Mapping[str, float] = field(default_factory=_no_sections)
    joule: Mapping[str, float] = field(default_factory=_no_sections)
    components: Mapping[str, Component] = field(default_factory=dict)
    tracked_s: float = 0.0
    untracked_s: float = 0.0
    emissions_kg: float = 0.0
    about: Mapping[str, str] = field(default_factory=dict)

    def __add__(self, later: Totals) -> Totals:
        names = {**self.components, **later.components}
        return Totals(
            {name: self.seconds[name] + later.seconds[name] for name in SECTIONS},
            {name: self.joule[name] + later.joule[name] for name in SECTIONS},
            {name: self.components.get(name, Component()) + later.components.get(name, Component()) for name in names},
            self.tracked_s + later.tracked_s,
            self.untracked_s + later.untracked_s,
            self.emissions_kg + later.emissions_kg,
            _together(self.about, later.about),
        )

    @classmethod
    def read(cls, stored: Mapping[str, Any]) -> Totals:
        """What `CarbonTracker.totals` gave.

        Raises:
            SpikerlError: parts are missing or misshapen.
        """
        try:
            components = {name: Component(**part) for name, part in stored["components"].items()}
            totals = cls(**{**stored, "components": components})
            return totals + cls()  # reads every part
        except (KeyError, TypeError, AttributeError) as error:
            raise SpikerlError(f"the stored energy totals cannot be read: {error}", "train again") from error


class SectionClock:
    """Wall time by section; starts in `setup`."""

    def __init__(self) -> None:
        self._seconds = _no_sections()
        self._lock = threading.Lock()  # held for a fraction of a microsecond; the other taker comes every 15 s
        self._current, self._since = "setup", time.perf_counter()

    def switch(self, section: str) -> None:
        """Count the time from now on to a section."""
        if section not in self._seconds:
            raise ValueError(f"no section '{section}'")
        with self._lock:
            now = time.perf_counter()
            self._seconds[self._current] += now - self._since
            self._current, self._since = section, now

    def read(self) -> dict[str, float]:
        """Seconds of every section until now."""
        with self._lock:
            seconds = dict(self._seconds)
            seconds[self._current] += time.perf_counter() - self._since
        return seconds


def divide(joule: float, seconds: Mapping[str, float]) -> dict[str, float]:
    """Energy of an interval by section, in proportion to the seconds of each."""
    whole = math.fsum(seconds.values())
    return {name: joule * part / whole for name, part in seconds.items()}


class CarbonTracker:
    """Tracks the whole machine while a run lasts; switched off, it keeps the time of the sections only."""

    def __init__(
        self,
        enabled: bool,
        country: str,
        earlier: dict[str, Any] | None = None,
        carbon_intensity: float | None = None,
    ) -> None:
        """Start tracking.

        Args:
            country: ISO 3166 alpha-3. carbon_intensity: g CO2eq/kWh instead of the country's mean.
            earlier: totals of the same run before it was resumed, as `totals` gave them; they keep their intensity.
        """
        self.country, self.carbon_intensity = country, carbon_intensity
        self._earlier = Totals.read(earlier) if earlier is not None else Totals()
        self._document: dict[str, Any] | None = None
        self._tracker: Any = None
        self._latest, self._measuring, self._stopping = Latest(), threading.Lock(), threading.Event()
        self._joule, self._divided_s, self._divided_joule = _no_sections(), _no_sections(), 0.0
        if enabled:
            self._tracker = start_codecarbon(country, self._latest, carbon_intensity)
        self._clock = SectionClock()
        if enabled:
            self._measure()  # the first one loads tables; later ones take about a millisecond
            self._thread = threading.Thread(target=self._measure_at_intervals, name="spikerl-energy", daemon=True)
            self._thread.start()

    def section(self, name: str) -> None:
        """Count time, and with it energy, from now on to one of `SECTIONS`. Costs under a microsecond."""
        self._clock.switch(name)

    def totals(self) -> dict[str, Any]:
        """Sums over the run until now, for a checkpoint; takes a measurement, which costs about a millisecond."""
        if self._tracker is not None:
            self._measure()
        return asdict(self._sum())

    def stop(self) -> dict[str, Any]:
        """End tracking and return the figures, each with its unit and kind; a second call returns the same."""
        if self._document is None:
            if self._tracker is not None:
                self._stopping.set()
                self._thread.join()
                self._measure(last=True)
            self._document = _document(self._sum())
            self._tracker = None
        return self._document

    def _measure_at_intervals(self) -> None:
        while not self._stopping.wait(INTERVAL_S):
            self._measure()

    def _measure(self, last: bool = False) -> None:
        """Let CodeCarbon measure, and divide what was spent since the last time."""
        with self._measuring:
            if last:
                time.sleep(STALE_S)  # so that the energy up to the end is in, however short the run was
                self._tracker.stop()
            else:
                self._tracker.flush()
            seconds, data = self._clock.read(), self._latest.data
            joule = data.energy_consumed * JOULES_PER_KWH if data is not None else 0.0
            spent = joule - self._divided_joule
            if spent > 0:  # otherwise nothing new was measured, and the time waits for the next measurement
                parts = divide(spent, {name: seconds[name] - self._divided_s[name] for name in SECTIONS})
                self._joule = {name: self._joule[name] + parts[name] for name in SECTIONS}
                self._divided_s, self._divided_joule = seconds, joule

    def _sum(self) -> Totals:
        with self._measuring:
            data, seconds = self._latest.data, self._clock.read()
            if data is None:
                return self._earlier + Totals(seconds=seconds, untracked_s=math.fsum(seconds.values()))
            about = {
                "source": f"CodeCarbon {data.codecarbon_version}, offline",
                "country": self.country,
                "carbon_intensity": "" if self.carbon_intensity is None else repr(self.carbon_intensity),
                "cpu_model": data.cpu_model or "",
                "gpu_model": data.gpu_model or "",
            }
            parts, kg = _components(data), data.emissions
            return self._earlier + Totals(seconds, self._joule, parts, data.duration, 0.0, kg, about)


def _components(data: Any) -> dict[str, Component]:
    """Energy of the parts: without RAPL, CodeCarbon scales a constant by load; without a GPU's counter, it gives 0."""
    rapl = os.access("/sys/class/powercap/intel-rapl:0/energy_uj", os.R_OK)
    cpu = Component(data.cpu_energy * JOULES_PER_KWH, "measured" if rapl else "modelled", data.duration)
    gpu = Component(data.gpu_energy * JOULES_PER_KWH, "measured", data.duration)
    return {
        "cpu": cpu if cpu.joule else Component(),  # a counter that stands still measures nothing
        "gpu": gpu if gpu.joule else Component(),
        "ram": Component(data.ram_energy * JOULES_PER_KWH, "modelled", data.duration),
    }


def _document(totals: Totals) -> dict[str, Any]:
    """emissions.json, see docs/training-energy.md."""
    total = math.fsum(totals.joule.values())
    tracked = total > 0
    sections = {
        name: {
            "seconds": totals.seconds[name],
            "energy_joule": totals.joule[name] if tracked else None,
            "kind": "modelled" if tracked else "unmeasured",
            "share": totals.joule[name] / total if tracked else None,
        }
        for name in SECTIONS
    }
    if not tracked:
        return {"schema": SCHEMA, "tracked": False, "sections": sections}
    about, parts = totals.about, totals.components
    modelled = any(part.kind == "modelled" for part in parts.values())
    energy = {
        name: {"value": part.joule if part.kind != "unmeasured" else None, "kind": part.kind, "seconds": part.seconds}
        for name, part in parts.items()
    }
    return {
        "schema": SCHEMA,
        "tracked": True,
        "source": about["source"],
        "duration_s": totals.tracked_s,
        "untracked_s": totals.untracked_s,
        "energy_joule": energy,
        "total_energy_joule": total,
        "total_energy_kind": "modelled" if modelled else "measured",
        "sections": sections,
        "division": DIVISION,
        "emissions_kg_co2eq": totals.emissions_kg,
        "emissions_kind": "modelled",
        "carbon_intensity": _carbon_intensity(totals.emissions_kg / total * JOULES_PER_KWH * 1e3, about),
        "country": about["country"],
        "cpu_model": about["cpu_model"],
        "gpu_model": about["gpu_model"],
    }


def _carbon_intensity(grams: float, about: Mapping[str, str]) -> dict[str, Any]:
    """What the energy was multiplied by, and who said so: the user, or CodeCarbon with the country's mean."""
    country, given = about["country"], about.get("carbon_intensity")
    mix = energy_mix().get(country, {})
    source = "CodeCarbon, by the user's configuration of it; or the mean of a resumed run's several intensities"
    if given and math.isclose(grams, float(given), rel_tol=1e-3):
        grams, source = float(given), "given by the user (setting carbon_intensity)"
    elif not given and math.isclose(grams, mix.get("carbon_intensity") or math.nan, rel_tol=1e-3):
        source = f"CodeCarbon's global_energy_mix.json: mean of {country} in {mix['year']}"
    return {"value": grams, "unit": "g CO2eq/kWh", "kind": "modelled", "source": source}
