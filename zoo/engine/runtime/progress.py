"""Progress of a run on stderr: a bar on a terminal, plain lines elsewhere, nothing when quiet."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping
from types import TracebackType
from typing import Any

from zoo.errors import printable

REFRESH = 0.25


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
        self._shown = 0.0

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

    def begin(self, what: str, total: int) -> None:
        """Start a bar of ``total`` steps."""
        if self._bar is not None:
            self._bar.reset(self._task, total=total, description=what, detail="")

    def step(self, done: int, detail: str | None = None) -> None:
        """Show ``done`` steps, and a ``detail`` such as the loss; None leaves the last one."""
        if self._bar is not None:
            self._shown = time.monotonic()
            self._bar.update(self._task, completed=done, **({} if detail is None else {"detail": detail}))

    def epoch(self, record: Mapping[str, Any], epochs: int, best: bool) -> None:
        """Print the line of one finished epoch, or of averaged values that were validated after the last."""
        if self.quiet:
            return
        metric = f"  {self.monitor} {record[self.monitor]:.4f}" if self.monitor in record else ""
        loss = f"  valid {record['loss']:.4f}" if "loss" in record else ""
        if "train_loss" in record:
            where = f"epoch {record['epoch']}/{epochs}  train {record['train_loss']:.4f}"
            rate = f"  {record['samples_per_second']:.0f} samples/s"
        else:
            where, rate = "after training", ""
        self.note(f"{record['phase']:<8} {where}{loss}{metric}{rate}{'  *' if best else ''}")

    def note(self, line: str) -> None:
        """Print one line."""
        if self.quiet:
            return
        line = printable(line)
        if self._bar is not None:
            self._bar.console.print(line, highlight=False, markup=False)
        else:
            try:
                print(line, file=sys.stderr, flush=True)
            except (OSError, ValueError):  # stderr was closed; the run goes on
                self.quiet = True
