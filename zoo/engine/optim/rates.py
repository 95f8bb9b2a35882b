"""The learning rate of every step: of the group, the phase, the schedule, and what a range test or a plateau made of it."""

from __future__ import annotations

import torch

from zoo.engine.optim.schedule import rate
from zoo.engine.options.config import Config
from zoo.engine.options.epochs import Epoch
from zoo.engine.train.train_state import State


class Rates:
    """Sets the learning rates of an optimizer.

    Args:
        optimizer: Its rates at construction are those of its groups; with ``lr="auto"`` relative to the head's.
        config: The configuration.
        state: Knows the rates that were found, and the plateau.
    """

    def __init__(self, optimizer: torch.optim.Optimizer, config: Config, state: State) -> None:
        self._optimizer, self._config, self._state = optimizer, config, state
        self._base = [float(group["lr"]) for group in optimizer.param_groups]
        self.auto = config.lr == "auto"

    def schedule(self, epoch: Epoch) -> str:
        """Return the schedule of a phase."""
        return epoch.phase.schedule or self._config.schedule

    def peak(self, epoch: Epoch) -> float:
        """Return the highest rate of the head in a phase; 1 while it has to be found yet."""
        if self._config.lr == "auto":
            return self._state.rates.get(str(epoch.index), 1.0)
        return self._config.lr * epoch.phase.lr

    def head(self, epoch: Epoch, step: int) -> float:
        """Return the rate of the head at a step of an epoch."""
        shape = rate(epoch.before + step, epoch.total, self._config.warmup, self.schedule(epoch))
        return self.peak(epoch) * shape * self._state.plateau.factor

    def apply(self, epoch: Epoch, step: int) -> None:
        """Set the rates for a step of an epoch."""
        self.apply_head(self.head(epoch, step))

    def apply_head(self, lr: float) -> None:
        """Set the rates so that the head trains at ``lr``."""
        own = 1.0 if self._config.lr == "auto" else self._config.lr
        for group, base in zip(self._optimizer.param_groups, self._base, strict=True):
            group["lr"] = base * (lr / own)
