"""The data of a check: all rows of all splits, and the columns that are neither input nor label."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from zoo.data.open import open_splits
from zoo.data.raw import ReadOptions
from zoo.data.sources.conll import is_conll
from zoo.data.sources.folders import METADATA
from zoo.data.sources.image_files import walk
from zoo.data.sources.tables.columns import find_columns, names_files, usual_columns
from zoo.data.sources.tables.table_files import SUFFIXES, parse_file
from zoo.data.splits.patients import OFF, in_headers
from zoo.data.table import Array, Table
from zoo.declare import Inputs
from zoo.errors import OptionError, ZooError, did_you_mean
from zoo.tasks.find import find_task

KINDS = ("image", "volume", "text", "words")
_VOLUMES = (".nii", ".nii.gz")
_LOOKED_AT = 50  # files of a folder by which its kind is guessed


@dataclass(frozen=True)
class Opened:
    """The data of a check.

    Attributes:
        table: All rows, each with a split.
        columns: Further columns of a table by name, a value per row.
        ungrouped: Whether patients of DICOM headers are not to be taken as groups.
    """

    table: Table
    columns: Mapping[str, Sequence[Any]]
    ungrouped: bool = False

    @property
    def splits(self) -> Array:
        """The split of each row."""
        return np.asarray(self.table.splits)

    @property
    def names(self) -> list[str]:
        """The splits in their usual order."""
        usual = ("train", "valid", "test")
        present = set(self.table.splits or ())
        return [name for name in usual if name in present] + sorted(present - set(usual))

    @property
    def labelled(self) -> Array:
        """Whether each row has a label of a single class."""
        targets = self.table.targets
        single = targets is not None and targets.ndim == 1 and targets.dtype.kind == "i"
        return np.asarray(targets >= 0) if single and targets is not None else np.zeros(len(self.table), dtype=bool)


def open_for_check(train: Any, valid: Any, test: Any, *, task: str, reads: str | None, inputs: Inputs | None, **options: Any) -> Opened:
    """Open the data of a check.

    Args:
        train: As for ``check_data``.
        valid: As for ``check_data``.
        test: As for ``check_data``.
        task: The task.
        reads: Kind of the inputs; None guesses.
        inputs: What the given backbone reads, or None.
        **options: As for ``zoo.data.open.open_splits``.

    Raises:
        OptionError: If there is no such kind, or the backbone reads another.
        DataError: If the data cannot be read.
    """
    if reads is not None and reads not in KINDS:
        raise OptionError(f"reads is {reads!r}{did_you_mean(str(reads), KINDS)}; it is one of: {', '.join(KINDS)}")
    of_backbone = None if inputs is None else type(inputs).__name__.lower()
    per_token = find_task(task).per_token
    kind = reads or of_backbone or ("words" if per_token else _guessed(train))
    if kind == "text" and per_token:
        kind = "words"
    if kind == "words" and not per_token:
        raise OptionError(f"these are sentences of tagged words, and the task is {task!r}; pass task='token-classification'")
    if of_backbone is not None and of_backbone != ("text" if kind == "words" else kind):
        raise OptionError(f"the data are {kind}s, and the backbone reads {of_backbone}s; name another, or none (backbone=False)")
    table = open_splits(train, valid, test, task=task, reads=kind, **options)
    further = _further_columns([one for one in (train, valid, test) if one is not None], len(table), kind, options)
    return Opened(table, further, (options.get("columns") or {}).get("group") == OFF)


def _guessed(source: Any) -> str:
    """Return the kind of the inputs of a source by its columns or its files."""
    path = Path(source) if isinstance(source, str | os.PathLike) else None
    if path is not None and path.is_file() and is_conll(path):
        return "words"
    frame = _frame(source)
    if frame is not None:
        names = [str(name) for name in frame.columns]
        if names_files(names):
            first = str(frame.iloc[0][usual_columns("file_name", names)[0]]) if len(frame) else ""
            return "volume" if first.lower().endswith(_VOLUMES) else "image"
        return "words" if usual_columns("words", names) else "text" if usual_columns("text", names) else "image"
    if path is not None and path.is_dir():
        if not (files := list(islice(walk(str(path)), _LOOKED_AT))) and any(entry.suffix.lower() in SUFFIXES for entry in path.iterdir()):
            return "text"
        return "volume" if files and all(name.lower().endswith(_VOLUMES) for name in files) else "image"
    return "image"


def _frame(source: Any) -> Any:
    """Return the rows of a table as a DataFrame, or None of another source."""
    if isinstance(source, str | os.PathLike):
        path = Path(source)
        tables = [path / name for name in METADATA if (path / name).is_file()] if path.is_dir() else [path]
        return parse_file(tables[0]) if tables and tables[0].is_file() and tables[0].suffix.lower() in SUFFIXES else None
    pandas = sys.modules.get("pandas")
    return source if pandas is not None and isinstance(source, pandas.DataFrame) else None


def _further_columns(sources: Sequence[Any], rows: int, reads: str, options: Mapping[str, Any]) -> dict[str, list[Any]]:
    """Return the columns that no role has; none where a source is no table, or has another number of rows."""
    frames = [_frame(source) for source in sources]
    if any(frame is None for frame in frames) or sum(map(len, frames)) != rows:
        return {}
    columns, header = in_headers(options.get("columns") or {}, reads)
    reading = ReadOptions(columns, None, reads, options.get("label_columns") or (), header_group=header)
    found: dict[str, list[Any]] = {}
    for name in map(str, frames[0].columns):
        try:
            taken = [set(find_columns([str(one) for one in frame.columns], reading, "the table").values()) for frame in frames]
        except ZooError:  # the reader has said so
            return {}
        if all(name in map(str, frame.columns) for frame in frames) and not any(name in one for one in taken):
            cells = [frame.iloc[:, [str(one) for one in frame.columns].index(name)].tolist() for frame in frames]
            found[name] = [cell for part in cells for cell in part]
    return {name: cells for name, cells in found.items() if name not in reading.label_columns}
