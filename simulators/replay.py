"""Replay: the input spikes of recorded episodes fed to another session, spikes and actions compared bit by bit."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from simulators.conformance import Divergence, compare_rasters, run_steps
from simulators.episodes import load_episodes
from simulators.protocol import Session
from simulators.rollout import choose_actions
from spikerl_deploy.errors import SpikerlError


@dataclass(frozen=True)
class Replay:
    """Agreement of a session with a recording.

    Attributes:
        control_steps: compared. spikes: recorded, over all layers.
        mismatches: for each layer, spikes that only the recording or only the session has.
        first: seed of the first episode that differs, and where in it; or None.
        actions_differ: control steps whose decided action is not the recorded one in every bit.
        largest_action_error: in units of the action.
    """

    control_steps: int
    spikes: int
    mismatches: tuple[int, ...]
    first: tuple[int, Divergence] | None
    actions_differ: int
    largest_action_error: float

    @property
    def exact(self) -> bool:
        """Whether every spike and every action is the recorded one."""
        return self.first is None and self.actions_differ == 0


def replay(path: Path, session: Session) -> Replay:
    """Feed the recorded input spikes to a session, episode after episode; each control step starts from zero state.

    Raises:
        SpikerlError: the file is no recording, the policy has other sizes, or the backend failed.
    """
    episodes, policy = load_episodes(path), session.policy
    if (episodes.sizes, episodes.time_steps) != (policy.sizes, policy.time_steps):
        recorded, own = ("-".join(map(str, sizes)) for sizes in (episodes.sizes, policy.sizes))
        raise SpikerlError(
            f"'{path}' records {recorded}, T {episodes.time_steps}; the policy is {own}, T {policy.time_steps}",
            "replay it on the policy that was recorded",
        )
    recorded_actions = episodes.columns["actions"]
    if policy.decoder is None or recorded_actions.shape[1:] != (policy.decoder.act_dim,):
        raise SpikerlError(f"'{path}' records {recorded_actions.shape[1:]} actions, which the policy does not decode")
    layers = range(1, len(episodes.sizes))
    mismatches, spikes, differ, largest = np.zeros(len(layers), dtype=int), 0, 0, 0.0
    first: tuple[int, Divergence] | None = None
    for rows in episodes.by_episode():
        given = run_steps(session, episodes.raster(0, rows))
        found = compare_rasters([episodes.raster(layer, rows) for layer in layers], given)
        mismatches += found.mismatches
        spikes += found.spikes
        if first is None and found.first is not None:
            first = (episodes.about["seeds"][episodes.columns["episode"][rows.start]], found.first)
        actions = choose_actions(policy, given[-1].sum(axis=1, dtype=np.int32))
        expected = recorded_actions[rows]
        differ += int((actions.view(np.uint32) != expected.view(np.uint32)).any(axis=1).sum())
        largest = float(np.maximum(largest, np.abs(actions - expected).max()))  # NaN stays; `max` would drop it
    return Replay(len(episodes), spikes, tuple(mismatches.tolist()), first, differ, largest)
