"""Ctrl-C that a library tells as a failed import goes through whatever goes on without a backend."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from support import fail_import, quantized_policy, random_policy

import simulators.registry as registry
from simulators.fixed import FixedBackend
from simulators.foreign.backend import ForeignBackend
from simulators.protocol import Backend
from simulators.registry import availability_of, backend_class
from simulators.verify import EXACT, Entrant, run_reference, verify_entrant
from spikerl_deploy.integer_core import IntegerCore
from spikerl_deploy.policy import Policy


@pytest.fixture(params=[KeyboardInterrupt(), OSError("no library")], ids=["interrupt", "fault"])
def broken(request: pytest.FixtureRequest) -> ImportError:
    error = ImportError("initialization failed")
    error.__cause__ = request.param
    return error


def goes_through(broken: ImportError, run: Callable[[], object], otherwise: type[Exception] | None = None) -> None:
    """An interrupt goes through; a fault ends as it ever did."""
    interrupted = isinstance(broken.__cause__, KeyboardInterrupt)
    expected = KeyboardInterrupt if interrupted else otherwise
    if expected is None:
        run()
    else:
        with pytest.raises(expected):
            run()


def test_loading_a_backend(broken: ImportError, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise broken

    monkeypatch.setattr(registry, "load_plugin", fail)
    goes_through(broken, lambda: backend_class("fixed"), registry.SpikerlError)


def test_loading_a_backend_of_another_distribution(broken: ImportError, monkeypatch: pytest.MonkeyPatch) -> None:
    class Point:
        name, value = "toy", "toy:Toy"

        def load(self) -> None:
            raise broken

    monkeypatch.setattr("spikerl_deploy.plugins.entry_points", lambda **_: [Point()])
    goes_through(broken, lambda: backend_class("toy"), registry.SpikerlError)


def test_asking_whether_a_backend_can_run(broken: ImportError) -> None:
    class Asked(FixedBackend):
        def availability(self) -> registry.Availability:
            raise broken

    goes_through(broken, lambda: availability_of("asked", Asked()), registry.SpikerlError)


def test_verifying_a_backend(broken: ImportError) -> None:
    policy: Policy = quantized_policy()

    def entrant(backend: Backend, open: Callable[[int], object]) -> Entrant:
        return Entrant("fixed", backend.runs(policy), EXACT, open)  # type: ignore[arg-type]

    def fail(_batch: int) -> None:
        raise broken

    fixed = FixedBackend()
    played = run_reference(
        entrant(fixed, lambda batch: fixed.open(policy, batch)), policy, "InvertedPendulum-v5", 3, [], 0
    )
    goes_through(broken, lambda: verify_entrant(entrant(fixed, fail), played, 1))


def test_loading_a_graph_into_a_runtime(broken: ImportError) -> None:
    class Runtime(ForeignBackend):
        name, packages = "runtime", ()

        def refusal(self, *_: object) -> None:
            return None

        def voltage(self, *_: object) -> None:
            raise NotImplementedError

        def load(self, *_: object) -> None:
            raise broken

    goes_through(broken, lambda: Runtime().open(random_policy()), registry.SpikerlError)


def test_compiling_layers(broken: ImportError, monkeypatch: pytest.MonkeyPatch) -> None:
    policy = quantized_policy()
    core = IntegerCore(policy.integers, policy.time_steps)
    fail_import(monkeypatch, "spikerl_deploy.integer_jit", broken)
    goes_through(broken, core.compile)
    spikes = np.ones((policy.time_steps, 1, policy.layers[0].weight.shape[1]), dtype=bool)
    assert len(core(spikes)) > 0
