"""The policies that ship with spikerl: found by name, and handed out only as their cards describe them."""

from __future__ import annotations

import difflib
from pathlib import Path
from typing import Any

from spikerl_deploy.errors import SpikerlError
from spikerl_deploy.files import sha256_file

REINSTALL_HINT = "install spikerl-deploy again; spikerl policies --check looks at all of them"
LIST_HINT = "spikerl policies"
NEAR = 0.5  # likeness of a misspelt name, as difflib counts it


def folder() -> Path:
    """Where the policies lie: in the package, as the wheel has them, or beside it, as the repository has them."""
    package = Path(__file__).resolve().parent
    installed, beside = package / "policies", package.parent / "policies"
    return beside if not installed.is_dir() and (package.parent / "pyproject.toml").is_file() else installed


def names() -> list[str]:
    """Names of the shipped policies; reads none of them."""
    return sorted(path.stem for path in folder().glob("*.json"))


def find(name: str) -> str | None:
    """The shipped policy of that name, in capitals or not."""
    return next((one for one in names() if one == name.lower()), None)


def near(name: str) -> list[str]:
    """Names of shipped policies that are much like a name, the likest first."""
    return difflib.get_close_matches(name.lower(), names(), n=3, cutoff=NEAR)


def card(name: str) -> dict[str, Any]:
    """The card of a shipped policy, held against the published schema.

    Raises:
        SpikerlError: no policy of that name is shipped, or its card is no card.
    """
    from spikerl_deploy.model_card import read_card

    found = find(name)
    if found is None:
        likely = near(name)
        hint = f"did you mean {' or '.join(likely)}? see: {LIST_HINT}" if likely else LIST_HINT
        raise SpikerlError(f"no policy named '{name}' is shipped with spikerl", hint)
    document = read_card(folder() / f"{found}.json")
    if document["name"] != found:
        raise SpikerlError(f"the card of '{found}' is that of '{document['name']}'", REINSTALL_HINT)
    return document


def path(name: str) -> Path:
    """The policy file of a shipped policy, whose size and hash were checked before anything is read from it.

    Raises:
        SpikerlError: as `card`, or the file is not the one that the card describes.
    """
    document = card(name)
    file = folder() / f"{document['name']}.nir"  # by its name: nothing in a card says where to read
    problem = mismatch(document, file)
    if problem is not None:
        raise SpikerlError(f"the shipped policy '{document['name']}' is damaged: {problem}", REINSTALL_HINT)
    return file


def mismatch(document: dict[str, Any], file: Path) -> str | None:
    """What keeps a file from being the one that a card describes; None if nothing does."""
    policy = document["policy"]
    try:
        size = file.stat().st_size
        if size != policy["bytes"]:
            return f"{file.name} has {size:,} bytes, its card says {policy['bytes']:,}"
        found = sha256_file(file)
    except OSError as error:
        return f"{file.name} cannot be read: {error.strerror}"
    if found != policy["sha256"]:
        return f"{file.name} has sha256 {found[:16]}..., its card says {policy['sha256'][:16]}..."
    return None


def strays() -> list[str]:
    """Policy files of the folder that no card describes."""
    return sorted(file.name for file in folder().glob("*.nir") if file.stem not in names())
