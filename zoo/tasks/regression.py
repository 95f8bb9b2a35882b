"""Regression."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from zoo.tasks.labels.numbers import encode_numbers
from zoo.tasks.losses import NUMBERS
from zoo.tasks.task import Array, Task

if TYPE_CHECKING:
    from torch import Tensor

_CLASSES = "meant for classes, and a regression has none"


class Regression(Task):
    """Squared error on ``(batch, outputs)``; targets are in standard units while training, in their own everywhere else."""

    name = "regression"
    losses = NUMBERS
    monitors = ("mae", "rmse", "r2", "loss")
    lower_is_better = frozenset({"loss", "mae", "rmse"})
    has_classes = False
    standardized = True
    useless: ClassVar[Mapping[str, str]] = MappingProxyType(
        {"class_weights": _CLASSES, "balanced_sampling": _CLASSES, "label_smoothing": _CLASSES}
    )
    card: ClassVar[Mapping[str, str]] = MappingProxyType({"image": "image-classification", "text": "text-classification"})

    def encode(
        self, labels: Sequence[Any], inputs: Sequence[Any], classes: Sequence[str] | None, source: str
    ) -> tuple[Array, tuple[str, ...]]:
        """Return float32 numbers ``(n,)`` or ``(n, outputs)``, and no classes."""
        return encode_numbers(labels, inputs, source), ()

    def outputs(self, targets: Array, classes: Sequence[str]) -> int:
        """Return the number of values per sample."""
        return 1 if targets.ndim == 1 else int(targets.shape[1])

    def weight(self, targets: Tensor, weights: Tensor | None = None) -> Tensor | float:
        """Return the number of values of all samples."""
        return float(targets.numel())

    def metrics(self, logits: Array, targets: Array, classes: Sequence[str]) -> dict[str, float]:
        """Return mae, rmse and r2, in the targets' unit; r2 is scikit-learn's, the mean over the outputs."""
        targets = np.asarray(targets, dtype=np.float64).reshape(logits.shape)
        error = logits - targets
        result = {"mae": float(np.abs(error).mean()), "rmse": float(np.sqrt((error**2).mean()))}
        if len(targets) > 1 and np.isfinite(error).all():
            result["r2"] = _r2(error, targets)
        return result

    def weighted_metrics(self, logits: Array, targets: Array, weights: Array) -> dict[str, Array] | None:
        """Return mae, rmse and r2 for each row of weights."""
        w, targets = weights, np.asarray(targets, dtype=np.float64).reshape(logits.shape)
        error, total = logits - targets, w.sum(1)
        centred = targets - targets.mean(0)  # so that the variance below loses no digits
        spread = w @ centred**2 - (w @ centred) ** 2 / total[:, None]
        spread = np.where(spread > 0, spread, np.nan)
        return {
            "mae": w @ np.abs(error).mean(1) / total,
            "rmse": np.sqrt(w @ (error**2).mean(1) / total),
            "r2": (1 - (w @ error**2) / spread).mean(1),
        }

    def decode(self, logits: Array, labels: Sequence[Any]) -> list[Any]:
        """Return a number, or a tuple of them where there are several outputs."""
        return [float(row[0]) if len(row) == 1 else tuple(map(float, row)) for row in logits]


def _r2(error: Array, targets: Array) -> float:
    """Return the share of the variance that is explained; of constant targets 1 where they are met, else 0."""
    squares, spread = (error**2).sum(0), ((targets - targets.mean(0)) ** 2).sum(0)
    constant = np.where(squares > 0, 0.0, 1.0)
    return float(np.where(spread > 0, 1 - squares / np.where(spread > 0, spread, 1), constant).mean())
