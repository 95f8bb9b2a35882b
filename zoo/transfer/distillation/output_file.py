"""The outputs of a teacher in a file, and their rows for the samples of a table."""

from __future__ import annotations

import csv
import os
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from zoo.data.table import Table, names_of
from zoo.errors import LISTED, DataError, ZooError, count, examples
from zoo.tasks.task import Task
from zoo.util.extras import require_extra

SUFFIXES = (".npz", ".csv", ".parquet")
_SHARE = "probability_"
_LEAST = 1e-12  # of a probability: its logarithm stays finite
Array = npt.NDArray[np.float32]


@dataclass(frozen=True)
class OutputFile:
    """Logits, or numbers of a regression, from a file.

    Attributes:
        path: The file.
        logits: ``(rows, outputs)``.
        labels: Names of the outputs, or None.
        inputs: Names of the inputs as a file of predictions has them; None where the rows are in the order of the data.
    """

    path: Path
    logits: Array
    labels: tuple[str, ...] | None
    inputs: tuple[str, ...] | None

    def rows_of(self, table: Table) -> Array:
        """Return the outputs for the samples of a table, ``(samples, outputs)``.

        Raises:
            DataError: If samples are missing, with their names.
        """
        if self.inputs is None or all(_is_number(name) for name in self.inputs):
            if len(self.logits) == len(table):
                return self.logits
            raise DataError(
                f"{str(self.path)!r} has {count(len(self.logits), 'row')} without names, and {table.source} has "
                f"{count(len(table), 'sample')}; a held-out part is no longer in the order of the file: give validation data, or names"
            )
        place = {_key(name): row for row, name in enumerate(self.inputs)}
        names = names_of(table.inputs, range(len(table)))
        missing = [name for name in names if _key(name) not in place]
        if missing:
            raise DataError(
                f"{str(self.path)!r} has no row for {len(missing)} of the {count(len(table), 'sample')} of {table.source}: "
                f"{examples([repr(name) for name in missing])}; its rows are named {examples([repr(name) for name in self.inputs[:2]])}"
            )
        return self.logits[[place[_key(name)] for name in names]]


def read_outputs(path: Path, task: Task) -> OutputFile:
    """Read ``.npz`` with ``logits``, and ``labels`` and ``inputs`` where it has them, or predictions that ``zoo predict`` wrote.

    Of predictions the logarithms of their probabilities are taken, which softmax and sigmoid turn into the same probabilities.

    Args:
        path: The file.
        task: The task of the outputs.

    Raises:
        DataError: If the file has none, or values that are not finite.
    """
    read = _read_npz if path.suffix.lower() == ".npz" else _read_table
    try:
        found = read(path, task)
    except ZooError:
        raise
    except Exception as error:  # zipfile, zlib, numpy, csv and pyarrow raise anything on hostile bytes
        reason = "it is empty" if _is_empty(path) else str(error) or type(error).__name__
        raise DataError(f"the teacher's outputs in {str(path)!r} cannot be read: {reason}; write them again") from error
    bad = np.flatnonzero(~np.isfinite(found.logits).all(1))
    if len(bad):
        raise DataError(f"{str(path)!r} has {count(len(bad), 'row')} without finite outputs, such as row {bad[0]}; predict them again")
    return found


def _read_npz(path: Path, task: Task) -> OutputFile:
    if not zipfile.is_zipfile(path) and not _is_empty(path):
        raise DataError(f"{str(path)!r} is no whole .npz archive; write it with numpy.savez(path, logits=…), or fetch it again")
    with np.load(path, allow_pickle=False) as archive:
        if "logits" not in archive or archive["logits"].ndim != 2:
            raise DataError(f"{str(path)!r} has no logits (rows, classes); it has: {examples(list(archive), LISTED) or 'nothing'}")
        logits = archive["logits"].astype(np.float32)
        labels, inputs = (tuple(map(str, archive[name])) if name in archive else None for name in ("labels", "inputs"))
    for name, values, wanted in (("labels", labels, logits.shape[1]), ("inputs", inputs, len(logits))):
        if values is not None and len(values) != wanted:
            raise DataError(f"{str(path)!r} has {len(values)} {name} for logits of shape {logits.shape}; it must have {wanted}")
    return OutputFile(path, logits, labels, inputs)


def _read_table(path: Path, task: Task) -> OutputFile:
    columns = _columns(path)
    start = _SHARE if task.has_classes else "prediction"
    names = [name for name in columns if name.startswith(start)]
    if not names:
        raise DataError(
            f"{str(path)!r} has no column {start}…; it has: {examples(list(columns), LISTED)}; "
            "write it with: zoo predict MODEL DATA --out FILE"
        )
    values = np.asarray([[np.nan if cell in ("", None) else float(cell) for cell in columns[name]] for name in names]).T
    if task.has_classes:
        values = np.log(np.clip(values, _LEAST, None)) - (0 if task.exclusive else np.log(np.clip(1 - values, _LEAST, None)))
    labels = tuple(name.removeprefix(_SHARE) for name in names) if task.has_classes else None
    inputs = tuple(map(str, columns["input"])) if "input" in columns else None
    return OutputFile(path, values.astype(np.float32), labels, inputs)


def _columns(path: Path) -> dict[str, list[Any]]:
    if path.suffix.lower() == ".parquet":
        require_extra("tables", f"reading {str(path)!r}")
        import pyarrow.parquet as pq  # type: ignore[import-untyped]  # ships no types

        found: dict[str, list[Any]] = pq.read_table(path).to_pydict()
        return found
    with path.open(encoding="utf-8", newline="") as stream:
        reader = csv.reader(stream)
        names = next(reader)
        rows = [(reader.line_num, row) for row in reader]
    if ragged := [f"line {line} has {len(row)}" for line, row in rows if len(row) != len(names)]:
        raise DataError(f"{str(path)!r} has {count(len(names), 'column')}, and {examples(ragged)}; write it again, or mend these lines")
    return {name: [row[place] for _, row in rows] for place, name in enumerate(names)}


def _is_empty(path: Path) -> bool:
    """Return whether a file has no bytes."""
    return path.is_file() and not path.stat().st_size


def _is_number(name: str) -> bool:
    """Return whether a name only counts the inputs, as arrays have no names."""
    return name.startswith("row ") and name[4:].isdigit()


def _key(name: str) -> str:
    return os.path.abspath(name) if os.sep in name else name  # noqa: PTH100  # far faster than Path, and links stay
