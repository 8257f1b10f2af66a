"""A video of a recorded episode: the environment beside a scrolling raster of every spike, in real time."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from simulators.episodes import Episodes
from simulators.movie import Frame, movie
from simulators.rendering import prepare_view, rendering_environment
from spikerl_deploy.codec import Spikes
from spikerl_deploy.errors import SpikerlError

if TYPE_CHECKING:
    import gymnasium

MAX_RATE = 30  # frames a second
# Pixels. Width and height of the whole are multiples of 16, as video codecs want them.
SCENE, PANEL, HEADER = 480, 480, 48
LABEL, MARGIN, FOOTER, GAP = 19, 8, 20, 3
MIN_BAND = 24
MAX_BANDS = (SCENE - FOOTER) // (LABEL + GAP + MIN_BAND)
BACKGROUND, TEXT, FAINT = (250, 250, 250), (30, 30, 30), (120, 120, 120)
COLOURS = ((11, 110, 153), (194, 87, 26), (91, 127, 43), (122, 79, 163))
WINDOW = PANEL - 2 * MARGIN  # time steps that the raster shows, one a pixel


@dataclass(frozen=True)
class Video:
    """What was written: frames, and seconds that each is shown."""

    frames: int
    frame_seconds: Fraction


def write_video(episodes: Episodes, env_id: str, path: Path, title: str = "", force: bool = False) -> Video:
    """Video of the first recorded episode, which is played again from its seed with the actions that were applied.

    So nothing is drawn while a policy plays: a video cannot change the episode, nor the times of the backend.

    Args:
        title: what the video shows, such as sizes and backend; one line.

    Raises:
        SpikerlError: the environment cannot be drawn here, plays another course than was recorded, or the file cannot
            be written.
    """
    rows = episodes.by_episode()[0]
    seed = episodes.about["seeds"][episodes.columns["episode"][rows.start]]
    env = rendering_environment(env_id)
    try:
        stride, frame_seconds = frame_plan(_control_step(env))
        canvas = _Canvas(episodes, rows, f"{env_id}  {title}", seed, float(frame_seconds / stride))
        scenes, shown = _scenes(env, seed, episodes, rows, stride), 0
        first = next(scenes)
        specimen = canvas.frame(first[1], (rows.stop - rows.start) // 2)
        with movie(path, frame_seconds, specimen, force) as add:
            for steps, scene in itertools.chain([first], scenes):
                add(canvas.frame(scene, steps))
                shown += 1
    finally:
        env.close()
    return Video(shown, frame_seconds)


def frame_plan(control_step: float) -> tuple[int, Fraction]:
    """Control steps a frame, and seconds that a frame is shown: real time, at most 30 frames a second."""
    step = Fraction(control_step).limit_denominator(1_000_000)
    stride = -(-Fraction(1, MAX_RATE) // step)
    return int(max(stride, 1)), max(stride, 1) * step


def _control_step(env: gymnasium.Env[Any, Any]) -> float:
    """Seconds of simulated time, by the environment's own word, else by the rate at which it is drawn."""
    dt = getattr(env.unwrapped, "dt", None)
    return float(dt) if dt else 1 / float(env.metadata.get("render_fps") or MAX_RATE)


def _scenes(
    env: gymnasium.Env[Any, Any], seed: int, episodes: Episodes, rows: slice, stride: int
) -> Iterator[tuple[int, Frame]]:
    """(control steps done, frame) of the start, of every `stride`th step and of the end."""
    applied, rewards = episodes.columns["applied"][rows], episodes.columns["rewards"][rows]
    env.reset(seed=seed)
    prepare_view(env)
    yield 0, _drawn(env)
    for done, (action, reward) in enumerate(zip(applied, rewards, strict=True), start=1):
        found = float(env.step(action)[1])
        if found != reward:
            raise SpikerlError(
                f"seed {seed} gives reward {found} at control step {done}, {float(reward)} was recorded: "
                "the environment does not play the same course again",
                "leave --video out",
            )
        if done % stride == 0 or done == len(applied):
            yield done, _drawn(env)


def _drawn(env: gymnasium.Env[Any, Any]) -> Frame:
    """What the environment draws, [SCENE, SCENE, 3], with bars where it is not square."""
    frame = np.asarray(env.render(), dtype=np.uint8)
    if frame.shape == (SCENE, SCENE, 3):
        return frame
    from PIL import Image, ImageOps

    padded: Frame = np.asarray(ImageOps.pad(Image.fromarray(frame), (SCENE, SCENE)))
    return padded


def spike_strip(raster: Spikes, height: int) -> NDArray[np.uint8]:
    """Shades [height, N * T] of a raster [N, T, n]: 255 is a spike. Neurons that share a row of pixels add up."""
    neurons: Spikes = raster.reshape(-1, raster.shape[-1]).T
    count = len(neurons)
    begins = np.arange(height) * count // height
    if count <= height:
        lone: NDArray[np.uint8] = neurons[begins].astype(np.uint8) * np.uint8(255)
        return lone
    spikes = np.add.reduceat(neurons, begins, axis=0, dtype=np.float32)
    share = spikes / np.diff(begins, append=count)[:, None]
    shades: NDArray[np.uint8] = np.round(255 * np.sqrt(share)).astype(np.uint8)  # a lone spike is still seen
    return shades


def bands(populations: int) -> list[list[int]]:
    """The populations (0 is the input) of each band: one, or neighbouring layers where there are too many of them."""
    layers = np.arange(1, populations - 1)
    shared = np.array_split(layers, min(len(layers), MAX_BANDS - 2)) if len(layers) else []
    return [[0], *(band.tolist() for band in shared), [populations - 1]]


def _band_name(band: Sequence[int], populations: int) -> str:
    if band[0] == 0:
        return "input"
    if band[0] == populations - 1:
        return "output"
    return f"layer {band[0]}" if len(band) == 1 else f"layers {band[0]} to {band[-1]}"


def band_heights(sizes: Sequence[int], total: int) -> list[int]:
    """Rows of pixels of each band: in proportion to its neurons, but none too thin to see."""
    free = total - MIN_BAND * len(sizes)
    return [MIN_BAND + free * size // sum(sizes) for size in sizes]


class _Canvas:
    """All that is drawn around the scene. The rasters of the whole episode are drawn once, and a window is cut out."""

    def __init__(self, episodes: Episodes, rows: slice, title: str, seed: int, control_step: float) -> None:
        from PIL import Image, ImageDraw, ImageFont

        self._time_steps, self._control_step, self._seed = episodes.time_steps, control_step, seed
        self._length = rows.stop - rows.start
        self._returns = np.concatenate([[0.0], np.cumsum(episodes.columns["rewards"][rows])])
        self._font = ImageFont.load_default(13)
        picture = Image.new("RGB", (SCENE + PANEL, HEADER + SCENE), BACKGROUND)
        pen = ImageDraw.Draw(picture)
        pen.text((MARGIN, 6), title, TEXT, ImageFont.load_default(15))
        shown = bands(len(episodes.sizes))
        sizes = [sum(episodes.sizes[population] for population in band) for band in shown]
        left, top = SCENE + MARGIN, HEADER
        self._bands: list[tuple[int, NDArray[np.uint8], NDArray[np.uint8]]] = []
        heights = band_heights(sizes, SCENE - FOOTER - (LABEL + GAP) * len(sizes))
        for index, (band, size, height) in enumerate(zip(shown, sizes, heights, strict=True)):
            name = _band_name(band, len(episodes.sizes))
            pen.text((left, top), f"{name}: {size} neurons", COLOURS[index % len(COLOURS)], self._font)
            shades = np.linspace(BACKGROUND, COLOURS[index % len(COLOURS)], 256).round().astype(np.uint8)
            raster = np.concatenate([episodes.raster(population, rows) for population in band], axis=-1)
            self._bands.append((top + LABEL, spike_strip(raster, height), shades))
            top += LABEL + height + GAP
        seconds = WINDOW / self._time_steps * control_step
        note = f"last {WINDOW} time steps ({seconds:.2g} s), newest on the right"
        pen.text((left, HEADER + SCENE - FOOTER + 2), note, FAINT, self._font)
        self._background = np.asarray(picture)

    def frame(self, scene: Frame, steps: int) -> Frame:
        """The frame after so many control steps."""
        from PIL import Image, ImageDraw

        frame = self._background.copy()
        frame[HEADER:, :SCENE] = scene
        end = steps * self._time_steps
        begin = max(end - WINDOW, 0)
        right = SCENE + MARGIN + WINDOW
        for top, strip, shades in self._bands:
            frame[top : top + len(strip), right - (end - begin) : right] = shades[strip[:, begin:end]]
        words = f"seed {self._seed}   step {steps} of {self._length}   {steps * self._control_step:.2f} s"
        line = Image.new("RGB", (SCENE + PANEL - MARGIN, 18), BACKGROUND)
        ImageDraw.Draw(line).text((0, 0), f"{words}   return {self._returns[steps]:.2f}", TEXT, self._font)
        frame[26:44, MARGIN:] = np.asarray(line)
        return frame
