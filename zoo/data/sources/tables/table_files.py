"""Files of rows as DataFrames: CSV, TSV, JSON lines and Parquet."""

from __future__ import annotations

import csv
import json
import re
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from zoo.data.sources.tables.table_contents import not_utf8, refuse_contents, refuse_first_line, uneven_rows, warn_of_merged_rows
from zoo.errors import DataError, count, examples
from zoo.util.extras import require_extra
from zoo.util.numbers import in_units

if TYPE_CHECKING:
    import pandas as pd

CLASS_NAMES = "class_names"  # key in the attrs of a DataFrame: the names of the classes by column
SOURCE = "source"  # likewise: the file that it was read from, for messages
SUFFIXES = (".csv", ".tsv", ".parquet", ".jsonl")
_WRAPPED = re.compile(r'"(?:[^"]|"")*"')
# A Parquet file may unpack to this many bytes, or this many times its own size.
_MAX_BYTES, _MAX_GROWTH = 2**28, 100
_BATCH = 128  # rows that are unpacked at once


def parse_file(path: Path) -> pd.DataFrame:
    """Return the rows of a file.

    Cells of CSV and TSV are text, so ``007`` stays ``007`` and a class may be called ``None`` or ``NA``.

    Raises:
        DataError: If it cannot be parsed, has two columns of one name, or unpacks to far more than its size.
        MissingExtraError: If pandas or pyarrow is not installed.
    """
    require_extra("tables", f"the table {str(path)!r}")
    parse = {".parquet": _parse_parquet, ".jsonl": _parse_lines}.get(path.suffix.lower(), _parse_cells)
    try:
        before = path.stat()
        refuse_contents(path)
        frame = parse(path)
        after = path.stat()
    except PermissionError as error:
        raise DataError(f"{str(path)!r} may not be read; change its permissions") from error
    except DataError:
        raise
    except UnicodeDecodeError as error:
        raise not_utf8(path, error) from error
    except (ValueError, OSError, RecursionError) as error:  # pandas' and pyarrow's own errors are ValueError
        raise DataError(f"{str(path)!r} cannot be read as {path.suffix[1:].upper()}: {error}") from error
    if (before.st_size, before.st_mtime_ns) != (after.st_size, after.st_mtime_ns):
        raise DataError(
            f"{str(path)!r} changed while it was read ({before.st_size} bytes, then {after.st_size}); wait until it is complete"
        )
    return frame


def _parse_cells(path: Path) -> pd.DataFrame:
    import pandas as pd

    with path.open(encoding="utf-8-sig", newline="") as file:
        lines = file.read().split("\n")
    head = next((line for line in lines if line.strip()), None)
    if head is None:
        raise DataError(f"{str(path)!r} is empty")
    refuse_first_line(path, head, lines)
    separator = max("\t;," if path.suffix.lower() == ".tsv" else ",;\t", key=head.count)
    # No cell holds a tab or a line break, so a quotation mark is literal, unless it encloses a cell.
    plain = separator == "\t" and "\t" in head and all(line.count("\t") == head.count("\t") for line in lines if line.strip())
    quoting: Literal[0, 3] = csv.QUOTE_NONE if plain else csv.QUOTE_MINIMAL
    options: dict[str, Any] = {"sep": separator, "dtype": str, "keep_default_na": False, "encoding": "utf-8-sig", "quoting": quoting}
    header = pd.read_csv(path, header=None, nrows=1, **options)
    refuse_equal_names([_unquoted(str(name)) for name in header.iloc[0]], repr(str(path)))
    try:
        frame: pd.DataFrame = pd.read_csv(path, **options)
    except pd.errors.ParserError as error:
        raise ValueError(uneven_rows(str(error), separator)) from error
    if not isinstance(frame.index, pd.RangeIndex):  # pandas uses extra cells as the index
        raise ValueError(f"its rows have more cells than its header; put cells that hold {separator!r} into quotation marks")
    if plain:
        return frame.map(_unquoted).rename(columns=_unquoted)
    warn_of_merged_rows(frame, separator, repr(str(path)))
    return frame


def refuse_equal_names(names: list[str], source: str) -> None:
    """Check that no two columns have one name; pandas would rename the second one.

    Raises:
        DataError: Naming them.
    """
    twice = sorted(name for name, number in Counter(names).items() if number > 1 and name)
    if twice:
        raise DataError(f"{source} has columns of the same name: {examples(list(map(repr, twice)))}; rename all but one")


def _unquoted(cell: str) -> str:
    """Return a cell without enclosing quotation marks."""
    return cell[1:-1].replace('""', '"') if _WRAPPED.fullmatch(cell) else cell


def _parse_lines(path: Path) -> pd.DataFrame:
    import pandas as pd

    rows, odd = [], []
    for number, line in enumerate(path.read_text(encoding="utf-8-sig").split("\n"), start=1):
        if not line.strip():
            continue
        try:
            rows.append(json.loads(line))
        except json.JSONDecodeError as error:
            odd.append(f"line {number} ({error.msg} at column {error.colno})")
            continue
        if not isinstance(rows[-1], dict):
            odd.append(f"line {number} ({type(rows[-1]).__name__})")
    if odd or not rows:
        are = "is" if len(odd) == 1 else "are"
        raise ValueError(f"{count(len(odd), 'line')} {are} no JSON object: {examples(odd)}" if odd else "it is empty")
    names = list(dict.fromkeys(name for row in rows for name in row))
    return pd.DataFrame({name: pd.Series([row.get(name) for row in rows], dtype=object) for name in names})


def _parse_parquet(path: Path) -> pd.DataFrame:
    import pyarrow as pa  # type: ignore[import-untyped,unused-ignore]
    from pyarrow import parquet

    limit, held, batches = max(_MAX_BYTES, _MAX_GROWTH * path.stat().st_size), 0, []
    with parquet.ParquetFile(path) as file:
        for batch in file.iter_batches(batch_size=_BATCH):
            held += batch.nbytes
            if held > limit:
                raise DataError(
                    f"{str(path)!r} has {in_units(path.stat().st_size)} and unpacks to more than {in_units(limit)} (a decompression "
                    "bomb?); leave out columns that are not needed, or divide it"
                )
            batches.append(batch)
        frame: pd.DataFrame = pa.Table.from_batches(batches, schema=file.schema_arrow).to_pandas()
        frame.attrs[CLASS_NAMES] = _class_names(file.schema_arrow.metadata or {})
    return frame


def _class_names(metadata: Mapping[bytes, bytes]) -> dict[str, tuple[str, ...]]:
    """Return the names of the classes of each ClassLabel column, or list of them, that ``datasets`` wrote into a file's schema."""
    try:
        features = json.loads(metadata.get(b"huggingface", b"{}"))["info"]["features"]
        columns = {str(name): _element(feature) for name, feature in features.items()}
    except (KeyError, TypeError, AttributeError, ValueError, RecursionError):  # of another program, or damaged: the numbers remain
        return {}
    names = {column: feature.get("names") for column, feature in columns.items() if feature.get("_type") == "ClassLabel"}
    return {column: tuple(map(str, found)) for column, found in names.items() if isinstance(found, list) and found}


def _element(feature: Any) -> dict[str, Any]:
    """Return the description of a column's values; of lists that of their elements."""
    while isinstance(feature, list) or (isinstance(feature, dict) and "feature" in feature):
        feature = feature[0] if isinstance(feature, list) else feature["feature"]
    return feature if isinstance(feature, dict) else {}
