"""Inputs from the lines of the standard input: a path each, or a text where the model reads texts."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, BinaryIO

from zoo.errors import DataError, OptionError

if TYPE_CHECKING:
    from zoo.models.task_model import TaskModel

STREAM = "-"  # in place of the inputs


def is_stream(words: Sequence[str], *, shared: bool = False) -> bool:
    """Return whether the inputs of a command are the lines of the standard input.

    Args:
        words: The inputs as given.
        shared: Whether several processes share them, which only one could read.

    Raises:
        OptionError: If ``-`` stands beside other inputs, several processes would read it, or the standard input is closed.
    """
    if STREAM not in words:
        return False
    if len(words) > 1:
        raise OptionError(f"{STREAM} reads all inputs from the standard input, and others are named beside it; give one of both")
    if shared:
        raise OptionError(f"{STREAM} is read by one process; leave out --num-processes, or name the inputs")
    if sys.stdin is None:
        raise OptionError(f"{STREAM} reads the standard input, and it is closed; name the inputs")
    return True


def reads_texts(model: TaskModel) -> bool:
    """Return whether the inputs of a model are texts, not files."""
    from zoo.data.raw import TEXTUAL
    from zoo.data.sources.read import kind_of

    return kind_of(model.inputs, model.task) in TEXTUAL


def line_name(line: bytes) -> str:
    """Return a line as the words of a command line are read: other bytes than UTF-8 are kept."""
    return os.fsdecode(line.rstrip(b"\r\n"))


def line_input(line: bytes, number: int, *, textual: bool) -> str:
    """Return the input that a line is.

    Args:
        line: With its end.
        number: Counted from 1, for messages.
        textual: Whether it is a text, which may be empty.

    Raises:
        DataError: If it is a text that is not UTF-8, or an empty path.
    """
    if not textual:
        if not line.strip():
            raise DataError(f"line {number} of the standard input is empty; give a path per line")
        return line_name(line)
    try:
        return line.decode("utf-8").rstrip("\r\n")
    except UnicodeDecodeError as error:
        remedy = "convert the text to UTF-8 first"
        raise DataError(f"line {number} of the standard input is not UTF-8 ({error.reason} at byte {error.start}); {remedy}") from error


def all_lines(model: TaskModel, stream: BinaryIO) -> list[str]:
    """Return the inputs of all lines, for a result that is written as a whole.

    Raises:
        DataError: If a line is no input, or there is none.
    """
    textual = reads_texts(model)
    found = [line_input(line, number, textual=textual) for number, line in enumerate(stream, start=1)]
    if not found:
        raise DataError("the standard input has no line; give a path or a text per line")
    return found
