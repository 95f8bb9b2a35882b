"""Token ids of texts: encoded once, padded to the longest of each batch."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from zoo.data.dataset import Batch
from zoo.data.table import Table
from zoo.data.texts.encode import TextWindow, encode_table
from zoo.data.texts.overflow import Overflow, cut_of, division_of, long_texts, refuse_long, windows
from zoo.data.texts.tokenizers import Encoding, open_tokenizer
from zoo.declare import Text
from zoo.tasks.token_classification import IGNORED

log = logging.getLogger("zoo")


class TextSamples:
    """Encoded samples ``(inputs, target, index)`` of a table of texts, or of lists of words.

    Attributes:
        table: The rows.
        lengths: Tokens per sample, int64 ``(samples,)``.
        overflow: How many texts were too long.
    """

    def __init__(self, table: Table, inputs: Text, *, quiet: bool = False) -> None:
        """Encode a table.

        Args:
            table: Texts, pairs of texts, or, if ``table.reads`` is ``words``, lists of words; or their windows.
            inputs: The declared input.
            quiet: Do not log how many texts are cut.

        Raises:
            RefusedTextsError: If the tokenizer refuses texts.
        """
        self.table = table
        tokenizer = open_tokenizer(inputs)  # no attribute: loader processes do not need it, and it may not be picklable
        self._padding = dict(tokenizer.padding)
        encoded = encode_table(tokenizer, table, inputs.max_length)
        self._encodings = [encoding for encoding, _ in encoded]
        self._words = [words or [] for _, words in encoded] if table.reads == "words" else None
        self.lengths = np.array([len(encoding["input_ids"]) for encoding in self._encodings], dtype=np.int64)
        self.overflow = Overflow(len(table))
        if inputs.overflow == "truncate":
            self.overflow = cut_of(table, encoded, long_texts(tokenizer, table, encoded, inputs.max_length))
        elif len(table) and isinstance(table.inputs[0], TextWindow):
            self.overflow = division_of(table)
        if not quiet and (told := self.overflow.truncation(table.source, inputs.max_length, words=table.reads == "words")):
            log.warning("%s", told)

    def __len__(self) -> int:
        return len(self.table)

    def set_epoch(self, epoch: int) -> None:
        """Do nothing: texts are not augmented."""

    def __getitem__(self, index: int) -> tuple[Encoding, Any, int]:
        """Return the encoding, the target (for words one per token) and the index."""
        targets = self.table.targets
        target = None if targets is None else targets[index]
        if self._words is not None:
            target = _by_token(self._words[index], target)
        return self._encodings[index], int(target) if isinstance(target, np.int64) else target, index

    def words(self, index: int) -> list[int]:
        """Return the indices of the words of one sentence whose first token is within ``max_length``, in order."""
        assert self._words is not None, "only sentences given as words have words"
        return [word for word in dict.fromkeys(self._words[index]) if word is not None]

    def collate(self, samples: Sequence[tuple[Encoding, Any, int]]) -> Batch:
        """Pad samples to the longest, in tokens, and stack them."""
        encodings, targets, indices = zip(*samples, strict=True)
        longest = max(len(encoding["input_ids"]) for encoding in encodings)
        inputs = {name: _padded([encoding[name] for encoding in encodings], longest, value) for name, value in self._padding.items()}
        if self._words is not None:
            return Batch(inputs, _padded(list(targets), longest, IGNORED), list(indices))
        if targets[0] is None:
            targets = (-1,) * len(indices)
        return Batch(inputs, torch.from_numpy(np.stack([np.asarray(target) for target in targets])), list(indices))


def _by_token(words: Sequence[int | None], target: Any) -> list[int]:
    """Return the target of each token: that of the word for its first token (0 if unlabelled), ``IGNORED`` for all others."""
    targets, before = [], None
    for word in words:
        first = word is not None and word != before
        targets.append((0 if target is None else int(target[word])) if first else IGNORED)
        before = word if word is not None else before
    return targets


def _padded(rows: Sequence[Sequence[int]], width: int, value: int) -> Tensor:
    table = np.full((len(rows), width), value, dtype=np.int64)
    for row, values in enumerate(rows):
        table[row, : len(values)] = values
    return torch.from_numpy(table)


def fit_lengths(table: Table, inputs: Any, *, quiet: bool = False) -> Table:
    """Return a table whose texts have at most ``max_length`` tokens: with ``overflow="windows"`` a row per window.

    Tables of other inputs, and texts that are truncated when they are encoded, are returned as they are.

    Args:
        table: The table.
        inputs: The declared input.
        quiet: Do not log how many texts are read in windows.

    Raises:
        RefusedTextsError: If texts are longer and ``overflow`` is ``error``, or the tokenizer refuses them.
        OptionError: If the tokenizer cannot make windows.
    """
    if not isinstance(inputs, Text) or inputs.overflow == "truncate" or table.reads not in ("text", "words"):
        return table
    tokenizer = open_tokenizer(inputs)
    encoded = encode_table(tokenizer, table, inputs.max_length)
    long = long_texts(tokenizer, table, encoded, inputs.max_length)
    if inputs.overflow == "error":
        refuse_long(table, long, inputs.max_length)
        return table
    if not long:
        return table
    found = windows(table, tokenizer, encoded, long, inputs.max_length)
    if not quiet:
        log.info("%s", division_of(found).division(table.source, inputs.max_length))
    return found
