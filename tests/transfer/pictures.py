"""Images whose class lies in their lower half under strong noise, and a small network with BatchNorm that can learn to look there."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

import zoo

PIXELS = 6


class Flat(nn.Module):
    """Two layers over all pixels, and a BatchNorm between them whose statistics would move."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(3 * PIXELS**2, 32)
        self.norm = nn.BatchNorm1d(32)
        self.second = nn.Linear(32, 24)

    def forward(self, x: Tensor) -> Tensor:
        features: Tensor = self.second(self.norm(self.first(x.flatten(1))))
        return features


def flat() -> zoo.Backbone:
    torch.manual_seed(0)
    layers = {"first": ["first", "norm"], "second": "second"}
    inputs = zoo.Image(size=PIXELS, mean=(0.5,) * 3, std=(0.5,) * 3)
    return zoo.wrap(Flat(), inputs=inputs, layers=layers, features=zoo.Features(dim=24, layout="BD"), name="flat")


def pictures(classes: range, each: int, seed: int) -> tuple[Any, list[str]]:
    """Return images whose lower half is nearly the same within a class, under an upper half that is strong noise."""
    random = np.random.default_rng(seed)
    targets = np.repeat(np.asarray(classes), each)
    templates = np.random.default_rng(3).normal(size=(40, PIXELS // 2, PIXELS, 3))
    below = 0.5 + 0.05 * templates[targets] + 0.01 * random.normal(size=(len(targets), PIXELS // 2, PIXELS, 3))
    above = random.uniform(0, 1, below.shape)
    pixels = np.concatenate([above, below], axis=1).clip(0, 1)
    return (255 * pixels).astype(np.uint8), [f"class {number}" for number in targets]
