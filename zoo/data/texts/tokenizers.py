"""The interface of tokenizers, and how a declared one is opened."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Protocol, TypeAlias

from zoo.declare import Text
from zoo.errors import OptionError
from zoo.plugins.loader import load_function
from zoo.util.process_caches import CACHES

Encoding: TypeAlias = "dict[str, list[int]]"


class Tokenizer(Protocol):
    """The interface of a tokenizer, which a plugin's function returns.

    For ``overflow="windows"`` it also needs ``encode_windows(text, max_length, overlap)``, which returns a list with the inputs of
    each window of a text or pair: as ``encode`` does, with ``overlap`` tokens of the one before. For masked language modelling it also
    needs ``mask_token``, the token that hides another one, and ``special_tokens``, those that stand for no text.

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
    return opened(inputs.tokenizer, inputs.files, _stamps(inputs.files))


def _open(function: str, files: str, stamps: tuple[object, ...]) -> Tokenizer:
    tokenizer: Tokenizer = load_function(function)(files)
    return tokenizer


def _stamps(files: str) -> tuple[object, ...]:
    """Return a key of the files in a local folder, which changes when a tokenizer is saved there again."""
    if not files or not os.path.isdir(files):  # noqa: PTH112  # Path's may raise for the name of a repository
        return ()
    with os.scandir(files) as entries:
        states = [(entry.name, entry.stat()) for entry in entries if entry.is_file()]
    return tuple(sorted((name, state.st_ino, state.st_mtime_ns, state.st_size) for name, state in states))
