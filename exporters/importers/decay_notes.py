"""Decays that a core has in float and no chip has in its 12 bits: what the integers will keep instead."""

from __future__ import annotations

from collections.abc import Iterable

from spikerl_deploy.loihi import DECAY_UNITY, current_decay_code, kept_fractions, voltage_decay_code
from spikerl_deploy.policy import SpikingLayer


def decay_notes(layers: Iterable[SpikingLayer]) -> tuple[str, ...]:
    """A note for each decay whose nearest multiple of 1/4096 has no code, so that quantizing moves it further."""
    notes: dict[str, None] = {}  # ordered; layers mostly share their decays
    for layer in layers:
        kept = kept_fractions(current_decay_code(layer.current_decay), voltage_decay_code(layer.voltage_decay))
        for name, share in zip(("current", "voltage"), kept, strict=True):
            decay = getattr(layer, f"{name}_decay")
            if abs(share - decay) > 0.5 / DECAY_UNITY:
                notes[
                    f"{name}_decay {decay:.9g} has no code in a chip's 12 bits: the integers of a quantized core keep "
                    f"{round(share * DECAY_UNITY)}/{DECAY_UNITY} of the {name} each time step, rounded towards 0; "
                    "the float core is exact"
                ] = None
    return tuple(notes)
