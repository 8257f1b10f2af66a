"""Energy of inference: the arithmetic with a meter and clock of glass, the functions that are run against the codec."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import pytest
import torch
from support import ROOT, quantized_policy, random_policy
from torch.overrides import TorchFunctionMode
from torch.utils.flop_counter import FlopCounterMode

from simulators import inference_cases, inference_run
from simulators.inference_cases import DENSE, SPIKING, Case, Timing, choose_cases
from simulators.inference_energy import (
    Window,
    busy_window,
    energy_uj,
    idle_document,
    idle_window,
    row_document,
    warnings_of,
)
from simulators.inference_run import measure
from simulators.torch_backend import TorchBackend
from simulators.torch_inference import ann_function, observations, policy_function
from spikerl_deploy.codec import decode, encode
from spikerl_deploy.errors import SpikerlError
from spikerl_deploy.meters import Unmetered
from spikerl_deploy.policy import Policy
from spikerl_deploy.policy_file import save_policy

CPU = torch.device("cpu")
NEEDS_CUDA = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
CASE = Case(SPIKING, "cpu", "eager", 4, False)
TIMING = Timing(10.0, 3, 1)


class Machine:
    """Time that passes by calls and sleeps only; a meter of 2 W at rest, and 3 J more a call."""

    name, kind, scope, note = "glass", "measured", "CPU package", ""

    def __init__(self, call_s: float = 0.25) -> None:
        self.now, self.joule, self.calls, self.call_s = 100.0, 50.0, 0, call_s
        self.done = 0  # calls that CUDA would have finished

    def clock(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds
        self.joule += 2.0 * seconds

    def call(self) -> None:
        self.calls += 1

    def synchronize(self) -> None:
        self.joule += 3.0 * (self.calls - self.done)
        self.sleep(self.call_s * (self.calls - self.done))
        self.done = self.calls

    def joules(self) -> float:
        return self.joule

    def close(self) -> None: ...


def test_a_window_counts_its_own_calls_time_and_energy_with_all_work_done_before_and_within() -> None:
    machine = Machine()
    machine.call()  # work left from before the window
    window = busy_window(machine.call, machine.synchronize, machine, 9.5, 10, machine.clock)
    assert window == Window(10.0, 4 * 10 * 3.0 + 2.0 * 10, 40)
    assert idle_window(machine, 5.0, machine.clock, machine.sleep) == Window(5.0, 10.0)


def test_joules_become_microjoules_an_inference_in_total_and_above_idle() -> None:
    windows = [Window(10.0, 120.0, 1000), Window(20.0, 220.0, 2000), Window(10.0, 140.0, 1000)]
    figures = energy_uj(windows, [4.0, 4.0], batch=5)
    assert figures["total"] == pytest.approx({"mean": 480 / 20_000 * 1e6, "low": 22e3, "high": 28e3})
    assert figures["above_idle"] == pytest.approx({"mean": 320 / 20_000 * 1e6, "low": 14e3, "high": 20e3})


def test_the_range_above_idle_takes_in_that_of_the_idle_power() -> None:
    figures = energy_uj([Window(10.0, 100.0, 1000)], [3.0, 5.0], batch=1)
    assert figures["total"] == pytest.approx({"mean": 1e5, "low": 1e5, "high": 1e5})
    assert figures["above_idle"] == pytest.approx({"mean": 6e4, "low": 5e4, "high": 7e4})


def row(windows: list[Window], idle_w: float = 1.0, timing: Timing = TIMING, meter: Any = None) -> dict[str, Any]:
    return row_document(CASE, windows, [Window(10.0, idle_w * 10)] * 2, meter or Machine(), 0.5, timing)


def test_a_row_has_rates_of_inferences_not_of_calls() -> None:
    found = row([Window(10.0, 30.0, 100), Window(30.0, 90.0, 100)])
    assert found["inferences_per_second"] == 200 * 4 / 40.0
    assert (found["kind"], found["meter"], found["windows"], found["note"]) == ("measured", "glass", 2, "")
    assert (found["batch"], found["dtype"], found["threads"], found["latency_ms"]) == (4, "float32", 1, 0.5)


def test_without_a_meter_the_speed_is_there_and_the_energy_is_null_with_the_reason() -> None:
    nan = float("nan")
    found = row([Window(10.0, nan, 100)], nan, meter=Unmetered("no NVML"))
    assert found["energy_uj"] is None and found["kind"] == "unmeasured" and found["note"] == "no NVML"
    assert found["inferences_per_second"] == 40
    idle = idle_document("cuda", [Window(10.0, nan)] * 2, Unmetered("no NVML"))
    assert (idle["power_w"], idle["before_w"], idle["kind"]) == (None, None, "unmeasured")
    json.dumps([found, idle], allow_nan=False)


@pytest.mark.parametrize("idle_w", [0.0, 1.0])
def test_a_meter_that_stood_still_is_an_error_not_a_zero(idle_w: float) -> None:
    with pytest.raises(SpikerlError, match="glass stood still during spiking policy, cpu eager, batch 4"):
        row([Window(10.0, 30.0, 100), Window(10.0, 0.0 if idle_w else 30.0, 100)], idle_w)


def test_short_windows_and_what_is_not_above_idle_are_noted() -> None:
    assert row([Window(2.0, 6.0, 9)], timing=Timing(2.0, 1, 1))["note"] == "windows of 2 s, 10 s are recommended"
    found = row([Window(10.0, 30.0, 9)], idle_w=3.5)
    assert found["energy_uj"]["above_idle"]["mean"] < 0 and found["note"] == "not above idle within the noise"


def test_the_idle_power_is_the_mean_of_before_and_after_and_a_drift_is_warned_of() -> None:
    idle = idle_document("cpu", [Window(10.0, 80.0), Window(20.0, 240.0)], Machine())
    assert (idle["power_w"], idle["before_w"], idle["after_w"], idle["seconds"]) == (10.0, 8.0, 12.0, 30.0)
    (warning,) = warnings_of(idle, Machine())
    assert "8 to 12 W" in warning
    fallen = idle_document("cpu", [Window(10.0, 120.0), Window(10.0, 80.0)], Machine())
    (warning,) = warnings_of(fallen, Machine())
    assert "12 to 8 W" in warning
    still = idle_document("cpu", [Window(10.0, 80.0), Window(10.0, 84.0)], Machine())
    assert list(warnings_of(still, Machine())) == []


def test_a_modelled_meter_is_warned_of() -> None:
    meter = Machine()
    meter.kind, meter.note = "modelled", "by load"
    (warning,) = warnings_of(idle_document("cpu", [Window(1.0, 1.0)] * 2, meter), meter)
    assert "modelled" in warning and "by load" in warning
    assert row([Window(10.0, 30.0, 9)], meter=meter)["note"] == "by load"


def mixed_policy(coding: str = "regular") -> Policy:
    """A policy whose layers have decays and thresholds of their own, for an asymmetric action range."""
    policy = random_policy(3, obs_dim=3, act_dim=2, coding=coding, env_id=None)
    first, second, third = policy.layers
    assert policy.decoder is not None
    return replace(
        policy,
        layers=(
            replace(first, current_decay=0.3, voltage_decay=0.9),
            replace(second, v_threshold=0.7),
            replace(third, current_decay=0.0, voltage_decay=0.0),
        ),
        decoder=replace(policy.decoder, action_low=np.float32([-1, 0]), action_high=np.float32([3, 5])),
    )


@pytest.mark.parametrize("bf16", [False, True])
def test_the_policy_that_is_measured_acts_as_the_deployment_path_does(bf16: bool) -> None:
    policy = mixed_policy()
    raw = np.random.default_rng(0).normal(0, 1.5, (400, 3)).astype(np.float32)
    with TorchBackend(device="cpu", bf16=bf16).open(policy, 400) as session:
        counts = session.infer(encode(policy, raw, [])).output_counts
    expected = decode(counts, policy.time_steps, policy.decoder)
    actions = policy_function(policy, CPU, bf16)(torch.from_numpy(raw)).numpy()
    assert actions.shape == (400, 2) and len(np.unique(actions.round(4), axis=0)) > 50
    # torch and NumPy round exp() differently, which may move a spike where an activation meets the threshold
    assert np.isclose(actions, expected, atol=1e-5).all(axis=1).mean() > 0.98


def test_poisson_spikes_are_drawn_at_their_rates() -> None:
    policy = mixed_policy("poisson")
    raw = np.random.default_rng(0).normal(0, 1, (2, 3)).astype(np.float32)
    draws = 2000
    with TorchBackend(device="cpu").open(policy, 2 * draws) as session:
        generators = [np.random.default_rng(seed) for seed in range(2 * draws)]
        counts = session.infer(encode(policy, np.repeat(raw, draws, axis=0), generators)).output_counts
    expected = decode(counts, policy.time_steps, policy.decoder).reshape(2, draws, 2)
    torch.manual_seed(0)
    actions = policy_function(policy, CPU, False)(torch.from_numpy(raw).repeat_interleave(draws, 0)).numpy()
    actions = actions.reshape(2, draws, 2)
    error = 5 * expected.std(axis=1) / np.sqrt(draws) + 1e-3
    assert (np.abs(actions.mean(axis=1) - expected.mean(axis=1)) < error).all()
    assert expected.std(axis=1).max() > 0.01


def test_a_policy_without_normalisation_is_measured_without() -> None:
    policy = replace(mixed_policy(), normalization=None)
    raw = np.random.default_rng(0).normal(0, 1, (50, 3)).astype(np.float32)
    with TorchBackend(device="cpu").open(policy, 50) as session:
        expected = decode(session.infer(encode(policy, raw, [])).output_counts, 5, policy.decoder)
    actions = policy_function(policy, CPU, False)(torch.from_numpy(raw)).numpy()
    assert np.isclose(actions, expected, atol=1e-5).all(axis=1).mean() > 0.95


@pytest.mark.parametrize("bf16", [False, True])
def test_both_networks_do_the_whole_arithmetic_of_their_sizes(bf16: bool) -> None:
    policy = mixed_policy()
    raw = observations(policy, 7, CPU)
    macs = {}
    for make in (policy_function, ann_function):
        with FlopCounterMode(display=False) as counter:
            actions = make(policy, CPU, bf16)(raw)
        macs[make] = counter.get_total_flops() // 2
        assert actions.shape == (7, 2) and actions.dtype == torch.float32
    assert policy.ann_sizes() == (3, 24, 20, 2)
    assert macs[ann_function] == 7 * (3 * 24 + 24 * 20 + 20 * 2)
    assert macs[policy_function] == 7 * 5 * (30 * 24 + 24 * 20 + 20 * 20)


def test_the_dense_network_stays_in_the_action_range_and_is_no_constant() -> None:
    actions = ann_function(mixed_policy(), CPU, False)(observations(mixed_policy(), 200, CPU)).numpy()
    assert (actions >= [-1, 0]).all() and (actions <= [3, 5]).all()
    assert actions.std(axis=0).min() > 0.01
    assert np.abs(actions.mean(axis=0) - [1, 2.5]).max() < 1.0  # about the middle of the range


def test_observations_are_as_spread_as_in_training_and_always_the_same() -> None:
    policy = mixed_policy()
    raw = observations(policy, 4000, CPU)
    assert policy.normalization is not None
    z = (raw.numpy() - policy.normalization.mean) / policy.normalization.std
    assert np.abs(z.mean(axis=0)).max() < 0.1 and np.abs(z.std(axis=0) - 1).max() < 0.1
    assert torch.equal(raw, observations(policy, 4000, CPU))


def test_a_core_alone_is_refused() -> None:
    core = replace(random_policy(), encoder=None, decoder=None, normalization=None)
    for function in (Policy.ann_sizes, lambda policy: policy_function(policy, CPU, False)):
        with pytest.raises(SpikerlError, match="core alone"):
            function(core)


def labels(*given: Any) -> tuple[list[str], list[str]]:
    cases, left_out = choose_cases(*given)
    return [str(case) for case in cases], left_out


@pytest.fixture
def cuda(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)


@pytest.fixture
def no_cuda(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)


def test_without_cuda_all_available_is_the_cpu_and_says_what_is_left_out(no_cuda: None) -> None:
    found, left_out = labels("all-available", [], [1, 64, 1], False)
    assert found == [
        "spiking policy, cpu eager, batch 1, float32",
        "dense ANN, cpu eager, batch 1, float32",
        "spiking policy, cpu eager, batch 64, float32",
        "dense ANN, cpu eager, batch 64, float32",
    ]
    assert left_out == ["device cuda is left out: torch finds none"]


def test_with_cuda_its_rows_are_eager_and_graphed_and_bf16_where_asked(cuda: None) -> None:
    found, left_out = labels("cuda", [], [1, 1024], True)
    assert len(found) == 2 * 2 * 2 * 2 == len(set(found)) and left_out == []
    assert "dense ANN, cuda cuda-graph, batch 1024, bfloat16" in found
    both, left_out = labels("all-available", ["cuda-graph"], [1], False)
    assert both == [f"{name}, cuda cuda-graph, batch 1, float32" for name in (SPIKING, DENSE)]
    assert left_out == ["mode cuda-graph is left out on cpu"]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (("gpu", [], [1], False), "unknown device 'gpu'"),
        (("cpu", ["graph"], [1], False), "unknown mode 'graph'.*compiled, cuda-graph, eager"),
        (("cuda", [], [1], False), "device 'cuda' asked for, torch finds none"),
        (("cpu", ["cuda-graph"], [1], False), "mode 'cuda-graph' does not run on cpu"),
        (("cpu", ["eager", "cuda-graph"], [1], False), "mode 'cuda-graph' does not run on cpu"),
        (("all-available", ["cuda-graph"], [1], False), "nothing to measure: device cuda is left out.*cuda-graph"),
    ],
)
def test_what_cannot_be_measured_here_is_refused(no_cuda: None, given: Any, message: str) -> None:
    with pytest.raises(SpikerlError, match=message):
        choose_cases(*given)


def test_compiling_without_a_compiler_is_refused_before_anything_runs(
    no_cuda: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CXX", "no-such-compiler")
    with pytest.raises(SpikerlError, match="C\\+\\+ compiler 'no-such-compiler'"):
        choose_cases("cpu", ["compiled"], [1], False)


class Watts(Machine):
    """A meter of 10 W, whatever happens, by the real clock."""

    def joules(self) -> float:
        return 10.0 * inference_run.time.perf_counter()


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> Watts:
    meter = Watts()
    monkeypatch.setattr(inference_run, "cpu_meter", lambda: meter)
    for name, seconds in (("WARM_UP_S", 0.05), ("SETTLE_S", 0.0), ("LATENCY_S", 0.02), ("CHUNK_S", 0.01)):
        monkeypatch.setattr(inference_run, name, seconds)
    return meter


def test_a_whole_measurement_adds_up_at_a_known_power(tmp_path: Path, quick: Watts) -> None:
    policy, file = random_policy(), tmp_path / "policy.nir"
    save_policy(policy, file)
    cases = [Case(workload, "cpu", "eager", batch, False) for batch in (1, 16) for workload in (SPIKING, DENSE)]
    said: list[str] = []
    threads = torch.get_num_threads()
    document = measure(policy, file, cases, Timing(0.2, 2, 1), ["device cuda is left out"], said.append)
    schema = json.loads((ROOT / "spikerl_deploy" / "data" / "report.schema.json").read_text())
    parts = schema["$defs"]
    jsonschema.Draft202012Validator({**parts["inference"], "$defs": parts}).validate(
        json.loads(json.dumps(document, allow_nan=False))
    )
    assert torch.get_num_threads() == threads and torch.is_grad_enabled()
    assert [(one["workload"], one["batch"]) for one in document["rows"]] == [(c.workload, c.batch) for c in cases]
    assert document["schema"] == "spikerl.inference-energy/1" and document["warnings"][0] == "device cuda is left out"
    assert document["policy"]["file"] == "policy.nir" and document["policy"]["sizes"] == [40, 24, 20, 10]
    assert document["ann"]["sizes"] == [4, 24, 20, 1] and "random weights" in document["ann"]["note"]
    (idle,) = document["idle"]
    assert idle["power_w"] == pytest.approx(10.0, rel=0.01) and idle["seconds"] == pytest.approx(0.4, abs=0.2)
    for found in document["rows"]:
        energy = found["energy_uj"]
        assert energy["total"]["mean"] == pytest.approx(10e6 / found["inferences_per_second"], rel=0.01)
        assert abs(energy["above_idle"]["mean"]) < 0.02 * energy["total"]["mean"]  # no load, no more power
        assert found["windows"] == 2 and found["latency_ms"] > 0
    spiking, dense, many, _ = document["rows"]
    assert dense["inferences_per_second"] > spiking["inferences_per_second"]
    assert many["inferences_per_second"] > 3 * spiking["inferences_per_second"]
    assert any("batch 16" in line for line in said)


def test_the_policy_is_measured_as_trained_where_the_file_carries_that(
    tmp_path: Path, quick: Watts, monkeypatch: pytest.MonkeyPatch
) -> None:
    policy, file, seen = random_policy(), tmp_path / "policy.nir", []
    save_policy(policy, file)
    carrying = replace(policy, trained=tuple(replace(layer, weight=0 * layer.weight) for layer in policy.layers))

    def noted(given: Policy, *rest: Any) -> Any:
        seen.append(given.layers[0].weight)
        return policy_function(given, *rest)

    monkeypatch.setattr(inference_run, "policy_function", noted)
    measure(carrying, file, [Case(SPIKING, "cpu", "eager", 1, False)], Timing(0.05, 1, 1), [], lambda text: None)
    assert len(seen) == 1 and not seen[0].any()


def test_rows_of_an_integer_policy_say_which_weights_they_ran(tmp_path: Path, quick: Watts) -> None:
    policy, file = quantized_policy(), tmp_path / "policy.nir"
    save_policy(policy, file)
    cases = [Case(workload, "cpu", "eager", 1, bf16) for bf16 in (False, True) for workload in (SPIKING, DENSE)]

    def notes(policy: Policy) -> list[str]:
        document = measure(policy, file, cases, Timing(0.05, 1, 1), [], lambda text: None)
        return [one["note"].partition(";")[0] for one in document["rows"]]

    short = "windows of 0.05 s, 10 s are recommended"
    assert notes(policy) == [
        *("float32 weights as trained, no 8-bit integers", short),
        *("BF16 weights as trained, no 8-bit integers", short),
    ]
    assert notes(replace(policy, trained=None))[0] == "float32 weights of the NIR graph, no 8-bit integers"
    assert notes(policy.as_trained()) == [short] * 4


class Copies(TorchFunctionMode):
    """Copies between devices that are asked for, also those that are none here."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[tuple[str, str, Any]] = []

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if function in (torch.Tensor.to, torch.Tensor.cpu):
            self.seen.append((function.__name__, args[0].device.type, args[1:]))
        return function(*args, **(kwargs or {}))


@pytest.mark.parametrize("name", ["cpu", pytest.param("cuda", marks=NEEDS_CUDA)])
def test_the_latency_is_from_an_observation_on_the_host_to_an_action_on_the_host(
    name: str, quick: Watts, monkeypatch: pytest.MonkeyPatch
) -> None:
    copies = Copies()

    def once(call: Any) -> float:
        with copies, torch.no_grad():
            assert call().shape == (4, 1)
        return 1.5

    monkeypatch.setattr(inference_run, "_latency_ms", once)
    case = Case(SPIKING, name, "eager", 4, False)
    _, latency = inference_run._measure_case(random_policy(), case, quick, Timing(0.01, 1, 1))
    assert latency == 1.5
    assert (copies.seen[0], copies.seen[-1]) == (("to", "cpu", (torch.device(name),)), ("cpu", name, ()))


def test_what_torch_cannot_run_is_one_line_that_names_the_row_and_the_meter_is_closed(
    tmp_path: Path, quick: Watts, monkeypatch: pytest.MonkeyPatch
) -> None:
    file, closed = tmp_path / "policy.nir", []
    save_policy(random_policy(), file)

    def full(*given: Any) -> Any:
        raise torch.OutOfMemoryError("CUDA out of memory.\nTried to allocate")

    monkeypatch.setattr(inference_run, "ann_function", full)
    monkeypatch.setattr(quick, "close", lambda: closed.append(True))
    case = Case(DENSE, "cpu", "eager", 8, False)
    with pytest.raises(
        SpikerlError, match=r"^dense ANN, cpu eager, batch 8, float32 cannot run: CUDA out of memory\.$"
    ):
        measure(random_policy(), file, [case], Timing(0.05, 1, 1), [], lambda text: None)
    assert closed == [True]


def test_the_plan_tells_how_long_it_takes() -> None:
    cases = [replace(CASE, batch=batch) for batch in (1, 2, 3)]
    assert Timing(10.0, 3, 1).seconds(cases) == pytest.approx(3 * 30 + 20, abs=10)
    assert inference_cases.GOOD_WINDOW_S == Timing().window_s >= 10


@NEEDS_CUDA
def test_on_cuda_a_graph_acts_as_eager_and_the_energy_is_the_boards(tmp_path: Path, quick: Watts) -> None:
    policy, file = random_policy(), tmp_path / "policy.nir"
    save_policy(policy, file)
    cases, _ = choose_cases("cuda", [], [1, 256], True)
    document = measure(policy, file, cases, Timing(1.0, 2, 1), [], lambda text: None)
    rows = {(one["workload"], one["mode"], one["batch"], one["dtype"]): one for one in document["rows"]}
    assert len(rows) == 16 and {one["scope"] for one in rows.values()} <= {"GPU board", "nothing"}
    graphed, eager = (rows[SPIKING, mode, 1, "float32"] for mode in ("cuda-graph", "eager"))
    assert graphed["inferences_per_second"] > 2 * eager["inferences_per_second"]
    device = torch.device("cuda")
    raw = observations(policy, 256, device)
    with torch.no_grad():
        function = policy_function(policy, device, False)
        torch.testing.assert_close(inference_run.as_cuda_graph(function)(raw), function(raw))
