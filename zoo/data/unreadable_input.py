"""Inputs of a table that cannot be read, kept in their place so that their rows of results have the reason."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from zoo.errors import DataError

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


class UnreadableInputsError(DataError):
    """Inputs of a source that cannot be read, where they do not keep their rows as ``Unreadable``."""
