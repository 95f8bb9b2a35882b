"""What a checkpoint of a run holds: its state, its averages, and what its penalties remember of the start."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from zoo.engine.checkpoint import Checkpoint, write_checkpoint
from zoo.engine.messages import no_checkpoint

if TYPE_CHECKING:
    from zoo.engine.training import Training


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
