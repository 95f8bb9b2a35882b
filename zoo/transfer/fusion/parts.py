"""The parts of the rows of a table: images, texts and numbers, each with the rows in which it is missing."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from zoo.data.open import open_data
from zoo.data.sources.cells import is_empty
from zoo.data.sources.folders import check_exists
from zoo.data.sources.locate import place_files
from zoo.data.sources.tables.columns import usual_columns
from zoo.data.sources.tables.table_files import SOURCE, SUFFIXES, parse_file
from zoo.data.table import Table, split_word
from zoo.data.unreadable_input import Unreadable
from zoo.errors import DataError, OptionError, check_options, count, did_you_mean, examples, fault_list
from zoo.tasks.labels.names import OTHER_CLASSES

if TYPE_CHECKING:
    import pandas as pd

ROLES = {"image": ("file_name",), "text": ("text", "text_pair")}  # columns that only this part reads
OTHERS = ("label", "group", "split")  # roles of columns that say nothing of a part
EMPTY = "the cell is empty"
Array = npt.NDArray[Any]


@dataclass(frozen=True)
class Parts:
    """A table by its parts.

    Attributes:
        labels: The rows with their targets, if they have some.
        inputs: The images and the texts, ``Unreadable`` where one is missing.
        numbers: ``(rows, columns)``, NaN where one is missing.
        missing: Rows in which a part is missing, ``(rows,)`` of bool, by the part; of numbers each column is a part of its own.
    """

    labels: Table
    inputs: Mapping[str, Sequence[Any]]
    numbers: Array
    missing: Mapping[str, Array]

    def select(self, rows: Array) -> Parts:
        """Return some rows, by their numbers."""
        inputs = {name: [items[row] for row in rows] for name, items in self.inputs.items()}
        return Parts(self.labels.select(rows), inputs, self.numbers[rows], {name: gone[rows] for name, gone in self.missing.items()})

    def there(self, name: str) -> Table:
        """Return the images or the texts of the rows that have one."""
        items = [one for one, gone in zip(self.inputs[name], self.missing[name], strict=True) if not gone]
        return Table(items, None, source=self.labels.source, reads=name)


def read_parts(
    source: Any,
    kinds: Sequence[str],
    numbers: Sequence[str],
    *,
    columns: Mapping[str, str],
    root: str | os.PathLike[str] | None,
    labelled: bool | None,
    task: str,
    classes: tuple[str, ...] | None = None,
    label_columns: Sequence[str] = (),
    uncertain: str | None = None,
) -> Parts:
    """Read a table by its parts; an empty cell is a missing part.

    Args:
        source: A CSV, TSV, JSON lines or Parquet file, or a DataFrame.
        kinds: ``image``, ``text`` or both.
        numbers: Columns of numbers.
        columns: Own names of columns by role.
        root: Folder of the images; None is that of the table.
        labelled: As for ``zoo.open_data``.
        task: Name of the task.
        classes: Those of the training data, or None to find them.
        label_columns: Columns that hold the labels, one per class, as for ``zoo.open_data``; not read where ``labelled`` is False.
        uncertain: What a label of -1 counts as, likewise.

    Raises:
        OptionError: If the source is no table, ``columns`` names one that no backbone reads, or a label would be read as a number.
        DataError: If labelled rows are of several splits, a column is missing, a cell is no number, an image does not exist, or a row
            has no part at all.
    """
    unused = [role for kind, roles in ROLES.items() if kind not in kinds for role in roles if role in columns]
    if unused:
        raise OptionError(f"columns names {', '.join(map(repr, unused))}, and no backbone reads it; give image= or text=, or leave it out")
    check_options(columns, [*(role for roles in ROLES.values() for role in roles), *OTHERS], "columns=")
    frame, folder = _frame(source)
    _check_columns(source, frame, kinds, columns)
    if labelled:
        given_labels = label_columns or ([columns["label"]] if "label" in columns else usual_columns("label", list(frame.columns))[:1])
        _refuse_labels(numbers, given_labels)
    base = (folder if root is None else root) if _names_files(frame, columns) else None
    own = {role: name for role, name in columns.items() if not any(role in roles for roles in ROLES.values())}
    tables: dict[str, Table] = {}
    for number, kind in enumerate(kinds):
        named = {role: columns[role] for role in ROLES[kind] if role in columns}
        with_labels = labelled if number == 0 else False  # the labels are read once
        given: dict[str, Any] = {"columns": (own if number == 0 else {}) | named, "root": base if kind == "image" else None}
        if with_labels is not False:
            given |= {"label_columns": label_columns, "uncertain": uncertain}
        with _own_remedies():
            tables[kind] = open_data(frame, task=task, reads=kind, labelled=with_labels, classes=classes, keep_unreadable=True, **given)
    _check_one_split(tables[kinds[0]], labelled=bool(labelled))
    _check_files(tables)
    inputs = {kind: [table.inputs[row] for row in range(len(table))] for kind, table in tables.items()}
    values = _numbers(frame, numbers)
    missing: dict[str, Array] = {kind: np.array([isinstance(one, Unreadable) for one in items]) for kind, items in inputs.items()}
    missing |= {f"number {name}": np.isnan(values[:, place]) for place, name in enumerate(numbers)}
    empty = np.flatnonzero(np.all(list(missing.values()), axis=0))
    if len(empty):
        rows = examples([f"row {row}" for row in empty])
        have = "has" if len(empty) == 1 else "have"
        raise DataError(f"{count(len(empty), 'row')} of {len(frame)} {have} none of {', '.join(missing)}: {rows}; remove them")
    return Parts(tables[kinds[0]], inputs, values, missing)


@contextmanager
def _own_remedies() -> Iterator[None]:
    """Replace a remedy that is of no use for a table of several parts, whose rows are not left out one by one."""
    try:
        yield
    except DataError as error:
        error.args = (str(error).replace(OTHER_CLASSES, "Correct the labels, or leave these rows out of the table."),)
        raise


def check_present(parts: Parts) -> None:
    """Check that no part is missing in every row of the training data.

    Raises:
        DataError: Naming each such part.
    """
    absent = [name for name, rows in parts.missing.items() if rows.all()]
    if absent:
        raise DataError(f"{', '.join(map(repr, absent))}: every cell is empty, so nothing can be learned from it; leave it out of fuse()")


def _frame(source: Any) -> tuple[pd.DataFrame, Path | None]:
    known = f"fusion reads one table ({' '.join(SUFFIXES)}, or a DataFrame) with a row per sample"
    if isinstance(source, str | os.PathLike):
        path = Path(source)
        check_exists(path)
        if path.suffix.lower() not in SUFFIXES or not path.is_file():
            raise OptionError(f"{known}, and {str(path)!r} is none")
        frame = parse_file(path)
        frame.attrs[SOURCE] = repr(str(path))
        return frame, path.parent
    if type(source).__name__ != "DataFrame":
        raise OptionError(f"{known}, not {type(source).__name__}")
    return source, None


def _check_columns(source: Any, frame: pd.DataFrame, kinds: Sequence[str], columns: Mapping[str, str]) -> None:
    """Raise for a part that has no column."""
    known, faults = [str(name) for name in frame.columns], []
    for kind in kinds:
        role = ROLES[kind][0]
        if _column(role, known, columns) is None:
            name = columns.get(role, role)
            faults.append(f"there is no column {name!r} for the {kind} backbone{did_you_mean(name, known)}; name yours: {role}=…")
    if faults:
        what = f"{str(source)!r}" if isinstance(source, str | os.PathLike) else "the DataFrame"
        remedy = "columns={…} (--columns) names columns; where a part is missing in all rows to predict, add an empty column"
        raise DataError(fault_list(f"{what} has the columns {', '.join(known)}:", faults, remedy))


def _column(role: str, names: Sequence[str], columns: Mapping[str, str]) -> str | None:
    """Return the column of a role, as ``open_data`` takes it: the named one, else the first of the usual names; None without any."""
    found = [columns[role]] if role in columns else usual_columns(role, names)
    return next((name for name in found if name in names), None)


def _refuse_labels(numbers: Sequence[str], labels: Sequence[str]) -> None:
    """Raise for numbers that are the labels, by which every row would be known."""
    if odd := [repr(name) for name in numbers if name in labels]:
        raise OptionError(f"numbers names {examples(odd)}, which the labels are read from; leave out what is to be predicted")


def _names_files(frame: pd.DataFrame, columns: Mapping[str, str]) -> bool:
    """Return whether any row names an image; a folder of images is of no use to the others."""
    name = _column("file_name", [str(one) for one in frame.columns], columns)
    return name is not None and not all(map(is_empty, frame[name]))


def _check_one_split(table: Table, *, labelled: bool) -> None:
    """Raise for labelled rows of several splits, which would be trained or measured on together."""
    splits = sorted(set(map(split_word, table.splits or ()))) if labelled else []
    if len(splits) > 1:
        remedy = "give the rows of one, such as frame[frame['split'] == 'train']"
        raise DataError(f"{table.source} has rows of {count(len(splits), 'split')} ({examples(list(map(repr, splits)))}); {remedy}")


def _check_files(tables: Mapping[str, Table]) -> None:
    """Raise for parts that are not missing and yet cannot be read, such as images that do not exist."""
    faults = []
    for kind, table in tables.items():
        reasons = {row: one.reason for row, one in enumerate(table.inputs) if isinstance(one, Unreadable) and one.reason != EMPTY}
        if reasons:
            shown = examples([f"row {row} ({reason})" for row, reason in reasons.items()])
            faults.append(f"{count(len(reasons), kind)} of {len(table)} cannot be read: {shown}")
    if faults:
        raise DataError(fault_list("the table cannot be fused:", faults, "Leave the cells empty where a part is missing"))
    if "image" in tables:  # whose files that do not exist were kept, as cells may be empty
        table = tables["image"]
        place_files([item for item in table.inputs if not isinstance(item, Unreadable)], table.source)


def _numbers(frame: pd.DataFrame, names: Sequence[str]) -> Array:
    """Return columns of numbers ``(rows, columns)``, NaN where a cell is empty.

    Raises:
        DataError: For columns that are not there, and cells that are no number; all at once.
    """
    known = [str(name) for name in frame.columns]
    values, faults = np.full((len(frame), len(names)), np.nan), []
    for place, name in enumerate(names):
        if name not in known:
            faults.append(f"there is no column {name!r}{did_you_mean(name, known)}; it has: {', '.join(known)}")
            continue
        odd = []
        for row, cell in enumerate(frame.iloc[:, known.index(name)].tolist()):
            try:
                values[row, place] = np.nan if is_empty(cell) else float(cell)
            except (TypeError, ValueError):
                odd.append(f"row {row} ({cell!r})")
        odd += [f"row {row} (infinite)" for row in np.flatnonzero(np.isinf(values[:, place]))]
        if odd:
            faults.append(f"{count(len(odd), 'cell')} of {name!r} are no number: {examples(odd)}")
    if faults:
        raise DataError(fault_list("numbers cannot be read:", faults))
    return values
