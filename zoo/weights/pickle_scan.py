"""Checks of a pickle before any unpickler reads it: its opcodes, its length, and the time that its keys take to hash."""

from __future__ import annotations

import io
import pickletools  # reads opcodes, runs none
import zipfile
from pathlib import Path
from typing import Any

from zoo.errors import WeightsError

MAX_PICKLE = 16 * 2**20  # bytes of all pickles of a file, without the values of tensors
MAX_STEPS, MAX_CLASSES = 4_000_000, 10_000  # opcodes of a pickle, and classes that it names
MAX_HASHED = 100_000  # items of a tuple, with those of the tuples in it
_REFUSED = {"EXT1", "EXT2", "EXT4", "NEXT_BUFFER", "READONLY_BUFFER"}  # torch.save writes none of them
_PUTS, _GETS = {"PUT", "BINPUT", "LONG_BINPUT"}, {"GET", "BINGET", "LONG_BINGET"}
_CHANGES = {"BUILD", "APPEND", "APPENDS", "SETITEM", "SETITEMS", "ADDITEMS"}  # what leaves its first operand there
_HASHED = {"TUPLE", "TUPLE1", "TUPLE2", "TUPLE3", "FROZENSET", "REDUCE"}  # what may give a tuple


class RefusedError(ValueError):
    """The pickle asks for more than a file of weights needs."""


def is_archive(path: Path) -> bool:
    """Return whether torch reads a file as a zip archive: by its first bytes."""
    with path.open("rb") as file:
        return file.read(4) == b"PK\x03\x04"


def check_pickles(path: Path) -> None:
    """Check the pickles of a file before any unpickler reads them.

    Raises:
        WeightsError: If they need more steps or memory than weights do.
    """
    try:
        if is_archive(path):
            with zipfile.ZipFile(path) as archive:
                for entry in archive.infolist():
                    if entry.filename.endswith("data.pkl"):
                        scan(pickle_of(archive, entry.filename), 0)
            return
        with path.open("rb") as file:
            content = file.read(MAX_PICKLE)
        end = 0
        for _ in range(5):
            end = scan(content, end)
    except RefusedError as error:
        raise WeightsError(f"{str(path)!r} is refused: its pickle has {error}, which no weights need") from error
    except Exception as error:  # damaged, or of another format; nobody reads it further than to this place
        if path.stat().st_size > MAX_PICKLE and not is_archive(path):
            raise WeightsError(f"{str(path)!r} was not written by torch.save, or is damaged; fetch it again") from error


def scan(content: bytes, start: int) -> int:
    """Check one pickle before it is read; return where it ends.

    Follows the stack of the pickle to bound the time of hashing: a tuple that holds another one twice, which does the same, takes
    twice as long with every level.

    Raises:
        RefusedError: If it needs more steps, classes or memory than weights do.
        ValueError, IndexError, KeyError: If it is damaged.
    """
    stack, marks, memo, classes = list[int](), list[int](), dict[int, int](), 0
    stream = io.BytesIO(content)
    stream.seek(start)
    for number, (opcode, argument, _) in enumerate(pickletools.genops(stream)):
        name = opcode.name
        classes += name in ("GLOBAL", "STACK_GLOBAL", "INST")
        if name in _REFUSED or number > MAX_STEPS or classes > MAX_CLASSES:
            raise RefusedError(f"the opcode {name}" if name in _REFUSED else f"more than {MAX_STEPS} steps or {MAX_CLASSES} classes")
        if name in _PUTS:
            if int(argument) > number:  # type: ignore[arg-type]  # which would reserve as much memory
                raise RefusedError("a memo that is larger than the pickle")
            memo[int(argument)] = stack[-1]  # type: ignore[arg-type]
        elif name == "MEMOIZE":
            memo[len(memo)] = stack[-1]
        elif name in _GETS:
            stack.append(memo[int(argument)])  # type: ignore[arg-type]
        elif name == "DUP":
            stack.append(stack[-1])
        elif name == "MARK":
            marks.append(len(stack))
        elif name == "POP_MARK":
            del stack[marks.pop() :]
        elif name == "POP":
            if marks and marks[-1] == len(stack):
                marks.pop()
            else:
                stack.pop()
        else:
            _step(opcode, stack, marks)
    return stream.tell()


def _step(opcode: Any, stack: list[int], marks: list[int]) -> None:
    """Replace what an opcode takes from the stack by what it leaves there, each with the time that its hash takes."""
    if pickletools.markobject in opcode.stack_before:
        start = marks.pop()
        start -= opcode.stack_before.index(pickletools.markobject)
    else:
        start = len(stack) - len(opcode.stack_before)
    if start < 0:
        raise ValueError("an empty stack")
    taken = stack[start:]
    del stack[start:]
    # Instances are hashed by their identity, lists and mappings not at all.
    cost = taken[0] if opcode.name in _CHANGES else 1 + (sum(taken) if opcode.name in _HASHED else 0)
    if cost > MAX_HASHED:
        raise RefusedError("tuples nested in each other")
    stack.extend([cost] * len(opcode.stack_after))


def pickle_of(archive: zipfile.ZipFile, name: str) -> bytes:
    """Return a pickle of an archive.

    Raises:
        RefusedError: If it is longer than ``MAX_PICKLE``.
    """
    if archive.getinfo(name).file_size > MAX_PICKLE:
        raise RefusedError(f"more than {MAX_PICKLE} bytes")
    return archive.read(name)
