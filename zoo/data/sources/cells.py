"""Tests for emptiness: of values, of cells of a table, and of labels."""

from __future__ import annotations

import math
from typing import Any


def is_missing(value: Any) -> bool:
    """Return whether a value is None, NaN, or pandas' NA or NaT."""
    return value is None or type(value).__name__ in ("NAType", "NaTType") or (isinstance(value, float) and math.isnan(value))


def is_empty(cell: Any) -> bool:
    """Return whether a cell is missing, or whitespace-only text."""
    return not cell.strip() if isinstance(cell, str) else is_missing(cell)


def is_unlabelled(label: Any, *, empty_is_none: bool = False) -> bool:
    """Return whether a label is missing, written ``nan``, or empty text unless that means "none of the classes"."""
    if isinstance(label, str):
        return label.lower() == "nan" or (not label and not empty_is_none)
    return is_missing(label)
