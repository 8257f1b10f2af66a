"""Backends of other distributions may raise anything: each is an error of one line that names the backend."""

from __future__ import annotations

import sys
from types import SimpleNamespace
from typing import Any

import pytest

from simulators import registry
from simulators.fixed import FixedBackend
from simulators.registry import availability_of, make_backend
from spikerl_deploy.cli.backends import _row
from spikerl_deploy.cli.doctor import _backends
from spikerl_deploy.errors import SpikerlError


class NeedsArgument(FixedBackend):
    def __init__(self, board: str) -> None:
        self.board = board


class FailsToBegin(FixedBackend):
    def __init__(self) -> None:
        raise RuntimeError("no\nlicence")


class Unsure(FixedBackend):
    def availability(self) -> Any:
        raise RuntimeError("no driver")


class Silent(FixedBackend):
    def availability(self) -> Any:
        return None


class Module(SimpleNamespace):
    def __getattr__(self, name: str) -> Any:
        raise RuntimeError("half installed")


MESSAGES = {
    "needs": "cannot be made: TypeError: .*'board'",
    "fails": "cannot be made: RuntimeError: no licence",
    "unsure": "does not say whether it can run: RuntimeError: no driver",
    "silent": "does not say whether it can run: TypeError: .* None",
    "half": "cannot be loaded: RuntimeError: half installed",
}


@pytest.fixture(autouse=True)
def odd_backends(monkeypatch: pytest.MonkeyPatch) -> None:
    made = SimpleNamespace(needs=NeedsArgument, fails=FailsToBegin, unsure=Unsure, silent=Silent)
    monkeypatch.setitem(sys.modules, "odd_backends", made)  # type: ignore[misc]  # any object will do
    monkeypatch.setitem(sys.modules, "half_backends", Module())  # type: ignore[misc]
    names = {name: f"odd_backends:{name}" for name in vars(made)} | {"half": "half_backends:half"}
    monkeypatch.setattr(registry, "BUILT_IN", {"fixed": registry.BUILT_IN["fixed"], **names})


@pytest.mark.parametrize("name", MESSAGES)
def test_whatever_it_raises_is_one_line(name: str) -> None:
    with pytest.raises(SpikerlError, match=f"backend '{name}' {MESSAGES[name]}") as caught:
        availability_of(name, make_backend(name))
    assert "\n" not in caught.value.message
    assert caught.value.hint == "tell the makers of its package"


def test_one_that_is_broken_hides_no_other() -> None:
    rows = {name: _row(name) for name in ("fixed", *MESSAGES)}
    checks = {check["name"]: check for check in _backends()}
    assert rows["fixed"]["ready"] and checks["backend fixed"]["ok"]
    for name in MESSAGES:
        assert not rows[name]["ready"] and not checks[f"backend {name}"]["ok"]
        assert rows[name]["detail"] == checks[f"backend {name}"]["detail"]
        assert f"'{name}'" in rows[name]["detail"] and rows[name]["hint"]
