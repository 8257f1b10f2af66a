"""Gymnasium environments by id, with their spaces checked. Gymnasium is imported when first needed."""

from __future__ import annotations

import logging
import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from spikerl_deploy.errors import SpikerlError, unknown
from spikerl_deploy.interrupts import interrupt_held
from spikerl_deploy.policy import Float, Policy

if TYPE_CHECKING:
    import gymnasium

LIST_HINT = "spikerl doctor --environments"


@dataclass(frozen=True)
class EnvironmentSpec:
    """Sizes and limits of an environment.

    Attributes:
        obs_dim: length of the observation vector.
        action_low, action_high: [act_dim], finite.
        max_episode_steps: control steps after which an episode is truncated, or None.
        control_step: seconds of simulated time a control step, where the environment tells it.
    """

    obs_dim: int
    action_low: Float
    action_high: Float
    max_episode_steps: int | None
    control_step: float | None


def mujoco_ids() -> list[str]:
    """Ids of the MuJoCo environments that this installation registers, newest version only."""
    import gymnasium

    newest: dict[str, tuple[int, str]] = {}
    for spec in gymnasium.registry.values():
        entry = spec.entry_point if isinstance(spec.entry_point, str) else ""
        if "gymnasium.envs.mujoco" in entry and (spec.version or 0) >= 4:
            newest[spec.name] = max(newest.get(spec.name, (0, "")), (spec.version or 0, spec.id))
    return sorted(env_id for _, env_id in newest.values())


def make_environment(env_id: str, render_mode: str | None = None) -> gymnasium.Env[Any, Any]:
    """Create an environment; `render_mode` rgb_array makes it draw frames.

    Raises:
        SpikerlError: the id is unknown or the environment cannot be made, whatever its constructor raises.
    """
    import gymnasium

    if ":" in env_id:  # Gymnasium would import the module before the colon, and ids are read from files
        raise SpikerlError(f"environment '{env_id}' names a module, ids of registered environments only", LIST_HINT)
    _route_mujoco_warnings()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            options: dict[str, Any] = {} if render_mode is None else {"render_mode": render_mode}
            env = gymnasium.make(env_id, **options)  # not every constructor has a `render_mode`
    except gymnasium.error.DependencyNotInstalled as error:
        raise SpikerlError(f"environment '{env_id}' needs a missing package: {error}", "spikerl doctor") from error
    except (gymnasium.error.Error, ImportError) as error:
        if env_id in gymnasium.registry:
            raise SpikerlError(f"environment '{env_id}' cannot be made: {_one_line(error)}", LIST_HINT) from error
        raise unknown("environment", env_id, mujoco_ids(), LIST_HINT) from error
    except Exception as error:
        raise environment_error(env_id, "cannot be made", error) from error
    if env.spec is not None and env.spec.id != env_id:  # Gymnasium took the newest version
        env.close()
        raise unknown("environment", env_id, mujoco_ids(), LIST_HINT)
    return env


def environment_error(env_id: str, what: str, error: Exception) -> SpikerlError:
    """Error of one line for what an environment raised, which can be anything."""
    return SpikerlError(f"environment '{env_id}' {what}: {type(error).__name__}: {_one_line(error)}", LIST_HINT)


def _route_mujoco_warnings() -> None:
    """Send MuJoCo's warnings to `logging`; by itself it writes MUJOCO_LOG.TXT into the working directory."""
    try:
        with interrupt_held():
            import mujoco
    except ImportError:
        return  # make_environment says what is missing
    except RuntimeError as error:  # a value of MUJOCO_GL that it does not know
        raise SpikerlError(f"MuJoCo cannot be imported: {_one_line(error)}", "unset MUJOCO_GL") from error
    logger = logging.getLogger("spikerl.mujoco")

    def log(message: str) -> None:
        # the models that Gymnasium ships are not the user's to mend
        logger.log(logging.DEBUG if "deprecated" in message else logging.WARNING, "MuJoCo: %s", message)

    mujoco.set_mju_user_warning(log)


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split())


def environment_spec(env: gymnasium.Env[Any, Any], env_id: str) -> EnvironmentSpec:
    """Read sizes and limits off an environment.

    Raises:
        SpikerlError: the observation is not a vector, or the action not a vector of real numbers between finite bounds.
    """
    from gymnasium.spaces import Box

    observation, action = env.observation_space, env.action_space
    if not isinstance(observation, Box) or len(observation.shape) != 1 or not observation.shape[0]:
        raise SpikerlError(f"environment '{env_id}' observes {observation}, a vector is needed", LIST_HINT)
    if not isinstance(action, Box) or len(action.shape) != 1 or not action.shape[0] or not action.is_bounded():
        raise SpikerlError(f"environment '{env_id}' acts in {action}, a bounded vector is needed", LIST_HINT)
    if not np.issubdtype(action.dtype, np.floating):
        raise SpikerlError(f"environment '{env_id}' acts in {action.dtype}, a policy gives real numbers", LIST_HINT)
    with np.errstate(over="ignore"):
        low, high = action.low.astype(np.float32), action.high.astype(np.float32)
        usable = np.isfinite(high - low) & (high > low)
    if not usable.all():
        where = int(np.argmin(usable))
        raise SpikerlError(
            f"environment '{env_id}' bounds action {where} by {action.low[where]} and {action.high[where]}: "
            "no range in float32",
            LIST_HINT,
        )
    dt = getattr(env.unwrapped, "dt", None)
    return EnvironmentSpec(
        int(observation.shape[0]),
        low,
        high,
        env.spec.max_episode_steps if env.spec is not None else None,
        float(dt) if dt is not None else None,
    )


def spec_of(env_id: str) -> EnvironmentSpec:
    """What an environment, made for this only, states of itself.

    Raises:
        SpikerlError: it cannot be made, or its spaces are none that a policy acts in.
    """
    env = make_environment(env_id)
    try:
        return environment_spec(env, env_id)
    finally:
        env.close()


def fitting_spec(policy: Policy, env_id: str) -> EnvironmentSpec:
    """As `spec_of`, of an environment that the policy fits.

    Raises:
        SpikerlError: as there, or the policy does not fit it.
    """
    spec = spec_of(env_id)
    check_fits(policy, env_id, spec)
    return spec


def check_fits(policy: Policy, env_id: str, spec: EnvironmentSpec) -> None:
    """Check that a policy's encoder and decoder match an environment's spaces.

    Raises:
        SpikerlError: sizes or action bounds differ, or the policy is a core alone.
    """
    if policy.encoder is None or policy.decoder is None:
        raise SpikerlError(
            "the policy is a core alone: it has no encoder and decoder, so it cannot act",
            "export it from a training run: spikerl export RUN --to nir",
        )
    if policy.encoder.obs_dim != spec.obs_dim:
        raise SpikerlError(
            f"'{env_id}' observes {spec.obs_dim} values, the policy takes {policy.encoder.obs_dim}",
            f"use its own environment, --env {policy.env_id}" if policy.env_id else None,
        )
    if policy.decoder.act_dim != spec.action_low.shape[0]:
        raise SpikerlError(
            f"'{env_id}' takes {spec.action_low.shape[0]} actions, the policy gives {policy.decoder.act_dim}",
            f"use its own environment, --env {policy.env_id}" if policy.env_id else None,
        )
    same = np.array_equal(policy.decoder.action_low, spec.action_low) and np.array_equal(
        policy.decoder.action_high, spec.action_high
    )
    if not same:
        raise SpikerlError(
            f"'{env_id}' bounds actions by {spec.action_low.tolist()}..{spec.action_high.tolist()}, the policy by "
            f"{policy.decoder.action_low.tolist()}..{policy.decoder.action_high.tolist()}",
            f"use its own environment, --env {policy.env_id}" if policy.env_id else None,
        )
