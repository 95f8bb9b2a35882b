"""Learning-rate schedules: the factor on every learning rate at one step of a phase.

Each is a function of the share of the phase that is done, so an interrupted run goes on where it was without any state.
``plateau`` alone looks at the results; what it must remember is in ``zoo.engine.optim.plateau``.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from types import MappingProxyType

from zoo.errors import OptionError, did_you_mean

# Where `step` divides by ten: half and three quarters of the way (He et al. 2016, on CIFAR-10).
DROPS = (0.5, 0.75)
DROP = 0.1
# How far below its peak `one-cycle` starts, and how far below its start it ends; the defaults of torch's OneCycleLR.
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
    """Go from ``start`` to ``end`` along half a cosine."""
    return end + (start - end) / 2 * (1 + math.cos(math.pi * share))


_FALLS: Mapping[str, Callable[[int, int, int], float]] = MappingProxyType(
    {"cosine": _cosine, "one-cycle": _constant, "linear": _linear, "constant": _constant, "step": _step, "plateau": _constant}
)
