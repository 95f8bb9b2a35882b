"""Progress of a run on stderr: a bar on a terminal, plain lines elsewhere, nothing when quiet."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from types import TracebackType
from typing import Any

from zoo.errors import count, printable
from zoo.util.numbers import score_text

REFRESH = 0.25


def in_time_units(seconds: float) -> str:
    """Return a duration in its largest unit: ``40.0 s``, ``3 min``, ``2 hours``."""
    if seconds < 120:
        return f"{seconds:.1f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else count(round(seconds / 3600), "hour")


def time_left(seconds: Sequence[float], epochs: int, *, more: bool) -> str:
    """Return an estimate of the time to the end of a run; empty while it is below a second.

    Args:
        seconds: Those of the epochs of the present phase so far; of several the first does not count, as it may fill a cache.
        epochs: Epochs of the phase that are left.
        more: Whether other phases follow, whose epochs take another time.
    """
    counted = seconds[1:] or seconds
    estimate = epochs * sum(counted) / len(counted)
    return "" if estimate < 1 else f"{'at least' if more else 'about'} {in_time_units(estimate)}"


class Progress:
    """Shows steps and epochs; used as a context manager.

    Args:
        quiet: Show nothing.
        monitor: Metric shown beside the loss.
    """

    def __init__(self, quiet: bool, monitor: str) -> None:
        self.quiet, self.monitor = quiet, monitor
        self._bar: Any = None
        self._task: Any = None
        self._shown, self._column = 0.0, 8

    def __enter__(self) -> Progress:
        if not self.quiet and sys.stderr.isatty():
            from rich.console import Console
            from rich.progress import BarColumn, TextColumn, TimeRemainingColumn
            from rich.progress import Progress as Bar

            columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[detail]}"), TimeRemainingColumn())
            self._bar = Bar(*columns, console=Console(stderr=True), transient=True)
            self._task = self._bar.add_task("", total=None, detail="")
            self._bar.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._bar is not None:
            self._bar.stop()

    @property
    def due(self) -> bool:
        """Whether the bar should be updated now; checking is cheap, updating is not."""
        return self._bar is not None and time.monotonic() - self._shown >= REFRESH

    def name_phases(self, names: Iterable[str]) -> None:
        """Make the column of the phases as wide as the longest of their names, in the lines of all epochs."""
        self._column = max(self._column, *map(len, names))

    def begin(self, what: str, total: int) -> None:
        """Start a bar of ``total`` steps."""
        if self._bar is not None:
            self._bar.reset(self._task, total=total, description=what, detail="")

    def step(self, done: int, detail: str | None = None) -> None:
        """Show ``done`` steps, and a ``detail`` such as the loss; None leaves the last one."""
        if self._bar is not None:
            self._shown = time.monotonic()
            self._bar.update(self._task, completed=done, **({} if detail is None else {"detail": detail}))

    def epoch(self, record: Mapping[str, Any], epochs: int, best: bool, *, cached: bool = False, left: str = "") -> None:
        """Print the line of one finished epoch, or of averaged values that were validated after the last.

        Args:
            record: The epoch's record.
            epochs: Epochs of the run.
            best: Whether it is the best so far, which is said behind it.
            cached: Whether its features were computed before, so that samples per second say nothing.
            left: Estimated time to the end of the run.
        """
        if self.quiet:
            return
        trained = "train_loss" in record
        where = f"epoch {record['epoch']}/{epochs}  train {record['train_loss']:.4f}" if trained else "after training"
        parts = {
            "where": f"{record['phase']:<{self._column}} {where}",
            "loss": f"  valid {record['loss']:.4f}" if "loss" in record else "",
            "metric": f"  {self.monitor} {score_text(self.monitor, record[self.monitor])}" if self.monitor in record else "",
            "rate": ("  cached" if cached else f"  {record['samples_per_second']:.0f} samples/s") if trained else "",
            "left": f"  {left} left" if left else "",
            "best": "  best" if best else "",
        }
        for name in ("rate", "left", "loss"):  # what is given up first where there is no room
            if sum(map(len, parts.values())) > self._width:
                parts[name] = ""
        self.note("".join(parts.values()))

    @property
    def _width(self) -> int:
        """Columns of the terminal; without one as many as a line may need."""
        return int(self._bar.console.width) if self._bar is not None else 1000

    def note(self, line: str) -> None:
        """Print one line; nothing for an empty one."""
        if self.quiet or not line:
            return
        line = printable(line)
        if self._bar is not None:
            self._bar.console.print(line, highlight=False, markup=False)
        else:
            try:
                print(line, file=sys.stderr, flush=True)
            except (OSError, ValueError):  # stderr was closed; the run goes on
                self.quiet = True
