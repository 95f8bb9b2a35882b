"""Token ids of texts: encoded once, padded to the longest of each batch."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, Protocol, TypeAlias

import numpy as np
import torch
from torch import Tensor

from zoo.data.dataset import Batch
from zoo.data.table import Table
from zoo.declare import Text
from zoo.errors import DataError, OptionError, count
from zoo.plugins.loader import load_function
from zoo.tasks.token_classification import IGNORED as IGNORED
from zoo.util.process_caches import CACHES

log = logging.getLogger(__name__)

Encoding: TypeAlias = "dict[str, list[int]]"

_CHUNK = 1024


class Tokenizer(Protocol):
    """The interface of a tokenizer, which a plugin's function returns.

    Attributes:
        padding: Padding value of each input, by its name.
    """

    padding: Mapping[str, int]

    def encode(self, texts: Sequence[str | tuple[str, str]], max_length: int) -> list[Encoding]:
        """Return the inputs of each text or pair of texts: truncated to ``max_length`` tokens, special tokens added, not padded."""
        ...

    def encode_words(self, sentences: Sequence[Sequence[str]], max_length: int) -> list[tuple[Encoding, list[int | None]]]:
        """Return the same for lists of words, and the word index of each token, None for special tokens."""
        ...

    def save(self, folder: Path, max_length: int) -> None:
        """Save the tokenizer's files to a folder in the format of its library, with ``max_length`` as its limit."""
        ...


def open_tokenizer(inputs: Text) -> Tokenizer:
    """Return the tokenizer of a declared text input; opened once, and again if files of its folder have changed.

    Raises:
        OptionError: If the declaration has no tokenizer.
    """
    if not inputs.tokenizer:
        raise OptionError("this backbone declares no tokenizer; give zoo.Text(tokenizer='module:function') in its declaration")
    opened = CACHES.get("tokenizers", lambda: lru_cache(maxsize=8)(_open))
    return opened(inputs, _stamps(inputs.files))


def _open(inputs: Text, stamps: tuple[object, ...]) -> Tokenizer:
    tokenizer: Tokenizer = load_function(inputs.tokenizer)(inputs.files)
    return tokenizer


def _stamps(files: str) -> tuple[object, ...]:
    """Return a key of the files in a local folder, which changes when a tokenizer is saved there again."""
    if not files or not os.path.isdir(files):  # noqa: PTH112  # Path's may raise for the name of a repository
        return ()
    with os.scandir(files) as entries:
        states = [(entry.name, entry.stat()) for entry in entries if entry.is_file()]
    return tuple(sorted((name, state.st_ino, state.st_mtime_ns, state.st_size) for name, state in states))


class TextSamples:
    """Encoded samples ``(inputs, target, index)`` of a table of texts, or of lists of words.

    Attributes:
        table: The rows.
        lengths: Tokens per sample, int64 ``(samples,)``.
    """

    def __init__(self, table: Table, inputs: Text) -> None:
        """Encode a table.

        Args:
            table: Texts, pairs of texts, or, if ``table.reads`` is ``words``, lists of words.
            inputs: The declared input.

        Raises:
            DataError: If a sample is no text.
        """
        self.table = table
        tokenizer = open_tokenizer(inputs)  # no attribute: loader processes do not need it, and it may not be picklable
        self._padding = dict(tokenizer.padding)
        self._words: list[list[int | None]] | None = None
        items = [table.inputs[row] for row in range(len(table))]
        if table.reads == "words":
            both = [one for part in _chunks(items) for one in tokenizer.encode_words([_as_words(item) for item in part], inputs.max_length)]
            self._encodings, self._words = [encoding for encoding, _ in both], [words for _, words in both]
        else:
            self._encodings = [one for part in _chunks(items) for one in tokenizer.encode(part, inputs.max_length)]
        self.lengths = np.array([len(encoding["input_ids"]) for encoding in self._encodings], dtype=np.int64)
        self._log_truncation(inputs.max_length)

    def _log_truncation(self, max_length: int) -> None:
        full = int((self.lengths >= max_length).sum())
        if full:
            log.info(
                "%s: %s of %d fill the maximum of %d tokens; what is longer is cut",
                self.table.source,
                count(full, "text"),
                len(self),
                max_length,
            )

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


def _chunks(items: Sequence[Any]) -> list[Sequence[Any]]:
    return [items[start : start + _CHUNK] for start in range(0, len(items), _CHUNK)]


def _as_words(item: Any) -> list[str]:
    words = item.split() if isinstance(item, str) else list(item)
    if not words:
        raise DataError("a sentence without words cannot be classified word by word; remove it")
    return words
