"""Shipped policies for the tests: a folder of them with real cards, in the place of the one that is shipped."""

from __future__ import annotations

import copy
import json
from functools import cache
from pathlib import Path
from typing import Any

from support import ROOT, quantized_policy

from spikerl_deploy.files import sha256_file
from spikerl_deploy.model_card import read_card
from spikerl_deploy.policy_file import load_policy, save_policy

SHIPPED = ROOT / "policies"


@cache
def _shipped_card() -> dict[str, Any]:
    return read_card(sorted(SHIPPED.glob("*.json"))[0])


def a_card() -> dict[str, Any]:
    """A real card for the caller to change."""
    return copy.deepcopy(_shipped_card())


def ship(folder: Path, name: str = "pendulum-v5", **policy: Any) -> dict[str, Any]:
    """Put a small untrained policy into a folder, with a card whose description of the file is true."""
    folder.mkdir(exist_ok=True)
    file = folder / f"{name}.nir"
    save_policy(quantized_policy(**policy), file)
    loaded = load_policy(file)
    card = a_card()
    card["name"] = name
    card["policy"] |= {
        "file": file.name,
        "sha256": sha256_file(file),
        "bytes": file.stat().st_size,
        "sizes": list(loaded.sizes),
        "neurons": sum(loaded.sizes[1:]),
    }
    card["environment"] |= {"id": "InvertedPendulum-v5"}
    (folder / f"{name}.json").write_text(json.dumps(card))
    return card
