"""A fusion as one network: towers and what fuses them as a task model, which the engine trains and runs like any other."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from zoo.data.images.transforms import LazyInput
from zoo.data.table import Table
from zoo.data.texts.tokenizers import Encoding, open_tokenizer
from zoo.declare import Features, Image, Text
from zoo.models.layers import LayerGroups
from zoo.models.own_names import FUSION
from zoo.models.task_model import TaskModel
from zoo.models.wrap import wrap
from zoo.transfer.fusion.mixing import MIXERS, Mixer
from zoo.transfer.fusion.parts import Parts
from zoo.transfer.fusion.solved import Block
from zoo.transfer.fusion.towers import ROW, Packing, Towers

MIXING = "fusion"  # the last layer group, where what fuses has parameters


class FusedBackbone(nn.Module):
    """Towers beside each other, and what fuses their features; reads packed rows."""

    def __init__(self, towers: Towers, mixer: Mixer) -> None:
        super().__init__()
        self.towers, self.mixer = towers, mixer

    def forward(self, x: Tensor) -> Tensor:
        """Map packed rows ``(batch, 1, lines, ROW)`` to fused features ``(batch, dim)``."""
        fused: Tensor = self.mixer(self.towers(x))
        return fused


def aligned_groups(groups: Mapping[str, LayerGroups], mixer: Mixer) -> dict[str, list[str]]:
    """Return the layer groups of a fused backbone: those of its towers side by side, counted from the top, then what fuses them.

    Towers of other depths end together, so that ``layer_decay`` and a frozen prefix treat their last groups alike.
    """
    depth = max(len(each) for each in groups.values())
    found: dict[str, list[str]] = {}
    for level in range(depth):
        members = [
            f"towers.backbones.{name}.{member}"
            for name, each in groups.items()
            if (place := level - depth + len(each)) >= 0
            for member in each[place].members
        ]
        found[f"level.{level}"] = members
    if any(True for _ in mixer.parameters()):
        return {**found, MIXING: ["mixer"]}
    found[f"level.{depth - 1}"].append("mixer")
    return found


def make_network(
    models: Mapping[str, TaskModel],
    *,
    how: str,
    blocks: Mapping[str, Block],
    tokens: int,
    dropout: float,
    task: str,
    classes: Sequence[str],
    seed: int = 0,
) -> TaskModel:
    """Return a fusion as a task model on packed rows, with a copy of the models' backbones.

    Args:
        models: The models of the images and the texts.
        how: One of ``WAYS``.
        blocks: How each part is standardized, by its name.
        tokens: Tokens of a text, to which all are padded or cut.
        dropout: Share of the rows of a training batch without one of their parts.
        task: Name of the task.
        classes: Names of the classes.
        seed: Seed of new values.
    """
    packing = Packing.of(models, len(blocks) - len(models), tokens)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        towers = Towers(models, packing, per_token=how == "cross_attention")
        mixer = MIXERS[how](towers, blocks, dropout)
    inputs = Image(size=(packing.lines, ROW), mean=(0.0,), std=(1.0,), fixed_size=True)
    layers = aligned_groups({name: model.groups for name, model in models.items()}, mixer)
    features = Features(dim=mixer.dim, layout="BD")
    backbone = wrap(FusedBackbone(towers, mixer), inputs=inputs, layers=layers, features=features, name=FUSION)
    return backbone.adapt(len(classes), task, labels=classes, seed=seed)


def tokens_needed(models: Mapping[str, TaskModel], parts: Parts) -> int:
    """Return the tokens of the longest text that is there; 0 without texts."""
    if "text" not in models:
        return 0
    return max(len(one["input_ids"]) for one in _encoded(models["text"], parts))


def _encoded(model: TaskModel, parts: Parts, length: int = 0) -> list[Encoding]:
    """Return the tokens of each text, at most ``length`` or as many as the model reads, of an empty one where it is missing."""
    inputs = model.inputs
    assert isinstance(inputs, Text), "fuse() has checked it"
    texts = ["" if gone else one for one, gone in zip(parts.inputs["text"], parts.missing["text"], strict=True)]
    return open_tokenizer(inputs).encode(texts, length or inputs.max_length)


@dataclass(frozen=True)
class PackedRow(LazyInput):
    """One row of a table; its image is decoded when the tensor is asked for, by the transform of the run.

    Attributes:
        shape: Of the tensor, ``(1, lines, ROW)``.
        head: The flags of missing parts and the numbers.
        image: The image, None where there is none.
        pixels: Its declared input; None without an image backbone.
        tokens: Inputs of the text backbone beside each other; of no values without one.
    """

    shape: tuple[int, int, int]
    head: Tensor
    image: Any
    pixels: Image | None
    tokens: Tensor

    def tensor(self, transform: Any, rng: random.Random) -> Tensor:
        """Return the row, float32; ``transform`` is applied to the image alone."""
        parts = [self.head]
        if self.pixels is not None:
            gone = self.image is None
            parts.append((torch.zeros(self.pixels.shape) if gone else replace(transform, inputs=self.pixels)(self.image, rng)).flatten())
        row = torch.cat([*parts, self.tokens])
        return nn.functional.pad(row, (0, torch.Size(self.shape).numel() - len(row))).reshape(self.shape)


class PackedRows(Sequence[Any]):
    """The rows of a table as ``PackedRow``.

    Args:
        models: The models of the parts.
        parts: The rows.
        tokens: Tokens of a text.
    """

    def __init__(self, models: Mapping[str, TaskModel], parts: Parts, tokens: int) -> None:
        packing = Packing.of(models, parts.numbers.shape[1], tokens)
        self._shape = (1, packing.lines, ROW)
        flags = np.stack(list(parts.missing.values()), 1)
        self._head = torch.from_numpy(np.concatenate([flags, np.nan_to_num(parts.numbers)], 1).astype(np.float32))
        self._images, self._gone, self._pixels = parts.inputs.get("image"), flags[:, 0], None  # images are the first part
        if "image" in models:
            assert isinstance(models["image"].inputs, Image), "fuse() has checked it"
            self._pixels = models["image"].inputs
        self._texts = torch.zeros(len(flags), 0, 0, dtype=torch.int32)
        if "text" in models:
            encoded = _encoded(models["text"], parts, tokens)  # cut by the tokenizer, which keeps the token that ends a text
            padded = [[one[name] + [value] * (tokens - len(one[name])) for one in encoded] for name, value in packing.names]
            self._texts = torch.tensor(padded, dtype=torch.int32).transpose(0, 1)  # (rows, inputs, tokens)

    def __len__(self) -> int:
        return len(self._head)

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return [self[row] for row in range(*index.indices(len(self)))]
        image = None if self._images is None or self._gone[index] else self._images[index]
        return PackedRow(self._shape, self._head[index], image, self._pixels, self._texts[index].flatten().float())


def packed_table(models: Mapping[str, TaskModel], parts: Parts, tokens: int) -> Table:
    """Return the rows of a table as inputs of a network that ``make_network`` makes, with their targets."""
    labels = parts.labels
    rows = PackedRows(models, parts, tokens)
    return Table(rows, labels.targets, labels.classes, groups=labels.groups, source=labels.source)
