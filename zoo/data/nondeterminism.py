"""Detection of datasets whose inputs differ each time that they are read."""

from __future__ import annotations

import random
from contextlib import suppress
from typing import Any

import numpy as np
import torch

from zoo.data.seeded_generators import seeded_generators
from zoo.data.splits.duplicates import memory_key
from zoo.data.table import Table, spread_rows


def is_nondeterministic(table: Table) -> bool:
    """Return whether inputs may differ each time that they are read, as those of a dataset that draws its own augmentation.

    They may if reading one draws from a global random generator, however rarely that shows, or if two readings differ.
    """
    if isinstance(table.inputs, list | tuple | np.ndarray):
        return False
    with seeded_generators(random.Random(0)):
        before = _generator_states()
        for row in spread_rows(len(table)):
            with suppress(Exception):
                if memory_key(table.inputs[row]) != memory_key(table.inputs[row]):
                    return True
        return _generator_states() != before


def _generator_states() -> tuple[Any, ...]:
    """Return the states of the global random generators."""
    numbers = np.random.get_state(legacy=False)
    return random.getstate(), repr(numbers), torch.default_generator.get_state().numpy().tobytes()
