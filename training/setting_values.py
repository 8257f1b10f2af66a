"""Values of settings: from TOML, a flag or the environment to the setting's type, and to TOML."""

from __future__ import annotations

import json
import math
from typing import Any

from spikerl_deploy.errors import SpikerlError


def coerce(name: str, kind: type, value: Any) -> Any:
    """Bring a value from TOML, a flag or the environment to the setting's type.

    Raises:
        SpikerlError: it cannot be.
    """
    try:
        if kind is bool:
            return _to_bool(value)
        if kind is tuple:
            parts = value.strip("[]() ").split(",") if isinstance(value, str) else value
            return tuple(_to_int(part) for part in parts)
        if kind is int:
            return _to_int(value)
        if kind is float:
            number = float(value)
            if isinstance(value, bool) or not math.isfinite(number):
                raise ValueError
            return number
        if not isinstance(value, str):
            raise ValueError
        return value
    except (TypeError, ValueError, OverflowError):
        wanted = {bool: "true or false", tuple: "a list of integers", int: "an integer", float: "a finite number"}
        raise SpikerlError(
            f"setting '{name}' = {value!r} is not {wanted.get(kind, 'text')}", f"set it with --set {name}=VALUE"
        ) from None


def _to_bool(value: Any) -> bool:
    texts = {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}
    if isinstance(value, bool):
        return value
    if str(value).lower() not in texts:
        raise ValueError
    return texts[str(value).lower()]


def _to_int(value: Any) -> int:
    if isinstance(value, bool):
        raise ValueError
    if isinstance(value, int):
        return value
    if isinstance(value, str) and value.strip().lstrip("+-").isdigit():
        return int(value)
    number = float(value)  # accepts 1e6
    if number != int(number):
        raise ValueError
    return int(number)


def toml_value(value: Any) -> str:
    """A TOML value; JSON's text is TOML's, but for surrogate pairs and the delete character."""
    text = json.dumps(list(value) if isinstance(value, tuple) else value, ensure_ascii=False)
    return text.replace("\x7f", "\\u007f")
