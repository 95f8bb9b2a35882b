"""Tables with a row per sample: CSV, TSV, Parquet and DataFrame."""

from __future__ import annotations

import csv
import logging
import math
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from zoo.data.raw import Raw, ReadOptions
from zoo.errors import DataError, check_options, count, did_you_mean, examples

if TYPE_CHECKING:
    import pandas as pd

_LIST = re.compile(r"\s*\[.*\]\s*", re.DOTALL)
_WRAPPED = re.compile(r'"(?:[^"]|"")*"')
SUFFIXES = (".csv", ".tsv", ".parquet")
# Columns of a row's input, by what the model reads; the first is required.
log = logging.getLogger(__name__)

_INPUTS = {"image": ("file_name",), "volume": ("file_name",), "text": ("text", "text_pair"), "words": ("words",)}
# Default names of the columns; the first one found is used.
_USUAL = {
    "file_name": ("file_name", "path", "file", "filename", "file_path", "image", "img"),
    "text": ("text", "sentence", "sentence1", "premise", "question", "review", "content"),
    "text_pair": ("text_pair", "text2", "sentence2", "hypothesis", "answer"),
    "words": ("words", "tokens"),
    "label": ("label", "labels", "tags", "ner_tags"),
    "split": ("split",),
    "group": ("group", "patient_id", "patient", "subject_id"),
}


def read_table(path: Path, options: ReadOptions) -> Raw:
    """Read a CSV, TSV or Parquet file; its paths are relative to the file. ``reads`` as in ``Table``.

    Cells of a text file are read as text, so ``007`` stays ``007`` and a class may be called ``None`` or ``NA``.

    Raises:
        DataError: If the file cannot be parsed, lacks a column, or names image files that do not exist.
    """
    return read_frame(_parse(path), options, source=repr(str(path)), base=path.parent)


def _parse(path: Path) -> pd.DataFrame:
    import pandas as pd

    try:
        if path.suffix.lower() == ".parquet":
            return pd.read_parquet(path)
        with path.open(encoding="utf-8-sig", newline="") as file:
            lines = file.read().split("\n")
        if not any(lines):
            raise DataError(f"{str(path)!r} is empty")
        separator = max("\t;," if path.suffix.lower() == ".tsv" else ",;\t", key=lines[0].count)
        # No cell holds a tab or a line break, so a quotation mark is literal, unless it encloses a cell.
        plain = separator == "\t" and "\t" in lines[0] and all(line.count("\t") == lines[0].count("\t") for line in lines if line.strip())
        quoting: Literal[0, 3] = csv.QUOTE_NONE if plain else csv.QUOTE_MINIMAL
        frame: pd.DataFrame = pd.read_csv(path, sep=separator, dtype=str, keep_default_na=False, encoding="utf-8-sig", quoting=quoting)
        if not isinstance(frame.index, pd.RangeIndex):  # pandas takes surplus cells for an index
            raise ValueError(f"its rows have more cells than its header; put cells that hold {separator!r} into quotation marks")
        return frame.map(_unquoted).rename(columns=_unquoted) if plain else frame
    except PermissionError as error:
        raise DataError(f"{str(path)!r} may not be read; change its permissions") from error
    except (ValueError, OSError) as error:  # pandas' and pyarrow's own errors are ValueError
        raise DataError(f"{str(path)!r} cannot be read as {path.suffix[1:].upper()}: {error}") from error


def _unquoted(cell: str) -> str:
    """Return a cell without enclosing quotation marks."""
    return cell[1:-1].replace('""', '"') if _WRAPPED.fullmatch(cell) else cell


def read_frame(
    frame: pd.DataFrame,
    options: ReadOptions,
    *,
    source: str = "the DataFrame",
    base: Path | None = None,
) -> Raw:
    """Read a DataFrame: an input, ``label``, optional ``split`` and ``group``.

    The input is ``file_name`` (paths, images or arrays); for texts ``text`` and optionally ``text_pair``; for sentences as lists
    of words ``words`` (lists, or text separated by blanks).

    Args:
        frame: A row per sample.
        options: The options of the reader.
        source: For messages.
        base: Folder that paths are relative to; None is the current one.

    Raises:
        DataError: If a column is missing, there is no row, or files do not exist.
    """
    names = [str(name) for name in frame.columns]
    chosen = find_columns(names, options, source)
    if not len(frame):
        raise DataError(f"{source} has no rows")
    # By position, as column names may be numbers.
    values = {role: frame.iloc[:, names.index(name)].tolist() for role, name in chosen.items()}
    return raw_of(values, chosen, options.columns, source, base=base)


def raw_of(
    values: dict[str, list[Any]],
    chosen: Mapping[str, str],
    columns: Mapping[str, str],
    source: str,
    *,
    base: Path | None = None,
    inputs: Sequence[Any] | None = None,
) -> Raw:
    """Return rows from the columns of a table.

    Args:
        values: The values of each column, by its role.
        chosen: The name of each column, by its role.
        columns: Names given by the user.
        source: For messages.
        base: Folder that paths are relative to.
        inputs: The inputs if they are no column of ``values``.

    Raises:
        DataError: If a required cell is empty, or files do not exist.
    """
    if chosen.get("group") not in (None, "group", columns.get("group")) and any(map(_is_empty, values["group"])):
        log.warning("%s: column %r has gaps and is not taken as the group; splits may cut patients", source, chosen["group"])
        del values["group"]
    for role in ("file_name", "text", "text_pair", "words", "group", "split"):
        _refuse_empty(values.get(role, []), role, chosen.get(role, ""), source)
    if inputs is None:
        inputs = place_files(values["file_name"], source, base) if "file_name" in values else texts_of(values, source)
    return Raw(
        inputs,
        values.get("label"),
        groups=[group_text(group) for group in values["group"]] if "group" in values else None,
        splits=[group_text(split) for split in values["split"]] if "split" in values else None,
        source=source,
    )


def texts_of(values: Mapping[str, Sequence[Any]], source: str) -> list[Any]:
    """Return texts, pairs of texts, or lists of words from the columns by their roles.

    Raises:
        DataError: If lists of words were written as text.
    """
    if "words" in values:
        written = [f"row {row}" for row, item in enumerate(values["words"]) if isinstance(item, str) and _LIST.fullmatch(item)]
        if written:
            raise DataError(
                f"{source}: the words of {count(len(written), 'row')} are a list written as text ({examples(written)}); "
                "save the table as Parquet, or join the words, and their labels, with blanks"
            )
        return [item.split() if isinstance(item, str) else list(item) for item in values["words"]]
    if "text_pair" in values:
        return [(str(first), str(second)) for first, second in zip(values["text"], values["text_pair"], strict=True)]
    return [str(item) for item in values["text"]]


def place_files(inputs: Sequence[Any], source: str, base: Path | None = None) -> list[Any]:
    """Return inputs with ``base`` in front of relative paths; images and arrays are unchanged.

    Raises:
        DataError: If files do not exist, naming the first four.
    """
    folder = "" if base is None else str(base)
    # os.path is ten times faster than Path over 10^5 rows.
    placed = [os.path.join(folder, item) if isinstance(item, str | os.PathLike) else item for item in inputs]  # noqa: PTH118
    missing = [repr(item) for item in placed if isinstance(item, str) and not os.path.exists(item)]  # noqa: PTH110
    if missing:
        hint = f"; paths are relative to {str(base or Path.cwd())!r}"
        raise DataError(f"{source} names {count(len(missing), 'file')} of {len(placed)} that do not exist: {examples(missing)}{hint}")
    return placed


def find_columns(names: Sequence[str], options: ReadOptions, source: str) -> dict[str, str]:
    """Return the column of each role: those of the input, ``label``, ``split``, ``group``.

    Raises:
        DataError: If a required or a named column is missing; all at once, each with the nearest column.
    """
    columns, labelled, reads = options.columns, options.labelled, options.reads
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise DataError(f"{source} has columns of the same name: {examples(twice)}; rename all but one")
    roles = (*_INPUTS[reads], "label", "split", "group")
    check_options(columns, roles, "columns=")
    wanted = {role: (columns[role],) if role in columns else _USUAL[role] for role in roles}
    found = {role: next((name for name in usual if name in names), None) for role, usual in wanted.items()}
    required = {roles[0], *columns} | ({"label"} if labelled else set())
    absent = [role for role in wanted if found[role] is None and role in required]
    if absent:
        missing = ", ".join(f"{wanted[role][0]!r}{did_you_mean(wanted[role][0], names)}" for role in absent)
        renames = ", ".join(f'"{role}": "…"' for role in absent)
        flags = ",".join(f"{role}=…" for role in absent)
        hint = f"Name yours with columns={{{renames}}}, on the command line --columns {flags}"
        if roles[0] == "file_name" and any(name in names for name in (*_USUAL["text"], *_USUAL["words"])):
            hint = "It seems to hold texts, and the model reads files"
        raise DataError(f"{source} has no column {missing}; it has: {', '.join(map(repr, names))}. {hint}")
    if found["group"] not in (None, "group", columns.get("group")):
        if labelled is False:
            found["group"] = None
        else:
            log.info("%s: column %r is taken as the group that no split cuts; columns={'group': …} names another", source, found["group"])
    return {role: name for role, name in found.items() if name is not None and not (role == "label" and labelled is False)}


def group_text(value: Any) -> str:
    """Return an id as text; 7.0, what pandas makes of 7 in a column with gaps, is ``7``."""
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)


def _refuse_empty(values: Sequence[Any], role: str, column: str, source: str) -> None:
    rows = [f"row {row}" for row, value in enumerate(values) if _is_empty(value)]
    if rows:
        raise DataError(
            f"{source}: {column!r} ({role}) is empty in {count(len(rows), 'row')}: {examples(rows)}; fill it in or remove the rows"
        )


def _is_empty(value: Any) -> bool:
    if isinstance(value, str):
        return not value.strip()
    return value is None or type(value).__name__ == "NAType" or (isinstance(value, float) and math.isnan(value))
