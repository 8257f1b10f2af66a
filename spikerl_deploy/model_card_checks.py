"""What a card says of itself that is not so: what follows from its own numbers, and no schema can say."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterator, Mapping
from itertools import chain
from typing import Any

NEAR = 1e-9  # relative difference of sums and means that were added up in another order
LAYER_SUMS = ("spikes", "synaptic_operations")


def disagreements(card: Mapping[str, Any]) -> Iterator[str]:
    """What is wrong with a card that fits its schema, a line each."""
    return chain(_identity(card), _training(card), _seeds(card), _returns(card), _workload(card), _energy(card))


def _near(one: float, other: float) -> bool:
    return math.isclose(one, other, rel_tol=NEAR, abs_tol=NEAR)


def _identity(card: Mapping[str, Any]) -> Iterator[str]:
    name, policy, env_id = card["name"], card["policy"], card["environment"]["id"]
    if policy["file"] != f"{name}.nir":
        yield f"its file is '{policy['file']}', its name '{name}'"
    if name != env_id.lower():
        yield f"its name is '{name}', its environment {env_id}"
    if policy["neurons"] != sum(policy["sizes"][1:]):
        yield f"{policy['neurons']} neurons, its layers have {sum(policy['sizes'][1:])}"
    if policy["bits"] != card["quantization"]["bits"]:
        yield f"the policy has {policy['bits']} bits, its quantization {card['quantization']['bits']}"
    if (card["quantization"]["calibration"] is not None) != (card["quantization"]["method"] == "calibration"):
        yield f"its method is {card['quantization']['method']}, its calibration {card['quantization']['calibration']}"
    if policy["float_weights"] != (card["evaluation"]["float_policy"] == "in the file"):
        yield f"float weights in the file: {policy['float_weights']}; float policy {card['evaluation']['float_policy']}"


def _training(card: Mapping[str, Any]) -> Iterator[str]:
    training = card["training"]
    done, asked = training["steps_done"], training["steps_asked"]
    if training["checkpoint"]["step"] > done:
        yield "its checkpoint is later than the steps done"
    if training["finished"] != (training["stopped"] is not None):
        yield f"finished is {training['finished']}, it stopped by {training['stopped']}"
    if training["stopped"] == "steps" and done < asked:
        yield f"it ended by its steps, and had done {done:,} of {asked:,}"
    if training["selection"]["of_seeds"] < training["seeds"]:
        yield f"{training['seeds']} seeds trained, chosen among {training['selection']['of_seeds']}"


def seeds_that_chose(card: Mapping[str, Any]) -> dict[str, range | list[int]]:
    """Seeds of the episodes that decided something, by what they decided; of a calibration, those that may be."""
    selection, quantization = card["training"]["selection"], card["quantization"]
    first = selection["first_seed"]
    chose: dict[str, range | list[int]] = {"the checkpoint": range(first, first + selection["episodes"])}
    if quantization["selection"] is not None:
        chose["the quantization"] = quantization["selection"]["seeds"]
    if quantization["calibration"] is not None:  # the episodes count up from there until the steps are recorded
        chose["the calibration"] = range(quantization["calibration"]["first_seed"], 2**63)
    return chose


def _seeds(card: Mapping[str, Any]) -> Iterator[str]:
    seeds = card["evaluation"]["seeds"]
    if len(set(seeds)) != len(seeds):
        yield "a seed comes twice"
    for what, chose in seeds_that_chose(card).items():
        both = [seed for seed in seeds if seed in chose]
        if both:
            yield f"seed {both[0]} is reported and had a part in choosing {what}"


def _returns(card: Mapping[str, Any]) -> Iterator[str]:
    evaluation = card["evaluation"]
    seeds, backends = evaluation["seeds"], evaluation["backends"]
    for name, entry in backends.items():
        returns = entry["returns"]
        if len(returns) != len(seeds):
            yield f"{name} has {len(returns)} returns, there are {len(seeds)} seeds"
            return
        if not _near(statistics.fmean(returns), entry["mean_return"]):
            yield f"the mean return of {name} is not the mean of its returns"
        spread = statistics.stdev(returns) if len(returns) > 1 else None
        if spread is None or entry["std_return"] is None:
            if entry["std_return"] is not spread:
                yield f"the std of {name} is {entry['std_return']}, there are {len(returns)} returns"
        elif not math.isclose(spread, entry["std_return"], rel_tol=1e-6, abs_tol=NEAR * max(map(abs, returns))):
            yield f"the std of {name} is not that of its returns"
        yield from _within(f"the mean return of {name}", entry["mean_return"], entry["return_interval"])
    base = backends["torch"]["mean_return"]
    for name, entry in evaluation["comparisons"].items():
        mean = backends[name]["mean_return"]
        if entry["retention"] is None or base <= 0:
            if entry["retention"] is not None or base > 0:
                yield f"the retention on {name} is {entry['retention']}, the float return {base:g}"
        elif not _near(entry["retention"], mean / base):
            yield f"the retention on {name} is not the ratio of the mean returns"
        if not math.isclose(entry["mean_difference"], mean - base, rel_tol=NEAR, abs_tol=NEAR * max(1.0, abs(base))):
            yield f"the mean difference on {name} is not that of the mean returns"
        yield from _within(f"the retention on {name}", entry["retention"], entry["retention_interval"])
        yield from _within(f"the mean difference on {name}", entry["mean_difference"], entry["difference_interval"])


def _within(what: str, value: float | None, interval: list[float] | None) -> Iterator[str]:
    """Whether a mean lies in the interval of it, which resampling gave: that of the same returns always does."""
    if interval is None:
        return
    low, high = interval
    room = NEAR * max(1.0, abs(low), abs(high))
    if value is None or not low - room <= value <= high + room:
        yield f"{what}, {value}, is not within its interval, {low} to {high}"


def _workload(card: Mapping[str, Any]) -> Iterator[str]:
    workload, policy = card["workload"], card["policy"]
    layers, sums = workload["layers"], workload["per_inference"]
    neurons = [layer["neurons"] for layer in layers]
    if neurons != policy["sizes"][1:]:
        yield f"the layers of its workload have {neurons} neurons, its sizes {policy['sizes'][1:]}"
    if sum(layer["synapses"] for layer in layers) != policy["synapses"]:
        yield f"{policy['synapses']} synapses, its layers have {sum(layer['synapses'] for layer in layers)}"
    for key in LAYER_SUMS:
        if not _near(math.fsum(layer[key] for layer in layers), sums[key]):
            yield f"the {key.replace('_', ' ')} of its layers do not add up to those of an inference"
    if not _near(workload["firing_rate"], sums["spikes"] / (policy["neurons"] * policy["time_steps"])):
        yield "its firing rate is not that of its spikes"


def _energy(card: Mapping[str, Any]) -> Iterator[str]:
    headline, figures = card["energy"]["headline"], card["energy"]["figures"]
    if headline not in [figure["id"] for figure in figures]:
        yield f"its headline energy '{headline}' is none of its figures"
    for figure in figures:
        if not 0 <= figure["low"] <= figure["high"]:
            yield f"the energy '{figure['id']}' is {figure['low']} to {figure['high']}"
        if figure["kind"] == "measured":
            yield f"the energy '{figure['id']}' is called measured, and no simulator measures a chip's"
