"""The averages of values that one run keeps: along its steps, and over the ends of its last epochs."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext

from zoo.engine.optim.weight_averaging import Average, Ema
from zoo.engine.options.config import Config
from zoo.engine.options.epochs import Epoch
from zoo.models.task_model import TaskModel


class Averages:
    """What ``ema`` and ``average`` of a configuration ask for.

    Args:
        model: The model, on the device it trains on.
        config: The configuration.
        plan: The epochs of the run.

    Attributes:
        ema: The moving average that epochs are validated with, or None.
        mean: The mean over the ends of the last epochs, or None.
    """

    def __init__(self, model: TaskModel, config: Config, plan: Sequence[Epoch]) -> None:
        self._model = model
        self.ema = Ema(model, config.ema) if config.ema else None
        self.mean = Average(model) if config.average else None
        self._first = len(plan) - max(1, round(config.average * len(plan)))

    def settle(self, names: frozenset[str]) -> None:
        """Average nothing of what is frozen from now on."""
        for average in (self.ema, self.mean):
            if average is not None:
                average.settle(names)

    def end_step(self) -> None:
        """Take in the values after a step."""
        if self.ema is not None:
            self.ema.update()

    def end_epoch(self, position: int) -> None:
        """Take in the values after the epoch at this position of the plan."""
        if self.mean is not None and position >= self._first:
            self.mean.update()

    def applied(self) -> AbstractContextManager[None]:
        """Let the model have the values that are validated and kept, for the duration."""
        return self.ema.swapped(self._model) if self.ema is not None else nullcontext()

    @property
    def parts(self) -> dict[str, Ema]:
        """The averages that there are, by name; a checkpoint keeps each."""
        averages = {"ema": self.ema, "average": self.mean}
        return {name: average for name, average in averages.items() if average is not None}
