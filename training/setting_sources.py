"""Where settings come from: flags, assignments, the environment, a config file or a recipe, one over the other."""

from __future__ import annotations

import tomllib
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from spikerl_deploy.errors import SpikerlError, unknown

ENVIRONMENT_PREFIX = "SPIKERL_TRAIN_"
RECIPES = Path(__file__).parent / "recipes"


def layered(
    known: Collection[str],
    config: Path | None,
    environment: Mapping[str, str] | None,
    assignments: list[str] | None,
    flags: Mapping[str, Any] | None,
) -> dict[str, Any]:
    """The values that sources give to names, for `settings.from_sources`; no value is looked at.

    Raises:
        SpikerlError: a name that is not known, an unreadable file, an assignment without "=".
    """
    merged: dict[str, Any] = {}
    if config is not None:
        merged |= _read_toml(config)
        _check_names(f"'{config}'", merged, known)
    for key, value in (environment or {}).items():
        if key.startswith(ENVIRONMENT_PREFIX):
            name = key.removeprefix(ENVIRONMENT_PREFIX).lower()
            _check_names(f"environment variable {key}", [name], known)
            merged[name] = value
    for assignment in assignments or []:
        name, equals, value = assignment.partition("=")
        if not equals:
            raise SpikerlError(f"--set '{assignment}' is not key=value", "for example --set batch_size=256")
        _check_names("--set", [name.strip()], known)
        merged[name.strip()] = value.strip()
    return merged | {name: value for name, value in (flags or {}).items() if value is not None}


def _check_names(source: str, names: Collection[str], known: Collection[str]) -> None:
    for name in names:
        if name not in known:
            raise unknown(f"setting in {source}", name, known, "spikerl train --list-settings")


def _read_toml(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise SpikerlError(
            f"cannot read config '{path}': {error.strerror}", "check the path given to --config"
        ) from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise SpikerlError(f"config '{path}' is not TOML: {error}", "see the settings with --list-settings") from error


def recipe_path(name: str) -> Path:
    """File of a recipe that ships with the package.

    Raises:
        SpikerlError: no such recipe.
    """
    names = sorted(path.stem for path in RECIPES.glob("*.toml"))
    if name not in names:
        raise unknown("recipe", name, names, f"spikerl train --recipe {names[0]}")
    return RECIPES / f"{name}.toml"
