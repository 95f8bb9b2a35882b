"""Selection of an epoch by validation data: whether some are held out, the best epoch so far, epochs without improvement."""

from __future__ import annotations

import logging
import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

from zoo.engine.options.config import DECLARED, Config, is_given
from zoo.engine.options.recipes import FEW_SAMPLES, RECIPES
from zoo.errors import OptionError
from zoo.tasks.task import Task
from zoo.trust.metric_table import nearest_metric, on_request

log = logging.getLogger("zoo")
DIVIDING = ("valid_split", "allow_leak")  # options of the division into training and validation data


def decided_by_metric(config: Config) -> list[str]:
    """Return the given options that depend on a metric, and so need validation data."""
    waits = [name for name, option in DECLARED.items() if option.waits and is_given(config, name)]
    plateau = "plateau" in (config.schedule, *(phase.schedule for phase in config.recipe.phases))
    return [*waits, *(["schedule='plateau'"] if plateau else [])]


def whole_up_to(config: Config, task: Task, *, judged: bool = False) -> int:
    """Return the number of samples up to which a run without validation data holds none out: ``FEW_SAMPLES``, or 0.

    So few judge nothing, and the run that is trained on all of them is better; docs/defaults.md has the evidence, which is of the
    default recipe with one class per sample.

    Args:
        config: The resolved configuration.
        task: The task.
        judged: Whether something else needs held-out samples, such as metrics of the user's own.
    """
    asked = judged or decided_by_metric(config) or any(is_given(config, name) for name in DIVIDING)
    return FEW_SAMPLES if task.exclusive and config.recipe == RECIPES["layer-decay"] and not asked else 0


def resolve_monitor(monitor: str | None, task: Task, own: Collection[str] = (), *, name: str = "monitor") -> str:
    """Return the metric that selects the best epoch: the given one, or the first of the task's.

    Args:
        monitor: The given metric, or None.
        task: The task.
        own: Names of the user's own metrics.
        name: Name of the option, for the message.

    Raises:
        OptionError: If the task has no such metric.
    """
    known = list(dict.fromkeys([*task.monitors, *own]))
    if monitor is None:
        return known[0]
    if monitor not in known:
        asked = on_request(task.name) if name == "monitor" else ()
        more = f"; metrics=[{monitor!r}] measures it in every epoch, and then it may be the monitor" if monitor in asked else ""
        near = "" if more else nearest_metric(monitor, known)
        raise OptionError(f"{name} is {monitor!r}{near}; where the task is {task.words}, it is one of: {', '.join(known)}{more}")
    return monitor


@dataclass
class Best:
    """The best epoch so far.

    Attributes:
        monitor: Metric that decides; ties go to the lower loss, then to the earlier epoch.
        epoch: Number of the best epoch, from 1; 0 while there is none.
        score: ``(value, -loss)`` of the best epoch, higher is better.
        waited: Epochs since the last improvement, within the phase.
        lower: Whether the lowest value is the best.
    """

    monitor: str
    lower: bool = False
    epoch: int = 0
    score: tuple[float, float] = (-math.inf, -math.inf)
    waited: int = 0

    def update(self, epoch: int, metrics: Mapping[str, float], *, asked: bool = False) -> bool:
        """Record one epoch's metrics and return whether it is the best so far; one without a value neither is nor counts as waiting.

        Args:
            epoch: Its number.
            metrics: Its metrics.
            asked: Whether it counts as the best whatever its value, with which later ones are then compared.
        """
        value = metrics.get(self.monitor, math.nan)
        if math.isnan(value) and epoch == 1:
            message = (
                "%s has no value on the validation data (is one class alone in them?); an epoch without it is not kept, unless none has it"
            )
            log.warning(message, self.monitor)
        if math.isnan(value):
            return False
        value = -value if self.lower else value
        loss = metrics.get("loss", math.nan)
        score = (value, -math.inf if math.isnan(loss) else -loss)
        better = asked or score > self.score
        self.waited = 0 if better else self.waited + 1
        if better:
            self.epoch, self.score = epoch, score
        return better

    def state_dict(self) -> dict[str, Any]:
        """Return plain data for JSON; infinities as None."""
        return {"epoch": self.epoch, "score": list(self.score) if self.epoch else None, "waited": self.waited}

    def load_state_dict(self, saved: Mapping[str, Any], /) -> None:
        """Load what ``state_dict`` returned, in place."""
        self.epoch, self.waited = int(saved["epoch"]), int(saved["waited"])
        self.score = (saved["score"][0], saved["score"][1]) if saved["score"] else (-math.inf, -math.inf)
