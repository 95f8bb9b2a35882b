"""A tokenizer that needs no library, so that processes which encode import no torch: a word's token is its hash."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar

VOCABULARY = 1024  # wide enough that no two words of the tests share a token
START, STOP = 1, 2


class ToyTokenizer:
    """Start, one token per four letters of each word, stop (also between the texts of a pair)."""

    padding: ClassVar[dict[str, int]] = {"input_ids": 0, "attention_mask": 0}
    mask_token, special_tokens = 0, (0, START, STOP)  # padding is not attended, so its token may hide others

    def encode(self, texts: Sequence[str | tuple[str, str]], max_length: int) -> list[dict[str, list[int]]]:
        return [self._inputs([piece for part in self._parts(text) for piece in part], max_length) for text in texts]

    def encode_words(self, sentences: Sequence[Sequence[str]], max_length: int) -> list[tuple[dict[str, list[int]], list[int | None]]]:
        told = []
        for words in sentences:
            pairs = [(piece, index) for index, word in enumerate(words) for piece in pieces(word)]
            inputs = self._inputs([piece for piece, _ in pairs], max_length)
            kept = [index for _, index in pairs][: max_length - 2]
            told.append((inputs, [None, *kept, None]))
        return told

    def encode_windows(self, text: str | tuple[str, str], max_length: int, overlap: int) -> list[dict[str, list[int]]]:
        tokens = [piece for part in self._parts(text) for piece in part]
        room = max_length - 2
        starts = range(0, max(1, len(tokens) - overlap), room - overlap)
        return [self._inputs(tokens[start : start + room], max_length) for start in starts]

    def save(self, folder: Path, max_length: int) -> None:
        (folder / "toy_tokenizer.txt").write_text("words by hash")

    def _parts(self, text: str | tuple[str, str]) -> list[list[int]]:
        texts = [text] if isinstance(text, str) else list(text)
        told = [[piece for word in one.split() for piece in pieces(word)] for one in texts]
        return told[:1] + [[STOP, *part] for part in told[1:]]

    def _inputs(self, tokens: list[int], max_length: int) -> dict[str, list[int]]:
        ids = [START, *tokens[: max_length - 2], STOP]
        return {"input_ids": ids, "attention_mask": [1] * len(ids)}


def pieces(word: str) -> list[int]:
    return [3 + zlib.crc32(word[start : start + 4].encode()) % (VOCABULARY - 3) for start in range(0, len(word), 4)]


def open_tokenizer(files: str) -> ToyTokenizer:
    return ToyTokenizer()


class Hashing(ToyTokenizer):
    """A word's token is Python's hash of it, which differs between processes; words are not encoded."""

    def encode(self, texts: Sequence[str | tuple[str, str]], max_length: int) -> list[dict[str, list[int]]]:
        parts = [text.split() if isinstance(text, str) else [*text] for text in texts]
        return [self._inputs([3 + hash(word) % 1000 for word in words], max_length) for words in parts]

    def encode_words(self, sentences: Sequence[Sequence[str]], max_length: int) -> list[tuple[dict[str, list[int]], list[int | None]]]:
        raise ValueError("no words")


class HashingWords(Hashing):
    encode_words = ToyTokenizer.encode_words


def hashing(files: str) -> Hashing:
    return Hashing()


def hashing_words(files: str) -> ToyTokenizer:
    return HashingWords()
