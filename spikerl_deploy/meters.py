"""Energy meters: NVML of a GPU, RAPL of the CPU's packages, and CodeCarbon's model where a CPU has no meter."""

from __future__ import annotations

import importlib
import math
import re
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

from spikerl_deploy.carbon import JOULES_PER_KWH, STALE_S, Latest, start_codecarbon
from spikerl_deploy.errors import SpikerlError
from spikerl_deploy.interrupts import pass_on_interrupt

POWERCAP = Path("/sys/class/powercap")
SAMPLE_S = 0.05  # between samples of a GPU's power, where it has no energy counter
STILL_S = 0.05  # RAPL counts every millisecond: one that stands still for so long does not count
RAPL_HINT = "sudo chmod a+r /sys/class/powercap/intel-rapl:*/energy_uj"


class Meter(Protocol):
    """Counts the energy of a part of the machine from its opening on, other programs' included.

    Attributes:
        name: who gives the figure. kind: measured, modelled or unmeasured.
        scope: what is metered. note: what a reader must know, maybe empty.
    """

    name: str
    kind: str
    scope: str
    note: str

    def joules(self) -> float:
        """Energy in J since the meter was opened.

        Raises:
            SpikerlError: the meter answers no more.
        """
        ...

    def close(self) -> None:
        """Let go of the meter; a second call does nothing."""
        ...


class Unmetered:
    """What stands for a meter where there is none; its energy is NaN."""

    name, kind, scope = "none", "unmeasured", "nothing"

    def __init__(self, reason: str) -> None:
        self.note = reason

    def joules(self) -> float:
        return math.nan

    def close(self) -> None: ...


class RaplMeter:
    """The energy counters of the CPU's packages, as Linux gives them in its powercap folder."""

    name, kind, scope = "RAPL", "measured", "CPU package"
    note = "the memory's energy is not in it"

    def __init__(self, domains: Sequence[Path]) -> None:
        """Args: `domains` are folders with `energy_uj` and `max_energy_range_uj`, one a package."""
        self._counters = [(folder / "energy_uj", _read_number(folder / "max_energy_range_uj")) for folder in domains]
        self._last = [_read_number(path) for path, _ in self._counters]
        self._microjoule = 0

    def joules(self) -> float:
        for index, (path, span) in enumerate(self._counters):
            now = _read_number(path)
            spent = now - self._last[index]
            self._microjoule += spent if spent >= 0 else spent + span  # the counter has begun anew
            self._last[index] = now
        return self._microjoule / 1e6

    def close(self) -> None: ...


def _read_number(path: Path) -> int:
    try:
        return int(path.read_text(encoding="ascii"))
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise SpikerlError(f"RAPL counter '{path}' cannot be read: {reason}", RAPL_HINT) from error


class CodeCarbonMeter:
    """CodeCarbon's model of the CPU: a maximum power times a function of the load of the whole machine."""

    kind, scope = "modelled", "CPU package"

    def __init__(self) -> None:
        self._latest, self._measured = Latest(), time.perf_counter()
        self._tracker: Any = start_codecarbon("USA", self._latest)  # the country decides carbon, not energy
        self.joules()
        self.name = f"CodeCarbon {self._latest.data.codecarbon_version}"
        parts = [part for part in self._tracker._hardware if type(part).__name__ == "CPU"]
        most = f"{parts[0]._tdp:g} W" if parts else "a constant"
        self.note = (
            f"no meter: CodeCarbon's model, at most {most} by the load of the whole machine; "
            "what is above idle follows from the model"
        )

    def joules(self) -> float:
        time.sleep(max(0.0, self._measured + STALE_S - time.perf_counter()))  # it would skip one that follows at once
        self._tracker.flush()
        self._measured = time.perf_counter()
        return float(self._latest.data.cpu_energy) * JOULES_PER_KWH

    def close(self) -> None:
        if self._tracker is not None:
            self._tracker.stop()
            self._tracker = None


def cpu_meter(powercap: Path = POWERCAP) -> Meter:
    """The meter of this machine's CPU: RAPL where its counters can be read and count, CodeCarbon's model elsewhere."""
    domains = rapl_packages(powercap)
    try:
        if domains and _counts(RaplMeter(domains)):
            return RaplMeter(domains)
        reason = "RAPL stands still" if domains else ""
    except SpikerlError as error:
        reason = error.message
    try:
        meter = CodeCarbonMeter()
    except ImportError as error:
        pass_on_interrupt(error)
        return Unmetered(f"no RAPL and no CodeCarbon: {error}")
    if reason:
        meter.note += f" ({reason})"
    return meter


def rapl_packages(powercap: Path) -> list[Path]:
    """Folders of the packages' counters: not those of their parts, which they include, nor of the whole platform."""
    found = []
    for folder in sorted(powercap.glob("intel-rapl:*")):
        try:
            name = (folder / "name").read_text(encoding="ascii")
        except (OSError, ValueError):
            continue
        if re.fullmatch(r"intel-rapl:\d+", folder.name) and name.startswith("package"):
            found.append(folder)
    return found


def _counts(meter: RaplMeter) -> bool:
    time.sleep(STILL_S)
    return meter.joules() > 0


class NvmlMeter:
    """Energy of a GPU's board: its counter, or its power sampled and integrated where it has no counter."""

    kind, scope = "measured", "GPU board"

    def __init__(self, nvml: Any, handle: Any) -> None:
        """Args: `nvml` is the module `pynvml`, initialised; `handle` its device.

        Raises:
            nvml.NVMLError: the device gives neither energy nor power.
        """
        self._nvml, self._handle = nvml, handle
        driver = _text(nvml.nvmlSystemGetDriverVersion())
        try:
            self._start_mj = nvml.nvmlDeviceGetTotalEnergyConsumption(handle)
            self._sampler = None
            self.name, self.note = f"NVML energy counter, driver {driver}", ""
        except nvml.NVMLError_NotSupported:
            self._sampler = _PowerSampler(self._watts)
            self.name = f"NVML power, driver {driver}"
            self.note = f"the GPU has no energy counter: its power was sampled every {SAMPLE_S * 1e3:g} ms"

    def _watts(self) -> float:
        return float(self._nvml.nvmlDeviceGetPowerUsage(self._handle)) / 1e3  # given in mW

    def joules(self) -> float:
        try:
            if self._sampler is not None:
                return self._sampler.joules()
            return float(self._nvml.nvmlDeviceGetTotalEnergyConsumption(self._handle) - self._start_mj) / 1e3
        except self._nvml.NVMLError as error:
            raise SpikerlError(f"the GPU's energy meter answers no more: {error}", "look at it: nvidia-smi") from error

    def close(self) -> None:
        if self._sampler is not None:
            self._sampler.stop()


class _PowerSampler:
    """Integrates a power by the trapezoidal rule, in a thread of its own."""

    def __init__(self, watts: Any) -> None:
        self._watts, self._lock, self._stopping = watts, threading.Lock(), threading.Event()
        self._joule, self._last, self._since = 0.0, watts(), time.perf_counter()
        self._failed: Exception | None = None
        self._thread = threading.Thread(target=self._run, name="spikerl-gpu-power", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        while self._failed is None and not self._stopping.wait(SAMPLE_S):
            try:
                self._sample()
            except Exception as error:  # told to whoever asks next
                self._failed = error

    def _sample(self) -> None:
        with self._lock:
            watts, now = self._watts(), time.perf_counter()
            self._joule += (self._last + watts) / 2 * (now - self._since)
            self._last, self._since = watts, now

    def joules(self) -> float:
        if self._failed is not None:
            raise self._failed
        self._sample()
        return self._joule

    def stop(self) -> None:
        self._stopping.set()
        self._thread.join()


def gpu_meter(uuid: str) -> Meter:
    """The meter of the GPU with a UUID, as torch names it, without the driver's prefix."""
    try:
        nvml = importlib.import_module("pynvml")
    except ImportError as error:
        pass_on_interrupt(error)
        return Unmetered(f"pynvml cannot be imported: {error}; pip install nvidia-ml-py")
    try:
        nvml.nvmlInit()
        return NvmlMeter(nvml, nvml.nvmlDeviceGetHandleByUUID(f"GPU-{uuid}"))
    except nvml.NVMLError as error:
        return Unmetered(f"NVML meters no GPU {uuid}: {error}")


def _text(value: str | bytes) -> str:
    return value.decode() if isinstance(value, bytes) else value  # older bindings give bytes
