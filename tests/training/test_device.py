"""Which device a run takes, and whether its update is compiled."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch

from spikerl_deploy.cli.doctor import _torch
from spikerl_deploy.errors import SpikerlError
from training import device
from training.device import COMPILE_FROM, bf16_in_hardware, choose_device, wants_compiling
from training.settings import Settings

CPU = torch.device("cpu")


@pytest.fixture
def gpus(monkeypatch: pytest.MonkeyPatch):
    def pretend(count: int) -> list[Any]:
        taken: list[Any] = []
        monkeypatch.setattr(torch.cuda, "is_available", lambda: count > 0)
        monkeypatch.setattr(torch.cuda, "device_count", lambda: count)
        monkeypatch.setattr(torch.cuda, "set_device", taken.append)
        return taken

    return pretend


def test_without_cuda_the_device_is_the_cpu_and_cuda_is_refused(gpus) -> None:
    gpus(0)
    assert choose_device("auto") == choose_device("cpu") == CPU
    with pytest.raises(SpikerlError, match="'cuda' asked for, torch finds none") as error:
        choose_device("cuda")
    assert "--device cpu" in (error.value.hint or "")


def test_each_rank_of_a_machine_takes_a_gpu_of_its_own(gpus) -> None:
    taken = gpus(2)
    assert [choose_device(name, rank) for name, rank in (("auto", 0), ("cuda", 1))] == [
        torch.device("cuda", 0), torch.device("cuda", 1)
    ]  # fmt: skip
    assert taken == [torch.device("cuda", 0), torch.device("cuda", 1)]
    assert choose_device("cpu", 5) == CPU


@pytest.mark.parametrize("name", ["auto", "cuda"])
def test_more_ranks_than_gpus_are_refused(gpus, name: str) -> None:
    gpus(2)
    with pytest.raises(SpikerlError, match="rank 2 of this machine has no GPU of its own, there are 2"):
        choose_device(name, 2)


@pytest.mark.parametrize(
    ("has", "detail", "hinted"), [(True, "in hardware", False), (False, "emulated", True), (None, "not known", False)]
)
def test_doctor_advises_against_bf16_where_the_processor_is_known_to_emulate_it(
    gpus, monkeypatch: pytest.MonkeyPatch, has: bool | None, detail: str, hinted: bool
) -> None:
    gpus(0)
    monkeypatch.setattr(device, "has_bf16", lambda: has)
    assert bf16_in_hardware(CPU) is has
    check = _torch()[-1]
    assert (check["name"], check["ok"], check["detail"]) == ("bf16", has is True, detail)
    assert (check["hint"] is not None and "--no-bf16" in check["hint"]) is hinted


@pytest.mark.parametrize(("major", "has"), [(7, False), (8, True), (9, True)])
def test_a_gpu_has_bf16_in_hardware_from_compute_capability_8_on(
    gpus, monkeypatch: pytest.MonkeyPatch, major: int, has: bool
) -> None:
    gpus(1)
    monkeypatch.setattr(torch.version, "cuda", "12.4")
    monkeypatch.setattr(torch.version, "hip", None)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 0)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "some GPU")
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda _: SimpleNamespace(major=major))
    monkeypatch.setattr(torch.cuda, "_check_bf16_tensor_supported", lambda _: True)  # emulated it can be made
    assert bf16_in_hardware(torch.device("cuda", 0)) is has
    assert _torch()[-1]["detail"] == ("in hardware" if has else "emulated")


@pytest.mark.parametrize(
    ("settings", "ranks", "compiled"),
    [
        ({"steps": COMPILE_FROM}, 1, True),
        ({"steps": COMPILE_FROM - 1}, 1, False),
        ({"steps": COMPILE_FROM}, 2, False),
        ({"steps": 2 * COMPILE_FROM}, 2, True),
        ({"steps": COMPILE_FROM // 2, "update_to_data": 2}, 1, True),
        ({"steps": COMPILE_FROM, "update_to_data": 0.5}, 1, False),
        ({"steps": 10**9, "compile": "off"}, 1, False),
        ({"steps": 10, "compile": "on"}, 1, True),
    ],
)
def test_compiling_is_as_set_or_where_a_rank_has_updates_enough(
    monkeypatch: pytest.MonkeyPatch, settings: dict[str, Any], ranks: int, compiled: bool
) -> None:
    monkeypatch.setenv("CXX", "sh")  # there is one
    assert wants_compiling(Settings(**settings), CPU, ranks) is compiled


def test_without_a_compiler_a_run_is_not_compiled_unless_asked_which_is_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("CXX", "/nonexistent/c++")
    assert wants_compiling(Settings(steps=10**9), CPU, 1) is False
    assert wants_compiling(Settings(compile="off"), CPU, 1) is False
    with pytest.raises(SpikerlError, match=r"--compile needs the C\+\+ compiler '/nonexistent/c\+\+'") as error:
        wants_compiling(Settings(compile="on"), CPU, 1)
    assert "--no-compile" in (error.value.hint or "")
