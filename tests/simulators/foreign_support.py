"""What the tests of other projects' runtimes share."""

from __future__ import annotations

import pytest

from simulators.foreign.backend import ForeignBackend
from simulators.registry import make_backend

RUNTIMES = ("norse", "snntorch", "spikingjelly")


def installed(name: str) -> ForeignBackend:
    """The backend; the test is skipped where its runtime is not installed."""
    backend = make_backend(name)
    assert isinstance(backend, ForeignBackend)
    state = backend.availability()
    if not state.ready:
        pytest.skip(f"{state.detail}: {state.hint}")
    return backend
