"""Videos: the right spikes at the right place, in real time, of the episode that was played. No GL, no drawing."""

from __future__ import annotations

import itertools
import os
import time
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import gymnasium
import numpy as np
import pytest
from PIL import Image
from support import quantized_policy

from simulators import movie as movies
from simulators import rendering
from simulators import video as videos
from simulators.episodes import Episodes, Recorder
from simulators.fixed import FixedBackend
from simulators.movie import check_movie, movie
from simulators.rendering import rendering_environment
from simulators.rollout import rollout
from simulators.video import (
    COLOURS,
    FOOTER,
    GAP,
    HEADER,
    LABEL,
    MAX_BANDS,
    MIN_BAND,
    SCENE,
    band_heights,
    bands,
    frame_plan,
    spike_strip,
    write_video,
)
from spikerl_deploy.errors import SpikerlError

ENV = "InvertedPendulum-v5"
POLICY = quantized_policy()


@pytest.fixture(scope="module")
def gl() -> None:
    """Skips where nothing can be drawn."""
    try:
        rendering_environment(ENV).close()
    except SpikerlError as error:
        pytest.skip(error.message)


@pytest.fixture(scope="module")
def episodes() -> Episodes:
    recorder = Recorder(POLICY, only={0})
    with FixedBackend().open(POLICY, 2) as session:
        rollout(session, ENV, [3, 4], observers=[recorder])
    return recorder.episodes([3, 4])


def frames_of(path: Path) -> tuple[list[np.ndarray], int]:
    """Frames of a GIF, and how long it lasts in ms."""
    image, frames, lasts = Image.open(path), [], 0
    for index in range(image.n_frames):
        image.seek(index)
        frames.append(np.asarray(image.convert("RGB")).astype(int))
        lasts += image.info["duration"]
    return frames, lasts


@pytest.mark.parametrize(
    ("control_step", "stride", "frame_seconds"),
    [
        (0.008, 5, Fraction(1, 25)),  # Hopper, Walker2d
        (0.05, 1, Fraction(1, 20)),  # HalfCheetah, Ant
        (0.04, 1, Fraction(1, 25)),
        (1 / 30, 1, Fraction(1, 30)),
        (0.001, 34, Fraction(34, 1000)),
        (2.0, 1, Fraction(2)),
    ],
)
def test_frames_are_in_real_time_and_at_most_thirty_a_second(
    control_step: float, stride: int, frame_seconds: Fraction
) -> None:
    assert frame_plan(control_step) == (stride, pytest.approx(frame_seconds, rel=1e-4))


def test_a_strip_shows_each_neuron_or_the_share_of_those_that_meet_in_a_row() -> None:
    raster = np.random.default_rng(0).random((6, 5, 8)) < 0.3
    strip = spike_strip(raster, 24)
    assert strip.shape == (24, 30)
    np.testing.assert_array_equal(strip[::3] > 0, raster.reshape(30, 8).T)
    np.testing.assert_array_equal(strip[::3], strip[2::3])
    pooled = spike_strip(raster, 4)
    share = raster.reshape(30, 4, 2).mean(axis=2).T
    np.testing.assert_array_equal(pooled, np.round(255 * np.sqrt(share)))
    uneven = spike_strip(np.ones((1, 1, 7), dtype=bool), 3)
    np.testing.assert_array_equal(uneven, np.full((3, 1), 255))


@pytest.mark.parametrize("sizes", [(170, 256, 256, 60), (1, 100_000), (4, 4, 4, 4, 4, 4)])
def test_bands_fit_and_none_is_too_thin(sizes: tuple[int, ...]) -> None:
    heights = band_heights(sizes, 380)
    assert 380 - len(sizes) <= sum(heights) <= 380
    assert min(heights) >= 24


@pytest.mark.parametrize("populations", [2, 3, 4, 9, 10, 11, 12, 19, 27, 44])
def test_however_deep_every_population_is_in_one_band_that_is_not_too_thin(populations: int) -> None:
    shown = bands(populations)
    assert [one for band in shown for one in band] == list(range(populations))
    assert shown[0] == [0] and shown[-1] == [populations - 1]
    assert len(shown) == min(populations, MAX_BANDS)
    heights = band_heights([64 * len(band) for band in shown], SCENE - FOOTER - (LABEL + GAP) * len(shown))
    assert min(heights) >= MIN_BAND
    assert sum(heights) + (LABEL + GAP) * len(shown) <= SCENE - FOOTER


def test_neighbouring_layers_share_a_band(monkeypatch: pytest.MonkeyPatch) -> None:
    sizes, spikes = (6, *[5] * 12, 4), np.random.default_rng(0).random
    rasters = [spikes((3, 2, size)) < 0.4 for size in sizes]
    columns = {"rewards": np.ones(3), "step": np.arange(3), "episode": np.zeros(3, int)}
    deep = Episodes({"seeds": [0]}, columns, tuple(np.packbits(r.reshape(3, -1), axis=1) for r in rasters), sizes, 2)
    drawn: list[np.ndarray] = []
    monkeypatch.setattr(
        videos, "spike_strip", lambda raster, height: drawn.append(raster) or spike_strip(raster, height)
    )
    frame = videos._Canvas(deep, slice(0, 3), "deep", 0, 0.05).frame(np.zeros((SCENE, SCENE, 3), np.uint8), 3)
    assert frame.shape == (528, 960, 3) and len(drawn) == MAX_BANDS
    np.testing.assert_array_equal(drawn[1], np.concatenate(rasters[1:3], axis=2))
    np.testing.assert_array_equal(np.concatenate(drawn, axis=2), np.concatenate(rasters, axis=2))


def test_a_gif_lasts_as_long_as_its_frames_together(tmp_path: Path) -> None:
    drawn = [np.full((16, 32, 3), shade, dtype=np.uint8) for shade in range(0, 250, 10)]
    specimen = np.stack([np.arange(0, 512, dtype=np.uint16).clip(0, 255).astype(np.uint8).reshape(16, 32)] * 3, axis=-1)
    with movie(tmp_path / "m.gif", Fraction(1, 30), specimen) as add:
        for frame in drawn:
            add(frame)
    frames, lasts = frames_of(tmp_path / "m.gif")
    assert [frame.shape for frame in frames] == [(16, 32, 3)] * 25
    assert [round(frame.mean()) for frame in frames] == pytest.approx(list(range(0, 250, 10)), abs=3)
    assert lasts == pytest.approx(25 * 1000 / 30, abs=10)


def test_other_names_and_a_missing_ffmpeg_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(SpikerlError, match="neither .mp4 nor .gif"):
        check_movie(tmp_path / "m.avi")
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(movies.importlib, "import_module", lambda name: (_ for _ in ()).throw(ImportError(name)))
    with pytest.raises(SpikerlError, match="needs ffmpeg") as caught:
        check_movie(tmp_path / "m.mp4")
    assert "imageio-ffmpeg" in str(caught.value.hint)


@pytest.mark.parametrize("ending", ["exit 3", "cat > /dev/null; exit 3"])
def test_what_ffmpeg_says_is_reported_and_nothing_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ending: str
) -> None:
    program = tmp_path / "ffmpeg"
    program.write_text(f"#!/bin/sh\necho first >&2\necho 'no such codec' >&2\n{ending}\n")
    program.chmod(0o755)
    monkeypatch.setattr(movies, "_ffmpeg", lambda: str(program))
    frame = np.zeros((480, 960, 3), dtype=np.uint8)
    with pytest.raises(SpikerlError, match="ffmpeg failed: no such codec"):
        with movie(tmp_path / "m.mp4", Fraction(1, 25), frame) as add:
            for _ in range(5):
                add(frame)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["ffmpeg"]


def test_an_error_while_drawing_is_reported_as_itself_and_ends_ffmpeg(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = tmp_path / "ffmpeg"
    program.write_text("#!/bin/sh\nexec cat > /dev/null\n")
    program.chmod(0o755)
    monkeypatch.setattr(movies, "_ffmpeg", lambda: str(program))
    with pytest.raises(SpikerlError, match="another course"):
        with movie(tmp_path / "m.mp4", Fraction(1, 25), np.zeros((16, 16, 3), dtype=np.uint8)):
            raise SpikerlError("another course")
    assert not (tmp_path / "m.mp4").exists()


@pytest.mark.parametrize("ending", ["sleep 20", "cat > /dev/null; sleep 20"])
def test_an_ffmpeg_that_stalls_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ending: str) -> None:
    """While frames are handed over, and after the last."""
    program = tmp_path / "ffmpeg"
    program.write_text(f"#!/bin/sh\n{ending}\n")
    program.chmod(0o755)
    monkeypatch.setattr(movies, "_ffmpeg", lambda: str(program))
    monkeypatch.setattr(movies, "FFMPEG_SECONDS", 0.3)
    frame, began = np.zeros((480, 960, 3), dtype=np.uint8), time.monotonic()
    with pytest.raises(SpikerlError, match="ffmpeg failed: it took nothing for 0.3 s") as caught:
        with movie(tmp_path / "m.mp4", Fraction(1, 25), frame) as add:
            for _ in range(5):
                add(frame)
    assert time.monotonic() - began < 10 and caught.value.hint
    assert sorted(path.name for path in tmp_path.iterdir()) == ["ffmpeg"]


def test_an_mp4_has_the_size_and_the_length(tmp_path: Path) -> None:
    try:
        check_movie(tmp_path / "m.mp4")
    except SpikerlError as error:
        pytest.skip(error.message)
    with movie(tmp_path / "m.mp4", Fraction(1, 25), np.zeros((48, 64, 3), dtype=np.uint8)) as add:
        for shade in range(50):
            add(np.full((48, 64, 3), 5 * shade, dtype=np.uint8))
    # ISO 14496-12: mvhd holds time scale and duration, tkhd ends with width and height in 16.16
    content = (tmp_path / "m.mp4").read_bytes()
    header = content.index(b"mvhd") + 4
    scale, duration = (int.from_bytes(content[header + at : header + at + 4], "big") for at in (12, 16))
    assert duration / scale == pytest.approx(2.0, abs=0.01)
    track = content.index(b"tkhd") + 4
    assert [int.from_bytes(content[track + at : track + at + 2], "big") for at in (76, 80)] == [64, 48]


def test_a_video_shows_the_episode_beside_its_spikes(gl: None, episodes: Episodes, tmp_path: Path) -> None:
    made = write_video(episodes, ENV, tmp_path / "v.gif", "a title")
    steps = len(episodes)
    frames, lasts = frames_of(tmp_path / "v.gif")
    assert made.frames == len(frames) == steps + 1
    assert lasts == (steps + 1) * 40
    assert {frame.shape for frame in frames} == {(528, 960, 3)}
    scenes = [frame[HEADER:, :SCENE] for frame in frames]
    assert scenes[0].any()
    assert (scenes[0] != scenes[-1]).any()
    assert all((a[:HEADER] != b[:HEADER]).any() for a, b in itertools.pairwise(frames))  # the step counts
    # the newest column of pixels on the right is the last time step; the output's neurons are the lowest band
    right, colour = SCENE + 480 - 8, np.array(COLOURS[3])
    raster = episodes.raster(3).reshape(-1, POLICY.n_out)
    for done in (1, steps // 2, steps):
        panel = frames[done][HEADER:-20, SCENE:]
        purple = (np.abs(panel - colour) < 30).all(axis=-1)[300:]
        shown = purple[:, : right - SCENE].any(axis=0)
        ends = done * POLICY.time_steps
        np.testing.assert_array_equal(shown[-ends:], raster[:ends].any(axis=1))
    assert not (np.abs(frames[0][HEADER + 320 : -20, SCENE + 200 :] - colour) < 30).all(axis=-1).any()


def test_a_course_that_is_not_played_again_is_no_video(gl: None, episodes: Episodes, tmp_path: Path) -> None:
    rewards = episodes.columns["rewards"].copy()
    rewards[2] += 1e-9
    other = replace(episodes, columns={**episodes.columns, "rewards": rewards})
    with pytest.raises(SpikerlError, match="seed 3 gives reward .* at control step 3"):
        write_video(other, ENV, tmp_path / "v.gif")
    assert list(tmp_path.iterdir()) == []


def test_a_robot_that_runs_stays_in_the_picture(gl: None) -> None:
    env = rendering_environment("HalfCheetah-v5")
    env.reset(seed=0)
    rendering.prepare_view(env)
    data = env.unwrapped.data  # type: ignore[attr-defined]
    here = np.asarray(env.render()).astype(int)
    data.qpos[0] += 4.0  # out of the picture, if that stood still
    import mujoco

    mujoco.mj_forward(env.unwrapped.model, data)  # type: ignore[attr-defined]
    there = np.asarray(env.render()).astype(int)
    robot = (here[..., 0] - here[..., 2]) > 40  # orange and pink on a grey floor
    env.close()
    assert robot.sum() > 1000
    np.testing.assert_allclose(there[robot].mean(axis=0), here[robot].mean(axis=0), atol=8)


def test_an_environment_that_draws_nothing_is_refused() -> None:
    class Blind(gymnasium.Env):
        metadata = {"render_modes": ["human"]}  # noqa: RUF012
        observation_space = action_space = gymnasium.spaces.Box(-1, 1, (1,))

    gymnasium.register("spikerl-tests/Blind-v0", entry_point=lambda render_mode=None: Blind())
    with pytest.raises(SpikerlError, match=r"'spikerl-tests/Blind-v0' draws no frames \(render modes: human\)"):
        rendering_environment("spikerl-tests/Blind-v0")
    del gymnasium.registry["spikerl-tests/Blind-v0"]


def test_without_gl_one_line_says_what_failed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rendering, "PLATFORMS", ("egle", "osmesas"))
    find = rendering._working_platform.__wrapped__
    for chosen, named in ((None, ("MUJOCO_GL=egle: ", "MUJOCO_GL=osmesas: ")), ("vulkan", ("MUJOCO_GL=vulkan: ",))):
        with pytest.raises(SpikerlError, match="MuJoCo cannot render here") as caught:
            find(chosen)
        assert all(name in caught.value.message for name in named)
        assert "\n" not in caught.value.message
        assert "libosmesa6" in str(caught.value.hint)


def test_a_second_platform_is_tried_when_the_first_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rendering, "_failure", lambda platform: "broken" if platform == "egl" else None)
    assert rendering._working_platform.__wrapped__(None) == "osmesa"
    with pytest.raises(SpikerlError, match="MUJOCO_GL=egl: broken"):
        rendering._working_platform.__wrapped__("egl")


def test_a_platform_that_does_not_answer_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rendering, "_PROBE", "import time; time.sleep(60)")
    monkeypatch.setattr(rendering, "PROBE_SECONDS", 0.2)
    assert rendering._failure("egl") == "no answer within 0.2 s"
    assert os.environ.get("MUJOCO_GL") in (None, "egl", "osmesa", "glfw")
