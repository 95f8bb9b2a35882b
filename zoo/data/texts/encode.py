"""Token ids of the texts of a table, and the error that names each text that has none."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, TypeAlias

from zoo.data.raw import TEXTUAL
from zoo.data.table import Table
from zoo.data.texts.tokenizers import Encoding, Tokenizer
from zoo.data.unreadable_input import UnreadableInputsError
from zoo.errors import DataError, ZooError, count, examples

Encoded: TypeAlias = "tuple[Encoding, list[int | None] | None]"

_CHUNK = 1024


@dataclasses.dataclass(frozen=True)
class TextWindow:
    """A part of a text, or of a sentence given as words, that has been encoded.

    Attributes:
        text: Row of the text in the table before it was cut.
        first: Index of the first word in its sentence; 0 for a text.
        size: Number of words; 0 for a text.
        encoding: Inputs by name.
        words: For sentences the word of each token, counted from ``first``, None for special tokens.
    """

    text: int
    first: int
    size: int
    encoding: Encoding
    words: list[int | None] | None = None

    def __len__(self) -> int:
        return self.size


class RefusedTextsError(UnreadableInputsError):
    """Texts of a table that cannot be encoded.

    Attributes:
        reasons: Why, by the row of the text.
    """

    def __init__(self, table: Table, reasons: Mapping[int, str], fault: str, remedy: str, *, seen: int | None = None) -> None:
        """Name the texts.

        Args:
            table: The table.
            reasons: Why a text is refused, by its row.
            fault: What is wrong with all of them, such as ``cannot be encoded``.
            remedy: What to do.
            seen: Number of rows that were looked at; None for all.
        """
        self.reasons, self._fault, self._remedy = dict(reasons), fault, remedy
        named = examples([f"{table.name_of(row)} {reason}" for row, reason in self.reasons.items()])
        of = f"the first {seen}" if seen is not None and seen < len(table) else str(len(table))
        super().__init__(f"{table.source}: {count(len(reasons), 'text')} of {of} {fault}: {named}; {remedy}")

    def within(self, table: Table, rows: Sequence[int], seen: int) -> RefusedTextsError:
        """Return the same error for the table from which ``rows`` were chosen."""
        return RefusedTextsError(table, {rows[row]: reason for row, reason in self.reasons.items()}, self._fault, self._remedy, seen=seen)


def encode_table(tokenizer: Tokenizer, table: Table, max_length: int) -> list[Encoded]:
    """Return the inputs of each text of a table, truncated to ``max_length`` tokens; see ``encode``.

    Raises:
        RefusedTextsError: If the tokenizer raises, naming every text that it refuses.
    """
    items = [table.inputs[row] for row in range(len(table))]
    try:
        return list(encode(tokenizer, items, table.reads, max_length))
    except Exception as error:  # the tokenizer of a plugin may raise anything
        reasons = _refusals(tokenizer, items, table.reads, max_length)
        if not reasons or (isinstance(error, ZooError) and 1 < len(reasons) == len(items)):  # no fault of single texts
            raise
        raise RefusedTextsError(table, reasons, "cannot be encoded", "correct or remove them") from error


def encode(tokenizer: Tokenizer, items: Sequence[Any], reads: str, max_length: int) -> Iterator[Encoded]:
    """Yield the inputs of each text, and for words the word of each token; windows are returned as they are."""
    for start in range(0, len(items), _CHUNK):
        part = items[start : start + _CHUNK]
        if part and isinstance(part[0], TextWindow):
            yield from ((window.encoding, window.words) for window in part)
        elif reads == "words":
            yield from tokenizer.encode_words([as_words(item) for item in part], max_length)
        else:
            yield from ((encoding, None) for encoding in tokenizer.encode(part, max_length))


def as_words(item: Any) -> list[str]:
    """Return the words of a sentence.

    Raises:
        DataError: If there are none.
    """
    words = item.split() if isinstance(item, str) else list(item)
    if not words:
        raise DataError("a sentence without words cannot be classified word by word; remove it")
    return words


def _refusals(tokenizer: Tokenizer, items: Sequence[Any], reads: str, max_length: int) -> dict[int, str]:
    """Return why the tokenizer refuses texts, by their row; each is tried by itself."""
    found = {}
    for row, item in enumerate(items):
        try:
            list(encode(tokenizer, [item], reads, max_length))
        except ZooError as error:
            found[row] = f"is refused by the tokenizer: {error}"
        except Exception as error:
            found[row] = f"is refused by the tokenizer: {type(error).__name__}: {error}"
    return found


def number_of_samples(tables: Iterable[Table], what: str) -> str:
    """Return the number of samples of some tables in words, and of the windows that long texts among them are read in.

    Args:
        tables: The tables.
        what: What they are called, such as ``training samples``.
    """
    counted, windows = 0, 0
    for table in tables:
        cut = table.reads in TEXTUAL and len(table) and isinstance(table.inputs[0], TextWindow)
        counted += len({item.text for item in table.inputs}) if cut else len(table)
        windows += len(table) if cut else 0
    return f"{counted} {what}" + (f" in {windows} windows" if windows else "")
