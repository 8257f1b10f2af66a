"""Backends by name: ours, and those that other distributions register under `spikerl.backends`."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from simulators.protocol import Availability, Backend
from spikerl_deploy.errors import SpikerlError
from spikerl_deploy.interrupts import pass_on_interrupt
from spikerl_deploy.nir_file import one_line
from spikerl_deploy.plugins import load_plugin, plugin_names

ENTRY_POINT_GROUP = "spikerl.backends"
MAKERS = "tell the makers of its package"
BUILT_IN = {
    "torch": "simulators.torch_backend:TorchBackend",
    "fixed": "simulators.fixed:FixedBackend",
    "lava": "simulators.lava.backend:LavaBackend",
    "lava-float": "simulators.lava.float_backend:LavaFloatBackend",
    "norse": "simulators.foreign.norse:NorseBackend",
    "snntorch": "simulators.foreign.snntorch:SnnTorchBackend",
    "spikingjelly": "simulators.foreign.spikingjelly:SpikingJellyBackend",
    "lava-stock": "simulators.lava.backend:LavaStockBackend",
}


def backend_names() -> list[str]:
    """Names of all registered backends; loads none of them."""
    return plugin_names(ENTRY_POINT_GROUP, BUILT_IN)


def backend_class(name: str) -> type[Backend]:
    """Backend class by name.

    Raises:
        SpikerlError: no such name, or the distribution that registers it is broken.
    """
    with _in_one_line(f"backend '{name}' cannot be loaded"):
        found = load_plugin("backend", name, ENTRY_POINT_GROUP, BUILT_IN, "spikerl backends list")
    if not (isinstance(found, type) and issubclass(found, Backend)):
        raise SpikerlError(f"backend '{name}' is no simulators.protocol.Backend but {found!r}", MAKERS)
    return found


def backend_options(name: str) -> set[str]:
    """Names of the options that a backend takes."""
    return set(inspect.signature(backend_class(name)).parameters)


def make_backend(name: str, **options: Any) -> Backend:
    """Backend by name; options that this one does not take are left out, so that one set serves several.

    Raises:
        SpikerlError: no such name, an option is refused, or the backend of another distribution cannot be made.
    """
    taken = backend_options(name)
    with _in_one_line(f"backend '{name}' cannot be made"):
        return backend_class(name)(**{key: value for key, value in options.items() if key in taken})


def availability_of(name: str, backend: Backend) -> Availability:
    """What `backend.availability()` says.

    Raises:
        SpikerlError: the backend of another distribution raises something, or gives something else.
    """
    with _in_one_line(f"backend '{name}' does not say whether it can run"):
        state = backend.availability()
        if not isinstance(state, Availability):
            raise TypeError(f"availability() gives {state!r}")
        return state


@contextmanager
def _in_one_line(what: str) -> Iterator[None]:
    """Code of other distributions can raise anything."""
    try:
        yield
    except SpikerlError:
        raise
    except Exception as error:
        pass_on_interrupt(error)
        raise SpikerlError(f"{what}: {type(error).__name__}: {one_line(error)}", MAKERS) from error
