"""Progress, table and picture of the demo."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np

from zoo.engine.rundir.curves import empty_figure


class Ticker:
    """Progress over trainings on stderr: a bar on a terminal, one line per training elsewhere.

    Args:
        total: Number of trainings.
        quiet: Show nothing.
    """

    def __init__(self, total: int, *, quiet: bool) -> None:
        self.total, self.quiet, self.finished = total, quiet, 0
        self._bar: Any = None
        self._title, self._since = "", 0.0

    def __enter__(self) -> Ticker:
        if not self.quiet and sys.stderr.isatty():
            from rich.console import Console
            from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

            columns = (SpinnerColumn(), TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn())
            self._bar = Progress(*columns, console=Console(stderr=True), transient=True)
            self._bar.add_task("", total=self.total)
            self._bar.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._bar is not None:
            self._bar.stop()

    def begin(self, what: str) -> None:
        """Show the current training."""
        self._title, self._since = what, time.monotonic()
        if self._bar is not None:
            self._bar.update(0, description=f"[{self.finished + 1}/{self.total}] {what}".replace("[", r"\["))

    def done(self, result: str) -> None:
        """Print the line of a finished training."""
        self.finished += 1
        line = f"[{self.finished}/{self.total}] {self._title}: {result}  ({time.monotonic() - self._since:.1f} s)"
        if self._bar is not None:
            self._bar.advance(0)
            self._bar.console.print(line, highlight=False, markup=False)
        elif not self.quiet:
            print(line, file=sys.stderr, flush=True)


def show(report: Mapping[str, Any]) -> None:
    """Print the table and the folder to stdout."""
    from rich.console import Console
    from rich.table import Table

    per_class, tested, seeds = report["train_images_per_class"], report["test_images"], report["seeds"]
    table = Table(title=f"{report['backbone']} on digits: {per_class} training images per class, {tested} for the test")
    table.add_column("method", no_wrap=True)
    table.add_column("starts from")
    for name in ("test accuracy", "errors", "epochs", "s per run"):
        table.add_column(name, justify="right", no_wrap=name == "test accuracy")
    for row in report["rows"]:
        spread = f" ± {row['spread']:.3f}" if seeds > 1 else ""
        errors = f"{(1 - row['mean']) * tested:.0f}"
        start = "letters" if row["pretrained"] else "random values"
        table.add_row(row["name"], start, f"{row['mean']:.3f}{spread}", errors, str(row["epochs"]), f"{row['seconds'] / seeds:.1f}")
    # Without a terminal rich would assume 80 columns and wrap the table.
    console = Console() if sys.stdout.isatty() else Console(width=110)
    console.print(table)
    note = f"Mean and standard deviation over {seeds} seeds; a seed draws the training images. " if seeds > 1 else ""
    note += "No row augments its images; with random crops both trainings do better and the gap narrows (docs/builtin.md).\n"
    console.print(f"{note}Took {report['seconds']:.0f} s. Curves, numbers and models: {report['out']}", highlight=False, markup=False)


def draw(report: Mapping[str, Any], path: Path) -> None:
    """Draw the validation accuracy per epoch: the mean of the seeds as a line, their range as a band."""
    figure = empty_figure(7, 4, layout="constrained")
    axes = figure.subplots()
    for row in report["rows"]:
        curves = np.asarray(row["curves"])
        epochs = np.arange(1, curves.shape[1] + 1)
        (line,) = axes.plot(epochs, curves.mean(axis=0), label=f"{row['name']} (test {row['mean']:.3f})")
        axes.fill_between(epochs, curves.min(axis=0), curves.max(axis=0), alpha=0.15, color=line.get_color())
    axes.set_xlabel("epoch")
    axes.set_ylabel(f"accuracy on {report['valid_images']} validation images")
    axes.set_ylim(0, 1)
    axes.grid(alpha=0.3)
    axes.legend(loc="lower right")
    figure.suptitle(f"Handwritten digits, {report['train_images_per_class']} training images per class")
    figure.savefig(path, dpi=120)
