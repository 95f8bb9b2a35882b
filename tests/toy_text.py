"""A text backbone of three layers, which reads the tokens of ``toy_tokenizer``."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import nn

import zoo
from tests.toy_tokenizer import VOCABULARY
from zoo.declare import BackboneSpec, Features, Text


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
        "inputs": Text(max_length=24, tokenizer="tests.toy_tokenizer:open_tokenizer"),
        "features": Features(dim=16, layout="BND", pool="avg", prefix_tokens=1),
    }
    return BackboneSpec(**(fields | changes))  # type: ignore[arg-type]


class ToyTextPlugin:
    """A plugin as an object: two text backbones, one that ends in its own pooling."""

    @zoo.hookimpl
    def zoo_backbones(self) -> list[BackboneSpec]:
        pooled = toy_text_spec("toy/pooled-text", options={"pooler": True}, features=Features(dim=16, layout="BD"))
        return [toy_text_spec(), pooled]
