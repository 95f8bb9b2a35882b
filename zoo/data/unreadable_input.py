"""Inputs of a table that cannot be read, kept in their place so that their rows of results have the reason."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

SKIPPED = "on_error='skip' (--on-error skip) leaves out what cannot be read"


@dataclass(frozen=True)
class Unreadable:
    """An input that cannot be read.

    Attributes:
        reason: Why, such as ``the cell is empty``.
    """

    reason: str


def unreadable(inputs: Sequence[Any]) -> dict[int, str]:
    """Return why inputs cannot be read, by their row; lazy sequences have none that are known beforehand."""
    if not isinstance(inputs, list | tuple):
        return {}
    return {row: item.reason for row, item in enumerate(inputs) if isinstance(item, Unreadable)}


def skip_hint(keep: bool | None) -> str:
    """Return the end of a message of inputs that cannot be read; empty where they cannot be skipped.

    Args:
        keep: Whether such inputs keep their row; None where that cannot be chosen.
    """
    return f"; {SKIPPED}" if keep is False else ""
