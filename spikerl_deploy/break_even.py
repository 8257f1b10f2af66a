"""Where a spiking policy stops saving energy: by our own models against the quantized ANN, and by the literature."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from spikerl_deploy.energy_arithmetic import Bounds
from spikerl_deploy.energy_baselines import TECHNOLOGY, ann_formats, ann_operations
from spikerl_deploy.energy_constants import EnergyChip, EnergyChips
from spikerl_deploy.energy_figures import PJ_PER_UJ
from spikerl_deploy.energy_memory import memory_aware_ann
from spikerl_deploy.energy_models import MODELS, Model, all_firing, firing_rate, scale_activity
from spikerl_deploy.workload import Workload

SWEEP_POINTS = 41
OWN = "spikerl_deploy/data/energy.toml"
RIVALS = (  # target and model of the policy, model of the quantized ANN
    (TECHNOLOGY, "synops", "synops"),
    (TECHNOLOGY, "memory-aware", "memory-aware"),
    ("loihi1", "chip-dynamic", "memory-aware"),
    ("loihi1", "chip-total", "memory-aware"),
)


@dataclass(frozen=True)
class Line:
    """Energy against the firing rate at fixed structure, in pJ: at rest, and more for a rate of 1; low and high set.

    Exact: every model is linear in the spikes, which keep the policy's own proportions.
    """

    rest: Bounds
    slope: Bounds

    def at(self, rate: float) -> Bounds:
        return self.rest[0] + self.slope[0] * rate, self.rest[1] + self.slope[1] * rate

    def rate_of(self, energy: float, end: int) -> float | None:
        """The rate, at most 1, up to which one of the two lines stays below an energy; None where it never does."""
        if energy < self.rest[end]:
            return None
        room, slope = energy - self.rest[end], self.slope[end]
        return 1.0 if room >= slope else room / slope


def energy_line(workload: Workload, chip: EnergyChip, model: Model) -> Line:
    """The policy's energy against its firing rate; a policy that never fires is taken to fire evenly."""
    rate = firing_rate(workload)
    base, rate = (workload, rate) if rate else (all_firing(workload), 1.0)
    rest, full = model.energy(scale_activity(base, 0.0), chip), model.energy(base, chip)
    return Line(rest, ((full[0] - rest[0]) / rate, (full[1] - rest[1]) / rate))


@dataclass(frozen=True)
class Published:
    """A break-even of the literature, in spikes a neuron and time step or spikes a synapse and inference."""

    id: str
    title: str
    what: str
    quantity: str
    low: float
    high: float
    source: str
    time_steps: int | None = None  # that it holds for


PUBLISHED = (
    Published(
        "yan2024", "Yan et al. 2024",
        "firing rate below which an SNN of T = 5 spends less than its quantized ANN of 3 bits: 5.7 %, in a range of "
        "hardware 3.4 to 10.8 %",
        "firing rate", 0.034, 0.108,
        "Yan, Bai, Tang and Wong 2024, arXiv 2409.08290v4: 5.7 % in the abstract; the range could not be checked", 5,
    ),
    Published(
        "davidson2021", "Davidson and Furber 2021",
        "spikes a synapse and inference below which a rate-coded SNN spends less",
        "spikes per synapse", 1.72, 1.72,
        "Davidson and Furber 2021, Frontiers in Neuroscience 15:651141; the figure could not be checked",
    ),
    Published(
        "dampfhoffer2022", "Dampfhoffer et al. 2022",
        "spikes a synapse and inference below which an SNN spends less; the range is over hardware",
        "spikes per synapse", 0.15, 1.38,
        "Dampfhoffer, Mesquida, Valentian and Anghel 2022, IEEE TETCI 7(3); the figures could not be checked",
    ),
)  # fmt: skip


def break_even(workload: Workload, ann_sizes: Sequence[int], chips: EnergyChips) -> list[dict[str, Any]]:
    """Every break-even with where this policy stands; `saves` is None within the range or where it cannot be said."""
    own = [_own(workload, ann_sizes, chips, *rival) for rival in RIVALS if _holds(workload, chips, *rival[:2])]
    return own + [_published(each, workload) for each in PUBLISHED]


def sweep(workload: Workload, ann_sizes: Sequence[int], chips: EnergyChips) -> dict[str, Any]:
    """Energy in uJ against the firing rate, up to where a layer would fire in every time step; the ANN's is flat."""
    here, rivals = firing_rate(workload), [rival for rival in RIVALS[:3] if _holds(workload, chips, *rival[:2])]
    most = _busiest(workload)
    top = here / most if most else 1.0
    rates = [top * place / (SWEEP_POINTS - 1) for place in range(SWEEP_POINTS)]
    lines = {}
    for target, name, ann_model in rivals:
        chip = chips.chips[target]
        lines[f"{target}/{name}"] = energy_line(workload, chip, _model(name, workload, chip))
        rival, energy = _quantized_ann(workload, ann_sizes, chips, ann_model)
        lines[rival] = Line(energy, (0.0, 0.0))
    figures = []
    for name, line in lines.items():
        ends = [sorted(line.at(rate)) for rate in rates]
        low, high = ([end[side] / PJ_PER_UJ for end in ends] for side in (0, 1))
        figures.append({"id": name, "low": low, "high": high})
    return {"rates": rates, "figures": figures, "here": here}


def _busiest(workload: Workload) -> float:
    """Largest mean firing rate of the inputs or a layer."""
    pools = [(layer.input_events, layer.n_in) for layer in workload.layers]
    pools += [(layer.spikes, layer.neurons) for layer in workload.layers]
    return max(spikes / (size * workload.time_steps) for spikes, size in pools)


def _own(
    workload: Workload, ann_sizes: Sequence[int], chips: EnergyChips, target: str, name: str, ann_model: str
) -> dict[str, Any]:
    chip = chips.chips[target]
    line = energy_line(workload, chip, _model(name, workload, chip))
    rival, (ann_low, ann_high) = _quantized_ann(workload, ann_sizes, chips, ann_model)
    worst = [line.rate_of(ann_low, end) for end in (0, 1)]
    best = [rate for end in (0, 1) if (rate := line.rate_of(ann_high, end)) is not None]
    low = None if None in worst else min(rate for rate in worst if rate is not None)
    other = "" if target == TECHNOLOGY else f", which is {chips.chips[TECHNOLOGY].title}: another technology"
    return {
        "id": f"{target}/{name}",
        "title": f"{chip.title}, {name}",
        "what": f"firing rate at which this policy, its spikes scaled, spends what {rival} spends{other}",
        "quantity": "firing rate",
        **_verdict(firing_rate(workload), low, max(best, default=None)),
        "source": f"our own model, constants of {OWN}",
    }


def _published(each: Published, workload: Workload) -> dict[str, Any]:
    rate = firing_rate(workload)
    here = rate if each.quantity == "firing rate" else rate * workload.time_steps
    holds = each.time_steps in (None, workload.time_steps)
    verdict = _verdict(here, each.low, each.high)
    if not holds:
        verdict |= {"threshold_low": None, "threshold_high": None, "saves": None}
    return {
        "id": each.id,
        "title": each.title,
        "what": each.what + ("" if holds else f"; nothing is published for T = {workload.time_steps}"),
        "quantity": each.quantity,
        **verdict,
        "source": each.source,
    }


def _verdict(here: float, low: float | None, high: float | None) -> dict[str, Any]:
    """Saves below the range, does not above it; no threshold at all is one that nothing is below."""
    saves = None
    if low is not None and here < low:
        saves = True
    elif high is None or here > high:
        saves = False
    return {"threshold_low": low, "threshold_high": high, "here": here, "saves": saves, "kind": "modelled"}


def _quantized_ann(workload: Workload, ann_sizes: Sequence[int], chips: EnergyChips, model: str) -> tuple[str, Bounds]:
    """Id and energy of the quantized ANN that T time steps of spikes are compared with."""
    technology = chips.chips[TECHNOLOGY]
    name, numbers = list(ann_formats(technology, workload.time_steps).items())[-1]
    if model == "synops":
        return f"{name}/{model}", ann_operations(ann_sizes, numbers)
    return f"{name}/{model}", memory_aware_ann(ann_sizes, technology, numbers)


def _model(name: str, workload: Workload, chip: EnergyChip) -> Model:
    return next(model for model in MODELS if model.name == name and model.holds(workload, chip))


def _holds(workload: Workload, chips: EnergyChips, target: str, name: str) -> bool:
    return any(model.name == name and model.holds(workload, chips.chips[target]) for model in MODELS)
