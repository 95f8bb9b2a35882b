"""One output per text from the outputs of its windows."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import numpy.typing as npt

from zoo.data.table import Table
from zoo.data.texts.encode import TextWindow

Array = npt.NDArray[Any]


def pool_windows(outputs: Array, table: Table, pool: Callable[[Array], Array]) -> Array:
    """Return one row per text for the outputs of a table's rows; unchanged if the rows are no windows.

    Args:
        outputs: ``(rows, …)``; for words an array of arrays ``(words, classes)``, of which each word is taken from the window in which
            it stands farther from an end.
        table: The rows, see ``zoo.data.texts.token_ids.fit_lengths``.
        pool: From the outputs of all windows of a text ``(windows, …)`` to its output.
    """
    rows = table.inputs
    if not len(rows) or not isinstance(rows[0], TextWindow):
        return outputs
    places = (list(group) for _, group in itertools.groupby(range(len(rows)), key=lambda place: rows[place].text))
    if outputs.dtype != object:
        return np.stack([outputs[group[0]] if len(group) == 1 else pool(outputs[group]) for group in places]).astype(outputs.dtype)
    joined = [_join((rows[place], outputs[place]) for place in group) for group in places]
    result = np.empty(len(joined), dtype=object)
    result[:] = joined
    return result


def _join(parts: Iterable[tuple[TextWindow, Array]]) -> Array:
    """Return the outputs of all words of a sentence; an overlap is divided in its middle."""
    found: list[Array] = []
    end, start = 0, 0  # of the words that are in ``found``
    for window, outputs in parts:
        if not found:
            start = end = window.first
        seam = min(end, window.first + (end - window.first) // 2)
        found = [np.concatenate(found)[: seam - start]] if found else []
        found.append(outputs[seam - window.first :])
        end = window.first + window.size
    return np.concatenate(found)
