"""Labels from the cells of tables: a column per class, and numbers whose names the table declares."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

from zoo.data.raw import Indicators, ReadOptions, TaskLabels
from zoo.data.sources.cells import is_empty, is_missing
from zoo.errors import DataError, count, examples

_INDICATED = (0.0, 1.0, -1.0)


_NONE: Mapping[str, Sequence[str]] = MappingProxyType({})


def labels_of_columns(
    columns: Mapping[str, Sequence[Any]], options: ReadOptions, source: str, classes: Mapping[str, Sequence[str]] = _NONE
) -> list[Any]:
    """Return the labels of ``options.label_columns``: a value per class, or the labels of several tasks.

    Args:
        columns: The cells of these columns, in their order.
        options: The options of the reader.
        source: For messages.
        classes: Names of the classes whose numbers a column has, where the source declares them.

    Raises:
        DataError: If cells of a column per class are not numbers.
    """
    if not options.tasks:
        return list(indicators(columns, source))
    cells = [[named(cell, classes[name]) for cell in each] if classes.get(name) else each for name, each in columns.items()]
    return [TaskLabels(options.tasks, tuple(row)) for row in zip(*cells, strict=True)]


def indicators(columns: Mapping[str, Sequence[Any]], source: str) -> list[Indicators]:
    """Return the labels of columns with a value per class; an empty cell is NaN.

    Raises:
        DataError: If cells are not numbers, naming their columns and rows.
    """
    names, parsed, faults = tuple(columns), [], []
    for name, cells in columns.items():
        values = [_number(cell) for cell in cells]
        rows = [f"row {row} ({cells[row]!r})" for row, value in enumerate(values) if value is None]
        if rows:
            faults.append(f"column {name!r}: {count(len(rows), 'cell')}, {examples(rows, 2)}")
        parsed.append([math.nan if value is None else value for value in values])
    if faults:
        named = f"; a column of names is given as columns={{'label': {names[0]!r}}}" if len(names) == 1 else ""
        raise DataError(
            f"{source}: label columns hold something else than numbers: {examples(faults)}; a label is 0, 1, or empty if unknown{named}"
        )
    return [Indicators(names, row) for row in zip(*parsed, strict=True)]


def indicator_columns(columns: Mapping[str, Sequence[Any]]) -> list[str]:
    """Return the columns that look like one per class: 0, 1, -1 or empty, with a 1 somewhere; none if there is only one."""
    found = []
    for name, cells in columns.items():
        values = {_number(cell) for cell in cells if not is_empty(cell)}
        if 1.0 in values and values <= set(_INDICATED):
            found.append(name)
    return found if len(found) > 1 else []


def _number(cell: Any) -> float | None:
    """Return the number of a cell, NaN of an empty one, None of anything else."""
    if is_empty(cell):
        return math.nan
    if isinstance(cell, str) and cell.strip().lower() in ("true", "false"):
        return float(cell.strip().lower() == "true")
    try:
        return float(cell)
    except (TypeError, ValueError):
        return None


def named(label: Any, names: Sequence[str]) -> Any:
    """Return the name of a class whose number a cell has, or a list of them; None for a row without a label.

    Raises:
        DataError: If there is no class of this number, or the cell holds text.
    """
    if isinstance(label, str):
        raise DataError(
            f"the label {label!r} is text, and the source declares names for class numbers: {examples(list(names), 8)}; store the "
            "numbers, or write the file again without this declaration (the entry 'huggingface' of a Parquet file's metadata)"
        )
    if isinstance(label, list | tuple) or hasattr(label, "__len__"):
        return [named(one, names) for one in label]
    if is_missing(label) or label < 0:  # datasets marks unlabelled rows by -1
        return None
    if label >= len(names):
        raise DataError(f"the label {label!r} is the number of no class; the source declares {len(names)}: {examples(list(names), 8)}")
    return names[int(label)]
