"""Tables of results as CSV, Parquet and npz, written from parts without holding all of them."""

from __future__ import annotations

import csv
import io
import secrets
import zipfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import numpy as np

from zoo.engine.inference.decoding.result_columns import Columns
from zoo.errors import OptionError
from zoo.util.atomic_write import room_for

if TYPE_CHECKING:
    import pyarrow as pa  # type: ignore[import-untyped]  # ships no types

ROWS, BYTES = 65536, 64 * 2**20  # at which a row group of a Parquet file is closed
Parts = Callable[[], Iterable["pa.Table"]]


def check_suffix(path: Path, suffixes: Sequence[str]) -> Path:
    """Return the path of a result, with the first of the suffixes if it has none.

    Raises:
        OptionError: If it has another one.
    """
    if not path.suffix:
        return path.with_name(path.name + suffixes[0])
    if path.suffix.lower() not in suffixes:
        raise OptionError(f"{str(path)!r} ends with {path.suffix}; the result can be: {', '.join(suffixes)}")
    return path


def to_arrow(columns: Columns) -> pa.Table:
    """Return columns as an Arrow table; NaN of a share is null."""
    import pyarrow as pa

    kinds = {"text": pa.string(), "whole": pa.int64(), "number": pa.float64(), "share": pa.float32(), "vector": pa.list_(pa.float32())}
    arrays = {}
    for name, (kind, values) in columns.items():
        if kind == "vector":
            arrays[name] = _vectors(values)
        else:
            arrays[name] = pa.array(values, kinds[kind], from_pandas=kind == "share")
    return pa.table(arrays)


def _vectors(values: Any) -> pa.Array:
    import pyarrow as pa

    absent = np.isnan(values).all(1) if values.shape[1] else np.ones(len(values), dtype=bool)
    present = np.ascontiguousarray(values[~absent], dtype=np.float32)
    lengths = np.where(absent, 0, values.shape[1])
    offsets = pa.array(np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32), pa.int32())
    return pa.ListArray.from_arrays(offsets, pa.array(present.reshape(-1)), mask=pa.array(absent))


def write_columns(path: Path, columns: Columns) -> None:
    """Write a table that is in memory, as CSV or Parquet by its suffix, atomically."""
    whole = to_arrow(columns)
    write_joined(path, lambda: [whole], whole.nbytes)


def write_joined(path: Path, parts: Parts, size: int) -> None:
    """Write parts as one file by its suffix, atomically.

    Args:
        path: A ``.csv``, ``.parquet`` or ``.npz`` file.
        parts: Returns the parts in order; called more than once.
        size: Their approximate size in bytes, for a message.

    Raises:
        DiskFullError: If there is no room; a file that was there is still whole.
    """
    with staged(path, size) as stream:
        {".csv": _write_csv, ".parquet": _write_parquet, ".npz": _write_npz}[path.suffix.lower()](stream, parts)


@contextmanager
def staged(path: Path, size: int) -> Iterator[IO[bytes]]:
    """Open a file that takes the place of ``path`` when the context closes without an error."""
    stage = path.with_name(f".{path.name}.{secrets.token_hex(4)}.part")
    try:
        with room_for(path, size):
            with stage.open("xb") as stream:
                yield stream
            stage.replace(path)
    except BaseException:
        stage.unlink(missing_ok=True)
        raise


def _write_parquet(stream: IO[bytes], parts: Parts) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq  # type: ignore[import-untyped]  # ships no types

    writer, held = None, list[Any]()
    for part in parts():
        writer = writer or pq.ParquetWriter(stream, part.schema)
        held.append(part)
        if sum(map(len, held)) >= ROWS or sum(one.nbytes for one in held) >= BYTES:
            writer.write_table(pa.concat_tables(held), row_group_size=ROWS)
            held.clear()
    assert writer is not None, "there are no parts"
    if held:
        writer.write_table(pa.concat_tables(held), row_group_size=ROWS)
    writer.close()


def _write_csv(stream: IO[bytes], parts: Parts) -> None:
    widths = _widths(parts)
    text = io.TextIOWrapper(stream, encoding="utf-8", newline="")
    writer = csv.writer(text, lineterminator="\n")
    for number, part in enumerate(parts()):
        if not number:
            names = (([name] if name not in widths else [f"{name}_{k}" for k in range(widths[name])]) for name in part.column_names)
            writer.writerow([name for some in names for name in some])
        cells = [column for name in part.column_names for column in _cells(part[name], widths.get(name))]
        writer.writerows(zip(*cells, strict=True))
    text.flush()
    text.detach()


def _widths(parts: Parts) -> dict[str, int]:
    """Return the length of the vectors in each column that has them."""
    import pyarrow as pa
    import pyarrow.compute as pc  # type: ignore[import-untyped]  # ships no types

    widths: dict[str, int] = {}
    for part in parts():
        wanted = [name for name in part.column_names if pa.types.is_list(part.schema.field(name).type)]
        found = {name: pc.max(pc.list_value_length(part[name])).as_py() or 0 for name in wanted}
        widths |= {name: max(width, widths.get(name, 0)) for name, width in found.items()}
        if all(widths.get(name) for name in wanted):
            break
    return widths


def _cells(column: Any, width: int | None) -> list[list[Any]]:
    """Return a column of an Arrow table as columns of text; empty for what is absent, float32 with the digits that it has."""
    import pyarrow as pa

    if width is not None:
        rows = _matrix(column, width)
        return list(np.where(np.isnan(rows), "", rows.astype(str)).T.tolist())
    if pa.types.is_float32(column.type):
        values = column.to_numpy()
        return [np.where(np.isnan(values), "", values.astype(np.float32).astype(str)).tolist()]
    return [["" if value is None else value for value in column.to_pylist()]]


def _matrix(column: Any, width: int) -> Any:
    """Return a column of vectors as float32 ``(rows, width)``, NaN for those that are absent."""
    rows = np.full((len(column), width), np.nan, dtype=np.float32)
    whole = column.combine_chunks()
    rows[np.asarray(whole.is_valid())] = np.asarray(whole.flatten()).reshape(-1, width)
    return rows


def _write_npz(stream: IO[bytes], parts: Parts) -> None:
    """Write ``features`` ``(n, dim)`` and the other columns as arrays of text, each from one pass over the parts."""
    width = _widths(parts)["features"]
    rows = sum(len(part) for part in parts())
    others = [name for name in next(iter(parts())).column_names if name != "features"]
    with zipfile.ZipFile(stream, "w", allowZip64=True) as archive:
        with archive.open("features.npy", "w", force_zip64=True) as member:
            _header(member, (rows, width), np.dtype(np.float32))
            for part in parts():
                member.write(_matrix(part["features"], width).tobytes())
        for name in others:
            longest = max(max((len(text or "") for text in part[name].to_pylist()), default=0) for part in parts())
            kind = np.dtype(f"<U{max(1, longest)}")
            with archive.open(f"{name}s.npy", "w", force_zip64=True) as member:  # inputs, errors
                _header(member, (rows,), kind)
                for part in parts():
                    member.write(np.array([text or "" for text in part[name].to_pylist()], dtype=kind).tobytes())


def _header(member: IO[bytes], shape: tuple[int, ...], kind: np.dtype[Any]) -> None:
    np.lib.format.write_array_header_1_0(member, {"descr": np.lib.format.dtype_to_descr(kind), "fortran_order": False, "shape": shape})
