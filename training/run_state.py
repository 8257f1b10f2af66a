"""What a run must keep to go on exactly: taken from a trainer, and put back into one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from spikerl_deploy.errors import SpikerlError
from training.resume import FOLDER

if TYPE_CHECKING:
    from training.runlog import RunLog
    from training.trainer import Trainer


def capture(trainer: Trainer, log: RunLog) -> dict[str, Any]:
    """State of one rank between two turns of its loop, nothing owed but what `owed` says."""
    return {
        "device": trainer.device.type, "step": trainer.step, "owed": trainer.owed, "updates_from": trainer.updates_from,
        "evaluated": trainer.evaluated, "best": trainer.best, "last": trainer.last,
        "episode_returns": trainer.episode_returns, "observation": trainer.observation, "total": trainer.replay.total,
        "agent": trainer.agent.state_dict(), "normalizer": trainer.normalizer.state_dict(),
        "losses": {name: value.detach().cpu() for name, value in trainer.losses.items()},
        "draws": trainer.draws.state_dict(), "environments": trainer.envs.state_dict(),
        "marks": log.marks(), "seconds": log.seconds, "carbon": trainer.carbon.totals(),
    }  # fmt: skip


def restore(trainer: Trainer, state: dict[str, Any]) -> None:
    """Take up a state; what of it could not be kept begins anew, and is said.

    Raises:
        SpikerlError: parts are missing or do not fit.
    """
    try:
        _restore(trainer, state)
    except (KeyError, TypeError, ValueError, AttributeError, RuntimeError) as error:
        reason = " ".join(str(error).split())
        raise SpikerlError(
            f"the state in '{trainer.out / FOLDER}' has missing or misshapen parts: {reason}",
            "restore it, or train again",
        ) from error


def _restore(trainer: Trainer, state: dict[str, Any]) -> None:
    s = trainer.settings
    if state["device"] != trainer.device.type:
        raise SpikerlError(
            f"'{trainer.out}' was trained on {state['device']}, this is {trainer.device.type}", "resume it where it was"
        )
    trainer.step, trainer.owed, trainer.evaluated = int(state["step"]), float(state["owed"]), bool(state["evaluated"])
    trainer.updates_from = int(state["updates_from"])
    trainer.best, trainer.last, trainer.episode_returns = state["best"], state["last"], state["episode_returns"]
    trainer.agent.load_state_dict(state["agent"])
    trainer.normalizer.load_state_dict(state["normalizer"])
    trainer.losses = {name: value.to(trainer.device) for name, value in state["losses"].items()}
    trainer.draws.load_state_dict(state["draws"])
    if s.save_replay:
        trainer.replay.restore(int(state["total"]))
    else:
        trainer.owed, trainer.updates_from = 0.0, trainer.step + max(s.update_after, s.batch_size)
        trainer.say(f"the replay buffer was not kept (save_replay): updates go on at step {trainer.updates_from}")
    if state["environments"] is not None:
        with trainer.faults.of_environments(trainer.step):
            trainer.envs.reset()  # one that cannot start is another fault than a state that does not fit
        trainer.envs.load_state_dict(state["environments"])
        trainer.observation = state["observation"]
    else:
        trainer.say(f"'{s.env}' is not MuJoCo's, its state cannot be kept: its episodes start anew")
        trainer.episode_returns = np.zeros_like(trainer.episode_returns)
        trainer.begin_episodes(trainer.step)
