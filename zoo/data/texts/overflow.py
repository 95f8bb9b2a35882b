"""Texts longer than the maximum: truncated and counted, refused, or cut into overlapping windows."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from zoo.data.table import Table
from zoo.data.texts.encode import Encoded, RefusedTextsError, TextWindow, as_words, encode
from zoo.data.texts.tokenizers import Encoding, Tokenizer
from zoo.errors import OptionError, ZooError, count

WHOLE = 10**9  # tokens; a maximum that no text reaches
WINDOWS = "overflow='windows' reads them whole"


@dataclasses.dataclass(frozen=True)
class Overflow:
    """How many texts were longer than the maximum, and what became of them; sums of several blocks are sums of these.

    Attributes:
        texts: Number of texts, long and short.
        cut: Number of those that were truncated.
        kept: Tokens of these that are read.
        whole: All tokens of these.
        words: Words of these without a token that is read.
        divided: Number of texts that are read in windows.
        windows: Number of these windows.
    """

    texts: int = 0
    cut: int = 0
    kept: int = 0
    whole: int = 0
    words: int = 0
    divided: int = 0
    windows: int = 0

    def __add__(self, other: Overflow) -> Overflow:
        return Overflow(*map(sum, zip(dataclasses.astuple(self), dataclasses.astuple(other), strict=True)))

    def truncation(self, source: str, max_length: int, *, words: bool = False, remedy: str = WINDOWS) -> str:
        """Return in words how many texts were truncated, how much of them was cut off, and what to do; empty if there are none."""
        if not self.cut:
            return ""
        lost_words = f" ({count(self.words, 'word')})" if self.words else ""
        cut = f"{source}: {count(self.cut, 'text')} of {self.texts} cut to {max_length} tokens"
        unread = "; words after the cut count as O, or where no class is O have no prediction and no score" if words else ""
        lost = _percent(1 - self.kept / self.whole)
        return f"{cut}, which loses {lost} of their tokens{lost_words}; {remedy}{unread}"

    def division(self, source: str, max_length: int) -> str:
        """Return in words how many texts are read in windows; empty if there are none."""
        if not self.divided:
            return ""
        rows = self.texts - self.divided + self.windows
        return f"{source}: {count(self.divided, 'text')} of {self.texts} are read in windows of {max_length} tokens, {rows} rows in all"


def cut_of(table: Table, encodings: Sequence[Encoded], long: Mapping[int, Encoded]) -> Overflow:
    """Return what truncation cut off.

    Args:
        table: Texts.
        encodings: Their truncated encodings.
        long: The whole encodings of those that are longer, by their row.
    """
    kept, whole = sum(_tokens(encodings[row]) for row in long), sum(map(_tokens, long.values()))
    words = sum(_last_word(one) - _last_word(encodings[row]) for row, one in long.items())
    return Overflow(len(table), len(long), kept, whole, words)


def division_of(table: Table) -> Overflow:
    """Return how many texts a table of windows has, and how many of them are divided."""
    numbers = Counter(window.text for window in table.inputs)
    parts = [number for number in numbers.values() if number > 1]
    return Overflow(len(numbers), divided=len(parts), windows=sum(parts))


def long_texts(tokenizer: Tokenizer, table: Table, encodings: Sequence[Encoded], max_length: int) -> dict[int, Encoded]:
    """Return the whole encoding of each text that is longer than the maximum, by its row.

    Args:
        tokenizer: The tokenizer.
        table: All texts.
        encodings: Their encodings, truncated to ``max_length`` tokens.
        max_length: The maximum in tokens, including special ones.
    """
    full = [row for row, (encoding, _) in enumerate(encodings) if len(encoding["input_ids"]) >= max_length]
    whole = zip(full, encode(tokenizer, [table.inputs[row] for row in full], table.reads, WHOLE), strict=True)
    return {row: both for row, both in whole if _tokens(both) > max_length}


def refuse_long(table: Table, long: Mapping[int, Encoded], max_length: int) -> None:
    """Raise if texts are longer than the maximum.

    Raises:
        RefusedTextsError: Naming the first ones.
    """
    if long:
        larger = "give a larger max_length (zoo predict --max-length N; zoo train --set max_length=N, whose model keeps it)"
        remedy = f"shorten them, {larger}, or take overflow='windows' or overflow='truncate'"
        reasons = {row: f"has {_tokens(whole)} tokens of at most {max_length}" for row, whole in long.items()}
        raise RefusedTextsError(table, reasons, f"{'exceeds' if len(long) == 1 else 'exceed'} {max_length} tokens", remedy)


def windows(table: Table, tokenizer: Tokenizer, encodings: Sequence[Encoded], long: Mapping[int, Encoded], max_length: int) -> Table:
    """Return a table with a row per window, which has the target and the group of its text.

    A short text is one window. Windows of a long text overlap by a quarter of ``max_length`` at least; words are not divided.

    Raises:
        OptionError: If the tokenizer cannot make windows.
        RefusedTextsError: If both texts of a pair are too long for that.
    """
    overlap, parts, refused = max_length // 4, list[TextWindow](), dict[int, str]()
    if long and table.reads != "words" and not hasattr(tokenizer, "encode_windows"):
        kind = f"{type(tokenizer).__module__}.{type(tokenizer).__qualname__}"
        raise OptionError(f"overflow='windows': the tokenizer {kind} has no encode_windows(); take 'truncate' or 'error'")
    for row, (encoding, words) in enumerate(encodings):
        if table.reads == "words":
            sentence = as_words(table.inputs[row])
            spans = _spans(long[row][1] or [], len(sentence), max_length, overlap) if row in long else [(0, len(sentence))]
            encoded = [(encoding, words)]
            if row in long:
                encoded = list(encode(tokenizer, [sentence[start:end] for start, end in spans], "words", max_length))
            parts += [TextWindow(row, start, end - start, *both) for (start, end), both in zip(spans, encoded, strict=True)]
        elif row in long:
            try:
                parts += [TextWindow(row, 0, 0, one) for one in _encode_windows(tokenizer, table.inputs[row], max_length, overlap)]
            except ZooError as error:
                refused[row] = f"is refused by the tokenizer: {error}"
        else:
            parts.append(TextWindow(row, 0, 0, encoding))
    if refused:
        raise RefusedTextsError(table, refused, "cannot be read in windows", "shorten them, or take overflow='truncate'")
    chosen = table.select([window.text for window in parts])
    targets = chosen.targets
    if targets is not None and table.reads == "words":
        targets = np.empty(len(parts), dtype=object)
        targets[:] = [table.targets[window.text][window.first : window.first + window.size] for window in parts]  # type: ignore[index]
    return dataclasses.replace(chosen, inputs=parts, targets=targets, origin=None)


def _encode_windows(tokenizer: Any, text: Any, max_length: int, overlap: int) -> list[Encoding]:
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
