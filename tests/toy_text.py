"""A text backbone of three layers, and a tokenizer that needs no library: a word's token is its hash."""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import ClassVar

import torch
from torch import nn

import zoo
from zoo.declare import BackboneSpec, Features, Text

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


class ToyPooler(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.dense = nn.Linear(width, width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.tanh(self.dense(x[:, 0]))


class ToyText(nn.Module):
    """Embeddings, two transformer layers that do not look at padding, and a pooler where asked for."""

    def __init__(self, width: int, depth: int, pooler: bool, dropout: float) -> None:
        super().__init__()
        self.embeddings = nn.Embedding(VOCABULARY, width)
        self.layers = nn.ModuleList(nn.TransformerEncoderLayer(width, 2, 2 * width, dropout, batch_first=True) for _ in range(depth))
        self.pooler = ToyPooler(width) if pooler else None

    def forward(self, inputs: Mapping[str, torch.Tensor]) -> torch.Tensor:
        x = self.embeddings(inputs["input_ids"])
        for layer in self.layers:
            x = layer(x, src_key_padding_mask=inputs["attention_mask"] == 0)
        return x if self.pooler is None else self.pooler(x)


def toytext(width: int = 16, depth: int = 2, pooler: bool = False, dropout: float = 0.1) -> ToyText:
    return ToyText(width, depth, pooler, dropout)


def toy_text_spec(name: str = "toy/text", **changes: object) -> BackboneSpec:
    fields = {
        "name": name,
        "build": "tests.toy_text:toytext",
        "layers": {"embeddings": "embeddings", "layer": "layers.*", "pooler": "pooler?"},
        "inputs": Text(max_length=24, tokenizer="tests.toy_text:open_tokenizer"),
        "features": Features(dim=16, layout="BND", pool="avg", prefix_tokens=1),
    }
    return BackboneSpec(**(fields | changes))  # type: ignore[arg-type]


class ToyTextPlugin:
    """A plugin as an object: two text backbones, one that ends in its own pooling."""

    @zoo.hookimpl
    def zoo_backbones(self) -> list[BackboneSpec]:
        pooled = toy_text_spec("toy/pooled-text", options={"pooler": True}, features=Features(dim=16, layout="BD"))
        return [toy_text_spec(), pooled]
