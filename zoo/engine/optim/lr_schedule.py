"""Learning-rate schedules, and the rate of every layer group at every step.

A schedule is a function of the step within the phase and has no state, so a resumed run needs none. Only ``plateau`` depends
on results; its state is a ``Plateau``.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import torch

from zoo.engine.options.config import Config
from zoo.engine.options.epochs import Epoch
from zoo.errors import OptionError, did_you_mean

# Shares of the phase at which `step` divides by ten (He et al. 2016, on CIFAR-10).
DROPS = (0.5, 0.75)
DROP = 0.1
# Peak over start and start over end of `one-cycle`; the defaults of torch's OneCycleLR.
START, END = 25.0, 1e4


def rate(step: int, total: int, warmup: float, schedule: str = "cosine") -> float:
    """Return the factor on the learning rate at ``step``, in (0, 1].

    All but ``one-cycle`` rise linearly over the first ``warmup`` share of the steps and then

    * ``cosine`` falls as half a cosine (Loshchilov & Hutter 2017),
    * ``linear`` falls in a straight line,
    * ``constant`` and ``plateau`` stay at 1,
    * ``step`` stays at 1 and is divided by ten at one half and at three quarters of the phase (He et al. 2016).

    ``one-cycle`` rises as half a cosine from 1/25 over ``warmup``, then falls as half a cosine to 1/250000 (Smith 2018; the
    numbers are those of torch's ``OneCycleLR``). No step is spent at a rate of zero: the last is one step short of the end.

    Args:
        step: Optimizer steps done in this phase, from 0.
        total: Optimizer steps of this phase.
        warmup: Share of ``total``, in [0, 1).
        schedule: Name of the schedule.

    Raises:
        OptionError: With the nearest name, if there is no such schedule.
    """
    if schedule not in _FALLS:
        raise OptionError(f"there is no schedule {schedule!r}{did_you_mean(schedule, _FALLS)}; the schedules are: {', '.join(_FALLS)}")
    if schedule == "one-cycle":
        return _one_cycle(step, total, warmup)
    rising = round(total * warmup)
    if step < rising:
        return (step + 1) / (rising + 1)
    return _FALLS[schedule](step, total, rising)


def _cosine(step: int, total: int, rising: int) -> float:
    return 0.5 * (1 + math.cos(math.pi * (step - rising) / max(1, total - rising)))


def _linear(step: int, total: int, rising: int) -> float:
    return 1 - (step - rising) / max(1, total - rising)


def _constant(step: int, total: int, rising: int) -> float:
    return 1.0


def _step(step: int, total: int, rising: int) -> float:
    return DROP ** sum(step >= share * total for share in DROPS)


def _one_cycle(step: int, total: int, warmup: float) -> float:
    low = 1 / START
    peak, last = max(0.0, total * warmup - 1), total - 1
    if step < peak:
        return _eased(low, 1.0, step / peak)
    return _eased(1.0, low / END, (step - peak) / (last - peak) if last > peak else 0.0)


def _eased(start: float, end: float, share: float) -> float:
    """Return the value at ``share`` of the way from ``start`` to ``end`` along half a cosine."""
    return end + (start - end) / 2 * (1 + math.cos(math.pi * share))


_FALLS: Mapping[str, Callable[[int, int, int], float]] = MappingProxyType(
    {"cosine": _cosine, "one-cycle": _constant, "linear": _linear, "constant": _constant, "step": _step, "plateau": _constant}
)


@dataclass
class Plateau:
    """A factor that falls when the monitored metric no longer improves.

    After ``patience`` epochs in a row without a better one the factor is multiplied by ``decay`` and the count starts anew.
    The defaults are shorter and milder than those of training from scratch (10 epochs and 0.1 in torch, Keras and timm): a
    fine-tuning has 20 epochs, and would be over before the first fall.

    Attributes:
        patience: Epochs without improvement before the factor falls.
        decay: Multiplier of the factor at each fall, in (0, 1).
        lowest: The factor never falls below this.
        factor: Factor on every learning rate of the phase.
        waited: Epochs since the last improvement or fall.
    """

    patience: int = 3
    decay: float = 0.3
    lowest: float = 1e-3
    factor: float = 1.0
    waited: int = 0

    def update(self, better: bool) -> None:
        """Count an epoch, which is the best so far or not."""
        self.waited = 0 if better else self.waited + 1
        if self.waited >= self.patience:
            self.factor, self.waited = max(self.lowest, self.factor * self.decay), 0

    def state_dict(self) -> dict[str, Any]:
        """Return the factor and the count, without the settings."""
        return {"factor": self.factor, "waited": self.waited}

    def load_state_dict(self, saved: Mapping[str, Any], /) -> None:
        """Take over what ``state_dict`` returned, in place."""
        self.factor, self.waited = float(saved["factor"]), int(saved["waited"])


class Rates:
    """Sets the learning rates of an optimizer.

    Args:
        optimizer: Its rates at construction are those of its groups; with ``lr="auto"`` relative to the head's.
        config: The configuration.

    Attributes:
        found: Learning rate of the head that a range test found for each phase, by the position of the phase.
        plateau: State of the ``plateau`` schedule in the current phase.
        auto: Whether each phase needs a range test.
    """

    def __init__(self, optimizer: torch.optim.Optimizer, config: Config) -> None:
        self._optimizer, self._config = optimizer, config
        self.found: dict[str, float] = {}
        self.plateau = Plateau()
        self._base = [float(group["lr"]) for group in optimizer.param_groups]
        self.auto = config.lr == "auto"

    def schedule(self, epoch: Epoch) -> str:
        """Return the schedule of a phase."""
        return epoch.phase.schedule or self._config.schedule

    def peak(self, epoch: Epoch) -> float:
        """Return the highest rate of the head in a phase; 1 until a range test has found it."""
        if self._config.lr == "auto":
            return self.found.get(str(epoch.index), 1.0)
        return self._config.lr * epoch.phase.lr

    def head(self, epoch: Epoch, step: int) -> float:
        """Return the rate of the head at a step of an epoch."""
        shape = rate(epoch.before + step, epoch.total, self._config.warmup, self.schedule(epoch))
        return self.peak(epoch) * shape * self.plateau.factor

    def apply(self, epoch: Epoch, step: int) -> None:
        """Set the rates for a step of an epoch."""
        self.apply_head(self.head(epoch, step))

    def apply_head(self, lr: float) -> None:
        """Set the rates so that the head trains at ``lr``."""
        own = 1.0 if self._config.lr == "auto" else self._config.lr
        for group, base in zip(self._optimizer.param_groups, self._base, strict=True):
            group["lr"] = base * (lr / own)

    def state_dict(self) -> dict[str, Any]:
        """Return the rates that were found and the state of the plateau."""
        return {"found": self.found, "plateau": self.plateau.state_dict()}

    def load_state_dict(self, saved: Mapping[str, Any], /) -> None:
        """Take over what ``state_dict`` returned, in place."""
        self.found = {str(position): float(lr) for position, lr in saved["found"].items()}
        self.plateau.load_state_dict(saved["plateau"])
