"""Writers of animated pictures: .gif through Pillow, .mp4 through ffmpeg, frame by frame."""

from __future__ import annotations

import importlib
import os
import select
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from spikerl_deploy.errors import SpikerlError
from spikerl_deploy.files import atomic_path

Frame = NDArray[np.uint8]
SUFFIXES = (".mp4", ".gif")
FFMPEG_HINT = "pip install imageio-ffmpeg (or apt-get install ffmpeg), or write a .gif"
FFMPEG_SECONDS = 120  # for it to take some of a frame, and for the last ones after all were handed over
GIF_TICK = Fraction(1, 100)  # second; GIF counts in these


def check_movie(path: Path) -> None:
    """Find out whether a picture with this suffix can be written here.

    Raises:
        SpikerlError: another suffix than .mp4 or .gif, or no ffmpeg for .mp4.
    """
    if path.suffix.lower() not in SUFFIXES:
        raise SpikerlError(f"'{path}' is neither .mp4 nor .gif", f"--video {path.with_suffix('.gif')}")
    if path.suffix.lower() == ".mp4":
        _ffmpeg()


@contextmanager
def movie(
    path: Path, frame_seconds: Fraction, specimen: Frame, force: bool = False
) -> Iterator[Callable[[Frame], None]]:
    """Yields what takes one frame [height, width, 3] after the other; the file is there when the block ends.

    Args:
        frame_seconds: how long each frame is shown. specimen: a frame of that size, with the colours of all of them.

    Raises:
        SpikerlError: the file exists and `force` is false, or cannot be written.
    """
    check_movie(path)
    with atomic_path(path, force) as temporary:
        write = _gif if path.suffix.lower() == ".gif" else _mp4
        with write(temporary, frame_seconds, specimen) as add:
            yield add


@contextmanager
def _gif(path: Path, frame_seconds: Fraction, specimen: Frame) -> Iterator[Callable[[Frame], None]]:
    """One palette for all frames: what stands still is then the same from frame to frame, and costs nothing."""
    from PIL import Image

    palette = Image.fromarray(specimen).quantize(256)
    frames: list[Image.Image] = []
    yield lambda frame: frames.append(Image.fromarray(frame).quantize(palette=palette, dither=Image.Dither.NONE))
    if not frames:
        raise SpikerlError(f"'{path}' would hold no frame")
    ends = [round(frame_seconds * (index + 1) / GIF_TICK) for index in range(len(frames))]
    durations = [10 * int(ticks) for ticks in np.diff(ends, prepend=0)]  # ms; rounded as a whole, not one by one
    frames[0].save(path, format="GIF", save_all=True, append_images=frames[1:], duration=durations, loop=0)


@contextmanager
def _mp4(path: Path, frame_seconds: Fraction, specimen: Frame) -> Iterator[Callable[[Frame], None]]:
    height, width = specimen.shape[:2]
    rate = 1 / frame_seconds
    command = [
        *(_ffmpeg(), "-y", "-loglevel", "error"),
        *("-f", "rawvideo", "-pix_fmt", "rgb24", "-s", f"{width}x{height}"),
        *("-r", f"{rate.numerator}/{rate.denominator}", "-i", "-"),
        *("-c:v", "libx264", "-pix_fmt", "yuv420p", "-movflags", "+faststart", "-f", "mp4", str(path)),
    ]
    with tempfile.TemporaryFile() as said:
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=said, stderr=said, bufsize=0)
        assert process.stdin is not None
        stream, stalled = process.stdin, False
        os.set_blocking(stream.fileno(), False)
        try:
            yield lambda frame: _write(stream.fileno(), frame)
            stream.close()
            process.wait(FFMPEG_SECONDS)
        except BrokenPipeError:
            pass  # it says below why
        except (TimeoutError, subprocess.TimeoutExpired):
            stalled = True
        finally:
            process.kill()
            process.wait()
            stream.close()
        if process.returncode != 0:
            said.seek(0)
            lines = said.read().decode(errors="replace").strip().splitlines()
            if stalled:
                lines = [f"it took nothing for {FFMPEG_SECONDS} s"]
            reason = lines[-1] if lines else f"exit status {process.returncode}"
            raise SpikerlError(f"ffmpeg failed: {reason}", "write a .gif")


def _write(pipe: int, frame: Frame) -> None:
    """Hand over a frame to a pipe that does not block, so that a reader that stalls is found out."""
    left, ready = memoryview(frame.tobytes()), select.poll()
    ready.register(pipe, select.POLLOUT)
    while left:
        if not ready.poll(FFMPEG_SECONDS * 1000):
            raise TimeoutError
        left = left[os.write(pipe, left) :]


def _ffmpeg() -> str:
    """Path of ffmpeg: the one of imageio-ffmpeg, else the system's."""
    try:
        return str(importlib.import_module("imageio_ffmpeg").get_ffmpeg_exe())  # an extra, without types
    except (ImportError, RuntimeError) as error:
        found = shutil.which("ffmpeg")
        if found is None:
            raise SpikerlError("an .mp4 needs ffmpeg, which is not here", FFMPEG_HINT) from error
        return found
