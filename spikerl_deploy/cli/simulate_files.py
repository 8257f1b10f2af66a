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


@dataclass(frozen=True)
class SimulateFiles:
    """Where the results go, None where they do not.

    Attributes:
        out: folder of report.json, report.html and the plots. record: .npz of all episodes.
        video: .mp4 or .gif of the first.
    """

    out: Path | None
    record: Path | None
    video: Path | None
    force: bool

    def document(self) -> dict[str, str | None]:
        """Paths as a plan states them."""
        from spikerl_deploy.report.files import REPORT

        named = {"report": self.out and self.out / REPORT, "record": self.record, "video": self.video}
        return {name: str(path) if path is not None else None for name, path in named.items()}

    def check(self, env_id: str, policy_file: Path) -> None:
        """Find out, writing nothing, what would be refused after the episodes.

        Raises:
            SpikerlError: a file is there already or cannot be written, a name does not fit, or is given twice, or no
                video can be made here.
        """
        from spikerl_deploy.files import check_targets
        from spikerl_deploy.report.files import check_report_folder, report_targets

        targets = [("--record", self.record), ("--video", self.video)]
        if self.out is not None:
            check_report_folder(self.out, self.force)
            targets = [*report_targets(self.out), *targets]
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
        if self.out is not None:
            from spikerl_deploy.report.files import PAGE, write_report

            write_report(document, self.out, self.force)
            say(f"report: {self.out / PAGE}")
        if recorder is None:
            return
        (deployment,) = document["deployments"]
        name = deployment["backend"]
        about = {key: deployment[key] for key in ("manifest", "policy", "environment", "backend")}
        episodes = recorder.episodes(deployed.seeds, {**about, "runs": deployment["backends"][name]["runs"]})
        if self.record is not None:
            from simulators.episodes import save_episodes

            save_episodes(episodes, self.record, self.force)
            say(f"recording: {self.record}, {len(episodes)} control steps")
        if self.video is not None:
            from simulators.video import write_video

            say("video: drawing the first episode")
            video = write_video(episodes, deployment["environment"]["id"], self.video, _title(deployment), self.force)
            say(f"video: {self.video}, {video.frames} frames, {float(video.frames * video.frame_seconds):.1f} s")


def _title(deployment: dict[str, Any]) -> str:
    policy, perturbation = deployment["policy"], deployment["environment"]["perturbation"]
    sizes = "-".join(map(str, policy["sizes"]))
    bits = f", {policy['bits']}-bit" if policy["bits"] else ""
    return f"{sizes}{bits} on {deployment['backend']}" + (f"; {perturbation['words']}" if perturbation else "")
