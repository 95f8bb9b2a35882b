"""Checks of a pickle before any unpickler reads it: its opcodes, its length, and the time and memory that its calls take."""

from __future__ import annotations

import io
import pickletools  # reads opcodes, runs none
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from zoo.errors import WeightsError

MAX_PICKLE = 16 * 2**20  # bytes of all pickles of a file, without the values of tensors
MAX_STEPS, MAX_CLASSES = 4_000_000, 10_000  # opcodes of a pickle, and classes that it names
MAX_HASHED = 100_000  # items of a tuple, with those of the tuples in it
MAX_LARGE_KEYS = 1000  # keys and items of sets that may share one hash
_SHORT = 40  # characters of a text that are looked at
_REFUSED = {"EXT1", "EXT2", "EXT4", "NEXT_BUFFER", "READONLY_BUFFER"}  # torch.save writes none of them
_PUTS, _GETS = {"PUT", "BINPUT", "LONG_BINPUT"}, {"GET", "BINGET", "LONG_BINGET"}
_CHANGES = {"BUILD", "APPEND", "APPENDS", "SETITEM", "SETITEMS", "ADDITEMS"}  # what leaves its first operand there
_GLOBALS = {"GLOBAL", "STACK_GLOBAL", "INST"}
_KEYED = {"SETITEM", "SETITEMS", "DICT", "ADDITEMS", "FROZENSET"}
_CALLS = {"REDUCE", "NEWOBJ", "NEWOBJ_EX", "INST", "OBJ", "BUILD"}  # what may copy its arguments
_PLAINS = {"NONE", "NEWTRUE", "NEWFALSE", "BININT", "BININT1", "BININT2", "BINFLOAT"}
_NUMBERS = {"INT", "LONG", "LONG1", "LONG4"}  # numbers that may be longer than 32 bits
_COLLIDES = 2**61 - 1  # whole numbers from here on may share a hash
_ENCODINGS = ("latin1", "latin-1", "utf-8", "utf8", "ascii")  # others may take a time that is quadratic in the length
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
        raise WeightsError(
            f"{str(path)!r} is refused: its pickle has {error}, which no weights need; ask its publisher for safetensors, "
            "or, where it is yours and holds arrays of NumPy, save them with safetensors.numpy.save_file(state, 'FILE.safetensors')"
        ) from error
    except Exception as error:  # a damaged pickle fails at the same place when it is loaded
        if path.stat().st_size > MAX_PICKLE and not is_archive(path):
            raise WeightsError(f"{str(path)!r} was not written by torch.save, or is damaged; fetch it again") from error


class _Value:
    """What the scan knows of a value on the stack.

    Attributes:
        cost: Time that its hash takes.
        size: Items or characters that a copy of it has.
        items: Values of a tuple; None for other values.
        text: Start of a text, or dotted name of a global; None for other values.
        large: Whether it is, or holds, a whole number whose hash may be that of another one.
    """

    __slots__ = ("cost", "items", "large", "size", "text")

    def __init__(
        self, *, cost: int = 1, size: int = 0, items: Sequence[_Value] | None = None, text: str | None = None, large: bool = False
    ) -> None:
        self.cost, self.size, self.items, self.text, self.large = cost, size, items, text, large


_PLAIN, _LARGE = _Value(), _Value(large=True)  # shared by all values without items, as there may be millions


def scan(content: bytes, start: int) -> int:
    """Check one pickle before it is read; return where it ends.

    Raises:
        RefusedError: If it needs more steps, classes, memory or time than weights do.
        ValueError, IndexError, KeyError: If it is damaged.
    """
    stream = io.BytesIO(content)
    stream.seek(start)
    scanned = _Scan(len(content))
    for number, (opcode, argument, _) in enumerate(pickletools.genops(stream)):
        if opcode.name in _REFUSED or number > MAX_STEPS:
            raise RefusedError(f"the opcode {opcode.name}" if opcode.name in _REFUSED else f"more than {MAX_STEPS} steps")
        scanned.step(opcode, argument, number)
    return stream.tell()


class _Scan:
    """Stack of a pickle while its opcodes are read.

    Bounds the time of hashing: a tuple that holds another one twice, which does the same, takes twice as long with every level. Bounds
    what calls copy: a memo gives a large argument again and again in two bytes.

    Args:
        size: Length of the pickle, and of what its calls may copy.
    """

    def __init__(self, size: int) -> None:
        self.stack, self.marks, self.memo = list[_Value](), list[int](), dict[int, _Value]()
        self.left, self.classes, self.large, self.large_keys = size, 0, 0, 0

    def step(self, opcode: Any, argument: Any, number: int) -> None:
        """Follow one opcode."""
        name, stack = opcode.name, self.stack
        if name in _PLAINS:
            stack.append(_PLAIN)
        elif name in _PUTS:
            if int(argument) > number:  # which would reserve as much memory
                raise RefusedError("a memo that is larger than the pickle")
            self.memo[int(argument)] = stack[-1]
        elif name == "MEMOIZE":
            self.memo[len(self.memo)] = stack[-1]
        elif name in _GETS:
            stack.append(self.memo[int(argument)])
        elif name == "DUP":
            stack.append(stack[-1])
        elif name == "MARK":
            self.marks.append(len(stack))
        elif name == "POP_MARK":
            del stack[self.marks.pop() :]
        elif name == "POP":
            if self.marks and self.marks[-1] == len(stack):
                self.marks.pop()
            else:
                stack.pop()
        else:
            taken = self._taken(opcode)
            stack.extend([self._result(name, argument, taken)] * len(opcode.stack_after))

    def _taken(self, opcode: Any) -> list[_Value]:
        """Remove what an opcode takes from the stack."""
        if pickletools.markobject in opcode.stack_before:
            start = self.marks.pop() - opcode.stack_before.index(pickletools.markobject)
        else:
            start = len(self.stack) - len(opcode.stack_before)
        if start < 0:
            raise ValueError("an empty stack")
        taken = self.stack[start:]
        del self.stack[start:]
        return taken

    def _result(self, name: str, argument: Any, taken: list[_Value]) -> _Value:
        """Return what an opcode leaves on the stack."""
        self.classes += name in _GLOBALS
        if self.classes > MAX_CLASSES:
            raise RefusedError(f"more than {MAX_CLASSES} classes")
        self.large_keys += sum(value.large for value in taken) if name in _KEYED else 0
        if self.large_keys > MAX_LARGE_KEYS:
            raise RefusedError("very many large numbers as keys")
        size = self._spend(name, argument, taken) if name in _CALLS else len(taken)
        large = any(value.large for value in taken)
        if name in _CHANGES:
            if taken[0] not in (_PLAIN, _LARGE) and name != "BUILD":
                taken[0].size, taken[0].large = taken[0].size + len(taken) - 1, large
            return taken[0]
        # Instances are hashed by their identity, lists and mappings not at all.
        cost = 1 + (sum(value.cost for value in taken) if name in _HASHED else 0)
        if cost > MAX_HASHED:
            raise RefusedError("tuples nested in each other")
        if taken or name.startswith("EMPTY_"):
            items, text = taken if "TUPLE" in name else None, ".".join(str(value.text) for value in taken)
            return _Value(cost=cost, size=size, items=items, text=text if name in _GLOBALS else None, large=large)
        return self._literal(name, argument)

    def _literal(self, name: str, argument: Any) -> _Value:
        """Return a value that takes none from the stack."""
        if name == "GLOBAL":
            return _Value(text=_dotted(argument))
        if isinstance(argument, str | bytes | bytearray) and name not in ("PERSID", "INST"):
            return _Value(size=len(argument), text=str(argument[:_SHORT]))
        if name in _NUMBERS and abs(int(argument)) >= _COLLIDES:
            self.large += 1
            return _LARGE
        return _PLAIN

    def _spend(self, name: str, argument: Any, taken: list[_Value]) -> int:
        """Return how much a call copies, as long as a pickle of this length may ask for it."""
        called = _dotted(argument) if name == "INST" else taken[0].text or ""
        if name in ("INST", "OBJ"):
            arguments: Sequence[_Value] = taken
        else:
            arguments = taken[-1:] if taken[-1].items is None else taken[-1].items
        if called in ("builtins.bytearray", "__builtin__.bytearray") and any(value.text is None for value in arguments):
            raise RefusedError("a bytearray of a length that it does not hold")
        if called == "_codecs.encode" and arguments[1:] and arguments[1].text not in _ENCODINGS:
            raise RefusedError("a text in an encoding other than latin1 and UTF-8")
        size = sum(value.size for value in arguments)
        if not called.startswith("torch._utils._rebuild"):  # which copy nothing
            self.left -= size * (1 + self.large)
        if self.left < 0:
            raise RefusedError("copies of more than it holds")
        return size


def _dotted(argument: Any) -> str:
    """Return the dotted name of a global."""
    return str(argument).replace(" ", ".")


def protocol_of(path: Path) -> int:
    """Return the protocol of the pickle of a checkpoint that was checked; 0 if it does not say."""
    with path.open("rb") as file:
        start = file.read(2)
    if is_archive(path):
        with zipfile.ZipFile(path) as archive:
            name = next((name for name in archive.namelist() if name.endswith("data.pkl")), "")
            start = archive.read(name)[:2] if name else b""
    return start[1] if start[:1] == b"\x80" and len(start) > 1 else 0


def pickle_of(archive: zipfile.ZipFile, name: str) -> bytes:
    """Return a pickle of an archive.

    Raises:
        RefusedError: If it is longer than ``MAX_PICKLE``.
    """
    if archive.getinfo(name).file_size > MAX_PICKLE:
        raise RefusedError(f"more than {MAX_PICKLE} bytes")
    return archive.read(name)
