"""Runs a policy and the dense network of its task beside an energy meter: the work of `spikerl measure`."""

from __future__ import annotations

import math
import os
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from simulators.inference_cases import LATENCY_S, SETTLE_S, SPIKING, WARM_UP_S, Case, Timing
from simulators.inference_energy import Window, busy_window, idle_document, idle_window, row_document, warnings_of
from simulators.torch_backend import TorchBackend, as_cuda_graph
from simulators.torch_inference import ANN_NOTE, ann_function, observations, policy_function
from spikerl_deploy.errors import SpikerlError
from spikerl_deploy.manifest import build_manifest, identify_policy
from spikerl_deploy.meters import Meter, cpu_meter, gpu_meter
from spikerl_deploy.policy import Policy
from spikerl_deploy.processor import processor

SCHEMA = "spikerl.inference-energy/1"
CHUNK_S = 0.1  # of calls between looks at the clock, and waits for CUDA
LATENCY_CALLS = (5, 1000)  # at least and at most
BUSY = 0.25  # load average a core, from which on the reader is warned


def measure(
    policy: Policy,
    policy_file: Path,
    cases: Sequence[Case],
    timing: Timing,
    left_out: Sequence[str],
    say: Callable[[str], None],
) -> dict[str, Any]:
    """Measure the cases one after the other: the document `spikerl.inference-energy/1`.

    The policy runs as its float graph, before quantization where the file carries that. Calls follow one another
    without a pause, on observations that lie on the device: the most that the device can do with a joule.

    Args:
        left_out: in words, what was asked for and is not measured.

    Raises:
        SpikerlError: the policy is a core alone, a case does not fit into memory, or a meter fails.
    """
    sizes, warnings, idles, rows = policy.ann_sizes(), [*left_out, *_busy()], [], []
    for device in dict.fromkeys(case.device for case in cases):
        with _threads(timing.threads), _meter(device) as meter, torch.no_grad():
            say(f"{device}: idle for {timing.window_s:g} s ({meter.name}, {meter.kind})")
            idle = [idle_window(meter, timing.window_s)]
            measured = []
            for case in (case for case in cases if case.device == device):
                say(f"{case}: {timing.repeats} windows of {timing.window_s:g} s")
                measured.append((case, *_measure_case(policy.as_trained(), case, meter, timing)))
            time.sleep(SETTLE_S)
            idle.append(idle_window(meter, timing.window_s))
            rows += [
                row_document(case, windows, idle, meter, ms, timing, _runs(policy, case))
                for case, windows, ms in measured
            ]
            idles.append(idle_document(device, idle, meter))
            warnings += warnings_of(idles[-1], meter)
    return {
        "schema": SCHEMA,
        "manifest": build_manifest(made_from={"policy": policy_file}),
        "policy": identify_policy(policy, policy_file),
        "ann": {"sizes": list(sizes), "note": ANN_NOTE},
        "hardware": _hardware({case.device for case in cases}),
        "idle": idles,
        "rows": rows,
        "warnings": warnings,
    }


def _runs(policy: Policy, case: Case) -> str:
    """Which weights a row ran, in words, where the policy also has integers that none runs."""
    if case.workload != SPIKING or policy.bits is None:
        return ""
    return f"{TorchBackend(bf16=case.bf16).runs(policy)}, no {policy.bits}-bit integers"


def _measure_case(policy: Policy, case: Case, meter: Meter, timing: Timing) -> tuple[list[Window], float]:
    """Windows and the latency in ms of a case."""
    device = torch.device(case.device)
    synchronize = torch.cuda.synchronize if device.type == "cuda" else lambda: None
    make = policy_function if case.workload == SPIKING else ann_function
    try:
        function = make(policy, device, case.bf16)
        if case.mode == "compiled":
            torch.compiler.reset()  # functions of one code count together towards its limit of recompilations
            function = torch.compile(function, fullgraph=True, dynamic=False)
        elif case.mode == "cuda-graph":
            function = as_cuda_graph(function)
        observation = observations(policy, case.batch, device)
        chunk = _warm_up(lambda: function(observation), synchronize)
    except RuntimeError as error:
        raise SpikerlError(f"{case} cannot run: {str(error).splitlines()[0]}", "try a smaller --batch") from error
    windows = [
        busy_window(lambda: function(observation), synchronize, meter, timing.window_s, chunk)
        for _ in range(timing.repeats)
    ]
    on_host = observation.cpu()
    return windows, _latency_ms(lambda: function(on_host.to(device)).cpu())


def _warm_up(call: Callable[[], object], synchronize: Callable[[], None]) -> int:
    """Run until everything is compiled, allocated and at its clock; return the number of calls that take `CHUNK_S`."""
    chunk = 1
    call()
    synchronize()
    began = time.perf_counter()
    while True:
        start = time.perf_counter()
        for _ in range(chunk):
            call()
        synchronize()
        now = time.perf_counter()
        passed = now - start
        if now - began >= WARM_UP_S:
            return max(1, math.ceil(chunk * CHUNK_S / passed))
        if passed < CHUNK_S / 2:
            chunk *= 2


def _latency_ms(call: Callable[[], object]) -> float:
    """Median time of a call from an observation on the host to an action on the host."""
    times: list[float] = []
    least, most = LATENCY_CALLS
    while len(times) < least or (sum(times) < LATENCY_S and len(times) < most):
        began = time.perf_counter()
        call()
        times.append(time.perf_counter() - began)
    return statistics.median(times) * 1e3


@contextmanager
def _meter(device: str) -> Iterator[Meter]:
    """The device's meter, opened; a CUDA device has its context by then, which raises its idle power."""
    if device == "cuda":
        torch.zeros(1, device="cuda")
        meter = gpu_meter(str(torch.cuda.get_device_properties(torch.cuda.current_device()).uuid))
    else:
        meter = cpu_meter()
    try:
        yield meter
    finally:
        meter.close()


@contextmanager
def _threads(count: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _busy() -> Iterator[str]:
    load, cores = os.getloadavg()[0], os.cpu_count() or 1
    if load > BUSY * cores:
        yield f"the machine was not idle: load average {load:.1f} on {cores} cores before the start"


def _hardware(devices: set[str]) -> dict[str, Any]:
    gpu = torch.cuda.get_device_name() if "cuda" in devices else None
    return {"cpu": f"{processor()}, {os.cpu_count()} threads", "cuda": gpu, "torch": torch.__version__}
