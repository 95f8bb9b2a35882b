"""Tables without a header, whose first line was read as the names of the columns."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any

from zoo.data.sources.cells import is_empty
from zoo.errors import examples

_LOOKED_AT = 200  # rows that the first line is compared with
_SUFFIX = re.compile(r"\.[A-Za-z]{2,5}\d?(\.gz)?$")
_LONG = 4  # words of a name that is a sentence


def like_cells(name: str, cells: Sequence[Any]) -> bool:
    """Return whether the name of a column looks like one of its cells: equal, but for digits or as a file, a number or a text."""
    texts = [str(cell).strip() for cell in cells if not is_empty(cell)]
    if not texts:
        return False
    suffix = _SUFFIX.search(name)
    return (
        name in texts
        or (any(map(str.isdigit, name)) and _form(name) in set(map(_form, texts)))
        or (suffix is not None and all(text.endswith(suffix[0]) for text in texts))
        or (_is_number(name) and all(map(_is_number, texts)))
        or len(name.split()) >= _LONG
    )


def headerless_hint(names: Sequence[str], used: Sequence[str], cells: Callable[[str, int | None], list[Any]], roles: str) -> str:
    """Return a sentence with the remedy if the names of columns look like a sample, or an empty string.

    Args:
        names: The columns.
        used: Those that are read in a role; all of them must look like cells. If none is, half of all columns must.
        cells: Gives the first values of a column.
        roles: A header to add, such as ``file_name,label``.
    """
    if list(names) == [str(index) for index in range(len(names))]:  # numbered by pandas, because there is no header
        return ""
    compared = list(used) or list(names)
    alike = [name for name in compared if like_cells(name, cells(name, _LOOKED_AT))]
    if not alike or (len(alike) < len(compared) if used else 2 * len(alike) < len(compared)):
        return ""
    return f"The first line looks like a sample ({examples(list(map(repr, alike)))}); add a line with the names of the columns, {roles}"


def _form(text: str) -> str:
    return re.sub(r"\d+", "0", text)


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
