"""Reader of pickled torch objects that runs no code of the file: tensors, plain containers, and inert records of all other objects.

For checkpoints that torch's restricted unpickler refuses, such as whole pickled modules. Every global of the pickle is resolved here,
to a function of this module that builds a tensor or a container, or to a new class of records; nothing is imported or looked up.
"""

from __future__ import annotations

import io
import pickle  # the C unpickler, whose only ways to code are find_class and persistent_load
import sys
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from zoo.errors import WeightsError, count
from zoo.weights.pickled.pickle_scan import MAX_PICKLE, is_archive, pickle_of, scan
from zoo.weights.pickled.records import Record, Records, Stored

MAX_DIMENSIONS = 64  # of a tensor
_MAGIC, _PROTOCOL = 0x1950A86A20F9469CFC6C, 1001  # of the format before torch 1.6
DTYPES = {
    "DoubleStorage": torch.float64,
    "FloatStorage": torch.float32,
    "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16,
    "LongStorage": torch.int64,
    "IntStorage": torch.int32,
    "ShortStorage": torch.int16,
    "CharStorage": torch.int8,
    "ByteStorage": torch.uint8,
    "BoolStorage": torch.bool,
    "UntypedStorage": torch.uint8,
}


class _Dict(dict[Any, Any]):
    """An ordered mapping without its attributes, such as ``_metadata`` of a state dict."""

    def __setstate__(self, state: Any) -> None:
        """Drop the attributes."""


class _Dtype(NamedTuple):
    name: str


def read_records(path: Path) -> Records:
    """Return what a file of ``torch.save`` holds; run ``pickle_scan.check_pickles`` before.

    Args:
        path: A zip archive of torch 1.6 or newer, or a file of the format before.

    Raises:
        WeightsError: If the file is damaged, or is neither.
    """
    try:
        return _read_archive(path) if is_archive(path) else _read_stream(path)
    except WeightsError:
        raise
    except Exception as error:  # damaged or hostile streams cause errors of any type
        raise WeightsError(f"{str(path)!r} is damaged, or not of torch.save ({type(error).__name__}); fetch it again") from error


class _Unpickler(pickle.Unpickler):
    """An unpickler that resolves globals to functions of this module and to classes of records.

    Args:
        content: One pickle, which was scanned.
        load: Returns what stands for a persistent id.
    """

    def __init__(self, content: bytes, load: Callable[[Any], Any]) -> None:
        super().__init__(io.BytesIO(content), encoding="latin1")
        self._load, self._records = load, dict[str, type[Record]]()
        self._left = len(content)  # items and bytes that the functions of this module may copy

    def charge(self, items: Any) -> Any:
        """Return items that are copied, and raise once the pickle has copied more bytes than its own length."""
        self._left -= len(items)
        if self._left < 0:
            raise ValueError("copies of more than the pickle holds")
        return items

    def find_class(self, module: str, name: str) -> Any:
        path = f"{module}.{name}"
        if module in ("torch", "torch.storage") and name in DTYPES:
            return _Dtype(name)
        if path in _BUILDERS:
            return _BUILDERS[path](self.charge)
        if path not in self._records:
            self._records[path] = type("Record", (Record,), {"path": path})
        return self._records[path]

    def persistent_load(self, pid: Any) -> Any:
        return self._load(pid)


# Each gives a new function or class, so that a pickle can change none of this process.
_BUILDERS: dict[str, Callable[[Callable[[Any], Any]], Any]] = {
    "collections.OrderedDict": lambda _: type("Dict", (_Dict,), {}),
    "collections.defaultdict": lambda _: lambda *_: _Dict(),
    "torch.Size": lambda charge: lambda sizes=(): tuple(charge(_plain(sizes))),
    "torch._utils._rebuild_tensor": lambda _: lambda storage, offset, size, stride: _stored(storage, offset, size, stride),
    "torch._utils._rebuild_tensor_v2": lambda _: lambda storage, offset, size, stride, *_: _stored(storage, offset, size, stride),
    "torch._utils._rebuild_parameter": lambda _: lambda tensor, *_: _checked(tensor, Stored),
    "torch._utils._rebuild_parameter_with_state": lambda _: lambda tensor, *_: _checked(tensor, Stored),
    "torch._tensor._rebuild_from_type_v2": lambda _: lambda build, _kind, arguments, _state: build(*_plain(arguments)),
    "copyreg._reconstructor": lambda _: lambda kind, *_: _reconstructed(kind),
    "copy_reg._reconstructor": lambda _: lambda kind, *_: _reconstructed(kind),
    "builtins.set": lambda charge: lambda items=(): set(charge(_plain(items))),
    "__builtin__.set": lambda charge: lambda items=(): set(charge(_plain(items))),
    "_codecs.encode": lambda charge: lambda text, _encoding="latin1": charge(_checked(text, str)).encode("latin1"),
}


def _checked(value: Any, kind: type[Any]) -> Any:
    if type(value) is not kind:
        raise ValueError(f"{type(value).__name__} in place of {kind.__name__}")
    return value


def _plain(items: Any) -> Any:
    return _checked(items, list) if isinstance(items, list) else _checked(items, tuple)


def _reconstructed(kind: Any) -> Record:
    if not (isinstance(kind, type) and issubclass(kind, Record)):
        raise ValueError("an object without a class")
    return kind()


def _stored(storage: Any, offset: Any, size: Any, stride: Any) -> Stored:
    numbers = (storage, offset, *_plain(size), *_plain(stride))
    if len(numbers) > 2 + 2 * MAX_DIMENSIONS or not all(type(number) is int for number in numbers):
        raise ValueError("a tensor that is not described by whole numbers")
    return Stored(storage, offset, tuple(size), tuple(stride))


def _read_archive(path: Path) -> Records:
    with zipfile.ZipFile(path) as archive:
        main = [name for name in archive.namelist() if name.endswith("/data.pkl") or name == "data.pkl"]
        if len(main) != 1:
            raise WeightsError(f"{str(path)!r} is an archive without the data.pkl of torch.save; check what it is")
        folder = main[0].removesuffix("data.pkl")
        if f"{folder}byteorder" in archive.namelist() and archive.read(f"{folder}byteorder") != b"little":
            raise WeightsError(f"{str(path)!r} was written on a big-endian machine; convert it there")
        content, storages, numbers = pickle_of(archive, main[0]), list[Tensor](), dict[str, int]()

        def load(pid: Any) -> int:
            key, dtype, size = _storage_id(pid)
            if key not in numbers:
                numbers[key] = len(storages)
                storages.append(_values(archive.read(f"{folder}data/{key}"), dtype))
            held = storages[numbers[key]]
            if held.dtype != dtype or len(held) != size:
                raise ValueError(f"storage {key} has {count(len(held), 'value')} of {held.dtype}, not {size} of {dtype}")
            return numbers[key]

        return Records(_Unpickler(content, load).load(), storages)


def _read_stream(path: Path) -> Records:
    """Read the format before torch 1.6: five pickles, then the values of every storage."""
    left = path.stat().st_size
    with path.open("rb") as file:
        content, storages, numbers = file.read(MAX_PICKLE), list[Tensor](), dict[str, int]()

        def load(pid: Any) -> Any:
            nonlocal left
            if type(pid) is tuple and len(pid) == 4 and pid[0] == "module":  # a class with its source code
                return pid[1]
            key, dtype, size = _storage_id(pid)
            if len(pid) > 5 and pid[5] is not None:
                raise ValueError("a view of a storage, as before torch 0.4")
            if key not in numbers:
                left -= size * dtype.itemsize
                if size < 0 or left < 0:
                    raise ValueError("more values than the file has bytes")
                numbers[key] = len(storages)
                storages.append(torch.zeros(size, dtype=dtype))
            return numbers[key]

        parts, end = [], 0
        for _ in range(5):
            start, end = end, scan(content, end)
            parts.append(_Unpickler(content[start:end], load).load())
            if len(parts) == 1 and parts[0] != _MAGIC:
                raise WeightsError(f"{str(path)!r} is a pickle that torch.save did not write; ask its publisher for safetensors")
        _, protocol, system, found, keys = parts
        if protocol != _PROTOCOL or not isinstance(system, Mapping) or not system.get("little_endian"):
            raise WeightsError(f"{str(path)!r} has an unknown format, or was written on a big-endian machine")
        if sorted(keys) != sorted(numbers):
            raise ValueError("storages and their list differ")
        file.seek(end)
        for key in keys:
            values = storages[numbers[key]]
            if int.from_bytes(file.read(8), "little") != len(values):
                raise ValueError(f"storage {key} has another size")
            values.copy_(_values(file.read(values.nbytes), values.dtype))
        return Records(found, storages)


def _storage_id(pid: Any) -> tuple[str, torch.dtype, int]:
    """Return the key, the type and the number of values of a persistent id."""
    if not (type(pid) is tuple and len(pid) >= 5 and pid[0] == "storage" and type(pid[1]) is _Dtype):
        raise ValueError("a persistent id that is no storage")
    key, size = pid[2], pid[4]
    if not (isinstance(key, str) and key.isalnum() and type(size) is int):
        raise ValueError("a storage without a key or a size")
    return key, DTYPES[pid[1].name], size


def _values(content: bytes, dtype: torch.dtype) -> Tensor:
    assert sys.byteorder == "little"
    return torch.frombuffer(bytearray(content), dtype=dtype) if content else torch.empty(0, dtype=dtype)
