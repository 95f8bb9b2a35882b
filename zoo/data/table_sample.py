"""A few samples spread over a table, to judge all of it."""

from __future__ import annotations

import random
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import numpy as np
import torch

from zoo.data.duplicates import memory_key
from zoo.data.own_augmentation import drawing_from
from zoo.data.table import Table, spread_rows


def spread(table: Table, *, only_if: Callable[[Any], bool] = lambda first: True) -> list[Any]:
    """Return up to eight inputs; none of an array, whose samples are all of one kind.

    Args:
        table: The rows.
        only_if: Whether to read further inputs, given the first.
    """
    if isinstance(table.inputs, np.ndarray):
        return []
    found = []
    with drawing_from(random.Random(0)):  # a dataset that draws must not shift the random numbers of the run
        for row in spread_rows(len(table)):
            with suppress(Exception):  # a damaged sample is told, or left out, where it is used
                found.append(table.inputs[row])
                if not only_if(found[0]):
                    break
    return found


def changes(table: Table) -> bool:
    """Return whether inputs may differ each time that they are read, as those of a dataset that draws its own augmentation.

    They may if reading one draws from a global random generator, however rarely that shows, or if two readings differ.
    """
    if isinstance(table.inputs, list | tuple | np.ndarray):
        return False
    with drawing_from(random.Random(0)):
        before = _generators()
        for row in spread_rows(len(table)):
            with suppress(Exception):
                if memory_key(table.inputs[row]) != memory_key(table.inputs[row]):
                    return True
        return _generators() != before


def _generators() -> tuple[Any, ...]:
    """Return the states of the global random generators."""
    numbers = np.random.get_state(legacy=False)
    return random.getstate(), repr(numbers), torch.default_generator.get_state().numpy().tobytes()
