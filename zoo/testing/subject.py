"""The backbone under test and its batches."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

import zoo
from zoo.data.dataset import ModelInputs
from zoo.declare import Image, Text, Volume
from zoo.models.backbone import Backbone
from zoo.models.task_model import TaskModel

TOKENS = 16  # tokens; long enough for a padded sample, short enough for every backbone
IDS = (5, 30)  # token ids in the smallest vocabularies of tests, without padding and special tokens


@dataclass(frozen=True)
class Subject:
    """One backbone under test, built with random values, without download.

    Attributes:
        name: Its id.
        size: Size of the inputs in pixels or voxels; None means the declared one.
    """

    name: str
    size: tuple[int, ...] | None = None

    @cached_property
    def backbone(self) -> Backbone:
        """Its handle."""
        return zoo.get(self.name, weights=False)

    def model(self) -> TaskModel:
        """A new model of three classes, the same each time."""
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(0)
            return zoo.get(self.name, weights=False).adapt(3)

    def batch(self, size: int = 2, *, declared: bool = False) -> ModelInputs:
        """A batch of inputs, the same each time; of texts the last one is padded.

        Args:
            size: Number of samples.
            declared: Whether to use the declared size instead of ``self.size``.
        """
        inputs = self.backbone.spec.inputs
        generator = torch.Generator().manual_seed(0)
        if isinstance(inputs, Text):
            tokens = min(inputs.max_length, TOKENS)
            mask = torch.ones(size, tokens, dtype=torch.int64)
            mask[-1, (tokens + 1) // 2 :] = 0
            return {"input_ids": torch.randint(*IDS, (size, tokens), generator=generator) * mask, "attention_mask": mask}
        assert isinstance(inputs, Image | Volume)
        shape = inputs.shape if declared or self.size is None else (inputs.channels, *self.size)
        return torch.randn(size, *shape, generator=generator)

    def features(self, batch: ModelInputs) -> Any:
        """The outputs of the backbone in eval mode."""
        module = self.backbone.build().eval()
        with torch.no_grad():
            return module(batch)

    def prefixes(self) -> list[int]:
        """Frozen prefixes to try: all of them, or for deep backbones the ends and the middle."""
        total = len(self.backbone.groups)
        return list(range(total + 1)) if total <= 6 else [0, 1, total // 2, total - 1, total]


def pick(batch: ModelInputs, rows: Sequence[int]) -> ModelInputs:
    """Return some samples of a batch."""
    index = list(rows)
    return {key: value[index] for key, value in batch.items()} if isinstance(batch, Mapping) else batch[index]


def tensors(output: Any) -> Iterator[Tensor]:
    """Yield every tensor of an output, which may be a tensor, a tuple or a mapping."""
    if isinstance(output, Tensor):
        yield output
    elif isinstance(output, Mapping):
        for value in output.values():
            yield from tensors(value)
    elif isinstance(output, list | tuple):
        for value in output:
            yield from tensors(value)
