"""NIR files that other frameworks wrote, as cores: what each of them means by its file, where NIR leaves it open.

docs/import.md has the table of these conventions, with the versions in which they were seen.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import nir
import numpy as np

from exporters.importers.decay_notes import decay_notes
from spikerl_deploy.errors import SpikerlError, unknown
from spikerl_deploy.nir_chain import chain_nodes
from spikerl_deploy.nir_core import RELATIVE_TOLERANCE, layers_from_graph
from spikerl_deploy.nir_file import READ_ERRORS, one_line, read_graph
from spikerl_deploy.policy import Policy, is_positive_scalar

HINT = "give a .nir file of a feed-forward spiking network"


@dataclass(frozen=True)
class Maker:
    """How a framework's NIR files are to be read.

    Attributes:
        dt: seconds a time step that it takes when none is stated.
        fires_at_threshold: spikes on v >= v_threshold, not on v > v_threshold.
        unit_gain: writes w_in = tau_syn / dt and r = tau / dt, so that another gain shows another dt.
        scaled_taus: writes time constants times dt, and leaves out the input gain of its CubaLIF (norse#411).
        note: what its files do not say, for the user to know.
    """

    dt: float = 1e-4
    fires_at_threshold: bool = False
    unit_gain: bool = False
    scaled_taus: bool = False
    note: str | None = None


MAKERS = {
    "nir": Maker(),
    "snntorch": Maker(
        unit_gain=True,
        note="snnTorch's files do not say how its neurons reset; the core resets to zero at once, as NIR says and as "
        'reset_mechanism="zero", reset_delay=False does',
    ),
    "norse": Maker(dt=1e-3, scaled_taus=True),
    "spikingjelly": Maker(fires_at_threshold=True),
}


def import_nir(
    path: Path, made_by: str = "nir", dt: float | None = None, time_steps: int = 5
) -> tuple[Policy, tuple[str, ...]]:
    """The core in a NIR file, and what its user should know of it.

    Args:
        made_by: a name of `MAKERS`.
        dt: seconds a time step; by default what the file's metadata states, else what its maker takes.
        time_steps: T, time steps a control step.

    Raises:
        SpikerlError: the file cannot be read, is a policy file, or holds what a core cannot honour (by node name).
    """
    if made_by not in MAKERS:
        raise unknown("maker of NIR files", made_by, MAKERS)
    maker, graph = MAKERS[made_by], _read(path)
    if "spikerl.format" in graph.metadata:
        raise SpikerlError(f"'{path}' is a policy file already", f"use it as it is: spikerl inspect {path}")
    stated = dt if dt is not None else graph.metadata.get("dt", maker.dt)
    try:
        step = float(stated)
        if not is_positive_scalar(step):
            raise SpikerlError(f"dt {step} s is not a positive time step", "give --dt in seconds")
        notes = [maker.note] if maker.note else []
        notes += _apply(maker, graph, step)
        layers = layers_from_graph(graph, step, maker.fires_at_threshold)
        policy = Policy(layers=layers, time_steps=time_steps, dt=step)
    except SpikerlError as error:
        raise SpikerlError(f"'{path}': {error.message}", error.hint or "docs/import.md lists what is read") from error
    except READ_ERRORS as error:
        raise SpikerlError(f"'{path}' has broken nodes or metadata: {one_line(error)}", HINT) from error
    return policy, (*notes, *decay_notes(layers))


def _read(path: Path) -> nir.NIRGraph:
    if not path.is_file():
        raise SpikerlError(f"no NIR file at '{path}'", HINT)
    return read_graph(path, HINT)


@np.errstate(over="ignore", divide="ignore", invalid="ignore")  # such gains fit no core and are refused later
def _apply(maker: Maker, graph: nir.NIRGraph, dt: float) -> list[str]:
    """Bring the neurons to NIR's meaning, and notes on what was found."""
    notes, unscaled = [], []
    for name, node in chain_nodes(graph):
        if not isinstance(node, nir.CubaLIF | nir.LIF):
            continue
        if maker.scaled_taus and _unscale(name, node, dt):
            unscaled.append(name)
        gains = _gains(node, dt)
        if maker.unit_gain and not all(np.allclose(gain, 1.0, rtol=RELATIVE_TOLERANCE, atol=0) for gain in gains):
            shown = ", ".join(f"{np.ravel(gain)[0]:g}" for gain in gains)
            notes.append(
                f"node '{name}' has an input gain of {shown} at dt {dt:g} s, where its maker writes 1: is dt right?"
            )
    if unscaled:
        names = ", ".join(map(repr, unscaled))
        notes.append(f"time constants of {names} were divided by dt, by which Norse multiplies them (norse#411)")
    return notes


def _gains(node: nir.CubaLIF | nir.LIF, dt: float) -> list[np.ndarray]:
    """Factors of the input in forward Euler: r dt / tau, and w_in dt / tau_syn where there is a current."""
    if isinstance(node, nir.LIF):
        return [np.asarray(node.r) * dt / np.asarray(node.tau)]
    return [
        np.asarray(node.w_in) * dt / np.asarray(node.tau_syn),
        np.asarray(node.r) * dt / np.asarray(node.tau_mem),
    ]


def _unscale(name: str, node: nir.CubaLIF | nir.LIF, dt: float) -> bool:
    """Take Norse's factor dt off the time constants, if it is there: with it they are shorter than dt."""
    if np.any(node.v_leak):
        raise SpikerlError(f"NIR node '{name}' has v_leak other than 0, where Norse starts and a core does not")
    fields = ("tau",) if isinstance(node, nir.LIF) else ("tau_mem", "tau_syn")
    if not all(np.all(np.asarray(getattr(node, field)) < dt * (1 - RELATIVE_TOLERANCE)) for field in fields):
        return False
    for field in fields:
        setattr(node, field, np.asarray(getattr(node, field), dtype=np.float64) / dt)
    if isinstance(node, nir.CubaLIF):
        node.w_in = node.tau_syn / dt  # Norse's LIFCell adds its input to the current undivided
    return True
