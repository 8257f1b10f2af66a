"""A report against itself: names that must be there, lengths that must agree, figures that follow from others."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

CLOSE = 1e-9  # relative: what is stated beside its parts is what they give, but for rounding


def disagreements(document: dict[str, Any]) -> Iterator[str]:
    """What is wrong in a document that fits the schema, a sentence each.

    Only the first is to be taken: what comes after it may rest on it.
    """
    for part in ("deployments", "training"):
        yield from _twice(f"$.{part}", (entry["id"] for entry in document[part]))
    for index, deployment in enumerate(document["deployments"]):
        for problem in _in_deployment(deployment):
            yield f"$.deployments[{index}]: {problem}"
    runs = {run["id"] for run in document["training"]}
    for index, speedup in enumerate(document["speedups"]):
        for key in ("baseline", "run"):
            if speedup[key] not in runs:
                yield f"$.speedups[{index}].{key}: no training run '{speedup[key]}'"
    for index, measurement in enumerate(document["inference"]):
        for number, row in enumerate(measurement["rows"]):
            for problem in _in_measured_row(row):
                yield f"$.inference[{index}].rows[{number}]: {problem}"


def _twice(place: str, names: Iterable[str | int]) -> Iterator[str]:
    for left, right in itertools.pairwise(sorted(names)):
        if left == right:
            yield f"{place}: '{left}' comes twice"


def _close(place: str, stated: float, wanted: float, scale: float = 0.0) -> Iterator[str]:
    """`scale`: of what the wanted value was added up from, where terms may cancel."""
    if abs(stated - wanted) > CLOSE * max(abs(wanted), scale):
        yield f"{place} is {stated:.10g}, its parts give {wanted:.10g}"


def _mean(place: str, stated: float, values: Sequence[float]) -> Iterator[str]:
    yield from _close(place, stated, math.fsum(values) / len(values), max(map(abs, values)))


def _in_deployment(deployment: dict[str, Any]) -> Iterator[str]:
    backends, seeds = deployment["backends"], len(deployment["environment"]["seeds"])
    yield from _twice("environment.seeds", deployment["environment"]["seeds"])
    if deployment["backend"] not in backends:
        yield f"backend: no backend '{deployment['backend']}'"
        return
    for name, entry in backends.items():
        episodes = entry["workload"]["per_episode"]
        rows = {key: episodes[key] for key in ("synaptic_operations", "spikes", "input_spikes")}
        for key, values in {"returns": entry["returns"], "lengths": entry["lengths"], **rows}.items():
            yield from _length(f"backends.{name}.{key}", values, seeds)
        yield from _mean(f"backends.{name}.mean_return", entry["mean_return"], entry["returns"])
        yield from _close(f"backends.{name}.control_steps", entry["control_steps"], sum(entry["lengths"]))
        yield from _in_workload(f"backends.{name}.workload", entry["workload"], entry["control_steps"], seeds)
        yield from _in_energy(f"backends.{name}.energy", entry["energy"])
    yield from _in_comparison(deployment["comparison"], deployment["backend"], backends)
    for part in ("spikes", "membranes"):
        yield from _twice(f"{part}.layers", (layer["name"] for layer in (deployment[part] or {"layers": []})["layers"]))
    yield from _twice("firing_rates", (layer["name"] for layer in deployment["firing_rates"]))
    yield from _in_spikes(deployment["spikes"])
    yield from _in_membranes(deployment["membranes"])


def _in_comparison(
    comparison: dict[str, Any] | None, backend: str, backends: Mapping[str, dict[str, Any]]
) -> Iterator[str]:
    """Whether it compares the deployment with another backend, and says what their returns do."""
    if comparison is None:
        return
    baseline, place = comparison["baseline"], "comparison"
    if comparison["backend"] != backend:
        yield f"{place}.backend: '{comparison['backend']}', the deployment is '{backend}'"
    if baseline not in backends:
        yield f"{place}.baseline: no backend '{baseline}'"
        return
    if baseline == backend:
        yield f"{place}.baseline: '{baseline}' is the deployment itself"
    pairs = list(zip(backends[backend]["returns"], backends[baseline]["returns"], strict=True))
    scale = max(abs(one) for pair in pairs for one in pair)
    yield from _close(f"{place}.seeds", comparison["seeds"], len(pairs))
    yield from _length(f"{place}.differences", comparison["differences"], len(pairs))
    for difference, (ours, theirs) in zip(comparison["differences"], pairs, strict=True):
        yield from _close(f"{place}.differences", difference, ours - theirs, scale)
    mean = math.fsum(ours - theirs for ours, theirs in pairs) / len(pairs)
    yield from _close(f"{place}.mean_difference", comparison["mean_difference"], mean, scale)
    earned, of = (backends[name]["mean_return"] for name in (backend, baseline))
    if (comparison["retention"] is None) != (of <= 0):
        yield f"{place}.retention is {comparison['retention']}, and the baseline's mean return is {of:.10g}"
    elif comparison["retention"] is not None:
        yield from _close(f"{place}.retention", comparison["retention"], earned / of)


def _in_workload(place: str, workload: dict[str, Any], control_steps: int, episodes: int) -> Iterator[str]:
    """Whether the counts are the sums of the layers, and those per second and episode follow from them."""
    layers, counts, seconds = workload["layers"], workload["per_inference"], workload["control_step_s"]
    yield from _twice(f"{place}.layers", (layer["name"] for layer in layers))
    yield from _close(f"{place}.control_steps", workload["control_steps"], control_steps)
    summed = ("effective_acs", "effective_macs", "dense", "spikes", "updates_active", "updates_inactive")
    wanted = {key: math.fsum(layer[key] for layer in layers) for key in summed}
    wanted["synaptic_operations"] = wanted["effective_acs"] + wanted["effective_macs"]
    wanted["input_spikes"] = workload["input"]["spikes"]
    for key, value in wanted.items():
        yield from _close(f"{place}.per_inference.{key}", counts[key], value)
    for key, value in counts.items():
        if seconds is not None and workload["per_second"] is not None:
            yield from _close(f"{place}.per_second.{key}", workload["per_second"][key], value / seconds)
        each = value * control_steps / episodes
        yield from _close(f"{place}.per_episode.mean.{key}", workload["per_episode"]["mean"][key], each)


def _in_measured_row(row: dict[str, Any]) -> Iterator[str]:
    """Whether a measurement has an energy where its kind says so, and ranges that hold their mean."""
    energy = {key: value for key, value in (row["energy_uj"] or {}).items() if value is not None}
    if (row["kind"] == "unmeasured") != (not energy):
        yield f"kind is '{row['kind']}', and its energy is {'there' if energy else 'null'}"
    for key, value in energy.items():
        room = CLOSE * max(map(abs, value.values()))  # a mean is rounded
        if not value["low"] - room <= value["mean"] <= value["high"] + room:
            yield f"energy_uj.{key}: {value['mean']} is not between {value['low']} and {value['high']}"


def _length(place: str, values: list[Any], wanted: int) -> Iterator[str]:
    if len(values) != wanted:
        yield f"{place}: {len(values)} values, {wanted} were expected"


def _in_energy(place: str, energy: dict[str, Any]) -> Iterator[str]:
    for figure in (*energy["figures"], *energy["baselines"]):
        if figure["low"] > figure["high"]:
            yield f"{place}: '{figure['id']}' is lowest at {figure['low']} and highest at {figure['high']}"
    yield from _twice(place, (figure["id"] for figure in (*energy["figures"], *energy["baselines"])))
    if energy["headline"]["id"] not in [figure["id"] for figure in energy["figures"]]:
        yield f"{place}.headline: no figure '{energy['headline']['id']}'"
    sweep = energy.get("sweep") or {"rates": [], "figures": []}
    for figure in sweep["figures"]:
        for side in ("low", "high"):
            yield from _length(f"{place}.sweep '{figure['id']}' {side}", figure[side], len(sweep["rates"]))


def _in_spikes(spikes: dict[str, Any] | None) -> Iterator[str]:
    if spikes is None:
        return
    steps = spikes["control_steps"] * spikes["time_steps"]
    for layer in spikes["layers"]:
        yield from _length(f"spikes '{layer['name']}'", layer["neuron"], len(layer["time"]))
        for key, size in (("time", steps), ("neuron", layer["neurons"])):
            if max(layer[key], default=0) >= size:
                yield f"spikes '{layer['name']}' {key}: {max(layer[key])} is beyond {size - 1}"


def _in_membranes(membranes: dict[str, Any] | None) -> Iterator[str]:
    if membranes is None:
        return
    steps = membranes["control_steps"] * membranes["time_steps"]
    for layer in membranes["layers"]:
        yield from _length(f"membranes '{layer['name']}' threshold", layer["threshold"], len(layer["traces"]))
        for trace in layer["traces"]:
            yield from _length(f"membranes '{layer['name']}' neuron {trace['neuron']}", trace["voltage"], steps)
            if max(trace["spikes"], default=0) >= steps:
                yield f"membranes '{layer['name']}' spikes: {max(trace['spikes'])} is beyond {steps - 1}"
