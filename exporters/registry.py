"""Exporters by name: ours, and those that other distributions register under `spikerl.exporters`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from spikerl_deploy.plugins import load_plugin, plugin_names
from spikerl_deploy.policy import Policy

Exporter = Callable[[Policy, Path, bool], None]
ENTRY_POINT_GROUP = "spikerl.exporters"
BUILT_IN = {"nir": "spikerl_deploy.policy_file:save_policy"}


def exporter_names() -> list[str]:
    """Names of all registered exporters."""
    return plugin_names(ENTRY_POINT_GROUP, BUILT_IN)


def exporter(name: str) -> Exporter:
    """Function (policy, path, force) that writes a format.

    Raises:
        SpikerlError: no such format, or the distribution that registers it is broken.
    """
    found: Exporter = load_plugin("export format", name, ENTRY_POINT_GROUP, BUILT_IN, "spikerl export --help")
    return found
