"""Checkpoints of a run at intervals of time, and before an error ends it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

from zoo.engine.distributed.ranks import Ranks
from zoo.engine.rundir.checkpoint import write_checkpoint, written
from zoo.engine.rundir.stateful import Stateful, collect
from zoo.errors import DiskFullError, TrainingError

# Seconds between checkpoints; if the last one took more than a second, as many times that. Epochs on cached features take
# milliseconds, a checkpoint takes longer.
INTERVAL = 30.0


class CheckpointWriter:
    """Writes checkpoints of a run and says when the next one is due.

    Args:
        folder: Folder of the checkpoints.
        parts: The objects with state, by name.
        ranks: The processes; all of them collect the states, the first one writes.
        steps: Optimizer steps of the run so far.
    """

    def __init__(self, folder: Path, parts: Mapping[str, Stateful], ranks: Ranks, steps: Callable[[], int]) -> None:
        self._folder, self._parts, self._ranks, self._steps = folder, parts, ranks, steps
        self._at, self._written, self._cost = time.monotonic(), 0, 0.0
        self._updating = False

    @property
    def overdue(self) -> bool:
        """Whether the last checkpoint is too old, by the clock of this process."""
        return time.monotonic() - self._at >= INTERVAL * max(1.0, self._cost)

    @property
    def due(self) -> bool:
        """The same by the clock of the first process; a collective."""
        return self._ranks.gather(self.overdue)[0]

    @contextmanager
    def updating(self) -> Iterator[None]:
        """Mark code during which the state is inconsistent: after an error inside, ``rescue`` writes nothing."""
        self._updating = True
        yield
        self._updating = False

    def save(self) -> None:
        """Write a checkpoint; the first process writes, and an error there is raised on all.

        Raises:
            TrainingError: If it cannot be written; earlier ones are intact.
        """
        started = time.monotonic()
        checkpoint = collect(self._parts)
        with self._ranks.together():
            if self._ranks.main:
                try:
                    write_checkpoint(self._folder, self._steps(), checkpoint)
                except OSError as error:
                    raise _not_written(error, self._folder) from error
        self._at, self._written = time.monotonic(), self._steps()
        self._cost = self._at - started

    def rescue(self, check: Callable[[], None]) -> None:
        """Write a checkpoint before an error ends the run, if the state is consistent, as after a step that was rolled back.

        Args:
            check: Raises if a value that is not finite was seen and not yet reported.
        """
        if self._ranks.count > 1 or self._updating or self._steps() == self._written:
            return
        with suppress(Exception):  # the error that ends the run is reported
            check()
            self.save()


def _not_written(error: OSError, folder: Path) -> TrainingError:
    """Return the error for a checkpoint that cannot be written, such as on a full disk."""
    cause = str(error) if isinstance(error, DiskFullError) else f"{str(folder)!r} cannot be written: {error.strerror or error}"
    intact = "Earlier ones are intact: go on with resume=True (--resume)"
    remedy = intact if written(folder) else "There is no earlier one: start anew after that"
    return TrainingError(f"no checkpoint could be written: {cause}. {remedy}")
