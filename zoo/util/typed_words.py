"""Values that a user typed as text: plain values, and names joined by commas."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable
from typing import Any

from zoo.errors import OptionError


def plain_value(word: str) -> Any:
    """Return a number, true or True, null, or a list or table of JSON; anything else is text, without blanks around it."""
    word = word.strip()
    if word in ("True", "False"):  # as Python and the messages write them
        return word == "True"
    try:
        return json.loads(word)
    except ValueError:
        return word


def split_names(words: str, called: str = "the list") -> list[str]:
    """Return the names of ``A,B``, without blanks around them; a name with a comma is quoted as in a CSV file, ``"A, small",B``.

    Args:
        words: The names as typed.
        called: Their flag or option, for messages.

    Raises:
        OptionError: If a quotation mark is left open, or text follows one that is closed.
    """
    try:
        rows = list(csv.reader(io.StringIO(words, newline=""), skipinitialspace=True, strict=True))
    except csv.Error as error:
        remedy = """a name with a comma stands between double quotes, '"A, small",B'"""
        raise OptionError(f"{called} {words!r} has a quotation mark that is not closed, or text behind one; {remedy}") from error
    return [name.strip() for row in rows for name in row] or [""]


def join_names(names: Iterable[str]) -> str:
    """Return names as ``split_names`` reads them."""
    line = io.StringIO()
    csv.writer(line).writerow(list(names))  # with its usual end of line, whose characters it quotes in a name
    return line.getvalue().removesuffix("\r\n")
