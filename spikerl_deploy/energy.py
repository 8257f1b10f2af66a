"""Modelled energy of an inference: the policy on every target under every model, its rivals, and its break-even.

Every figure is an estimate and a lower bound: constants that their sources give, without what EXCLUSIONS lists.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from spikerl_deploy.break_even import break_even, sweep
from spikerl_deploy.chips import load_chip_file
from spikerl_deploy.energy_baselines import baselines
from spikerl_deploy.energy_constants import CHIP_NAMES, EnergyChip, EnergyChips, built_in_energy
from spikerl_deploy.energy_figures import figure
from spikerl_deploy.energy_models import MODELS, Model
from spikerl_deploy.errors import SpikerlError
from spikerl_deploy.workload import Workload

__all__ = ["EXCLUSIONS", "HEADLINE", "EnergyChips", "estimate_energy", "load_energy_chips"]
HEADLINE = "loihi1/chip-dynamic"
NAME = re.compile(r"[A-Za-z0-9_.-]+")
BASELINE_NAME = re.compile(r"(ann|snn)-.*|(fp|int)\d+")  # with their prefixes, ids of figures stay apart
EXCLUSIONS = (
    "encoder and decoder on the host",
    "input and output of the chip, and a chip's own host processor",
    "barrier synchronisation between time steps",
    "spike routing beyond one tile",
    "static power, except in chip-total",
    "training",
    "making the hardware",
)


def load_energy_chips(extra: Path | None = None) -> EnergyChips:
    """The built-in energy constants, and those of a user's chip file beside them.

    Raises:
        SpikerlError: the file cannot be read, breaks the schema, states no energy, or has name or title of a built-in
            chip.
    """
    built_in = built_in_energy()
    if extra is None:
        return built_in
    _, added = load_chip_file(extra)
    if not added:
        raise SpikerlError(f"'{extra}' states no energy, only limits", "docs/fit.md has the schema of [NAME.energy]")
    titles = {chip.title.casefold() for chip in built_in.chips.values()}
    for name, chip in added.items():
        if chip.title.strip().casefold() in titles:
            raise SpikerlError(
                f"'{extra}': chip '{name}' has the title '{chip.title}' of a built-in one", "give it another title"
            )
        if name in built_in.chips:
            raise SpikerlError(f"'{extra}': energy of chip '{name}' is built in already", "give it another name")
        if not NAME.fullmatch(name) or BASELINE_NAME.fullmatch(name):
            raise SpikerlError(
                f"'{extra}': '{name}' cannot name a figure: letters, digits, '_', '.' and '-', and no baseline's name",
                "give the chip another name",
            )
    return EnergyChips(built_in.version, {**built_in.chips, **added})


def estimate_energy(workload: Workload, ann_sizes: Sequence[int], chips: EnergyChips) -> dict[str, Any]:
    """Modelled energy of one inference, as report.json holds it (docs/report.md).

    Args:
        ann_sizes: layer sizes of the dense ANN of the same task: observation, hidden, action.

    Raises:
        SpikerlError: sizes that are those of no ANN.
    """
    found = [
        _figure(workload, chip, model)
        for chip in chips.chips.values()
        for model in MODELS
        if model.holds(workload, chip)
    ]
    return {
        "constants_version": chips.version,
        "unit": "uJ per inference",
        "models": [{"model": each.name, "title": each.title, "what": each.what} for each in _distinct_models()],
        "figures": found,
        "baselines": baselines(workload, ann_sizes, chips),
        "break_even": break_even(workload, ann_sizes, chips),
        "sweep": sweep(workload, ann_sizes, chips),
        "references": [each for chip in chips.chips.values() for each in _references(chip)],
        "headline": {"id": HEADLINE},
        "exclusions": list(EXCLUSIONS),
    }


def _distinct_models() -> list[Model]:
    """One a name: a chip's synaptic operation and an addition are the same model."""
    return list({model.name: model for model in reversed(MODELS)}.values())[::-1]


def _figure(workload: Workload, chip: EnergyChip, model: Model) -> dict[str, Any]:
    notes = [chip.note] if chip.note else []
    if model.name.startswith("chip-"):
        absent = [name for name in CHIP_NAMES if name not in chip.constants and name != "neuron_update_active"]
        if absent:
            notes.append(f"not published and left out: {', '.join(absent)}")
    return figure(
        chip.name,
        chip.title,
        model.name,
        model.what,
        model.energy(workload, chip),
        control_step_s=workload.control_step_s,
        constants=chip.values(*model.uses),
        licence=chip.licence,
        note="; ".join(notes),
    )


def _references(chip: EnergyChip) -> list[dict[str, Any]]:
    return [
        {
            "target": chip.name,
            "title": chip.title,
            "what": each.what,
            "value": each.value,
            "spread": each.spread,
            "unit": each.unit,
            "kind": each.kind,
            "source": each.source,
            "note": each.note,
        }
        for each in chip.references
    ]
