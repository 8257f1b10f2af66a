"""Shipped policies for the tests: a folder of them with real cards, in the place of the one that is shipped."""

from __future__ import annotations

import copy
import json
from functools import cache
from pathlib import Path
from typing import Any

from support import ROOT, quantized_policy

from spikerl_deploy.files import sha256_file
from spikerl_deploy.model_card import read_card, validate_card
from spikerl_deploy.policy import Policy
from spikerl_deploy.policy_file import load_policy, save_policy
from spikerl_deploy.zoo import content_sha256

SHIPPED = ROOT / "policies"
SHARED = "halfcheetah-v5"  # the card that tests change; any would do that is whole


@cache
def _shipped_card() -> dict[str, Any]:
    return read_card(SHIPPED / f"{SHARED}.json")


def a_card() -> dict[str, Any]:
    """A real card for the caller to change, of one finished seed and with float weights: nothing needs a remark."""
    card = copy.deepcopy(_shipped_card())
    card["training"] |= {"finished": True, "stopped": "steps", "steps_asked": card["training"]["steps_done"]}
    card["training"] |= {"seeds": 1, "selection": card["training"]["selection"] | {"of_seeds": 1}}
    card["policy"]["float_weights"], card["evaluation"]["float_policy"] = True, "in the file"
    return card


def ship(folder: Path, name: str = "invertedpendulum-v5", **policy: Any) -> dict[str, Any]:
    """Put a small untrained policy into a folder, with a card whose description of the file is true."""
    folder.mkdir(exist_ok=True)
    file = folder / f"{name}.nir"
    env_id = "InvertedPendulum-v5" if name == "invertedpendulum-v5" else name.capitalize()
    save_policy(quantized_policy(env_id=env_id, **policy), file)
    loaded = load_policy(file)
    card = a_card()
    card["name"] = name
    card["policy"] |= {
        "file": file.name,
        "sha256": sha256_file(file),
        "content_sha256": content_sha256(loaded),
        "bytes": file.stat().st_size,
        "sizes": list(loaded.sizes),
        "time_steps": loaded.time_steps,
        "neurons": sum(loaded.sizes[1:]),
        "synapses": sum(int((layer.weight != 0).sum()) for layer in loaded.layers),
    }
    card["environment"] |= {"id": env_id}
    card["workload"] |= _workload(loaded, card["workload"])
    validate_card(card, name)
    (folder / f"{name}.json").write_text(json.dumps(card))
    return card


def _workload(policy: Policy, real: dict[str, Any]) -> dict[str, Any]:
    """Counts of a policy that was never counted: a spike a neuron, and an operation a synapse."""
    layers = [
        {
            "name": f"layer {number}",
            "neurons": layer.n_out,
            "synapses": int((layer.weight != 0).sum()),
            "spikes": float(layer.n_out),
            "firing_rate": 1 / policy.time_steps,
            "synaptic_operations": float((layer.weight != 0).sum()),
        }
        for number, layer in enumerate(policy.layers, start=1)
    ]
    sums = {key: sum(layer[key] for layer in layers) for key in ("spikes", "synaptic_operations")}
    return {
        "layers": layers,
        "per_inference": real["per_inference"] | sums,
        "firing_rate": 1 / policy.time_steps,
    }
