"""The files that `spikerl simulate` writes: looked at before anything runs, written after everything has run."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from spikerl_deploy.cli.common import say
from spikerl_deploy.errors import SpikerlError

if TYPE_CHECKING:
    from simulators.episodes import Recorder
    from simulators.rollout import Rollout
    from spikerl_deploy.policy import Policy

REPORT, PICTURE = "report.json", "summary.png"


@dataclass(frozen=True)
class SimulateFiles:
    """Where the results go, None where they do not.

    Attributes:
        out: folder of report.json and summary.png. record: .npz of all episodes. video: .mp4 or .gif of the first.
    """

    out: Path | None
    record: Path | None
    video: Path | None
    force: bool

    def document(self) -> dict[str, str | None]:
        """Paths as a plan states them."""
        named = {"report": self.out and self.out / REPORT, "record": self.record, "video": self.video}
        return {name: str(path) if path is not None else None for name, path in named.items()}

    def check(self, env_id: str, policy_file: Path) -> None:
        """Find out, writing nothing, what would be refused after the episodes.

        Raises:
            SpikerlError: a file is there already or cannot be written, a name does not fit, or is given twice, or no
                video can be made here.
        """
        from spikerl_deploy.files import check_targets

        targets = [("--record", self.record), ("--video", self.video)]
        if self.out is not None:
            if self.out.exists() and not self.out.is_dir():
                raise SpikerlError(f"'{self.out}' is a file, a folder for the report was expected", "choose another -o")
            targets = [("-o", self.out / name) for name in (REPORT, PICTURE)] + targets
        if self.record is not None and self.record.suffix != ".npz":
            raise SpikerlError(f"'{self.record}' is no .npz", f"--record {self.record.with_suffix('.npz')}")
        given = [(flag, path) for flag, path in targets if path is not None]
        check_targets(given, self.force, {"policy": policy_file})
        if self.video is not None:
            from simulators.movie import check_movie
            from simulators.rendering import rendering_environment

            check_movie(self.video)
            rendering_environment(env_id).close()

    def recorder(self, policy: Policy) -> Recorder | None:
        """What watches the deployment: all episodes for a recording, the first for a video alone."""
        from simulators.episodes import Recorder

        if self.record is not None:
            return Recorder(policy)
        return Recorder(policy, only={0}) if self.video is not None else None

    def write(self, document: dict[str, Any], deployed: Rollout, recorder: Recorder | None) -> None:
        """Write what was asked for, the video last, since it takes longest.

        Args:
            document: the report. recorder: as given out, after the rollout.
        """
        from spikerl_deploy.files import write_json

        if self.out is not None:
            from simulators.plots import draw_summary

            write_json(self.out / REPORT, document, self.force)
            draw_summary(document, deployed, self.out / PICTURE, self.force)
            say(f"report: {self.out / REPORT}")
        if recorder is None:
            return
        name = document["backend"]
        about = {key: document[key] for key in ("manifest", "policy", "environment", "backend")}
        episodes = recorder.episodes(deployed.seeds, {**about, "runs": document["backends"][name]["runs"]})
        if self.record is not None:
            from simulators.episodes import save_episodes

            save_episodes(episodes, self.record, self.force)
            say(f"recording: {self.record}, {len(episodes)} control steps")
        if self.video is not None:
            from simulators.video import write_video

            say("video: drawing the first episode")
            video = write_video(episodes, document["environment"]["id"], self.video, _title(document), self.force)
            say(f"video: {self.video}, {video.frames} frames, {float(video.frames * video.frame_seconds):.1f} s")


def _title(document: dict[str, Any]) -> str:
    policy, perturbation = document["policy"], document["environment"]["perturbation"]
    sizes = "-".join(map(str, policy["sizes"]))
    bits = f", {policy['bits']}-bit" if policy["bits"] else ""
    return f"{sizes}{bits} on {document['backend']}" + (f"; {perturbation['words']}" if perturbation else "")
