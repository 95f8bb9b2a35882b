"""Tables with a row per sample: CSV, TSV, JSON lines, Parquet and DataFrame."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from zoo.data.label_cells import labels_of_columns, named
from zoo.data.raw import Raw, ReadOptions
from zoo.data.sources.cells import is_empty, is_missing
from zoo.data.sources.locate import any_is_placed, place_files
from zoo.data.sources.tables.columns import Cells, find_columns, plain_name, usual_columns
from zoo.data.sources.tables.table_files import CLASS_NAMES, SOURCE, parse_file
from zoo.data.table import NO_GROUP
from zoo.data.texts.text_inputs import texts_of
from zoo.data.unreadable_input import Unreadable, UnreadableInputsError
from zoo.errors import DataError, count, examples

if TYPE_CHECKING:
    import pandas as pd

log = logging.getLogger("zoo")

_TRIED = 20  # rows whose files are looked for
_MARKS = {"true": "valid", "1": "valid", "1.0": "valid", "false": "train", "0": "train", "0.0": "train"}  # of fastai's is_valid


def read_table(path: Path, options: ReadOptions) -> Raw:
    """Read a CSV, TSV, JSON lines or Parquet file; its paths are relative to the file, or to ``options.root``.

    Raises:
        DataError: If the file cannot be parsed, lacks a column, or names image files that do not exist.
    """
    return read_frame(parse_file(path), options, source=repr(str(path)), base=path.parent)


def read_frame(
    frame: pd.DataFrame,
    options: ReadOptions,
    *,
    source: str = "",
    base: Path | None = None,
) -> Raw:
    """Read a DataFrame: an input, ``label``, optional ``split`` and ``group``.

    The input is ``file_name`` (paths, images or arrays); for texts ``text`` and optionally ``text_pair``; for sentences as lists
    of words ``words`` (lists, or text separated by blanks).

    Args:
        frame: A row per sample.
        options: The options of the reader.
        source: For messages; empty for the file that the frame was read from, if it says so.
        base: Folder that paths are relative to; None is the current one.

    Raises:
        DataError: If a column is missing, there is no row, or files do not exist.
    """
    source = source or frame.attrs.get(SOURCE, "the DataFrame")
    names = [str(name) for name in frame.columns]
    # By position, as column names may be numbers.
    place = {name: index for index, name in enumerate(names)}

    def cells(name: str, first: int | None = None) -> list[Any]:
        return list(frame.iloc[:first, place[name]].tolist())

    options, doubt = _with_files(names, cells, options, source, base)
    try:
        chosen = find_columns(names, options, source, cells)
    except DataError as error:
        if not len(frame) or frame.index.dtype.kind not in "OTU" or type(frame.index).__name__ != "Index":
            raise
        raise DataError(f"{error}; the index has text such as {str(frame.index[0])!r}: frame.reset_index() makes it a column") from error
    if not len(frame):
        raise DataError(f"{source} has no rows")
    values = {role: cells(name) for role, name in chosen.items()}
    declared = frame.attrs.get(CLASS_NAMES, {})
    classes = declared.get(chosen.get("label"))
    if options.label_columns and options.labelled is not False:
        values["label"] = labels_of_columns({name: cells(name) for name in options.label_columns}, options, source, declared)
    elif classes:
        values["label"] = [named(label, classes) for label in values["label"]]
    if "label" in values:
        values["label"] = _with_empty_cells(values["label"])
    try:
        raw = raw_of(values, chosen, options, source, base=base)
    except DataError as error:
        error.args = (f"{error}{doubt}",)
        raise
    return replace(raw, classes=classes) if classes else raw


def _with_empty_cells(labels: list[Any]) -> list[Any]:
    """Return labels in which a missing value among texts, which pandas makes of an empty cell, is an empty text as in a CSV file."""
    return ["" if is_missing(label) else label for label in labels] if any(isinstance(label, str) for label in labels) else labels


def _with_files(names: Sequence[str], cells: Cells, options: ReadOptions, source: str, base: Path | None) -> tuple[ReadOptions, str]:
    """Return options that name the first of several usual columns that has files or images, and a hint for errors if none has."""
    found = [] if options.textual or "file_name" in options.columns else usual_columns("file_name", names)
    if len(found) < 2:
        return options, ""
    fitting = [name for name in found if _has_files(cells(name, _TRIED), base, options)]
    others = examples([repr(name) for name in found[1:]])
    if not fitting:
        return options, f"; column {found[0]!r} was read, not {others}: columns={{'file_name': …}} (--columns file_name=…) names another"
    if fitting[0] != found[0]:
        line = "%s: column %r has the files, and is taken before %r, which names none; columns={'file_name': …} names another"
        log.info(line, source, fitting[0], found[0])
    return replace(options, columns={**options.columns, "file_name": fitting[0]}) if fitting[0] != found[0] else options, ""


def _has_files(cells: Sequence[Any], base: Path | None, options: ReadOptions) -> bool:
    """Return whether some cells are images or names of files."""
    given = [_file_name(cell) for cell in cells if not is_empty(cell)]
    named = [cell for cell in given if isinstance(cell, str)]
    others = [cell for cell in given if not isinstance(cell, str | float)]
    return bool(others) or any_is_placed(named, base, options.root, reads=options.reads)


def raw_of(
    values: dict[str, list[Any]],
    chosen: Mapping[str, str],
    options: ReadOptions,
    source: str,
    *,
    base: Path | None = None,
    inputs: Sequence[Any] | None = None,
) -> Raw:
    """Return rows from the columns of a table.

    Args:
        values: The values of each column, by its role.
        chosen: The name of each column, by its role.
        options: The options of the reader.
        source: For messages.
        base: Folder that paths are relative to.
        inputs: The inputs if they are not a column of ``values``.

    Raises:
        DataError: If a required cell is empty, or files do not exist.
    """
    if chosen.get("group") not in (None, "group", options.columns.get("group")):
        values["group"] = _with_own_groups(values["group"], chosen["group"], source)
    if not options.keep_unreadable:
        for role in ("file_name", "text", "text_pair", "words"):
            if wrong := _empty_cells(values.get(role, []), role, chosen.get(role, ""), source):
                raise UnreadableInputsError(wrong)
    for role in ("group", "split"):
        if wrong := _empty_cells(values.get(role, []), role, chosen.get(role, ""), source):
            raise DataError(f"{wrong}, or leave the column out")
    if inputs is None:
        if "file_name" in values:
            names = [_file_name(item) for item in values["file_name"]]
            inputs = place_files(names, source, base, options.root, reads=options.reads, missing_ok=options.keep_unreadable)
        else:
            inputs = texts_of(values, source, keep_unreadable=options.keep_unreadable)
    return Raw(
        inputs,
        values.get("label"),
        classes=tuple(options.label_columns) or None if "label" in values and not options.tasks else None,
        groups=[group_text(group) for group in values["group"]] if "group" in values else None,
        splits=_split_names(values["split"], chosen["split"], options, source) if "split" in values else None,
        source=source,
    )


def _split_names(values: Sequence[Any], column: str, options: ReadOptions, source: str) -> list[str]:
    """Return the split of each row; of a column ``is_valid`` of true and false (fastai's) ``valid`` and ``train``.

    Raises:
        DataError: If most rows are marked as validation, and ``columns`` does not name the column.
    """
    names = [group_text(value) for value in values]
    if plain_name(column) != "isvalid" or not all(name.strip().lower() in _MARKS for name in names):
        return names
    marked = [_MARKS[name.strip().lower()] for name in names]
    held = marked.count("valid")
    if len(marked) / 2 < held < len(marked) and "split" not in options.columns and options.labelled:
        raise DataError(
            f"{source}: column {column!r} is true in {held} of {len(marked)} rows; where that marks the rows for validation, say so with "
            f"columns={{'split': {column!r}}} (--columns split={column}), and else drop or rename the column"
        )
    log.info("%s: the %d of %d rows whose column %r is true are the validation part", source, held, len(marked), column)
    return marked


def _file_name(cell: Any) -> Any:
    """Return the file that a cell names, which may be a number; an image is unchanged."""
    if is_empty(cell):
        return Unreadable("the cell is empty")
    return str(cell) if isinstance(cell, int) else cell


def _with_own_groups(values: Sequence[Any], column: str, source: str) -> list[Any]:
    """Return group ids in which each row without one is a group of its own."""
    gaps = [row for row, value in enumerate(values) if is_empty(value)]
    if gaps:
        line = "%s: column %r is empty in %s of %d (%s); each of them counts as a group of its own"
        log.warning(line, source, column, count(len(gaps), "row"), len(values), examples([f"row {row}" for row in gaps]))
    return [f"{NO_GROUP}{row}" if is_empty(value) else value for row, value in enumerate(values)]


def group_text(value: Any) -> str:
    """Return an id as text; 7.0, what pandas makes of 7 in a column with gaps, is ``7``."""
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)


def _empty_cells(values: Sequence[Any], role: str, column: str, source: str) -> str:
    """Return which cells of a column are empty, and what to do; empty where none is."""
    rows = [f"row {row}" for row, value in enumerate(values) if is_empty(value)]
    fault = f"{source}: {column!r} ({role}) is empty in {count(len(rows), 'row')}: {examples(rows)}; fill it in or remove the rows"
    return fault if rows else ""
