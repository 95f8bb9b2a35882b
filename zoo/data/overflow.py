"""Texts longer than the maximum: truncated and counted, refused, or cut into overlapping windows."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np

from zoo.data.table import Table
from zoo.data.tokenizers import Encoding, Tokenizer
from zoo.errors import DataError, OptionError, count, examples

Encoded: TypeAlias = "tuple[Encoding, list[int | None] | None]"

WHOLE = 10**9  # tokens; a maximum that no text reaches
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


def long_texts(tokenizer: Tokenizer, items: Sequence[Any], encodings: Sequence[Encoded], reads: str, max_length: int) -> dict[int, Encoded]:
    """Return the whole encoding of each text that is longer than the maximum, by its row.

    Args:
        tokenizer: The tokenizer.
        items: All texts.
        encodings: Their encodings, truncated to ``max_length`` tokens.
        reads: ``text`` or ``words``.
        max_length: The maximum in tokens, including special ones.
    """
    full = [row for row, (encoding, _) in enumerate(encodings) if len(encoding["input_ids"]) >= max_length]
    whole = zip(full, encode(tokenizer, [items[row] for row in full], reads, WHOLE), strict=True)
    return {row: both for row, both in whole if _tokens(both) > max_length}


def truncation_message(table: Table, encodings: Sequence[Encoded], long: Mapping[int, Encoded], max_length: int) -> str:
    """Return how many texts were truncated and how much of them was cut off; empty if there are none."""
    if not long:
        return ""
    lost = 1 - sum(_tokens(encodings[row]) for row in long) / sum(map(_tokens, long.values()))
    words = sum(_last_word(whole) - _last_word(encodings[row]) for row, whole in long.items())
    behind = f" ({count(words, 'word')})" if words else ""
    cut = f"{table.source}: {count(len(long), 'text')} of {len(table)} cut to {max_length} tokens"
    unread = "; words behind the cut count as O, or where no class is O have no prediction and no score" if table.reads == "words" else ""
    return f"{cut}, which loses {_percent(lost)} of their tokens{behind}; overflow='windows' reads them whole{unread}"


def refuse_long(table: Table, long: Mapping[int, Encoded], max_length: int) -> None:
    """Raise if texts are longer than the maximum.

    Raises:
        DataError: Naming the first ones.
    """
    if long:
        named = examples([f"{table.name_of(row)} has {_tokens(whole)}" for row, whole in long.items()])
        remedy = "shorten them, give a larger max_length, or take overflow='windows' or overflow='truncate'"
        exceed = "exceeds" if len(long) == 1 else "exceed"
        raise DataError(f"{table.source}: {count(len(long), 'text')} of {len(table)} {exceed} {max_length} tokens: {named}; {remedy}")


def windows(table: Table, tokenizer: Tokenizer, encodings: Sequence[Encoded], long: Mapping[int, Encoded], max_length: int) -> Table:
    """Return a table with a row per window, which has the target and the group of its text.

    A short text is one window. Windows of a long text overlap by a quarter of ``max_length`` at least; words are not divided.

    Raises:
        OptionError: If the tokenizer cannot make windows.
        DataError: If both texts of a pair are too long for that.
    """
    overlap, parts = max_length // 4, list[TextWindow]()
    for row, (encoding, words) in enumerate(encodings):
        if table.reads == "words":
            sentence = as_words(table.inputs[row])
            spans = _spans(long[row][1] or [], len(sentence), max_length, overlap) if row in long else [(0, len(sentence))]
            encoded = [(encoding, words)]
            if row in long:
                encoded = list(encode(tokenizer, [sentence[start:end] for start, end in spans], "words", max_length))
            parts += [TextWindow(row, start, end - start, *both) for (start, end), both in zip(spans, encoded, strict=True)]
        elif row in long:
            parts += [TextWindow(row, 0, 0, one) for one in _encode_windows(tokenizer, table.inputs[row], max_length, overlap)]
        else:
            parts.append(TextWindow(row, 0, 0, encoding))
    chosen = table.select([window.text for window in parts])
    targets = chosen.targets
    if targets is not None and table.reads == "words":
        targets = np.empty(len(parts), dtype=object)
        targets[:] = [table.targets[window.text][window.first : window.first + window.size] for window in parts]  # type: ignore[index]
    return dataclasses.replace(chosen, inputs=parts, targets=targets)


def _encode_windows(tokenizer: Tokenizer, text: Any, max_length: int, overlap: int) -> list[Encoding]:
    if not hasattr(tokenizer, "encode_windows"):
        kind = f"{type(tokenizer).__module__}.{type(tokenizer).__qualname__}"
        raise OptionError(f"overflow='windows': the tokenizer {kind} has no encode_windows(); take 'truncate' or 'error'")
    found: list[Encoding] = tokenizer.encode_windows(text, max_length, overlap)
    return found


def _spans(words: Sequence[int | None], number: int, max_length: int, overlap: int) -> list[tuple[int, int]]:
    """Return the first word and the end of each window of a sentence, given the word of each of its tokens."""
    sizes = np.bincount([word for word in words if word is not None], minlength=number)
    room = max_length - sum(word is None for word in words)
    ends = np.concatenate([[0], np.cumsum(sizes)])  # tokens before each word
    spans, start = [], 0
    while True:
        end = max(start + 1, int(np.searchsorted(ends, ends[start] + room, side="right")) - 1)
        spans.append((start, end))
        if end >= number:
            return spans
        start = max(start + 1, min(end, int(np.searchsorted(ends, ends[end] - overlap, side="right")) - 1))


def _tokens(encoded: Encoded) -> int:
    return len(encoded[0]["input_ids"])


def _last_word(encoded: Encoded) -> int:
    """Return the index of the last word with a token; -1 for a text."""
    return max((word for word in encoded[1] or () if word is not None), default=-1)


def _percent(share: float) -> str:
    return f"{share:.0%}" if share >= 0.01 else f"{share:.1%}"
