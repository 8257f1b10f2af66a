"""What a run tells: metrics.csv, TensorBoard, and progress on a terminal or as plain lines."""

from __future__ import annotations

import csv
import sys
import time
from pathlib import Path
from types import TracebackType
from typing import Any

FIELDS = ("step", "seconds", "steps_per_second", "kind", "name", "value")
PLAIN_SECONDS = 10.0  # between progress lines where there is no terminal


class RunLog:
    """Writes scalars in long form (one value a row) and shows progress on stderr."""

    def __init__(self, folder: Path, total_steps: int, tensorboard: bool, quiet: bool = False) -> None:
        self.start = time.monotonic()
        self.total_steps, self.quiet = total_steps, quiet
        self._file = (folder / "metrics.csv").open("w", newline="", encoding="utf-8")
        self._csv = csv.writer(self._file)
        self._csv.writerow(FIELDS)
        self._board: Any = None
        if tensorboard:
            from torch.utils.tensorboard import SummaryWriter

            self._board = SummaryWriter(str(folder / "tensorboard"))
        self._bar: Any = None
        self._last_line, self._last_step = self.start, 0
        if sys.stderr.isatty() and not quiet:
            self._bar = _progress_bar(total_steps)

    def scalars(self, step: int, kind: str, values: dict[str, float]) -> None:
        """Record values of one kind (`train`, `episode`, `eval`) at an environment step."""
        seconds = time.monotonic() - self.start
        for name, value in values.items():
            self._csv.writerow([step, f"{seconds:.3f}", f"{step / max(seconds, 1e-9):.1f}", kind, name, repr(value)])
            if self._board is not None:
                self._board.add_scalar(f"{kind}/{name}", value, step)
        if kind == "eval":
            self._file.flush()

    def progress(self, step: int, last_return: float | None) -> None:
        """Advance the bar, or print a plain line every few seconds."""
        if step == self._last_step:
            return
        self._last_step = step
        now = time.monotonic()
        shown = "-" if last_return is None else f"{last_return:.1f}"
        if self._bar is not None:
            self._bar.update(
                self._bar.task_ids[0], completed=step, shown=shown, rate=step / max(now - self.start, 1e-9)
            )
        elif not self.quiet and (now - self._last_line > PLAIN_SECONDS or step == self.total_steps):
            self._last_line = now
            rate = step / max(now - self.start, 1e-9)
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
        if self._board is not None:
            self._board.close()
        self._file.close()


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
