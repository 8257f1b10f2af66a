"""The policies that ship with spikerl: found by name, and handed out only as their cards describe them."""

from __future__ import annotations

import difflib
from pathlib import Path
from typing import TYPE_CHECKING, Any

from spikerl_deploy.errors import SpikerlError
from spikerl_deploy.files import sha256_file

if TYPE_CHECKING:
    from spikerl_deploy.policy import Policy

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


def near_hint(name: str, otherwise: str = LIST_HINT) -> str:
    """A hint that tells the names of shipped policies that are much like a name, the likest first."""
    likely = difflib.get_close_matches(name.lower(), names(), n=3, cutoff=NEAR)
    return f"did you mean {' or '.join(likely)}? see: {LIST_HINT}" if likely else otherwise


def card(name: str) -> dict[str, Any]:
    """The card of a shipped policy, held against the published schema.

    Raises:
        SpikerlError: no policy of that name is shipped, or its card is no card.
    """
    from spikerl_deploy.model_card import read_card

    found = find(name)
    if found is None:
        raise SpikerlError(f"no policy named '{name}' is shipped with spikerl", near_hint(name))
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


def untruth(document: dict[str, Any], file: Path) -> str | None:
    """What a card says of a file that `mismatch` found no fault with, and its content does not; None if nothing.

    Raises:
        SpikerlError: the file is no policy file.
    """
    from spikerl_deploy.policy_file import load_policy

    policy, stated = load_policy(file), document["policy"]
    found = {
        "sizes": (list(policy.sizes), stated["sizes"]),
        "bits": (policy.bits, stated["bits"]),
        "time steps": (policy.time_steps, stated["time_steps"]),
        "environment": (policy.env_id, document["environment"]["id"]),
        "float weights": (policy.trained is not None, stated["float_weights"]),
        "content_sha256": (content_sha256(policy), stated["content_sha256"]),
    }
    wrong = next(((what, *pair) for what, pair in found.items() if pair[0] != pair[1]), None)
    return None if wrong is None else f"{file.name} has {wrong[0]} {wrong[1]}, its card says {wrong[2]}"


def content_sha256(policy: Policy) -> str:
    """Identity of what a policy deploys, whatever made it and whether or not it carries its float weights."""
    from dataclasses import replace

    from spikerl_deploy.policy_file import policy_to_graph

    bare = replace(policy, provenance={}, trained=None, trained_encoder=None)
    return str(policy_to_graph(bare).metadata["content_sha256"])


def strays() -> list[str]:
    """Policy files of the folder that no card describes."""
    return sorted(file.name for file in folder().glob("*.nir") if file.stem not in names())
