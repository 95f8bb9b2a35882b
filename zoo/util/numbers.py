"""Numbers that a user, a file or a plugin gave, which may be anything; numbers in JSON, which has no NaN; and numbers as text."""

from __future__ import annotations

import math
from collections.abc import Mapping
from numbers import Integral, Real
from typing import Any

_IN_UNITS = {"mae", "rmse", "mse", "median_error", "max_error"}  # metrics in the unit of the targets, which may be nanometres
_LARGEST = 1e38  # about the largest value of float32, in which networks compute
_UNITS = ("bytes", "kB", "MB", "GB", "TB")
_ROUNDED_UP = 999.5  # from here on three digits are 1000 of a unit


def is_whole(value: Any) -> bool:
    """Return whether a value is a whole number, of Python or of numpy, and no truth value."""
    return isinstance(value, Integral) and not isinstance(value, bool)


def whole_of(value: Any) -> Any:
    """Return the whole number that a text of digits is, as ``fit`` takes it; anything else as it is."""
    return int(value) if isinstance(value, str) and value.strip().isdecimal() else value


def is_finite(value: Any) -> bool:
    """Return whether a value is a number that is finite as float32, and no truth value."""
    return isinstance(value, Real) and not isinstance(value, bool) and abs(value) <= _LARGEST  # type: ignore[operator]


def without_nan(value: Any) -> Any:
    """Return plain data for JSON: mappings as dicts, sequences as lists, and None for numbers that are not finite."""
    if isinstance(value, Mapping):
        return {key: without_nan(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [without_nan(one) for one in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def nan_for_none(value: float | None) -> float:
    """Return a number that ``without_nan`` wrote; NaN for None."""
    return math.nan if value is None else value


def interval_text(metric: str, value: float, low: float | None, high: float | None) -> str:
    """Return the value of a metric as text, ``0.9608``, or with its interval ``0.911 [0.862, 0.949]``, where it has one."""
    if low is None or high is None:
        return score_text(metric, value)
    return "{} [{}, {}]".format(*(score_text(metric, each, 3) for each in (value, low, high)))


def score_text(metric: str, value: float, places: int = 4) -> str:
    """Return the value of a metric as text, ``0.9608``; one in the unit of small targets with as many digits that count, ``1.279e-09``."""
    small = metric in _IN_UNITS and 0 < abs(value) < 0.01
    return f"{value:.{places}g}" if small else f"{value:.{places}f}"


def in_units(size: float) -> str:
    """Return a number of bytes as ``3.2 MB``, to three digits; from 1,000 TB on to whole ones."""
    for unit in _UNITS:
        if size < _ROUNDED_UP:
            return f"{size:.3g} {unit}"
        size /= 1000
    return f"{1000 * size:,.0f} {_UNITS[-1]}"
