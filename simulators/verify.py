"""Holds backends against a reference on the same observations: spike for spike, action for action, return for return.

The reference of a quantized policy is its integers (`fixed`), that of a float policy `torch`. docs/verify.md says
what the tolerances are chosen by.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from simulators.conformance import Conformance, compare_rasters, run_steps
from simulators.protocol import Exactness, Session
from simulators.recording import Recording, record_in_order
from simulators.rollout import rollout
from spikerl_deploy.codec import Spikes, decode, encode
from spikerl_deploy.errors import SpikerlError
from spikerl_deploy.interrupts import pass_on_interrupt
from spikerl_deploy.loihi import is_lossless
from spikerl_deploy.nir_file import one_line
from spikerl_deploy.policy import Float, Policy

Status = Literal["passed", "failed", "error", "skipped", "informational"]


@dataclass(frozen=True)
class Tolerance:
    """How far a backend may be from the reference.

    Attributes:
        mismatch_share: mismatching spikes, as a share of the spikes that at least one of them gave.
        action_error: largest difference of an action, as a share of its range.
        exact: whether equal returns are asked for, too; no user bounds it otherwise.
    """

    mismatch_share: float
    action_error: float
    exact: bool = False


EXACT = Tolerance(0.0, 0.0, exact=True)
# Sums in another order. One output spike may then move an action by a tenth of its range.
FLOAT_SUMS = Tolerance(1e-4, 0.25)
# Floats against integers that truncate; far below what rounding to 8 bits changes.
TRUNCATION = Tolerance(5e-3, 0.25)


def lossless_layers(policy: Policy) -> tuple[bool, ...]:
    """For each layer of a quantized policy, whether floats provably spike as its integers do; empty for floats."""
    return tuple(is_lossless(layer, policy.time_steps) for layer in policy.integers or ())


def tolerance_of(policy: Policy, exactness: Exactness) -> Tolerance:
    """Tolerance of a backend that runs integers, or the floats of the policy's graph, against the reference."""
    if policy.integers is None:
        return FLOAT_SUMS
    return EXACT if exactness == "integer" or all(lossless_layers(policy)) else TRUNCATION


@dataclass(frozen=True, eq=False)
class Entrant:
    """What is held against the reference.

    Attributes:
        name: as it is printed. runs: which weights it executes, in words.
        tolerance: None where the comparison is for information only.
        open: makes a session for so many episodes side by side.
    """

    name: str
    runs: str
    tolerance: Tolerance | None
    open: Callable[[int], Session]


@dataclass(frozen=True)
class ActionError:
    """The largest difference of an action, as a share of its range: in the environment's units, and where it is."""

    share: float
    value: float
    control_step: int
    dimension: int


@dataclass(frozen=True, eq=False)
class Reference:
    """The reference's run.

    Attributes:
        name, runs, policy, env_id: of the reference. recording: what it observed in its closed loop.
        rasters: for each layer [N, T, n], its spikes on the recorded observations. actions: [N, act_dim].
        seeds: of the episodes that every backend plays; returns: the reference's. Empty: none is played.
    """

    name: str
    runs: str
    policy: Policy
    env_id: str
    recording: Recording
    rasters: tuple[Spikes, ...]
    actions: Float
    seeds: tuple[int, ...]
    returns: tuple[float, ...]


@dataclass(frozen=True, eq=False)
class Row:
    """What came of one entrant.

    Attributes:
        reasons: why it failed, broke off or was skipped, a sentence each. hint: what mends it.
        conformance, action_error, returns: None where there are none.
        first_spiked: whether the reference spiked at the first divergence.
        seconds: wall time.
    """

    name: str
    runs: str
    tolerance: Tolerance | None
    status: Status
    reasons: tuple[str, ...] = ()
    hint: str | None = None
    conformance: Conformance | None = None
    action_error: ActionError | None = None
    returns: tuple[float, ...] | None = None
    first_spiked: bool | None = None
    seconds: float = 0.0


def skipped(name: str, reason: str, hint: str | None = None) -> Row:
    """Row of a backend that cannot run here, or not this policy."""
    return Row(name, "", None, "skipped", (reason,), hint)


def encode_steps(policy: Policy, observations: NDArray[np.float64], seed: int) -> Spikes:
    """Input spikes [N, T, n_in] of observations [N, obs_dim]; under `poisson` coding the same for the same seed."""
    return encode(policy, observations, [np.random.default_rng([seed, 1])] * len(observations))


def run_reference(
    entrant: Entrant, policy: Policy, env_id: str, steps: int, seeds: Sequence[int], seed: int
) -> Reference:
    """Play the reference: record `steps` control steps from `seed` on, and the returns of `seeds`.

    Raises:
        SpikerlError: the environment does not fit the policy, or the backend failed.
    """
    assert policy.decoder is not None
    with entrant.open(1) as session:
        recording = record_in_order(session, env_id, steps, seed)
        known = recording.returns
        others = [one for one in seeds if one not in known]
        known = known | dict(zip(others, rollout(session, env_id, others).returns if others else (), strict=True))
        rasters = run_steps(session, encode_steps(policy, recording.observations, seed))
    actions = decode(rasters[-1].sum(axis=1), policy.time_steps, policy.decoder)
    returns = tuple(known[one] for one in seeds)
    return Reference(entrant.name, entrant.runs, policy, env_id, recording, rasters, actions, tuple(seeds), returns)


def verify_entrant(
    entrant: Entrant, reference: Reference, parallel: int, progress: Callable[[int], None] = lambda _: None
) -> Row:
    """Feed the recorded observations to an entrant, let it play the reference's seeds, and judge it.

    An entrant that breaks off gives a row, too, so that it does not hide the others.

    Args:
        parallel: control steps at once; episodes likewise, as far as there are so many.
        progress: called with the recorded control steps done so far.
    """
    started = time.perf_counter()
    try:
        measured = _measure(entrant, reference, parallel, progress)
    except Exception as error:  # a backend of another distribution can raise anything
        pass_on_interrupt(error)
        took = time.perf_counter() - started
        if isinstance(error, SpikerlError):
            reason, hint = error.message, error.hint
        else:
            reason, hint = f"{type(error).__name__}: {one_line(error)}", None
        return Row(entrant.name, entrant.runs, entrant.tolerance, "error", (reason,), hint, seconds=took)
    conformance, action_error, returns = measured
    reasons = judge(entrant.tolerance, reference, *measured)
    first = conformance.first
    return Row(
        entrant.name,
        entrant.runs,
        entrant.tolerance,
        "informational" if entrant.tolerance is None else "failed" if reasons else "passed",
        reasons,
        None,
        conformance,
        action_error,
        returns,
        None
        if first is None
        else bool(reference.rasters[first.layer][first.control_step, first.time_step, first.neuron]),
        time.perf_counter() - started,
    )


def _measure(
    entrant: Entrant, reference: Reference, parallel: int, progress: Callable[[int], None]
) -> tuple[Conformance, ActionError, tuple[float, ...] | None]:
    policy, recording = reference.policy, reference.recording
    assert policy.decoder is not None
    fed, played = min(parallel, len(recording.observations)), min(parallel, len(reference.seeds))
    with entrant.open(fed) as session:
        # The session's own encoder: the float policy before quantization may have another than the deployed one.
        inputs = encode_steps(session.policy, recording.observations, recording.episodes[0][0])
        rasters = run_steps(session, inputs, progress)
        returns = rollout(session, reference.env_id, reference.seeds).returns if played == fed else None
    if returns is None and played:
        with entrant.open(played) as session:
            returns = rollout(session, reference.env_id, reference.seeds).returns
    actions = decode(rasters[-1].sum(axis=1), policy.time_steps, policy.decoder)
    return compare_rasters(reference.rasters, rasters), _action_error(actions, reference), returns


def _action_error(actions: Float, reference: Reference) -> ActionError:
    decoder = reference.policy.decoder
    assert decoder is not None
    values = np.abs(actions - reference.actions)
    if not np.isfinite(values).all():  # no comparison with a tolerance holds, and none fails
        at = tuple(np.argwhere(~np.isfinite(values))[0])
        raise SpikerlError(f"action {at[1]} of control step {at[0]} is {actions[at]}: the decoder overflows float32")
    shares = values / (decoder.action_high - decoder.action_low)
    step, dimension = np.unravel_index(int(shares.argmax()), shares.shape)
    return ActionError(float(shares[step, dimension]), float(values[step, dimension]), int(step), int(dimension))


def judge(
    tolerance: Tolerance | None,
    reference: Reference,
    conformance: Conformance,
    action_error: ActionError,
    returns: tuple[float, ...] | None,
) -> tuple[str, ...]:
    """Why an entrant is beyond its tolerance, a sentence each; empty where it is within, or has none."""
    if tolerance is None:
        return ()
    reasons = []
    if conformance.mismatch_share > tolerance.mismatch_share:
        allowed = f"{tolerance.mismatch_share:.2%} are allowed" if tolerance.mismatch_share else "none is allowed"
        reasons.append(
            f"{sum(conformance.mismatches)} of {sum(conformance.either)} spikes differ "
            f"({conformance.mismatch_share:.2%}), {allowed}"
        )
    if action_error.share > tolerance.action_error:
        reasons.append(
            f"an action differs by {action_error.share:.2%} of its range (control step {action_error.control_step}, "
            f"dimension {action_error.dimension}), {tolerance.action_error:.2%} is allowed"
        )
    if tolerance.exact and returns is not None:
        differing = [
            f"return {b!r} differs from {reference.name}'s {a!r} (seed {seed})"
            for seed, a, b in zip(reference.seeds, reference.returns, returns, strict=True)
            if a != b
        ]
        reasons += differing[:1]
    return tuple(reasons)
