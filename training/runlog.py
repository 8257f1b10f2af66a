"""What a run tells: metrics.csv, TensorBoard, and progress on a terminal or as plain lines."""

from __future__ import annotations

import csv
import os
import sys
import time
from pathlib import Path
from types import TracebackType
from typing import Any

from spikerl_deploy.errors import SpikerlError

FIELDS = ("step", "seconds", "steps_per_second", "kind", "name", "value")
PLAIN_SECONDS = 10.0  # between progress lines where there is no terminal


class RunLog:
    """Writes scalars in long form (one value a row), one file a seed, and shows progress on stderr.

    Args:
        folders: where each seed's `metrics.csv` goes; none on ranks that write nothing.
        marks: lengths of the files at the moment that is resumed; what was written after it is cut off.
        earlier: seconds that the run took before it was resumed.
    """

    def __init__(
        self,
        folders: list[Path],
        total_steps: int,
        tensorboard: bool,
        quiet: bool = False,
        marks: list[int] | None = None,
        earlier: float = 0.0,
        step: int = 0,
    ) -> None:
        self.start = time.monotonic() - earlier
        self.total_steps, self.quiet = total_steps, quiet
        self._files = [(folder / "metrics.csv").open("a" if marks else "w", newline="") for folder in folders]
        self._csvs = [csv.writer(file) for file in self._files]
        if marks:
            for file, mark in zip(self._files, marks, strict=True):
                if os.fstat(file.fileno()).st_size < mark:
                    raise SpikerlError(
                        f"'{file.name}' is shorter than when the run was saved", "restore it, or train again"
                    )
                file.truncate(mark)
        else:
            for writer in self._csvs:
                writer.writerow(FIELDS)
        self._boards: list[Any] = []
        if tensorboard and folders:
            from torch.utils.tensorboard import SummaryWriter

            purge = step + 1 if marks else None
            self._boards = [SummaryWriter(str(folder / "tensorboard"), purge_step=purge) for folder in folders]
        self._bar: Any = None
        self._last_line, self._last_step = time.monotonic(), step
        self._first = (time.monotonic(), step)  # the rate shown is of this process
        if sys.stderr.isatty() and not quiet:
            self._bar = _progress_bar(total_steps)

    @property
    def seconds(self) -> float:
        """Since the run began, less the time in which it did not run."""
        return time.monotonic() - self.start

    def marks(self) -> list[int]:
        """Lengths of the files, everything so far written to them."""
        for file in self._files:
            file.flush()
        return [os.fstat(file.fileno()).st_size for file in self._files]

    def scalars(self, step: int, kind: str, values: dict[str, float], seed: int = 0) -> None:
        """Record values of a kind (`train`, `episode`, `eval`) at an environment step, of a seed given by its place."""
        if not self._files:
            return
        seconds = self.seconds
        for name, value in values.items():
            rate = f"{step / max(seconds, 1e-9):.1f}"
            self._csvs[seed].writerow([step, f"{seconds:.3f}", rate, kind, name, repr(float(value))])
            if self._boards:
                self._boards[seed].add_scalar(f"{kind}/{name}", value, step)
        if kind == "eval":
            self._files[seed].flush()

    def progress(self, step: int, last_return: float | None) -> None:
        """Advance the bar, or print a plain line every few seconds."""
        if step == self._last_step:
            return
        self._last_step = step
        now = time.monotonic()
        shown = "-" if last_return is None else f"{last_return:.1f}"
        rate = (step - self._first[1]) / max(now - self._first[0], 1e-9)
        if self._bar is not None:
            self._bar.update(self._bar.task_ids[0], completed=step, shown=shown, rate=rate)
        elif not self.quiet and (now - self._last_line > PLAIN_SECONDS or step >= self.total_steps):
            self._last_line = now
            print(
                f"step {step}/{self.total_steps}  {rate:.0f} steps/s  eval return {shown}", file=sys.stderr, flush=True
            )

    def say(self, text: str) -> None:
        """A line on stderr that does not break the bar."""
        if self.quiet:
            return
        if self._bar is not None:
            self._bar.console.print(text, highlight=False, markup=False)
        else:
            print(text, file=sys.stderr, flush=True)

    def __enter__(self) -> RunLog:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.stop()
        for writer in (*self._boards, *self._files):
            writer.close()


def _progress_bar(total: int) -> Any:
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    bar = Progress(
        TextColumn("train"),
        BarColumn(),
        TextColumn(
            "{task.completed:.0f}/{task.total:.0f}  {task.fields[rate]:.0f} steps/s  return {task.fields[shown]}"
        ),
        TimeRemainingColumn(),
        console=Console(stderr=True),
    )
    bar.add_task("train", total=total, shown="-", rate=0.0)
    bar.start()
    return bar
