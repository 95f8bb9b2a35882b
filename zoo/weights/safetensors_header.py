"""Strict validation of safetensors headers, before any library opens the file."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

from zoo.errors import WeightsError, owner_prefix

MAX_HEADER = 10_000_000  # bytes; headers of the largest published models have about one MB
MAX_TENSORS = 100_000
MAX_ELEMENTS = 2**60
# Bytes per element of each dtype, without the packed types of four and six bits.
WIDTHS = (
    {"BOOL": 1, "U8": 1, "I8": 1, "F8_E5M2": 1, "F8_E4M3": 1, "F8_E5M2FNUZ": 1, "F8_E4M3FNUZ": 1, "F8_E8M0": 1}
    | {"I16": 2, "U16": 2, "F16": 2, "BF16": 2, "I32": 4, "U32": 4, "F32": 4}
    | {"I64": 8, "U64": 8, "F64": 8, "C64": 8}
)
_MAGIC = {
    b"\x1f\x8b": "it is compressed with gzip",
    b"GGUF": "it is a GGUF file of llama.cpp; ask its publisher for safetensors",
    b"\x89HDF": "it is an HDF5 file, perhaps of Keras: load it there and save its tensors with safetensors",
    b"\x93NUMPY": "it is an array of NumPy; save it with safetensors.numpy.save_file",
}
_FIELDS = {"dtype", "shape", "data_offsets"}


class TensorInfo(NamedTuple):
    """The header entry of a tensor; ``begin`` and ``end`` are byte offsets into the data."""

    dtype: str
    shape: tuple[int, ...]
    begin: int
    end: int


class _FaultError(ValueError):
    """A fault of the header."""


def read_header(path: Path, owner: str, *, shown: Path | None = None) -> dict[str, TensorInfo]:
    """Return the tensors of a safetensors file by name after full validation of the header; no data are read.

    Args:
        path: The file.
        owner: Name of the backbone, for messages; may be empty.
        shown: The file that messages name, if it is another one.

    Raises:
        WeightsError: If the file is of another format, is damaged, or has a header of more than 10 MB or 100 000 tensors.
    """
    name = repr(str(shown or path))
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            start = file.read(8)
            length = int.from_bytes(start, "little")
            if len(start) < 8 or length > min(size - 8, MAX_HEADER):
                found = format_of(start + file.read(512))
                raise _FaultError(found.text if found else _impossible_length(size, length))
            return _parsed(file.read(length), size - 8 - length)
    except OSError as error:
        raise WeightsError(f"{owner_prefix(owner)}{name} cannot be read: {error.strerror or error}") from error
    except (ValueError, RecursionError) as error:
        reason = str(error) if isinstance(error, _FaultError) else f"its header is not JSON ({type(error).__name__})"
        raise WeightsError(f"{owner_prefix(owner)}{name} is not a readable safetensors file: {reason}; fetch it again") from error


class Format(NamedTuple):
    """The format of a file that is not a safetensors file: a clause that describes it, and whether ``zoo convert`` may read it."""

    text: str
    convertible: bool = False


def format_of(start: bytes) -> Format | None:
    """Return the format of a file that is not a safetensors file by its first bytes, or None."""
    head = start.lstrip().lower()
    if not start:
        return Format("it is empty")
    if start.startswith(b"version https://git-lfs"):
        return Format("it is a Git LFS pointer, not the file itself: fetch it with git lfs pull")
    if head.startswith((b"<!doctype", b"<html", b"<?xml", b"<head")):
        return Format("it is an HTML page, perhaps an error or a login page that was saved in its place")
    if start.startswith((b"PK\x03\x04", b"PK\x05\x06")):
        return Format("it is a zip archive, perhaps a checkpoint of torch.save: see zoo convert", convertible=True)
    if re.match(rb"\x80[\x02-\x05]", start):
        return Format("it is a pickle: see zoo convert", convertible=True)
    if re.match(rb"\s*[\[{]\s*[\"}\]{\[]", start):
        return Format("it is JSON, perhaps an error message of a server that was saved in its place")
    for magic, text in _MAGIC.items():
        if start.startswith(magic):
            return Format(text)
    return None


def is_safetensors(start: bytes) -> bool:
    """Return whether the first bytes of a file are those of a safetensors file."""
    return int.from_bytes(start[:8], "little") <= MAX_HEADER and start[8:10] in (b'{"', b"{}")


def _impossible_length(size: int, length: int) -> str:
    if size < 8:
        return f"it has {size} bytes, too few for a header"
    if length <= size - 8:
        return f"its header has {length} bytes; at most {MAX_HEADER} are read"
    return f"its header would have {length} bytes in a file of {size}: it is cut off or of another format"


def _parsed(raw: bytes, data: int) -> dict[str, TensorInfo]:
    if not raw.startswith(b"{") or not raw.rstrip(b" ").endswith(b"}"):
        raise _FaultError("its header does not start with '{' and end with '}'")
    if raw.count(b'"data_offsets"') > MAX_TENSORS:
        raise _FaultError(f"its header names more than {MAX_TENSORS} tensors")
    document = json.loads(
        raw.decode("utf-8"),
        object_pairs_hook=_unique,
        parse_int=_non_negative_int,
        parse_float=_reject_number,
        parse_constant=_reject_number,
    )
    metadata = document.pop("__metadata__", {})
    if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
        raise _FaultError("__metadata__ does not map text to text")
    if len(document) > MAX_TENSORS:
        raise _FaultError(f"its header names more than {MAX_TENSORS} tensors")
    tensors = {name: _tensor(name, entry) for name, entry in document.items()}
    _check_layout(tensors, data)
    return tensors


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    table = dict(pairs)
    if len(table) < len(pairs):
        raise _FaultError("its header has a key twice")
    return table


def _non_negative_int(number: str) -> int:
    return _reject_number(number) if number.startswith("-") else int(number)  # also "-0", which safetensors parses as a float


def _reject_number(number: str) -> NoReturn:
    raise _FaultError(f"its header has the number {number}, which is no whole number")


def _tensor(name: str, entry: Any) -> TensorInfo:
    if not isinstance(entry, dict) or set(entry) != _FIELDS:
        raise _FaultError(f"the entry of {name!r} does not have exactly dtype, shape and data_offsets")
    dtype, shape, offsets = entry["dtype"], entry["shape"], entry["data_offsets"]
    if not isinstance(dtype, str) or dtype not in WIDTHS:
        raise _FaultError(f"{name!r} has the dtype {dtype!r}, which is not known")
    if not _naturals(shape) or not _naturals(offsets) or len(offsets) != 2:
        raise _FaultError(f"shape or data_offsets of {name!r} are not lists of whole numbers, none negative")
    if not name.isprintable():
        raise _FaultError(f"the name {name!r} has characters that cannot be printed")
    elements, extent = 1, 1
    for dimension in shape:
        elements, extent = elements * dimension, extent * max(dimension, 1)
        if extent > MAX_ELEMENTS:
            raise _FaultError(f"{name!r} has an impossible shape")
    begin, end = offsets
    if end - begin != elements * WIDTHS[dtype]:
        raise _FaultError(f"{name!r} has {end - begin} bytes; {dtype} of shape {tuple(shape)} has {elements * WIDTHS[dtype]}")
    return TensorInfo(dtype, tuple(shape), begin, end)


def _naturals(value: object) -> bool:
    return isinstance(value, list) and all(type(item) is int and item >= 0 for item in value)


def _check_layout(tensors: Mapping[str, TensorInfo], data: int) -> None:
    """Check that the tensors cover all data without gaps or overlaps."""
    at = 0
    for name, tensor in sorted(tensors.items(), key=lambda item: (item[1].begin, item[1].end)):
        if tensor.begin != at:
            what = "overlaps the tensor before it" if tensor.begin < at else f"leaves a gap of {tensor.begin - at} bytes before it"
            raise _FaultError(f"{name!r} {what}")
        at = tensor.end
    if at != data:
        raise _FaultError(f"its tensors have {at} bytes and the file {data}: it is cut off, or something was appended")
