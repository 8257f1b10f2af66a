"""Parts by name: our own, and those that other distributions register as entry points."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from importlib.metadata import entry_points
from typing import Any

from spikerl_deploy.errors import SpikerlError, unknown
from spikerl_deploy.interrupts import pass_on_interrupt


def plugin_names(group: str, built_in: Mapping[str, str]) -> list[str]:
    """Names of all parts of an entry-point group; loads none of them."""
    return sorted({*built_in, *(point.name for point in entry_points(group=group))})


def load_plugin(kind: str, name: str, group: str, built_in: Mapping[str, str], hint: str) -> Any:
    """The object that a name stands for; ours comes first.

    Args:
        kind: what it is, in an error. built_in: name -> `module:attribute`. hint: how to list the names.

    Raises:
        SpikerlError: no such name, or the distribution that registers it is broken.
    """
    if name in built_in:
        module, _, attribute = built_in[name].partition(":")
        return getattr(import_module(module), attribute)
    points = entry_points(group=group, name=name)
    if not points:
        raise unknown(kind, name, plugin_names(group, built_in), hint)
    point = next(iter(points))
    try:
        return point.load()
    except (ImportError, AttributeError) as error:
        pass_on_interrupt(error)
        raise SpikerlError(
            f"{kind} '{name}' cannot be loaded from '{point.value}': {error}", "reinstall the package that it is from"
        ) from error
