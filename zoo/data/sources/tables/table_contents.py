"""Contents of table files that are not what their suffix says, and rows merged by an unclosed quotation mark."""

from __future__ import annotations

import logging
import re
from pathlib import Path
from typing import TYPE_CHECKING

from zoo.errors import DataError, count, examples

if TYPE_CHECKING:
    import pandas as pd

log = logging.getLogger("zoo")
_UTF8 = "save it as UTF-8, such as pd.read_csv(path, encoding={!r}).to_csv(path, index=False)"
_PARQUET = b"PAR1"
# What a file is by its first bytes, and the remedy.
_KINDS = (
    (b"\xff\xfe", f"is UTF-16; {_UTF8.format('utf-16')}"),
    (b"\xfe\xff", f"is UTF-16; {_UTF8.format('utf-16')}"),
    (b"\x1f\x8b", "is compressed by gzip; unpack it with gunzip"),
    (
        b"PK\x03\x04",
        "is a zip archive or an Excel sheet; unpack it, or export the sheet as CSV, or give pd.read_excel(path)",
    ),
    (b"version https://git-lfs", "is a Git LFS pointer; fetch the file itself with `git lfs pull`"),
    (b"<!doctype", "is a web page, perhaps of a failed download; download the file itself"),
    (b"<html", "is a web page, perhaps of a failed download; download the file itself"),
    (b"sep=", "starts with Excel's line `sep=`; remove that line"),
)
# Remedies for files of other kinds, by suffix.
OTHER_KINDS = {
    ".xlsx": "export the sheet as CSV, or give pd.read_excel(path)",
    ".xls": "export the sheet as CSV, or give pd.read_excel(path)",
    ".gz": "unpack it with gunzip",
    ".zip": "unpack it",
    ".json": "give JSON lines (.jsonl), or pd.read_json(path)",
    ".txt": "if it is a table, call it .csv or .tsv; a list of files is a CSV file whose first line is file_name,label",
    ".ndjson": "call it .jsonl",
    ".pq": "call it .parquet",
    ".feather": "give pd.read_feather(path)",
    ".arrow": "give datasets.Dataset.from_file(path)",
    ".pkl": "a pickle may run code, so it is not read; save the table as CSV or Parquet",
    ".pickle": "a pickle may run code, so it is not read; save the table as CSV or Parquet",
    ".h5": "save its arrays as .npz, or give them as (X, y)",
    ".hdf5": "save its arrays as .npz, or give them as (X, y)",
    ".tar": "unpack it",
    ".tgz": "unpack it",
    ".7z": "unpack it",
    ".rar": "unpack it",
}


def refuse_contents(path: Path) -> None:
    """Check by its first bytes that a file is not an archive, web page, pointer or other encoding.

    Raises:
        DataError: With the remedy.
    """
    with path.open("rb") as file:
        head = file.read(64)
    found = next((what for start, what in _KINDS if head.removeprefix(b"\xef\xbb\xbf").lower().startswith(start.lower())), "")
    if not found and head.startswith(_PARQUET) != (path.suffix.lower() == ".parquet"):
        start = head.split(b"\n")[0].decode("utf-8", "replace")
        text = f"is no Parquet file: it starts with {start!r}; if it is text, call it .csv or .jsonl" if head else "is empty"
        found = "is a Parquet file; call it .parquet" if head.startswith(_PARQUET) else text
    if found:
        raise DataError(f"{str(path)!r} {found}")


def refuse_first_line(path: Path, head: str, lines: list[str]) -> None:
    """Check that the first line of a CSV or TSV file is no comment, and that its cells have a separator that is read.

    Raises:
        DataError: With the remedy.
    """
    after = next((line for line in lines[lines.index(head) + 1 :] if line.strip()), "")
    if head.startswith("#") and not any(sign in head for sign in ",;\t") and any(sign in after for sign in ",;\t"):
        raise DataError(f"{str(path)!r} starts with a comment ({head.strip()[:60]!r}); remove it, so that the first line names the columns")
    if "|" in head and not any(sign in head for sign in ",;\t"):
        remedy = "save it with ',', such as pd.read_csv(path, sep='|').to_csv(path, index=False)"
        raise DataError(f"{str(path)!r} seems to separate its cells by '|'; {remedy}")


def uneven_rows(error: str, separator: str) -> str:
    """Return the message for an error of pandas about a row with more cells than the header; other errors as they are."""
    found = re.search(r"Expected (\d+) fields in line (\d+), saw (\d+)", error)
    if found is None:
        return error.strip()
    expected, line, seen = found.groups()
    return f"line {line} has {seen} cells, and the header {expected}; put cells that hold {separator!r} into quotation marks"


def not_utf8(path: Path, error: UnicodeDecodeError) -> DataError:
    """Return the error of a file that is no UTF-8."""
    byte = error.object[error.start : error.start + 1].hex()
    return DataError(f"{str(path)!r} is no UTF-8 (byte {byte} at {error.start}), perhaps Latin-1; {_UTF8.format('latin-1')}")


def warn_of_merged_rows(frame: pd.DataFrame, separator: str, source: str) -> None:
    """Warn of cells with lines that look like rows, because a quotation mark before them was not closed where it was meant."""
    separators = len(frame.columns) - 1
    rows = [
        f"row {row}"
        for name in frame.columns
        for row, cell in enumerate(frame[name])
        if separators and isinstance(cell, str) and any(line.count(separator) >= separators for line in cell.split("\n")[1:])
    ]
    if rows:
        line = "%s: %s over several lines that look like rows (%s); is a quotation mark not closed?"
        log.warning(line, source, count(len(rows), "cell"), examples(rows))
