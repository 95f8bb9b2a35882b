"""A few samples spread over a table, to judge all of it."""

from __future__ import annotations

import random
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import numpy as np

from zoo.data.seeded_generators import seeded_generators
from zoo.data.table import Table, spread_rows


def sample_inputs(table: Table, *, only_if: Callable[[Any], bool] = lambda first: True) -> list[Any]:
    """Return up to eight inputs; none of an array, whose samples are all of one kind.

    Args:
        table: The rows.
        only_if: Whether to read further inputs, given the first.
    """
    if isinstance(table.inputs, np.ndarray):
        return []
    found = []
    with seeded_generators(random.Random(0)):  # a dataset that draws must not shift the random numbers of the run
        for row in spread_rows(len(table)):
            with suppress(Exception):  # a damaged sample is reported, or left out, when the sample is used
                found.append(table.inputs[row])
                if not only_if(found[0]):
                    break
    return found
