"""Tiny data and models for the tests of the engine."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from tests.toy import toy_spec
from zoo.models.backbone import Backbone
from zoo.models.task_model import TaskModel

NAMES = ("blue", "green", "red")
SAVED = 1  # the fixed input that runs when a model is saved, see zoo.saved.reference_outputs


def images(count: int = 24, seed: int = 0, classes: int = 3) -> tuple[Any, Any]:
    """Return noise whose brightest channel is the class, every class present."""
    source = np.random.default_rng(seed)
    targets = np.arange(count) % classes
    pixels = source.integers(0, 100, (count, 16, 16, 3)).astype(np.uint8)
    for image, target in zip(pixels, targets, strict=True):
        image[:, :, target % 3] += 100
    return pixels, [NAMES[target] for target in targets]


def model(classes: int = 3, *, head: str = "linear", task: str = "single-label", seed: int = 0, **options: Any) -> TaskModel:
    """Return a toy model with the same values for the same seed."""
    torch.manual_seed(seed)
    return Backbone(toy_spec(), weights=False).adapt(classes, task=task, head=head, seed=seed, **options)


def values(module: torch.nn.Module) -> dict[str, torch.Tensor]:
    return {name: tensor.detach().clone() for name, tensor in module.state_dict().items()}


def difference(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> float:
    """Return the largest absolute difference between two sets of values."""
    assert one.keys() == other.keys()
    return max(float((one[name].double() - other[name].double()).abs().max()) for name in one)


def timeless(history: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return a history without what the clock says."""
    return [{key: value for key, value in record.items() if key not in ("seconds", "samples_per_second")} for record in history]


def count_samples(module: torch.nn.Module) -> list[int]:
    """Return a list whose only item grows by the samples that a module really computes."""
    seen, kind = [0], type(module)

    def forward(self: Any, x: torch.Tensor, *args: Any) -> Any:
        seen[0] += len(x)
        return kind.forward(self, x, *args)

    # Of the class and not of the instance, as a module that only answers with an empty tensor has another forward of its own.
    module.__class__ = type(kind.__name__, (kind,), {"forward": forward})
    return seen
