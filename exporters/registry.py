"""Exporters by name: ours, and those that other distributions register under `spikerl.exporters`."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from typing import Any, get_type_hints

from spikerl_deploy.errors import SpikerlError, unknown
from spikerl_deploy.plugins import load_plugin, plugin_names

Exporter = Callable[..., None]
"""Writes a policy: (policy, path, force, **options); options are keyword-only, of type int, float, str or bool."""

ENTRY_POINT_GROUP = "spikerl.exporters"
BUILT_IN = {
    "nir": "spikerl_deploy.policy_file:save_policy",
    "onnx": "exporters.onnx_graph:export_onnx",
    "netx": "exporters.netx:export_netx",
    "json": "exporters.firmware:export_json",
    "c-header": "exporters.firmware:export_c_header",
}
_SUFFIXES = {"netx": "net", "c-header": "h"}
_BOOLEANS = {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}


def exporter_names() -> list[str]:
    """Names of all registered exporters."""
    return plugin_names(ENTRY_POINT_GROUP, BUILT_IN)


def exporter(name: str) -> Exporter:
    """The function that writes a format.

    Raises:
        SpikerlError: no such format, or the distribution that registers it is broken.
    """
    found: Exporter = load_plugin("export format", name, ENTRY_POINT_GROUP, BUILT_IN, "spikerl export --help")
    return found


def default_file(name: str) -> str:
    """File that a format is written to where none is named, such as policy.nir."""
    return f"policy.{_SUFFIXES.get(name, name)}"


def parse_options(name: str, write: Exporter, assignments: Sequence[str]) -> dict[str, Any]:
    """Options of an exporter from `key=value` texts, by the annotations of its keyword-only parameters.

    Raises:
        SpikerlError: no assignment, or the format has no such option, or the text is no value of it.
    """
    parameters = inspect.signature(write).parameters.values()
    known = [parameter.name for parameter in parameters if parameter.kind is inspect.Parameter.KEYWORD_ONLY]
    hints, options = get_type_hints(write), {}
    for assignment in assignments:
        key, equals, text = (part.strip() for part in assignment.partition("="))
        if not equals:
            raise SpikerlError(f"--set '{assignment}' is not key=value", "for example --set opset=18")
        if key not in known:
            if not known:
                raise SpikerlError(f"export format '{name}' has no options, --set gave '{key}'", "leave --set out")
            raise unknown(f"option of export format '{name}'", key, known)
        kind = hints.get(key, str)
        try:
            options[key] = _BOOLEANS[text.lower()] if kind is bool else kind(text)
        except (KeyError, ValueError):
            raise SpikerlError(
                f"option '{key}' = '{text}' of export format '{name}' is no {kind.__name__}",
                f"spikerl export --to {name} --set {key}=VALUE",
            ) from None
    return options
