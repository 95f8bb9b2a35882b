"""Conversion of torch checkpoints to safetensors, without running code of theirs.

State dicts are read with torch's restricted unpickler. What it refuses, such as a whole pickled module, is read with
``inert_unpickler``; these two modules are the only ones that open pickles.
"""

from __future__ import annotations

import contextlib
import io
import logging
import pickletools  # reads opcodes, runs none
import re
import shlex
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from zoo.errors import OutputExistsError, WeightsError, WeightsNotFoundError, count, did_you_mean, examples
from zoo.util.near_paths import did_you_mean_path
from zoo.weights.load import write
from zoo.weights.pickled.archive_check import MAX_GROWTH, check_archive
from zoo.weights.pickled.checkpoint_names import by_name, check_no_overridden_methods
from zoo.weights.pickled.inert_unpickler import read_records
from zoo.weights.pickled.pickle_scan import check_pickles, is_archive, protocol_of
from zoo.weights.pickled.records import Record, Records, Stored, module_tensors
from zoo.weights.safetensors_header import format_of, is_safetensors

log = logging.getLogger("zoo")

WRAPPERS = ("state_dict", "model_state_dict", "model", "teacher", "module")
MAX_LISTED = 64  # entries of a level that are looked into for a message
MAX_WRAPPERS = 8  # nested wrappers: a checkpoint may contain itself
MAX_SCANNED = 10_000_000  # bytes to search for names in an error message
TORCH_FLOOR = (2, 10)  # older versions run code of files in spite of weights_only (CVE-2025-32434 and later)


class Converted(NamedTuple):
    """The result of ``convert``.

    Attributes:
        out: The file.
        tensors: Number of its tensors.
        skipped: Names of the entries left out, because they are not tensors.
        objects: Classes and functions that the checkpoint names; none was imported or called.
    """

    out: Path
    tensors: int
    skipped: tuple[str, ...]
    objects: tuple[str, ...] = ()


class Checkpoint(NamedTuple):
    """The content of a checkpoint: its tensors, and ``skipped`` and ``objects`` as of ``Converted``."""

    tensors: dict[str, Tensor]
    skipped: tuple[str, ...]
    objects: tuple[str, ...]


def convert(source: Path, out: Path, *, key: str = "", overwrite: bool = False) -> Converted:
    """Convert a checkpoint written by ``torch.save`` to a safetensors file, without running code of the checkpoint.

    Args:
        source: The checkpoint.
        out: The file to write; its name ends with ``.safetensors``.
        key: Name of the entry that holds the tensors, with dots for nesting; empty takes ``state_dict`` or ``model``
            if there is one, else the checkpoint itself.
        overwrite: Whether ``out`` may exist.

    Raises:
        WeightsNotFoundError: If there is no such checkpoint.
        WeightsError: If it needs anything but tensors and plain values, is damaged, or holds no tensors.
        OutputExistsError: If ``out`` exists.
    """
    if out.suffix != ".safetensors":
        raise WeightsError(f"{str(out)!r} must end with .safetensors")
    if out.exists() and not overwrite:
        raise OutputExistsError(f"{str(out)!r} exists; choose another --out, or pass --overwrite")
    found = read_checkpoint(source, key=key)
    write(found.tensors, out, check=source)
    return Converted(out, len(found.tensors), found.skipped, found.objects)


def read_checkpoint(source: Path, *, key: str = "") -> Checkpoint:
    """Read the tensors of a checkpoint written by ``torch.save``: a state dict, or a whole pickled module.

    Args:
        source: The checkpoint.
        key: As for ``convert``.

    Raises:
        WeightsNotFoundError: If there is no such checkpoint.
        WeightsError: If it is damaged, or holds no tensors.
    """
    _check_source(source)
    records, objects = _load(source)
    tensors, skipped = _tensors(_entry(records.found, key, source), records, source)
    return Checkpoint(tensors, tuple(skipped), tuple(objects))


def _check_source(source: Path) -> None:
    """Check the file before torch opens it."""
    if not source.is_file():
        if source.is_dir():
            held = sorted(entry.name for entry in source.iterdir())
            raise WeightsNotFoundError(f"{str(source)!r} is a folder; give a checkpoint in it; it has: {examples(held) or 'nothing'}")
        raise WeightsNotFoundError(f"there is no checkpoint {str(source)!r}{did_you_mean_path(source)}")
    version = tuple(int(part) for part in re.findall(r"\d+", torch.__version__)[:2])
    if version < TORCH_FLOOR:
        raise WeightsError(f"torch {torch.__version__} is too old to open a pickle safely; install torch >= 2.10")
    with source.open("rb") as file:
        start = file.read(512)
    found = format_of(start)
    if found and not found.convertible:
        raise WeightsError(f"{str(source)!r} is no checkpoint: {found.text}")
    if source.suffix != ".safetensors" and is_safetensors(start):
        raise WeightsError(f"{str(source)!r} is a safetensors file under another suffix: rename it to {source.stem}.safetensors")
    if source.suffix == ".safetensors" and not found:
        raise WeightsError(f"{str(source)!r} is a safetensors file already; pass it as weights='FILE' (--weights FILE)")
    if is_archive(source):
        check_archive(source)
    check_pickles(source)


def _load(source: Path) -> tuple[Records, list[str]]:
    """Return the content of a checkpoint, and the names for which torch's restricted unpickler refuses it."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about the pickle protocol
            return Records(torch.load(source, map_location="cpu", weights_only=True, mmap=False), []), []
    except Exception as error:  # damaged or hostile streams cause errors of any type
        objects = _blocked(source, error)
        if objects or protocol_of(source) > 3:  # torch reads protocols 2 and 3
            return read_records(source), objects
        with source.open("rb") as file:
            start = file.read(24)
        if start.isascii() and not start.startswith(b"\x80"):
            raise WeightsError(
                f"{str(source)!r} is refused: it begins with {start.decode()!r}, as a text does, and is no checkpoint"
            ) from error
        # Only the class of the error, because torch's message proposes to turn weights_only off.
        raise WeightsError(
            f"{str(source)!r} is refused: torch cannot read it ({type(error).__name__}); only tensors and plain values are read: "
            "fetch it again, or ask its publisher for safetensors"
        ) from error


def _blocked(source: Path, error: Exception) -> list[str]:
    """Return the disallowed globals of a checkpoint, without loading it."""
    found = re.findall(r"Unsupported global: GLOBAL ([A-Za-z_]\w*\.[\w.]*\w)", str(error))
    with contextlib.suppress(Exception):  # only zip archives can be listed
        found += torch.serialization.get_unsafe_globals_in_checkpoint(source)
    if not is_archive(source):
        with source.open("rb") as file:
            found += _globals(io.BytesIO(file.read(MAX_SCANNED)))
    return sorted({name for name in found if not name.startswith(("torch._utils.", "torch.FloatStorage", "collections.OrderedDict"))})


def _globals(stream: io.BytesIO) -> list[str]:
    """Return the globals in a stream of pickles, by reading opcodes only."""
    names, texts = list[str](), list[str]()
    with contextlib.suppress(Exception):  # the data of tensors follow the pickles
        while True:
            for opcode, argument, _ in pickletools.genops(stream):
                if opcode.name in ("GLOBAL", "INST"):
                    names.append(str(argument).replace(" ", "."))
                elif opcode.name == "STACK_GLOBAL":
                    names.append(".".join(texts[-2:]))
                elif isinstance(argument, str):
                    texts.append(argument)
    return names


def _entry(loaded: Any, key: str, source: Path) -> Mapping[Any, Any]:
    for part in key.split(".") if key else ():
        check_no_overridden_methods(loaded, source)
        if not isinstance(loaded, Mapping) or part not in loaded:
            names = [str(name) for name in loaded if isinstance(name, str)] if isinstance(loaded, Mapping) else []
            raise WeightsError(f"{str(source)!r} has no entry {part!r}{did_you_mean(part, names)}; it has: {examples(names) or 'none'}")
        loaded = loaded[part]
    for _ in range(0 if key else MAX_WRAPPERS):
        check_no_overridden_methods(loaded, source)
        inner = [name for name in WRAPPERS if _holds_names(loaded.get(name), source)] if isinstance(loaded, Mapping) else []
        if not inner:
            break
        _warn_of_alternatives(loaded, inner[0], source)
        loaded = loaded[inner[0]]
    check_no_overridden_methods(loaded, source)
    named = _named_tensors(loaded, source) if isinstance(loaded, Record) else loaded
    if not isinstance(named, Mapping) or not named:
        what = loaded.path if isinstance(loaded, Record) else type(loaded).__name__
        raise WeightsError(f"{str(source)!r} holds {what}, not tensors by name; save the state_dict() alone")
    return named


def _warn_of_alternatives(loaded: Mapping[Any, Any], taken: str, source: Path) -> None:
    """Warn about other entries with the same names, such as a moving average of the weights."""
    names = _names(loaded[taken], source)
    others = [str(name) for name, value in loaded.items() if name != taken and names & _names(value, source)]
    if others:
        log.warning(
            "%s: the entry %r is taken; %s has the same names, for which run: zoo convert %s --key %s --out FILE",
            *(source, taken, examples(others), shlex.quote(str(source)), shlex.quote(others[0])),
        )


def _names(value: Any, source: Path) -> set[str]:
    """Return the names of a mapping or a pickled module; empty for anything else."""
    check_no_overridden_methods(value, source)
    entry = _named_tensors(value, source) if isinstance(value, Record) else value
    return {name for name in entry if isinstance(name, str)} if isinstance(entry, Mapping) else set()


def _paths(root: Any, source: Path) -> list[str]:
    """Return the entries of a checkpoint that hold tensors by name, as ``--key`` takes them, those near its top first."""
    found, level = list[str](), [("", root)]
    for _ in range(MAX_WRAPPERS + 1):
        for _, value in level:
            check_no_overridden_methods(value, source)
        below = [
            (f"{path}.{name}" if path else name, inner)
            for path, value in level
            if isinstance(value, Mapping)
            for name, inner in value.items()
            if isinstance(name, str) and "." not in name and isinstance(inner, Mapping | Record)
        ]
        found += [path for path, value in below if _holds_tensors(value, source)]
        level = below[:MAX_LISTED]
    return found


def _holds_tensors(value: Any, source: Path) -> bool:
    check_no_overridden_methods(value, source)
    values = value.values() if isinstance(value, Mapping) else _named_tensors(value, source).values()
    return any(isinstance(one, Tensor | Stored) for one in values)


def _holds_names(value: Any, source: Path) -> bool:
    return isinstance(value, Mapping) or (isinstance(value, Record) and bool(_named_tensors(value, source)))


def _named_tensors(record: Record, source: Path) -> dict[str, Stored]:
    try:
        return module_tensors(record)
    except ValueError as error:
        raise WeightsError(f"{str(source)!r} holds a module that is damaged: {error}; fetch it again") from error


def _tensors(entry: Mapping[Any, Any], records: Records, source: Path) -> tuple[dict[str, Tensor], list[str]]:
    try:
        named = by_name(entry, (Tensor, Stored), source)
        named |= {name: records.tensor(value) for name, value in named.items() if isinstance(value, Stored)}
    except (RuntimeError, IndexError, TypeError, OverflowError) as error:
        raise WeightsError(f"{str(source)!r} has a tensor that does not lie within its values: {error}; fetch it again") from error
    tensors = {name: value for name, value in named.items() if isinstance(value, Tensor)}
    skipped = [name for name in named if name not in tensors]
    for tensor in tensors.values():
        check_no_overridden_methods(tensor, source)
    if not tensors:
        inner = _paths(records.found, source)
        remedy = f"it has: {examples(skipped) or 'nothing'}"
        if inner:
            command = f"zoo convert {shlex.quote(str(source))} --key {shlex.quote(inner[0])} --out FILE"
            remedy = f"name the entry that does, and give the file that it writes: {command}"
            remedy += f" (or {examples(inner[1:])})" if inner[1:] else ""
        raise WeightsError(f"{str(source)!r} holds no tensors at its top; {remedy}")
    needed, size = sum(tensor.numel() * tensor.element_size() for tensor in tensors.values()), source.stat().st_size
    if needed > MAX_GROWTH * size:
        raise WeightsError(
            f"{str(source)!r} has {size} bytes, and its tensors would take {needed}: they share or repeat their values; "
            "save the state_dict() alone"
        )
    odd = [name for name, value in tensors.items() if value.layout != torch.strided or value.is_quantized or value.is_meta]
    if odd:
        raise WeightsError(f"{str(source)!r} has {count(len(odd), 'tensor')} that are sparse, quantized or without values: {examples(odd)}")
    return tensors, skipped
