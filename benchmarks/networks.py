"""Networks and data without downloads: random values, pixels and tokens, on which neither time nor memory depends.

The specs are those of an ordinary plugin. ResNet-50 and ViT-B/16 come from torchvision, BERT from transformers, each imported
when it is built.
"""

from __future__ import annotations

import logging
import zlib
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.utils.data import Dataset

import zoo
from zoo.declare import BackboneSpec, Features, Image, Text

CLASSES = 2
VOCABULARY = 30522
TOKENS = 128
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


@cache
def _resnet_class() -> Any:
    from torchvision.models.resnet import ResNet  # type: ignore[import-untyped]  # ships no types

    class Features(ResNet):  # type: ignore[misc]  # torchvision ships no types
        def forward(self, x: Tensor) -> Tensor:
            x = self.maxpool(self.relu(self.bn1(self.conv1(x))))
            features: Tensor = self.layer4(self.layer3(self.layer2(self.layer1(x))))
            return features

    return Features


def resnet(layers: Sequence[int] = (3, 4, 6, 3), img_size: int = 224) -> nn.Module:
    """Build torchvision's ResNet of bottlenecks without its head."""
    from torchvision.models.resnet import Bottleneck

    network: nn.Module = _resnet_class()(Bottleneck, list(layers))
    del network.fc
    return network


@cache
def _vit_class() -> Any:
    from torchvision.models.vision_transformer import VisionTransformer  # type: ignore[import-untyped]  # ships no types

    class Features(VisionTransformer):  # type: ignore[misc]  # torchvision ships no types
        def forward(self, x: Tensor) -> Tensor:
            x = self._process_input(x)
            tokens: Tensor = self.encoder(torch.cat([self.class_token.expand(len(x), -1, -1), x], dim=1))
            return tokens

    return Features


def vit(img_size: int = 224, layers: int = 12) -> nn.Module:
    """Build torchvision's ViT-B/16 without its head."""
    network: nn.Module = _vit_class()(img_size, 16, layers, 12, 768, 3072)
    del network.heads
    return network


@cache
def _bert_class() -> Any:
    from transformers import BertModel

    class Features(BertModel):  # type: ignore[no-untyped-call]  # of the library
        def forward(self, batch: Mapping[str, Tensor]) -> Tensor:
            states: Tensor = super().forward(**batch).last_hidden_state
            return states

    return Features


def bert(dim: int = 768, layers: int = 12, heads: int = 12) -> nn.Module:
    """Build BERT without its pooler."""
    from transformers import BertConfig

    config = BertConfig(hidden_size=dim, num_hidden_layers=layers, num_attention_heads=heads, intermediate_size=4 * dim)
    network: nn.Module = _bert_class()(config, add_pooling_layer=False)
    return network


class Words:
    """A tokenizer without a library: every text has ``TOKENS`` tokens, drawn from its hash."""

    padding: ClassVar[dict[str, int]] = {"input_ids": 0, "attention_mask": 0}

    def encode(self, texts: Sequence[str | tuple[str, str]], max_length: int) -> list[dict[str, list[int]]]:
        length = min(max_length, TOKENS)
        starts, mask = [zlib.crc32(str(text).encode()) for text in texts], [1] * length
        return [
            {
                "input_ids": [1 + (start * 31 + place * 7919) % (VOCABULARY - 1) for place in range(length)],
                "attention_mask": mask,
            }
            for start in starts
        ]

    def encode_words(self, sentences: Sequence[Sequence[str]], max_length: int) -> Any:
        raise TypeError("no benchmark labels words")

    def save(self, folder: Path, max_length: int) -> None:
        """Do nothing, as there are no files."""


def open_tokenizer(files: str) -> Words:
    return Words()


def _text(dim: int) -> dict[str, Any]:
    return {
        "build": "networks:bert",
        "layers": {"embeddings": "embeddings", "layer": "encoder.layer.*"},
        "inputs": Text(max_length=TOKENS, tokenizer="networks:open_tokenizer"),
        "features": Features(dim=dim, layout="BND", pool="avg", prefix_tokens=1),
    }


_STAGES = {"stem": ["conv1", "bn1"], **{f"stage{i}": f"layer{i}" for i in (1, 2, 3, 4)}}
_BLOCKS = {"stem": ["conv_proj", "class_token", "encoder.pos_embedding"], "block": ["encoder.layers.*", "encoder.ln"]}
SPECS = {
    spec.name: spec
    for spec in (
        BackboneSpec(
            name="bench/resnet50",
            build="networks:resnet",
            layers=_STAGES,
            inputs=Image(size=224, mean=MEAN, std=STD),
            features=Features(dim=2048, layout="BCHW"),
        ),
        BackboneSpec(
            name="bench/vit_b_16",
            build="networks:vit",
            layers=_BLOCKS,
            inputs=Image(size=224, mean=MEAN, std=STD, fixed_size=True),
            features=Features(dim=768, layout="BND", prefix_tokens=1),
        ),
        BackboneSpec(name="bench/bert_base", **_text(768)),
        # The shape of MiniLM with twelve layers (Wang et al. 2020), small enough for two CPU cores.
        BackboneSpec(name="bench/bert_small", options={"dim": 384}, **_text(384)),
    )
}


def task_model(name: str, **options: Any) -> zoo.TaskModel:
    """Return a model with random values: one of ``SPECS``, or any that the installed plugins know."""
    from zoo.models.backbone import Backbone

    logging.getLogger("zoo").setLevel(logging.ERROR)  # hides the warning about random values
    if name not in SPECS:
        return zoo.get(name, weights=False, **options).adapt(CLASSES)
    return Backbone(SPECS[name], weights=False, options=options).adapt(CLASSES)


class Pictures(Dataset[tuple[Tensor, int]]):
    """``count`` samples of ``kinds`` random pictures, already normalised, each with a class."""

    def __init__(self, count: int, size: int, kinds: int = 256) -> None:
        generator = torch.Generator().manual_seed(0)
        self.pixels = torch.randn(min(count, kinds), 3, size, size, generator=generator)
        self.targets = [index % CLASSES for index in range(count)]

    def __len__(self) -> int:
        return len(self.targets)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        if index >= len(self):
            raise IndexError(index)
        return self.pixels[index % len(self.pixels)], self.targets[index]


def texts(count: int) -> tuple[list[str], list[int]]:
    """Return ``count`` texts with a class each."""
    return [f"text {index}" for index in range(count)], [index % CLASSES for index in range(count)]
