"""What a reader of a report must know before believing it, found in the document itself, a sentence each."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from spikerl_deploy.report.tables import deployed

FEW_SEEDS = 10  # below it, a percentile bootstrap is visibly too narrow
GRAPH_WEIGHTS = "weights of the NIR graph"  # how backends say that they do not run those as trained
Document = Mapping[str, Any]


def report_warnings(document: Document) -> list[str]:
    """The warnings of a report, in the order of its parts, each once."""
    lines: list[str] = []
    for deployment in document["deployments"]:
        lines += [f"{deployment['title']}: {line}" for line in _of_deployment(deployment)]
    lines += _between(document["deployments"])
    for run in document["training"]:
        lines += [f"training {run['title']}: {line}" for line in _of_run(run)]
    for verification in document["conformance"]:
        lines += [f"verification {verification['title']}: {line}" for line in _of_verification(verification)]
    for measurement in document["inference"]:
        lines += [f"energy of {measurement['policy']['file']}: {line}" for line in measurement["warnings"]]
    return list(dict.fromkeys(lines))


def _of_deployment(deployment: Document) -> Iterator[str]:
    environment, comparison = deployment["environment"], deployment["comparison"]
    seeds = len(environment["seeds"])
    if seeds < FEW_SEEDS:
        what = "intervals are only as wide as those episodes" if seeds > 1 else "no interval, one episode says little"
        yield f"{seeds} seed{'s' if seeds > 1 else ''}: {what}"
    if comparison is not None and comparison["retention"] is None:
        yield "retention is undefined: the baseline's mean return is not positive"
    if comparison is not None and _baseline_is_quantized(deployment):
        yield (
            f"its baseline, {comparison['baseline']}, ran the {GRAPH_WEIGHTS} in floating point: the values of the "
            "integers, so retention does not say what quantization cost"
        )
    if environment["perturbation"] is not None:
        perturbation = environment["perturbation"]
        yield f"perturbed on {' and '.join(perturbation['backends'])}: {perturbation['words']}"
    for layer in deployed(deployment)["workload"]["layers"]:
        if layer["spikes"] == 0:
            yield f"{layer['name']} never spiked: what follows it costs no operation, and does nothing"
    if environment["control_step_s"] is None:
        yield "its control rate is unknown: nothing is stated per second, nor with static power"


def _baseline_is_quantized(deployment: Document) -> bool:
    """Whether a float baseline ran the values of the integers, and not the weights as trained."""
    baseline = deployment["backends"][deployment["comparison"]["baseline"]]
    return deployment["policy"]["bits"] is not None and baseline["runs"].endswith(GRAPH_WEIGHTS)


def _between(deployments: Sequence[Document]) -> Iterator[str]:
    """What keeps deployments from being compared with the first one of their environment."""
    first: dict[str, Document] = {}
    for right in deployments:
        left = first.setdefault(right["environment"]["id"], right)
        both = f"{left['title']} and {right['title']}"
        if left["environment"]["seeds"] != right["environment"]["seeds"]:
            yield f"{both} played different seeds: their returns are not paired"
        if left["environment"]["perturbation"] != right["environment"]["perturbation"]:
            yield f"{both} were not perturbed alike"
        versions = [_constants(deployment) for deployment in (left, right)]
        if versions[0] != versions[1]:
            yield f"{both}: energies of different constants, versions {versions[0]} and {versions[1]}"
        machines = [deployment["manifest"].get("machine") for deployment in (left, right)]
        if machines[0] != machines[1]:
            yield f"{both} ran on different machines: their wall times do not compare"


def _constants(deployment: Document) -> str:
    return str(deployed(deployment)["energy"]["constants_version"])


def _of_run(run: Document) -> Iterator[str]:
    if not run["finished"]:
        yield f"not finished ({run['stopped'] or 'no result.json'})"
    if run["energy"] is None:
        yield "its energy is unmeasured"
    elif run["energy"]["kind"] == "modelled":
        yield "its energy is modelled, at least in part"


def _of_verification(verification: Document) -> Iterator[str]:
    failed = [row["name"] for row in verification["rows"] if row["status"] in ("failed", "error")]
    if failed or not verification["passed"]:
        yield f"not passed{': ' + ', '.join(failed) if failed else ''}"
    for layer, spikes in enumerate(verification["reference"]["spikes"]):
        if spikes == 0:
            yield f"layer {layer} never spikes: agreement there says little"
