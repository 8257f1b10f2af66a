"""Off-screen rendering of environments: which OpenGL platform works here, found out before anything long runs."""

from __future__ import annotations

import functools
import os
import subprocess
import sys
from typing import TYPE_CHECKING, Any

from spikerl_deploy.environments import make_environment
from spikerl_deploy.errors import SpikerlError

if TYPE_CHECKING:
    import gymnasium

PLATFORMS = ("egl", "osmesa")  # of MUJOCO_GL; without a screen
HINT = "apt-get install libosmesa6, then set MUJOCO_GL=osmesa"
PROBE_SECONDS = 60
# In a process of its own: a broken GL can end it, and PyOpenGL takes one platform a process.
_PROBE = """
import importlib, sys, mujoco
context = importlib.import_module(f"mujoco.{sys.argv[1]}").GLContext(16, 16)
context.make_current()
mujoco.MjrContext(mujoco.MjModel.from_xml_string("<mujoco/>"), mujoco.mjtFontScale.mjFONTSCALE_150)
"""


def rendering_environment(env_id: str) -> gymnasium.Env[Any, Any]:
    """Environment whose `render()` gives frames [height, width, 3].

    Raises:
        SpikerlError: it draws none, or it is one of MuJoCo's and no OpenGL platform works here.
    """
    from gymnasium.envs.mujoco import MujocoEnv

    plain = make_environment(env_id)
    modes, needs_gl = plain.metadata.get("render_modes", []), isinstance(plain.unwrapped, MujocoEnv)
    plain.close()
    if "rgb_array" not in modes:
        raise SpikerlError(f"environment '{env_id}' draws no frames (render modes: {', '.join(modes) or 'none'})")
    if needs_gl:
        os.environ["MUJOCO_GL"] = working_platform()
    return make_environment(env_id, "rgb_array")


def prepare_view(env: gymnasium.Env[Any, Any]) -> None:
    """Make a MuJoCo environment that has been reset follow the robot, and draw without shadows and reflections.

    These take most of the time where there is no GPU. Gymnasium 1.4 leaves a model's tracking camera unused,
    so that a fast robot runs out of the picture.
    """
    renderer = getattr(env.unwrapped, "mujoco_renderer", None)
    if renderer is None:
        return
    import mujoco

    camera = mujoco.mj_name2id(renderer.model, mujoco.mjtObj.mjOBJ_CAMERA, "track")
    if camera >= 0:
        renderer.camera_id = camera
    env.render()  # makes the viewer
    for flag in (mujoco.mjtRndFlag.mjRND_SHADOW, mujoco.mjtRndFlag.mjRND_REFLECTION):
        renderer.viewer.scn.flags[flag] = 0


def working_platform() -> str:
    """The value of MUJOCO_GL, or the first of `PLATFORMS` if it is not set, found out to work here.

    Raises:
        SpikerlError: says what failed, and how.
    """
    return _working_platform(os.environ.get("MUJOCO_GL") or None)


@functools.cache
def _working_platform(chosen: str | None) -> str:
    failures = []
    for platform in (chosen,) if chosen else PLATFORMS:
        failure = _failure(platform)
        if failure is None:
            return platform
        failures.append(f"MUJOCO_GL={platform}: {failure}")
    raise SpikerlError(f"MuJoCo cannot render here ({'; '.join(failures)})", HINT)


def _failure(platform: str) -> str | None:
    """Why a platform does not work, in the last line of what it said; None if it does."""
    environment = os.environ | {"MUJOCO_GL": platform}
    command = [sys.executable, "-c", _PROBE, platform]
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=PROBE_SECONDS, check=False, env=environment
        )
    except subprocess.TimeoutExpired:
        return f"no answer within {PROBE_SECONDS} s"
    if done.returncode == 0:
        return None
    said = done.stderr.strip().splitlines()
    return said[-1] if said else f"exit status {done.returncode}"
