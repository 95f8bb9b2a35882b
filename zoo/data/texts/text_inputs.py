"""Texts, pairs of texts and lists of words from the cells of a table or the items of a list."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from zoo.data.sources.cells import is_empty
from zoo.data.unreadable_input import Unreadable, UnreadableInputsError, unreadable
from zoo.errors import DataError, count, examples

_BROKEN = "it has a lone surrogate, half of a character; read its source as UTF-8"


def texts_of(values: Mapping[str, Sequence[Any]], source: str, *, keep_unreadable: bool = False) -> list[Any]:
    """Return texts, pairs of texts, or lists of words from the columns by their roles.

    Raises:
        DataError: If lists of words were written as text.
        UnreadableInputsError: If cells are not texts, unless they keep their row as ``Unreadable``.
    """
    items: list[Any]
    if "words" in values:
        written = [f"row {row}" for row, item in enumerate(values["words"]) if isinstance(item, str) and _is_list(item)]
        if written:
            raise DataError(
                f"{source}: the words of {count(len(written), 'row')} are a list written as text ({examples(written)}); "
                "save the table as Parquet, or join the words, and their labels, with blanks"
            )
        items = [_words(cell) for cell in values["words"]]
    else:
        items = [_text(cell) for cell in values["text"]]
        if "text_pair" in values:
            items = [_pair(first, _text(cell)) for first, cell in zip(items, values["text_pair"], strict=True)]
    odd = [f"row {row} ({reason})" for row, reason in unreadable(items).items()]
    if odd and not keep_unreadable:
        kind = "words" if "words" in values else "texts"
        wrong = f"{source}: {count(len(odd), 'row')} of {len(items)} cannot be read as {kind}: {examples(odd)}"
        raise UnreadableInputsError(f"{wrong}; remove them")
    return items


def _text(cell: Any) -> str | Unreadable:
    if is_empty(cell):
        return Unreadable("the cell is empty")
    if isinstance(cell, bytes | Mapping | list | tuple | set) or (hasattr(cell, "__array__") and cell.shape):
        return Unreadable(f"{type(cell).__name__} is no text")
    return Unreadable(_BROKEN) if _is_broken(str(cell)) else str(cell)


def _is_broken(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:  # tokenizers do not read it
        return True
    return False


def refuse_mixed(items: Sequence[Any], source: str) -> None:
    """Check that samples are all single texts or all pairs, which a model would learn to tell apart by their form.

    Raises:
        DataError: Naming the rows of the rarer kind.
    """
    pairs = [f"row {row}" for row, item in enumerate(items) if isinstance(item, tuple)]
    single = [f"row {row}" for row, item in enumerate(items) if isinstance(item, str)]
    if pairs and single:
        rare, kind = (pairs, "pairs of texts") if len(pairs) <= len(single) else (single, "single texts")
        raise DataError(
            f"{source}: {len(rare)} of {count(len(items), 'sample')} are {kind}, unlike the others: {examples(rare)}; give every sample a "
            "second text, as a tuple or list of two, or none"
        )


def _pair(first: str | Unreadable, second: str | Unreadable) -> tuple[str, str] | Unreadable:
    if isinstance(first, Unreadable):
        return first
    return second if isinstance(second, Unreadable) else (first, second)


def _words(cell: Any) -> list[str] | Unreadable:
    if is_empty(cell):
        return Unreadable("the cell is empty")
    if not (isinstance(cell, str | list | tuple) or (hasattr(cell, "__array__") and cell.shape)):
        return Unreadable(f"{type(cell).__name__} is no list of words")
    words = cell.split() if isinstance(cell, str) else list(cell)
    odd = next((type(word).__name__ for word in words if not isinstance(word, str)), "")
    if not odd and any(map(_is_broken, words)):
        return Unreadable(_BROKEN)
    return Unreadable(f"{odd} is no word" if odd else "it has no words") if odd or not words else words


def _is_list(text: str) -> bool:
    text = text.strip()
    return text.startswith("[") and text.endswith("]")


def text_item(item: Any, *, of_words: bool) -> Any:
    """Return a text, a tuple of two, or a list of words; or why an item is none of these."""
    parts = list(item) if isinstance(item, list | tuple) else None
    if isinstance(item, Unreadable):
        return item
    if not isinstance(item, str) and not (parts is not None and all(isinstance(part, str) for part in parts)):
        return Unreadable(f"{type(item).__name__} is no {'sentence' if of_words else 'text'}")
    if not (item.strip() if isinstance(item, str) else item):
        return Unreadable("it is empty")
    if any(map(_is_broken, parts if parts is not None else (item,))):
        return Unreadable(_BROKEN)
    if of_words:
        return item.split() if isinstance(item, str) else item
    if parts is None:
        return item
    return tuple(parts) if len(parts) == 2 else Unreadable(f"{type(item).__name__} of {len(parts)} is no pair")
