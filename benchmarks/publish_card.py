"""The card of a policy, out of what its run recorded and what `spikerl simulate` reported."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks.publish_plan import PARALLEL
from benchmarks.publish_run import TakenRun
from spikerl_deploy.environments import fitting_spec
from spikerl_deploy.errors import SpikerlError
from spikerl_deploy.manifest import identify_policy, package_versions
from spikerl_deploy.model_card import SCHEMA, validate_card
from spikerl_deploy.policy import Policy
from spikerl_deploy.policy_file import load_policy
from spikerl_deploy.zoo import content_sha256

LICENCE = "Apache-2.0"
FIGURE_KEYS = ("id", "title", "model", "what", "low", "high", "kind", "constants_kind", "sources", "note")
COMPARISON_KEYS = ("retention", "retention_interval", "mean_difference", "difference_interval")
BACKEND_KEYS = ("runs", "exactness", "returns", "mean_return", "std_return", "return_interval")
ABSOLUTE_PATH = re.compile(r"(?<![\w:/.~-])(?:/[\w.~-]+){2,}|[A-Za-z]:\\")
INTENDED = (
    "For research, teaching and testing: a trained spiking policy to run on neuromorphic simulators and to measure "
    "tools with. It acts in the Gymnasium environment that it was trained in, which is a simulation."
)
LIMITS = (
    "Simulation only: it was never run on a robot, and not on a neuromorphic chip.",
    "It was not checked for safety: nothing bounds what it does outside the states that it was trained in.",
    "It was trained in one environment of one version, without noise, delay or changed dynamics.",
    "The environment is another's work; the returns depend on its version and on that of MuJoCo.",
)


def build_card(
    name: str,
    file: Path,
    taken: TakenRun,
    training: dict[str, Any],
    quantization: dict[str, Any],
    reports: dict[str, dict[str, Any]],
    made: dict[str, Any],
) -> dict[str, Any]:
    """The card of a policy file.

    Args:
        file: as shipped. training: of `training_part`. quantization: as the card has it.
        reports: of the same seeds on `fixed` and on `lava`, each with `torch` as its baseline.
        made: manifest of publishing.

    Raises:
        SpikerlError: the parts do not fit together, or the card or the file names a path of this machine.
    """
    policy = load_policy(file)
    assert policy.env_id is not None and policy.encoder is not None and policy.decoder is not None
    deployments = {backend: report["deployments"][0] for backend, report in reports.items()}
    lava = deployments["lava"]
    card = {
        "schema": SCHEMA,
        "name": name,
        "environment": _environment(policy),
        "policy": {
            **identify_policy(policy, file),
            "bytes": file.stat().st_size,
            "neurons": sum(policy.sizes[1:]),
            "synapses": sum(layer["synapses"] for layer in lava["backends"]["lava"]["workload"]["layers"]),
            "coding": policy.encoder.coding,
            "content_sha256": content_sha256(policy),
            "float_weights": policy.trained is not None,
        },
        "training": training,
        "quantization": quantization,
        "evaluation": {
            "seeds": lava["environment"]["seeds"],
            "baseline": "torch",
            "float_policy": "in the file" if policy.trained is not None else "in the checkpoint",
            "interval": lava["comparison"]["interval"],
            "backends": {
                backend: {key: deployments[of]["backends"][backend][key] for key in BACKEND_KEYS}
                for backend, of in (("torch", "lava"), ("fixed", "fixed"), ("lava", "lava"))
            },
            "comparisons": {
                backend: {key: deployments[backend]["comparison"][key] for key in COMPARISON_KEYS}
                for backend in ("fixed", "lava")
            },
        },
        "workload": _workload(lava["backends"]["lava"]["workload"]),
        "energy": _energy(lava["backends"]["lava"]["energy"]),
        "use": {"intended": INTENDED, "limits": list(LIMITS)},
        "licence": LICENCE,
        "reproduce": _commands(name, policy, taken, training, quantization, lava["environment"]["seeds"]),
        "made": {"created": made["created"], "versions": package_versions(), "machine": made["machine"]},
    }
    validate_card(card, f"card of {name}")
    refuse_paths({"card": card, "provenance": policy.provenance})
    return card


def _environment(policy: Policy) -> dict[str, Any]:
    assert policy.env_id is not None
    spec = fitting_spec(policy, policy.env_id)
    return {
        "id": policy.env_id,
        "observations": spec.obs_dim,
        "actions": len(spec.action_low),
        "action_low": spec.action_low.tolist(),
        "action_high": spec.action_high.tolist(),
        "control_step_s": spec.control_step,
        "max_episode_steps": spec.max_episode_steps,
    }


def _workload(workload: dict[str, Any]) -> dict[str, Any]:
    layers, sums = workload["layers"], workload["per_inference"]
    neurons = sum(layer["neurons"] for layer in layers)
    return {
        "backend": "lava",
        "control_steps": workload["control_steps"],
        "per_inference": sums,
        "firing_rate": sums["spikes"] / (neurons * workload["time_steps"]),
        "layers": [
            {
                **{key: layer[key] for key in ("name", "neurons", "synapses", "spikes", "firing_rate")},
                "synaptic_operations": layer["effective_acs"] + layer["effective_macs"],
            }
            for layer in layers
        ],
    }


def _energy(energy: dict[str, Any]) -> dict[str, Any]:
    """What a card keeps of a report's energies: not the curves, and not what is published of other networks."""
    return {
        **{key: energy[key] for key in ("constants_version", "unit", "models", "break_even", "exclusions")},
        "headline": energy["headline"]["id"],
        **{part: [{key: one[key] for key in FIGURE_KEYS} for one in energy[part]] for part in ("figures", "baselines")},
    }


def _commands(
    name: str,
    policy: Policy,
    taken: TakenRun,
    training: dict[str, Any],
    quantization: dict[str, Any],
    seeds: list[int],
) -> list[str]:
    """What a user types to make the policy again."""
    extra = "".join(f" --set {key}={_value(value)}" for key, value in training["beyond_recipe"].items())
    if training["seeds"] > 1:
        extra += f" --set seeds={training['seeds']}"
    if "ranks" in training["machine"]:  # they share a run's updates: another number trains another policy
        extra += f" --ranks {training['machine']['ranks']}"
    export = export_arguments(quantization["method"], quantization["bits"], taken.source, f"{name}.nir")
    bare = "" if policy.trained is not None else " --no-trained"
    return [
        f"spikerl train --recipe {training['recipe']} --seed {taken.settings.seed}{extra} --out run",
        f"spikerl {' '.join(export)}{bare}",
        f"spikerl simulate {name}.nir --backend lava --compare torch --episodes {len(seeds)} "
        f"--parallel {min(len(seeds), PARALLEL)} --seed {seeds[0]} -o report",
    ]


def export_arguments(method: str, bits: int, source: str, out: str) -> list[str]:
    """Arguments of `spikerl` that quantize a run by a method."""
    verb = ["export", source, "--to", "nir"] if method == "rounding" else ["quantize", source]
    return [*verb, "--bits", str(bits), "-o", out]


def _value(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return ",".join(map(str, value)) if isinstance(value, list) else str(value).lower() if value is None else str(value)


def refuse_paths(document: Any) -> None:
    """Refuse a document in which a text names a path from the root: it would tell of one machine.

    Raises:
        SpikerlError: names the text.
    """
    for text in _texts(document):
        found = ABSOLUTE_PATH.search(text)
        if found:
            raise SpikerlError(f"'{found[0]}' is a path of this machine and is not published", "report this as a bug")


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for key, inner in value.items():
            yield from _texts(key)
            yield from _texts(inner)
    elif isinstance(value, list | tuple):
        for inner in value:
            yield from _texts(inner)
