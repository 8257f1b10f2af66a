"""The numbers of a deployment that a reader wants first, for the top of the page and of the Markdown summary."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from spikerl_deploy.report.table import joule_span, number, percent, span
from spikerl_deploy.report.tables import VERDICTS, deployed, headline_figure

FAIREST = "cmos45/memory-aware"  # break-even on the same technology, memory accesses counted


@dataclass(frozen=True)
class Fact:
    """A number in words, with its kind where it is an energy, and what it stands on."""

    name: str
    value: str
    detail: str
    kind: str | None = None


def facts(deployment: dict[str, Any]) -> list[Fact]:
    """Return, retention, synaptic operations and energy of the deployed backend, and whether it saves any."""
    entry, workload = deployed(deployment), deployed(deployment)["workload"]
    seeds = len(deployment["environment"]["seeds"])
    over = f"{seeds} seed{'s' if seeds != 1 else ''}"
    interval = entry["return_interval"]
    within = f"interval {span(interval[0], interval[1], 4)}, " if interval else ""
    found = [Fact("Mean return", number(entry["mean_return"]), f"{within}{over}")]
    comparison = deployment["comparison"]
    if comparison:
        found.append(_retention(comparison, over))
    total = workload["per_inference"]
    share = f"{percent(total['synaptic_operations'] / total['dense'])} of dense, " if total["dense"] else ""
    detail = f"per inference, counted; {share}{workload['time_steps']} time steps"
    found.append(Fact("Synaptic operations", number(float(total["synaptic_operations"])), detail))
    figure = headline_figure(deployment)
    if figure:
        detail = f"per inference, {figure['title']}: {figure['what']}"
        found.append(Fact("Energy", joule_span(figure["low"], figure["high"]), detail, figure["kind"]))
    verdict = _against_ann(deployed(deployment)["energy"])
    return [*found, verdict] if verdict else found


def _against_ann(energy: dict[str, Any]) -> Fact | None:
    """Whether the policy saves energy on the same silicon as the quantized ANN, memory included: the fairest line."""
    line = next((one for one in energy["break_even"] if one["id"] == FAIREST), None)
    if line is None or line["here"] is None:
        return None
    value = VERDICTS[line["saves"]]
    low, high = line["threshold_low"], line["threshold_high"]
    below = "no firing rate would" if high is None else f"break-even at {percent(low or 0.0)} to {percent(high)}"
    detail = f"firing rate {percent(line['here'])}, weighted by synapses, {below}; {line['title']}"
    return Fact("Against a quantized ANN", value, detail, line["kind"])


def left_out(deployment: dict[str, Any]) -> str:
    """What the energies do not hold, as a sentence."""
    exclusions = deployed(deployment)["energy"]["exclusions"]
    return f"The energies leave out: {'; '.join(exclusions)}." if exclusions else ""


def _retention(comparison: dict[str, Any], over: str) -> Fact:
    """Retention, or the difference where the baseline's mean is not positive."""
    against = f"of {comparison['baseline']}'s return"
    if comparison["retention"] is None:
        interval = comparison["difference_interval"]
        within = f"interval {span(interval[0], interval[1])}, " if interval else ""
        against = f"in return to {comparison['baseline']}"
        return Fact("Mean difference", number(comparison["mean_difference"]), f"{within}{over}, {against}")
    interval = comparison["retention_interval"]
    within = f"interval {interval[0]:.3f} to {interval[1]:.3f}, " if interval else ""
    return Fact("Retention", f"{comparison['retention']:.3f}", f"{against}, {within}{over}, paired")
