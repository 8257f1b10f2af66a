"""Policies that PopSAN or SpikeRL trained: a state dict and the statistics of its observations become a policy.

Names, shapes and equations are those of PopSAN (Tang et al. 2020, https://arxiv.org/abs/2010.09635) and its
published TD3 and DDPG actors, which SpikeRL's actor shares.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Set
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from exporters.importers.decay_notes import decay_notes
from exporters.importers.pickled_arrays import read_vectors
from exporters.importers.torch_tensors import read_state_dict
from spikerl_deploy.environments import EnvironmentSpec
from spikerl_deploy.errors import SpikerlError
from spikerl_deploy.policy import (
    Coding,
    Float,
    Normalization,
    Policy,
    PopulationDecoder,
    PopulationEncoder,
    SpikingLayer,
)

WRAPPERS = ("state_dict", "model_state_dict", "actor")
PARALLEL_PREFIX = "module."  # of DistributedDataParallel
VARIANCE_EPSILON = float(np.finfo(np.float32).eps)  # PopSAN adds it to the variance before the root
ACTOR_HINT = "an actor of PopSAN or SpikeRL is expected, as docs/import.md describes it"
CONSTANTS_HINT = "leave the option out for PopSAN's own value: spikerl import popsan --help"
_HIDDEN = re.compile(r"snn\.hidden_layers\.(\d+)\.(?:weight|bias)")
_NDIM = {"encoder.mean": 3, "encoder.std": 3, "decoder.decoder.weight": 3, "weight": 2, "bias": 1}


@dataclass(frozen=True)
class PopsanConstants:
    """What the reference code holds in constants, not in its files; the defaults are those of the publication.

    Attributes:
        time_steps: T. current_decay, voltage_decay, v_threshold: of every neuron.
        coding, encoder_threshold: of the population encoder.
        clip: bound of the normalised observation. epsilon: added to the variance.
    """

    time_steps: int = 5
    current_decay: float = 0.5
    voltage_decay: float = 0.75
    v_threshold: float = 0.5
    coding: Coding = "regular"
    encoder_threshold: float = 0.999
    clip: float = 3.0
    epsilon: float = VARIANCE_EPSILON


def import_popsan(
    model: Path,
    stats: Path | None,
    env_id: str,
    spec: EnvironmentSpec,
    constants: PopsanConstants | None = None,
) -> tuple[Policy, tuple[str, ...]]:
    """The float policy of a PopSAN or SpikeRL checkpoint, and what its user should know of it.

    Args:
        model: torch state dict, by itself or under one of `WRAPPERS`, with or without DDP's prefix.
        stats: pickled list [mean, var] of the observation; None for a policy trained on raw observations.
        env_id, spec: the environment that it acts in.

    Raises:
        SpikerlError: a file cannot be read, a key is missing, unknown or misshapen, or the environment has other sizes.
    """
    constants = constants or PopsanConstants()
    state = read_state_dict(model, WRAPPERS, PARALLEL_PREFIX, lambda keys: _check_keys(model, keys))
    _check_shapes(model, state)
    _check_sizes(state, env_id, spec)
    std = np.abs(state["encoder.std"][0])  # the equation squares it
    if not std.all():
        raise SpikerlError(f"'{model}': 'encoder.std' holds a zero", "import another checkpoint")
    neuron = (constants.current_decay, constants.voltage_decay, constants.v_threshold)
    decoder = state["decoder.decoder.weight"][:, 0], state["decoder.decoder.bias"]
    try:
        policy = Policy(
            layers=tuple(
                SpikingLayer(state[f"{name}.weight"], state[f"{name}.bias"], *neuron) for name in _layer_names(state)
            ),
            time_steps=constants.time_steps,
            normalization=_normalization(stats, spec.obs_dim, constants) if stats is not None else None,
            encoder=PopulationEncoder(state["encoder.mean"][0], std, constants.coding, constants.encoder_threshold),
            decoder=PopulationDecoder(*decoder, spec.action_low, spec.action_high),
            env_id=env_id,
        )
    except SpikerlError as error:  # without a hint it is one of the constants: the files were checked
        raise SpikerlError(error.message, error.hint or CONSTANTS_HINT) from error
    return policy, (*_notes(env_id, spec), *decay_notes(policy.layers))


def _layer_names(keys: Iterable[str]) -> list[str]:
    count = len({found[1] for key in keys if (found := _HIDDEN.fullmatch(key))})
    return [f"snn.hidden_layers.{index}" for index in range(max(count, 1))] + ["snn.out_pop_layer"]


def _check_keys(model: Path, keys: Set[str]) -> None:
    """The keys must be those of PopSAN's actor, and no others."""
    expected = {"encoder.mean", "encoder.std"}
    expected |= {f"{name}.{part}" for name in (*_layer_names(keys), "decoder.decoder") for part in ("weight", "bias")}
    for what, some in (("lacks", expected - keys), ("has the unknown", keys - expected)):
        if some:
            names = ", ".join(f"'{key[:80]}'" for key in sorted(some)[:8]) + (", ..." if len(some) > 8 else "")
            raise SpikerlError(f"'{model}' {what} {'key' if len(some) == 1 else 'keys'} {names}", ACTOR_HINT)


def _check_shapes(model: Path, state: dict[str, Float]) -> None:
    """The shapes must fit each other."""

    def check(key: str, shape: tuple[int, ...], because: str) -> None:
        if state[key].shape != shape:
            raise SpikerlError(
                f"'{model}': '{key}' has shape {state[key].shape}, expected {shape} {because}", ACTOR_HINT
            )

    for key, array in state.items():
        ndim = _NDIM.get(key) or _NDIM[key.rsplit(".", 1)[1]]
        if array.ndim != ndim or not array.size:
            raise SpikerlError(f"'{model}': '{key}' has shape {array.shape}, {ndim} dimensions expected", ACTOR_HINT)
    _, obs_dim, population = state["encoder.mean"].shape
    check("encoder.mean", (1, obs_dim, population), "[1, observations, population]")
    check("encoder.std", state["encoder.mean"].shape, "as encoder.mean")
    n_in = obs_dim * population
    for name in _layer_names(state):
        n_out = state[f"{name}.weight"].shape[0]
        check(f"{name}.weight", (n_out, n_in), f"[neurons, {n_in} inputs]")
        check(f"{name}.bias", (n_out,), "as its weight")
        n_in = n_out
    act_dim, _, population = state["decoder.decoder.weight"].shape
    check("decoder.decoder.weight", (act_dim, 1, population), "[actions, 1, population]")
    check("decoder.decoder.bias", (act_dim,), "as its weight")
    if act_dim * population != n_in:
        raise SpikerlError(
            f"'{model}': the decoder reads {act_dim} x {population} neurons, 'snn.out_pop_layer' has {n_in}", ACTOR_HINT
        )


def _check_sizes(state: dict[str, Float], env_id: str, spec: EnvironmentSpec) -> None:
    """The environment must have the sizes of the checkpoint."""
    sizes = (state["encoder.mean"].shape[1], state["decoder.decoder.weight"].shape[0])
    theirs = (spec.obs_dim, len(spec.action_low))
    if sizes != theirs:
        raise SpikerlError(
            f"the checkpoint takes {sizes[0]} observations and gives {sizes[1]} actions, "
            f"'{env_id}' has {theirs[0]} and {theirs[1]}",
            "give --env the one it was trained in; versions of an environment differ (v2 to v4 of Ant, Humanoid and "
            "InvertedDoublePendulum observe other values than v5)",
        )


def _normalization(stats: Path, obs_dim: int, constants: PopsanConstants) -> Normalization:
    """(o - mean) / sqrt(var + epsilon), clipped."""
    mean, variance = read_vectors(stats)
    hint = "give the [mean, var] file of the same run"
    for name, values in (("mean", mean), ("variance", variance)):
        if values.size != obs_dim:
            raise SpikerlError(f"'{stats}': the {name} has {values.size} values for {obs_dim} observations", hint)
        if not (np.abs(values) <= np.finfo(np.float32).max).all():
            raise SpikerlError(f"'{stats}': the {name} holds values that are not finite in float32", hint)
    if not (constants.epsilon >= 0 and math.isfinite(constants.epsilon)):
        raise SpikerlError(f"epsilon {constants.epsilon} must not be negative, and finite", CONSTANTS_HINT)
    if not (variance >= 0).all() or not (variance + constants.epsilon > 0).all():
        index = int(np.argmin(variance))
        raise SpikerlError(f"'{stats}': the variance of observation {index} is {variance[index]}, not positive", hint)
    std = np.sqrt(variance + constants.epsilon).astype(np.float32)
    return Normalization(mean.astype(np.float32), std, constants.clip)


def _notes(env_id: str, spec: EnvironmentSpec) -> tuple[str, ...]:
    high = float(spec.action_high[0])
    if (spec.action_high == high).all() and (spec.action_low == -high).all():
        return ()
    return (
        f"'{env_id}' bounds actions by {spec.action_low.tolist()}..{spec.action_high.tolist()}; PopSAN scaled every "
        f"action by {high:g}, the policy uses the environment's own bounds",
    )
