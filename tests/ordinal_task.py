"""A task from outside, in one file: ordered classes by cumulative logits (Frank & Hall 2001), as a plugin's module has it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional

import zoo

Array = npt.NDArray[Any]


class Ordinal(zoo.Task):
    """One output per threshold between two neighbouring classes: whether the class lies above it."""

    name = "ordinal"
    monitors = ("mean_step", "accuracy", "loss")
    lower_is_better = frozenset({"mean_step", "loss"})

    def encode(
        self, labels: Sequence[Any], inputs: Sequence[Any], classes: Sequence[str] | None, source: str
    ) -> tuple[Array, tuple[str, ...]]:
        targets, names = zoo.find_task("single-label").encode(labels, inputs, classes, source)
        return targets, names

    def loss(self, logits: Tensor, targets: Tensor, *, weights: Tensor | None = None, smoothing: float = 0.0) -> Tensor:
        above = (targets[:, None] > torch.arange(logits.shape[1] - 1, device=targets.device)).float()
        return functional.binary_cross_entropy_with_logits(logits[:, :-1], above, reduction="none").mean(1).sum()

    def metrics(self, logits: Array, targets: Array, classes: Sequence[str]) -> dict[str, float]:
        found = self._classes(logits)
        above = targets[:, None] > np.arange(logits.shape[1] - 1)
        losses = np.logaddexp(0, np.where(above, -logits[:, :-1], logits[:, :-1]))
        return {
            "mean_step": float(np.abs(found - targets).mean()),
            "accuracy": float((found == targets).mean()),
            "loss": float(losses.mean()),
        }

    def decode(self, logits: Array, labels: Sequence[Any]) -> list[Any]:
        return [labels[int(k)] for k in self._classes(logits)]

    def _classes(self, logits: Array) -> Array:
        return np.asarray((logits[:, :-1] > 0).sum(1))


class OrdinalPlugin:
    @zoo.hookimpl
    def zoo_tasks(self) -> Iterable[zoo.Task]:
        yield Ordinal()
