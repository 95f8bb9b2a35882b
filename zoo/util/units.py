"""Sizes in words."""

from __future__ import annotations

_UNITS = ("bytes", "kB", "MB", "GB", "TB")
_ROUNDED_UP = 999.5  # from here on three digits are 1000 of a unit


def in_units(size: float) -> str:
    """Return a number of bytes as ``3.2 MB``, to three digits; from 1,000 TB on to whole ones."""
    for unit in _UNITS:
        if size < _ROUNDED_UP:
            return f"{size:.3g} {unit}"
        size /= 1000
    return f"{1000 * size:,.0f} {_UNITS[-1]}"
