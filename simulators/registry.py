"""Backends by name: ours, and those that other distributions register under `spikerl.backends`."""

from __future__ import annotations

import inspect
from importlib import import_module
from importlib.metadata import entry_points
from typing import Any

from simulators.protocol import Backend
from spikerl_deploy.errors import SpikerlError, unknown

ENTRY_POINT_GROUP = "spikerl.backends"
BUILT_IN = {
    "torch": "simulators.torch_backend:TorchBackend",
    "fixed": "simulators.fixed:FixedBackend",
    "lava": "simulators.lava.backend:LavaBackend",
}


def backend_names() -> list[str]:
    """Names of all registered backends; loads none of them."""
    return sorted({*BUILT_IN, *(point.name for point in entry_points(group=ENTRY_POINT_GROUP))})


def backend_class(name: str) -> type[Backend]:
    """Backend class by name.

    Raises:
        SpikerlError: no such name, or the distribution that registers it is broken.
    """
    if name in BUILT_IN:
        module, _, attribute = BUILT_IN[name].partition(":")
        found = getattr(import_module(module), attribute)
    else:
        points = entry_points(group=ENTRY_POINT_GROUP, name=name)
        if not points:
            raise unknown("backend", name, backend_names(), "spikerl backends list")
        point = next(iter(points))
        try:
            found = point.load()
        except (ImportError, AttributeError) as error:
            raise SpikerlError(f"backend '{name}' cannot be loaded from '{point.value}': {error}") from error
    if not (isinstance(found, type) and issubclass(found, Backend)):
        raise SpikerlError(f"backend '{name}' is no simulators.protocol.Backend but {found!r}")
    return found


def make_backend(name: str, **options: Any) -> Backend:
    """Backend by name; options that this one does not take are dropped."""
    cls = backend_class(name)
    accepted = inspect.signature(cls).parameters
    return cls(**{key: value for key, value in options.items() if key in accepted})
