"""Tests of numbers that a user, a file or a plugin gave, which may be anything."""

from __future__ import annotations

from numbers import Integral, Real
from typing import Any

_LARGEST = 1e38  # about the largest value of float32, in which networks compute


def is_whole(value: Any) -> bool:
    """Return whether a value is a whole number, of Python or of numpy, and no truth value."""
    return isinstance(value, Integral) and not isinstance(value, bool)


def is_finite(value: Any) -> bool:
    """Return whether a value is a number that is finite as float32, and no truth value."""
    return isinstance(value, Real) and not isinstance(value, bool) and abs(value) <= _LARGEST  # type: ignore[operator]
