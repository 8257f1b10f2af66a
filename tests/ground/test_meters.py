"""Energy meters: RAPL out of files, NVML through a stand-in for its binding, CodeCarbon as it is, and which applies."""

from __future__ import annotations

import itertools
import math
import os
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from support import fail_import

import spikerl_deploy.meters as meters
from spikerl_deploy.errors import SpikerlError
from spikerl_deploy.meters import CodeCarbonMeter, NvmlMeter, RaplMeter, Unmetered, cpu_meter, gpu_meter, rapl_packages

UUID = "11111111-2222-3333-4444-555555555555"


def domain(root: Path, folder: str, name: str, energy_uj: int = 0, span: int = 262_143_328_850) -> Path:
    path = root / folder
    path.mkdir(parents=True)
    for file, value in (("name", name), ("energy_uj", energy_uj), ("max_energy_range_uj", span)):
        (path / file).write_text(f"{value}\n")
    return path


def count(path: Path, energy_uj: int) -> None:
    (path / "energy_uj").write_text(f"{energy_uj}\n")


def test_rapl_adds_the_packages_from_the_opening_on_in_joules(tmp_path: Path) -> None:
    first = domain(tmp_path, "intel-rapl:0", "package-0", 5_000_000)
    second = domain(tmp_path, "intel-rapl:1", "package-1", 7_000_000)
    meter = RaplMeter([first, second])
    assert meter.joules() == 0
    count(first, 5_500_000)
    count(second, 7_250_000)
    assert meter.joules() == 0.75
    assert meter.joules() == 0.75


def test_rapl_counts_on_where_a_counter_begins_anew_each_by_its_own_range(tmp_path: Path) -> None:
    first = domain(tmp_path, "intel-rapl:0", "package-0", 900, span=1_000)
    second = domain(tmp_path, "intel-rapl:1", "package-1", 100, span=65_000)
    meter = RaplMeter([first, second])
    for low in (50, 850, 50):  # 150 past the end, then 800, then 200 past the end again
        count(first, low)
        meter.joules()
    assert meter.joules() == pytest.approx(1_150e-6)
    count(second, 99)
    assert meter.joules() == pytest.approx((1_150 + 64_999) * 1e-6)


def test_rapl_takes_packages_only_not_their_parts_nor_the_platform_nor_the_same_by_another_way(tmp_path: Path) -> None:
    package = domain(tmp_path, "intel-rapl:0", "package-0")
    die = domain(tmp_path, "intel-rapl:2", "package-1-die-0")
    domain(tmp_path, "intel-rapl:0:0", "core")
    domain(tmp_path, "intel-rapl:0:1", "dram")
    domain(tmp_path, "intel-rapl:1", "psys")
    domain(tmp_path, "intel-rapl-mmio:0", "package-0")
    (tmp_path / "intel-rapl:9").mkdir()
    assert rapl_packages(tmp_path) == [package, die]
    assert rapl_packages(tmp_path / "nowhere") == []


@pytest.fixture
def modelled(monkeypatch: pytest.MonkeyPatch) -> Callable[[], Any]:
    """Stands for CodeCarbon's meter, which takes seconds to open."""
    monkeypatch.setattr(meters, "CodeCarbonMeter", lambda: SimpleNamespace(kind="modelled", note="model"))
    return lambda: None


def counting(path: Path) -> Callable[[float], None]:
    """A sleep during which a RAPL counter counts."""
    return lambda seconds: count(path, int((path / "energy_uj").read_text()) + 1000)


def test_the_cpus_meter_is_rapl_where_it_can_be_read_and_counts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, modelled: object
) -> None:
    package = domain(tmp_path, "intel-rapl:0", "package-0", 1)
    monkeypatch.setattr(meters.time, "sleep", counting(package))
    meter = cpu_meter(tmp_path)
    assert (meter.name, meter.kind, meter.scope) == ("RAPL", "measured", "CPU package")


def test_a_rapl_counter_that_stands_still_as_in_a_virtual_machine_is_no_meter(tmp_path: Path, modelled: object) -> None:
    domain(tmp_path, "intel-rapl:0", "package-0", 17)
    meter = cpu_meter(tmp_path)
    assert meter.kind == "modelled" and "stands still" in meter.note


def test_without_rapl_the_cpu_is_modelled_and_nothing_is_blamed(tmp_path: Path, modelled: object) -> None:
    meter = cpu_meter(tmp_path)
    assert (meter.kind, meter.note) == ("modelled", "model")


def test_rapl_that_may_not_be_read_is_named_in_the_modelled_meters_note(tmp_path: Path, modelled: object) -> None:
    package = domain(tmp_path, "intel-rapl:0", "package-0")
    (package / "energy_uj").unlink()
    (package / "energy_uj").mkdir()  # what even root cannot read
    meter = cpu_meter(tmp_path)
    assert meter.kind == "modelled" and "energy_uj' cannot be read" in meter.note


def test_without_rapl_and_codecarbon_nothing_is_metered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def missing() -> None:
        raise ImportError("No module named 'codecarbon'")

    monkeypatch.setattr(meters, "CodeCarbonMeter", missing)
    meter = cpu_meter(tmp_path)
    assert meter.kind == "unmeasured" and "codecarbon" in meter.note and math.isnan(meter.joules())


@pytest.mark.parametrize(
    ("module", "meter"), [("pynvml", lambda: gpu_meter("0")), ("codecarbon", lambda: cpu_meter(Path("none")))]
)
def test_an_interrupt_while_a_meters_module_is_imported_is_passed_on(
    monkeypatch: pytest.MonkeyPatch, module: str, meter: Callable[[], object]
) -> None:
    interrupted = ImportError("initialization failed")
    interrupted.__cause__ = KeyboardInterrupt()
    fail_import(monkeypatch, module, interrupted)
    with pytest.raises(KeyboardInterrupt):
        meter()


def test_a_rapl_counter_lost_on_the_way_is_an_error_with_its_name(tmp_path: Path) -> None:
    package = domain(tmp_path, "intel-rapl:0", "package-0")
    meter = RaplMeter([package])
    (package / "energy_uj").write_text("many\n")
    with pytest.raises(SpikerlError, match=r"RAPL counter '.*energy_uj' cannot be read"):
        meter.joules()


@pytest.fixture(scope="module")
def codecarbon() -> Iterator[CodeCarbonMeter]:
    meter = CodeCarbonMeter()
    yield meter
    meter.close()
    meter.close()


def test_codecarbons_model_gives_joules_below_the_maximum_that_it_names(codecarbon: CodeCarbonMeter) -> None:
    assert (codecarbon.kind, codecarbon.scope) == ("modelled", "CPU package")
    assert codecarbon.name.startswith("CodeCarbon ") and "model" in codecarbon.note
    if "at most a constant" in codecarbon.note:
        pytest.skip("CodeCarbon meters this machine's CPU")
    most = float(codecarbon.note.split("at most ")[1].split(" W")[0])
    assert 0.5 * (os.cpu_count() or 1) <= most < 2000
    joule, began = codecarbon.joules(), time.perf_counter()
    time.sleep(0.5)
    passed, spent = time.perf_counter() - began, codecarbon.joules() - joule
    assert 0.05 * most * passed < spent < 1.05 * most * passed  # its model gives no less than a tenth of the maximum


def test_codecarbons_model_misses_nothing_between_two_reads_that_follow_at_once(codecarbon: CodeCarbonMeter) -> None:
    reads = [codecarbon.joules() for _ in range(4)]
    assert all(later > earlier for earlier, later in itertools.pairwise(reads))


def test_metering_leaves_no_files_and_no_signal_handlers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, codecarbon: CodeCarbonMeter
) -> None:
    import signal

    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    monkeypatch.chdir(tmp_path)
    meter = CodeCarbonMeter()
    meter.joules()
    meter.close()
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == before
    assert list(tmp_path.iterdir()) == []


class FakeNvml:
    """NVML's binding with one GPU. `energy_mj` and `power_mw` are what it tells, an error what it raises instead."""

    class NVMLError(Exception): ...

    class NVMLError_NotSupported(NVMLError): ...  # noqa: N801

    def __init__(self) -> None:
        self.energy_mj: Any = 1_000_000
        self.power_mw: Any = 250_000
        self.ready: Any = True

    def _tell(self, value: Any) -> Any:
        if isinstance(value, Exception):
            raise value
        return value

    def nvmlInit(self) -> None:  # noqa: N802
        self._tell(self.ready)

    def nvmlSystemGetDriverVersion(self) -> bytes:  # noqa: N802
        return b"550.54"

    def nvmlDeviceGetHandleByUUID(self, uuid: str) -> str:  # noqa: N802
        if uuid != f"GPU-{UUID}":
            raise self.NVMLError("Not Found")
        return "handle"

    def nvmlDeviceGetTotalEnergyConsumption(self, handle: str) -> int:  # noqa: N802
        assert handle == "handle"
        return self._tell(self.energy_mj)

    def nvmlDeviceGetPowerUsage(self, handle: str) -> int:  # noqa: N802
        assert handle == "handle"
        return self._tell(self.power_mw)


@pytest.fixture
def nvml(monkeypatch: pytest.MonkeyPatch) -> FakeNvml:
    fake = FakeNvml()
    monkeypatch.setitem(sys.modules, "pynvml", fake)
    return fake


def test_a_gpus_energy_counter_is_read_in_millijoules_from_the_opening_on(nvml: FakeNvml) -> None:
    meter = gpu_meter(UUID)
    assert (meter.kind, meter.scope, meter.note) == ("measured", "GPU board", "")
    assert "energy counter" in meter.name and "550.54" in meter.name
    nvml.energy_mj += 12_345
    assert meter.joules() == pytest.approx(12.345)
    meter.close()


def test_a_gpu_without_a_counter_has_its_sampled_power_integrated_and_says_so(
    nvml: FakeNvml, monkeypatch: pytest.MonkeyPatch
) -> None:
    nvml.energy_mj = nvml.NVMLError_NotSupported("Not Supported")
    monkeypatch.setattr(meters, "SAMPLE_S", 0.002)
    began = time.perf_counter()
    meter = gpu_meter(UUID)
    assert meter.kind == "measured" and "power" in meter.name and "sampled" in meter.note
    time.sleep(0.1)
    at_250_w = meter.joules()
    assert at_250_w == pytest.approx(250 * (time.perf_counter() - began), rel=0.1)
    nvml.power_mw = 50_000
    before, began = meter.joules(), time.perf_counter()
    time.sleep(0.2)
    assert meter.joules() - before == pytest.approx(50 * (time.perf_counter() - began), rel=0.25)
    meter.close()
    assert isinstance(meter, NvmlMeter) and meter._sampler is not None and not meter._sampler._thread.is_alive()


def test_between_samples_the_power_is_taken_as_a_straight_line(monkeypatch: pytest.MonkeyPatch) -> None:
    now, watts = iter([0.0, 1.0, 3.0]), iter([10.0, 30.0, 50.0])
    monkeypatch.setattr(meters, "SAMPLE_S", 60.0)
    monkeypatch.setattr(meters, "time", SimpleNamespace(perf_counter=lambda: next(now)))
    sampler = meters._PowerSampler(lambda: next(watts))
    assert [sampler.joules(), sampler.joules()] == [20.0, 20.0 + 80.0]
    sampler.stop()


@pytest.mark.parametrize("counter", [True, False])
def test_a_driver_that_goes_away_is_an_error_not_a_figure(
    nvml: FakeNvml, monkeypatch: pytest.MonkeyPatch, counter: bool
) -> None:
    monkeypatch.setattr(meters, "SAMPLE_S", 0.002)
    if not counter:
        nvml.energy_mj = nvml.NVMLError_NotSupported("Not Supported")
    meter = gpu_meter(UUID)
    nvml.energy_mj = nvml.power_mw = nvml.NVMLError("GPU is lost")
    time.sleep(0.02)
    nvml.power_mw = 250_000  # and comes back: the energy meanwhile is not known
    with pytest.raises(SpikerlError, match="energy meter answers no more: GPU is lost"):
        meter.joules()
    meter.close()


@pytest.mark.parametrize("missing", ["driver", "gpu", "power", "binding"])
def test_a_gpu_that_nothing_meters_is_unmeasured_with_the_reason(
    nvml: FakeNvml, monkeypatch: pytest.MonkeyPatch, missing: str
) -> None:
    uuid = UUID
    if missing == "driver":
        nvml.ready = nvml.NVMLError("Driver Not Loaded")
    elif missing == "gpu":
        uuid = "another"
    elif missing == "power":
        nvml.energy_mj = nvml.power_mw = nvml.NVMLError_NotSupported("Not Supported")
    else:
        monkeypatch.setitem(sys.modules, "pynvml", None)
    meter = gpu_meter(uuid)
    told = {"driver": "Driver Not Loaded", "gpu": "Not Found", "power": "Not Supported", "binding": "nvidia-ml-py"}
    assert isinstance(meter, Unmetered) and told[missing] in meter.note
    assert meter.kind == "unmeasured" and math.isnan(meter.joules())
    meter.close()


def test_the_real_binding_has_the_functions_and_errors_that_the_meter_uses() -> None:
    import pynvml

    used = [name for name in dir(FakeNvml) if name.startswith(("nvml", "NVML"))]
    assert len(used) == 7 and all(hasattr(pynvml, name) for name in used)
    assert issubclass(pynvml.NVMLError_NotSupported, pynvml.NVMLError)
