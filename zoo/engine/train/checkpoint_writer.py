"""The checkpoints of a run: when they are written, and what they hold."""

from __future__ import annotations

import time
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING

from zoo.engine.rundir.checkpoint import Checkpoint, write_checkpoint
from zoo.engine.train.messages import no_checkpoint

if TYPE_CHECKING:
    from zoo.engine.train.trainer import Training

# Seconds that may pass without a checkpoint, or as many times what the last one took where that was more than a second. Epochs
# on cached features take milliseconds, a checkpoint takes longer.
INTERVAL = 30.0


class Saver:
    """Writes checkpoints of a run, and knows when the next one is due.

    Args:
        run: The run.
    """

    def __init__(self, run: Training) -> None:
        self._run = run
        self._at, self._steps, self._cost = time.monotonic(), 0, 0.0

    @property
    def overdue(self) -> bool:
        """Whether the last checkpoint is old, by the clock of this process."""
        return time.monotonic() - self._at >= INTERVAL * max(1.0, self._cost)

    @property
    def due(self) -> bool:
        """The same by the clock of the first process; all of them must ask."""
        return self._run.ranks.gather(self.overdue)[0]

    def save(self) -> None:
        """Write a checkpoint of everything.

        Raises:
            TrainingError: If it cannot be written; earlier ones are intact.
        """
        started = time.monotonic()
        write_state(self._run)
        self._at, self._steps = time.monotonic(), self._run.state.steps
        self._cost = self._at - started

    def rescue(self) -> None:
        """Write a checkpoint before an error ends the run: the stepper has brought a step that failed back to where it began."""
        run = self._run
        if run.ranks.count > 1 or not run.stepper.intact or run.state.steps == self._steps:
            return
        with suppress(Exception):  # the error that ends the run is the one to be told
            run.guard.check()
            self.save()


def write_state(run: Training) -> None:
    """Write a checkpoint of everything; the first process writes, and all of them hear whether it could.

    Raises:
        TrainingError: If it cannot be written; earlier ones are intact.
    """
    folder = run.folder / "checkpoint"
    checkpoint = run.state.checkpoint(run.model, run.optimizer, run.ranks)
    held = run.penalties.state() if run.penalties else {}
    tensors = {**checkpoint.tensors, **run.averages.tensors(), **({"penalties": held} if held else {})}
    with run.ranks.together():
        if run.ranks.main:
            try:
                write_checkpoint(folder, run.state.steps, replace(checkpoint, tensors=tensors))
            except OSError as error:
                raise no_checkpoint(error, folder) from error


def restore_state(run: Training, saved: Checkpoint) -> None:
    """Take over what ``write_state`` wrote, in place; the random state last."""
    if run.penalties and "penalties" in saved.tensors:
        run.penalties.restore(saved.tensors["penalties"])
    run.averages.restore(saved.tensors)
    run.state.restore(saved, run.model, run.optimizer, run.ranks)
