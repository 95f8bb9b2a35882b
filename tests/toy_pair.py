"""A dual encoder of two small towers, which can be trained in seconds to match coloured images and the names of their colours."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional

import zoo
from tests.toy import ToyNet
from tests.toy_text import ToyText
from zoo.declare import BackboneSpec, Features, Image, Pair, Text
from zoo.models.pairs.zero_shot import tokens_of

WIDTH, SIZE = 16, 16
TEMPLATES = ("a photo of a {}.", "{}", "the colour {}")
COLOURS = {"red": (200, 40, 40), "green": (40, 200, 40), "blue": (40, 40, 200), "yellow": (200, 200, 40), "white": (220, 220, 220)}


class ImageTower(nn.Module):
    """``ToyNet`` without BatchNorm, its mean, and a projection where one is asked for."""

    def __init__(self, projection: int) -> None:
        super().__init__()
        net = ToyNet(WIDTH, drop_rate=0.0)
        self.stem, self.blocks = net.conv1, nn.ModuleList(block.conv for block in net.blocks)  # type: ignore[union-attr]
        self.projection = nn.Linear(WIDTH, projection, bias=False) if projection else None

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.stem(x))
        for conv in self.blocks:
            x = x + torch.relu(conv(x))
        pooled = x.mean((2, 3))
        return pooled if self.projection is None else self.projection(pooled)


class TextTower(ToyText):
    """``ToyText``, the mean of its tokens, and a projection."""

    def __init__(self, projection: int) -> None:
        super().__init__(WIDTH, 1, False, 0.0)
        self.projection = nn.Linear(WIDTH, projection, bias=False)

    def forward(self, inputs: Mapping[str, Tensor]) -> Tensor:
        tokens, mask = super().forward(inputs), inputs["attention_mask"].unsqueeze(-1)
        return self.projection((tokens * mask).sum(1) / mask.sum(1))


def image_tower(projection: int = 0) -> ImageTower:
    return ImageTower(projection)


def text_tower(projection: int = 8) -> TextTower:
    return TextTower(projection)


def convert(state: Mapping[str, Tensor], module: nn.Module) -> dict[str, Tensor]:
    prefix = "text_model." if isinstance(module, TextTower) else "vision_model."
    return {name.removeprefix(prefix): tensor for name, tensor in state.items()}


def pair_spec(file: Path | str = "", *, sigmoid: bool = False, **changes: Any) -> BackboneSpec:
    """Return a dual encoder, with the weights of a file where one is given."""
    text = BackboneSpec(
        name="toy/pair-text",
        build="tests.toy_pair:text_tower",
        layers={"embeddings": "embeddings", "layer": ["layers.*", "projection"]},
        inputs=Text(max_length=12, tokenizer="tests.toy_tokenizer:open_tokenizer"),
        features=Features(dim=8, layout="BD"),
        convert="tests.toy_pair:convert",
    )
    more = {"scale": 10.0, "bias": -10.0, "bias_tensor": "logit_bias", "loss": "sigmoid"} if sigmoid else {}
    pair = Pair(text=text, options={"projection": 8}, features=Features(dim=8, layout="BD"), **more)  # type: ignore[arg-type]
    fields: dict[str, Any] = {
        "name": "toy/pair",
        "build": "tests.toy_pair:image_tower",
        "layers": {"stem": "stem", "block": ["blocks.*", "projection?"]},
        "inputs": Image(size=SIZE),
        "features": Features(dim=WIDTH, layout="BD"),
        "convert": "tests.toy_pair:convert",
        "pair": pair,
        "weights": zoo.Weights(file=str(file), license="mit") if file else None,
    }
    return BackboneSpec(**(fields | changes))


class PairPlugin:
    """A plugin as an object: the dual encoder with random values, and one whose loss was that of each pair."""

    @zoo.hookimpl
    def zoo_backbones(self) -> list[BackboneSpec]:
        return [pair_spec(), pair_spec(name="toy/sigmoid-pair", sigmoid=True), pair_spec().pair.text]  # type: ignore[union-attr]


def coloured(
    names: list[str], count: int, seed: int = 0, *, noise: float = 40.0, shift: tuple[int, ...] = (0, 0, 0)
) -> tuple[Any, list[str]]:
    """Return noisy images of colours and their names; ``shift`` is added to every pixel."""
    random = np.random.default_rng(seed)
    labels = [names[row % len(names)] for row in range(count)]
    base = np.array([COLOURS[name] for name in labels], dtype=np.float64)[:, None, None] + np.array(shift)
    pixels = base + random.normal(0, noise, (count, SIZE, SIZE, 3)) + random.normal(0, noise, (count, 1, 1, 3))
    return pixels.clip(0, 255).astype(np.uint8), labels


def pretrained(file: Path, *, steps: int = 150, seed: int = 0) -> Path:
    """Train both towers to match images and texts, and write them with the logarithm of the scale as CLIP is published."""
    torch.manual_seed(seed)
    image, text, scale = ImageTower(8), TextTower(8), nn.Parameter(torch.tensor(2.6592))
    spec = pair_spec()
    assert spec.pair is not None
    names = list(COLOURS)
    optimizer = torch.optim.AdamW([*image.parameters(), *text.parameters(), scale], lr=5e-3)
    for step in range(steps):
        pixels, labels = coloured(names, len(names), step)
        x = torch.from_numpy(pixels).float().permute(0, 3, 1, 2) / 255 * 2 - 1
        inputs = tokens_of(spec.pair.text.inputs, [TEMPLATES[step % len(TEMPLATES)].replace("{}", name) for name in labels])  # type: ignore[arg-type]
        rows, columns = functional.normalize(image(x)), functional.normalize(text(inputs))
        logits = scale.exp().clamp(max=100) * rows @ columns.T
        target = torch.arange(len(logits))
        loss = functional.cross_entropy(logits, target) + functional.cross_entropy(logits.T, target)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    state = {f"vision_model.{name}": value for name, value in image.state_dict().items()}
    state |= {f"text_model.{name}": value for name, value in text.state_dict().items()}
    save_file({name: value.contiguous() for name, value in (state | {"logit_scale": scale.detach().clamp(max=4.6052)}).items()}, file)
    return file
