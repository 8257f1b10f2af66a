"""Exporters by name: ours, and those that other distributions register under `spikerl.exporters`."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

from spikerl_deploy.errors import SpikerlError, unknown
from spikerl_deploy.policy import Policy

Exporter = Callable[[Policy, Path, bool], None]
ENTRY_POINT_GROUP = "spikerl.exporters"
BUILT_IN = {"nir": "spikerl_deploy.policy_file:save_policy"}


def exporter_names() -> list[str]:
    """Names of all registered exporters."""
    return sorted({*BUILT_IN, *(point.name for point in entry_points(group=ENTRY_POINT_GROUP))})


def exporter(name: str) -> Exporter:
    """Function (policy, path, force) that writes a format.

    Raises:
        SpikerlError: no such format, or the distribution that registers it is broken.
    """
    found: Any
    if name in BUILT_IN:
        module, _, attribute = BUILT_IN[name].partition(":")
        found = getattr(import_module(module), attribute)
    else:
        points = entry_points(group=ENTRY_POINT_GROUP, name=name)
        if not points:
            raise unknown("export format", name, exporter_names(), "spikerl export --help")
        try:
            found = next(iter(points)).load()
        except (ImportError, AttributeError) as error:
            raise SpikerlError(
                f"exporter '{name}' cannot be loaded: {error}", "reinstall the package it is from"
            ) from error
    writer: Exporter = found
    return writer
