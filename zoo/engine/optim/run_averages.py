"""Weight averages of one run: a moving average over steps, and the mean over the last epochs."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext

from zoo.engine.optim.weight_averaging import Average, Ema
from zoo.engine.options.config import Config
from zoo.engine.options.epochs import Epoch
from zoo.models.task_model import TaskModel


class Averages:
    """The averages that ``ema`` and ``average`` of a configuration switch on.

    Args:
        model: The model, on the device it trains on.
        config: The configuration.
        epochs: The epochs of the run.

    Attributes:
        ema: The moving average over steps, which is validated, or None.
        mean: The mean over the last epochs, or None.
    """

    def __init__(self, model: TaskModel, config: Config, epochs: Sequence[Epoch]) -> None:
        self._model = model
        self.ema = Ema(model, config.ema) if config.ema else None
        self.mean = Average(model) if config.average else None
        self._first = len(epochs) - max(1, round(config.average * len(epochs)))

    def settle(self, names: frozenset[str]) -> None:
        """Stop averaging frozen values, given by name."""
        for average in (self.ema, self.mean):
            if average is not None:
                average.freeze(names)

    def end_step(self) -> None:
        """Update the moving average after a step."""
        if self.ema is not None:
            self.ema.update()

    def end_epoch(self, position: int) -> None:
        """Update the mean after the epoch at a position of the run."""
        if self.mean is not None and position >= self._first:
            self.mean.update()

    def applied(self) -> AbstractContextManager[None]:
        """Give the model the averaged values, which are validated and saved, while the context is open."""
        return self.ema.swapped(self._model) if self.ema is not None else nullcontext()

    @property
    def parts(self) -> dict[str, Ema]:
        """The averages in use by name, for checkpoints."""
        averages = {"ema": self.ema, "average": self.mean}
        return {name: average for name, average in averages.items() if average is not None}
