"""Reader of pickled torch objects that runs no code of the file: tensors, plain containers, and inert records of all other objects.

For checkpoints that torch's restricted unpickler refuses, such as whole pickled modules. Every global of the pickle is resolved here,
to a function of this module that builds a tensor or a container, or to a new class of records; nothing is imported or looked up.
"""

from __future__ import annotations

import io
import pickle  # the C unpickler, whose only ways to code are find_class and persistent_load
import pickletools
import sys
import zipfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from zoo.errors import WeightsError, count
from zoo.weights.safetensors_header import MAX_TENSORS

MAX_PICKLE = 16 * 2**20  # bytes of all pickles of a file, without the values of tensors
DEEPEST = 100  # nested modules
_MAGIC, _PROTOCOL = 0x1950A86A20F9469CFC6C, 1001  # of the format before torch 1.6
_REFUSED = {"EXT1", "EXT2", "EXT4", "NEXT_BUFFER", "READONLY_BUFFER"}  # torch.save writes none of them
_PUTS = {"PUT", "BINPUT", "LONG_BINPUT"}
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


class Record:
    """A pickled object that was not built.

    Attributes:
        path: Dotted name of its class or function.
        state: What the pickle sets as its state, or None.
    """

    path = ""

    def __init__(self, *_: Any, **__: Any) -> None:
        self.state: Any = None

    def __call__(self, *_: Any, **__: Any) -> Record:
        """Return a record of what a call of the object would give."""
        return type(self)()

    def __setstate__(self, state: Any) -> None:
        """Store the state; none of it becomes an attribute."""
        self.state = state

    def __setitem__(self, key: Any, value: Any) -> None:
        """Drop an item of a mapping."""

    def append(self, item: Any) -> None:
        """Drop an item of a list."""

    def extend(self, items: Any) -> None:
        """Drop items of a list."""

    def update(self, items: Any) -> None:
        """Drop items of a set."""


class _Dict(dict[Any, Any]):
    """An ordered mapping without its attributes, such as ``_metadata`` of a state dict."""

    def __setstate__(self, state: Any) -> None:
        """Drop the attributes."""


class _Dtype(NamedTuple):
    dtype: torch.dtype


class _Storage(NamedTuple):
    """All values of a storage, in one dimension."""

    values: Tensor


class Stored(NamedTuple):
    """A tensor of the file. Not a tensor of torch, whose methods the rest of the pickle could call."""

    storage: _Storage
    offset: int
    size: tuple[int, ...]
    stride: tuple[int, ...]

    def tensor(self) -> Tensor:
        """Return the tensor.

        Raises:
            RuntimeError: If it does not lie within its storage.
        """
        return torch.as_strided(self.storage.values, self.size, self.stride, self.offset)


def read_records(path: Path) -> Any:
    """Return the object that a file of ``torch.save`` holds, with ``Stored`` for tensors and ``Record`` for what is no container.

    Args:
        path: A zip archive of torch 1.6 or newer, or a file of the format before.

    Raises:
        WeightsError: If the file is damaged, or is neither.
    """
    try:
        return _read_archive(path) if zipfile.is_zipfile(path) else _read_stream(path)
    except WeightsError:
        raise
    except Exception as error:  # damaged or hostile streams cause errors of any type
        raise WeightsError(
            f"{str(path)!r} is damaged, or was not written by torch.save ({type(error).__name__}); fetch it again"
        ) from error


def module_tensors(record: Record) -> dict[str, Tensor]:
    """Return the parameters and persistent buffers of a pickled ``nn.Module`` by their dotted names; empty if it is another object.

    Raises:
        ValueError: If its modules contain each other, or have more tensors than ``MAX_TENSORS``.
        RuntimeError: If a tensor does not lie within its storage.
    """
    found: dict[str, Tensor] = {}
    for name, tensor in _walk(record, "", 0):
        found[name] = tensor
        if len(found) > MAX_TENSORS:
            raise ValueError(f"more than {MAX_TENSORS} tensors")
    return found


def _walk(record: Record, prefix: str, depth: int) -> Iterator[tuple[str, Tensor]]:
    state = record.state if isinstance(record.state, Mapping) else {}
    if depth > DEEPEST:
        raise ValueError(f"modules nested more than {DEEPEST} deep")
    left_out = state.get("_non_persistent_buffers_set")
    for kind in ("_parameters", "_buffers"):
        own = state.get(kind)
        for name, tensor in own.items() if isinstance(own, Mapping) else ():
            if isinstance(tensor, Stored) and not (kind == "_buffers" and isinstance(left_out, set) and name in left_out):
                yield f"{prefix}{name}", tensor.tensor()
    modules = state.get("_modules")
    for name, module in modules.items() if isinstance(modules, Mapping) else ():
        if isinstance(module, Record):
            yield from _walk(module, f"{prefix}{name}.", depth + 1)


class _Unpickler(pickle.Unpickler):
    """An unpickler that resolves globals to functions of this module and to classes of records.

    Args:
        content: One pickle.
        load: Returns the storage of a persistent id.
    """

    def __init__(self, content: bytes, load: Callable[[Any], Any]) -> None:
        super().__init__(io.BytesIO(content), encoding="latin1")
        self._load, self._records = load, dict[str, type[Record]]()

    def find_class(self, module: str, name: str) -> Any:
        path = f"{module}.{name}"
        if module in ("torch", "torch.storage") and name in DTYPES:
            return _Dtype(DTYPES[name])
        if path in _BUILDERS:
            return _BUILDERS[path]()
        if path not in self._records:
            self._records[path] = type("Record", (Record,), {"path": path})
        return self._records[path]

    def persistent_load(self, pid: Any) -> Any:
        return self._load(pid)


# Each gives a new function or class, so that a pickle can change none of this process.
_BUILDERS: dict[str, Callable[[], Any]] = {
    "collections.OrderedDict": lambda: type("Dict", (_Dict,), {}),
    "torch.Size": lambda: lambda sizes=(): tuple(sizes),
    "torch._utils._rebuild_tensor": lambda: lambda storage, offset, size, stride: _stored(storage, offset, size, stride),
    "torch._utils._rebuild_tensor_v2": lambda: lambda storage, offset, size, stride, *_: _stored(storage, offset, size, stride),
    "torch._utils._rebuild_parameter": lambda: lambda tensor, *_: tensor,
    "torch._utils._rebuild_parameter_with_state": lambda: lambda tensor, *_: tensor,
    "torch._tensor._rebuild_from_type_v2": lambda: lambda build, _kind, arguments, _state: build(*arguments),
    "copyreg._reconstructor": lambda: lambda kind, *_: _reconstructed(kind),
    "copy_reg._reconstructor": lambda: lambda kind, *_: _reconstructed(kind),
    "builtins.set": lambda: lambda items=(): set(items),
    "__builtin__.set": lambda: lambda items=(): set(items),
    "_codecs.encode": lambda: lambda text, _encoding="latin1": str(text).encode("latin1"),
}


def _reconstructed(kind: Any) -> Record:
    if not (isinstance(kind, type) and issubclass(kind, Record)):
        raise ValueError("an object without a class")
    return kind()


def _stored(storage: Any, offset: Any, size: Any, stride: Any) -> Stored:
    if not isinstance(storage, _Storage):
        raise ValueError("a tensor without values")
    return Stored(storage, offset, tuple(size), tuple(stride))


def _scan(content: bytes, start: int) -> int:
    """Check one pickle before it is read; return where it ends."""
    for number, (opcode, argument, _) in enumerate(pickletools.genops(stream := _at(content, start))):
        if opcode.name in _REFUSED:
            raise ValueError(f"opcode {opcode.name}")
        if opcode.name in _PUTS and int(argument) > number:  # type: ignore[arg-type]  # which would reserve as much memory
            raise ValueError("a memo that is larger than the pickle")
    return stream.tell()


def _at(content: bytes, start: int) -> io.BytesIO:
    stream = io.BytesIO(content)
    stream.seek(start)
    return stream


def _read_archive(path: Path) -> Any:
    with zipfile.ZipFile(path) as archive:
        main = [name for name in archive.namelist() if name.endswith("/data.pkl") or name == "data.pkl"]
        if len(main) != 1:
            raise WeightsError(f"{str(path)!r} is an archive without the data.pkl of torch.save; check what it is")
        folder = main[0].removesuffix("data.pkl")
        if f"{folder}byteorder" in archive.namelist() and archive.read(f"{folder}byteorder") != b"little":
            raise WeightsError(f"{str(path)!r} was written on a big-endian machine; convert it there")
        if archive.getinfo(main[0]).file_size > MAX_PICKLE:
            raise WeightsError(f"{str(path)!r} has a pickle of more than {MAX_PICKLE} bytes, which no weights need")
        content = archive.read(main[0])
        _scan(content, 0)
        storages: dict[str, _Storage] = {}

        def load(pid: Any) -> Any:
            key, dtype, size = _storage_id(pid)
            if key not in storages:
                storages[key] = _Storage(_values(archive.read(f"{folder}data/{key}"), dtype))
            held = storages[key].values
            if held.dtype != dtype or len(held) != size:
                raise ValueError(f"storage {key} has {count(len(held), 'value')} of {held.dtype}, not {size} of {dtype}")
            return storages[key]

        return _Unpickler(content, load).load()


def _read_stream(path: Path) -> Any:
    """Read the format before torch 1.6: five pickles, then the values of every storage."""
    left = path.stat().st_size
    with path.open("rb") as file:
        content = file.read(MAX_PICKLE)
        storages: dict[str, _Storage] = {}

        def load(pid: Any) -> Any:
            nonlocal left
            if isinstance(pid, tuple) and len(pid) == 4 and pid[0] == "module":  # a class with its source code
                return pid[1]
            key, dtype, size = _storage_id(pid)
            if key not in storages:
                left -= size * dtype.itemsize
                if size < 0 or left < 0:
                    raise ValueError("more values than the file has bytes")
                storages[key] = _Storage(torch.zeros(size, dtype=dtype))
            view = pid[5] if len(pid) > 5 else None
            return storages[key] if view is None else _Storage(storages[key].values[view[1] : view[1] + view[2]])

        parts, end = [], 0
        for _ in range(5):
            start, end = end, _scan(content, end)
            parts.append(_Unpickler(content[start:end], load).load())
            if len(parts) == 1 and parts[0] != _MAGIC:
                raise WeightsError(f"{str(path)!r} is a pickle that torch.save did not write; ask its publisher for safetensors")
        _, protocol, system, found, keys = parts
        if protocol != _PROTOCOL or not isinstance(system, Mapping) or not system.get("little_endian"):
            raise WeightsError(f"{str(path)!r} has an unknown format, or was written on a big-endian machine")
        if sorted(keys) != sorted(storages):
            raise ValueError("storages and their list differ")
        file.seek(end)
        for key in keys:
            values = storages[key].values
            if int.from_bytes(file.read(8), "little") != len(values):
                raise ValueError(f"storage {key} has another size")
            values.copy_(_values(file.read(values.nbytes), values.dtype))
        return found


def _storage_id(pid: Any) -> tuple[str, torch.dtype, int]:
    """Return the key, the type and the number of values of a persistent id."""
    if not (isinstance(pid, tuple) and len(pid) >= 5 and pid[0] == "storage" and isinstance(pid[1], _Dtype)):
        raise ValueError("a persistent id that is no storage")
    key, size = pid[2], pid[4]
    if not (isinstance(key, str) and key.isalnum() and isinstance(size, int)):
        raise ValueError("a storage without a key or a size")
    return key, pid[1].dtype, size


def _values(content: bytes, dtype: torch.dtype) -> Tensor:
    assert sys.byteorder == "little"
    return torch.frombuffer(bytearray(content), dtype=dtype) if content else torch.empty(0, dtype=dtype)
