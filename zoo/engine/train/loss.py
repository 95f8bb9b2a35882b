"""Training losses, one per task."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional

from zoo.data.text import IGNORED
from zoo.errors import DataError, did_you_mean, fault_list


@dataclass(frozen=True)
class Loss:
    """The loss of a task, as a sum and what to divide it by, so that a batch may be cut into any parts.

    single-label: cross entropy on class indices ``(batch,)`` or probabilities ``(batch, classes)``, with class weights
    and label smoothing (Szegedy et al. 2016). multi-label: binary cross entropy with logits on ``(batch, classes)``; the
    weights count for positives. regression: squared error on ``(batch, outputs)``. token-classification: cross entropy on
    logits ``(batch, tokens, classes)`` and class indices ``(batch, tokens)``, where -100 does not count.

    Attributes:
        task: One of ``zoo.declare.TASKS``.
        smoothing: Label smoothing, in [0, 1).
        weights: A weight per class, or None.
    """

    task: str
    smoothing: float = 0.0
    weights: Tensor | None = None

    def total(self, logits: Tensor, target: Tensor) -> Tensor:
        """Return the sum of the losses of a batch."""
        if self.task in ("single-label", "token-classification"):
            if self.task == "token-classification":
                logits, target = logits.flatten(0, 1), target.flatten()
            return functional.cross_entropy(logits, target, weight=self.weights, label_smoothing=self.smoothing, reduction="sum")
        if self.task == "multi-label":
            smooth = target * (1 - self.smoothing) + self.smoothing / 2
            return functional.binary_cross_entropy_with_logits(logits, smooth, pos_weight=self.weights, reduction="sum")
        return functional.mse_loss(logits, target.reshape(logits.shape), reduction="sum")

    def weight(self, target: Tensor) -> Tensor | float:
        """Return what the sum over ``target`` is divided by for the mean; above zero.

        It is a number where that needs no look at the values, which on a GPU would be waited for.
        """
        if target.is_floating_point():
            return float(len(target) if self.task == "single-label" else target.numel())
        if self.weights is None and self.task == "single-label":
            return float(len(target))
        counted = target != IGNORED
        weights = counted.float() if self.weights is None else self.weights[target.clamp(min=0)] * counted
        return weights.sum().clamp(min=1e-12)


def class_weights(wanted: str | Mapping[str, float] | None, targets: npt.NDArray[Any], classes: tuple[str, ...]) -> Tensor | None:
    """Return one weight per class, or None.

    ``balanced`` gives a class the weight n / (classes * count), as scikit-learn does; with multi-label targets the weight
    of a label's positives is the number of its negatives per positive.

    Raises:
        DataError: If a mapping names unknown classes or leaves some out.
    """
    if wanted is None or not classes:
        return None
    if isinstance(wanted, str):
        if targets.ndim == 2:
            positives = np.maximum(np.asarray(targets, dtype=np.float64).sum(0), 1.0)
            return torch.tensor(np.maximum((len(targets) - positives) / positives, 1e-3), dtype=torch.float32)
        counts = np.maximum(np.bincount(targets.astype(np.int64), minlength=len(classes)), 1)
        return torch.tensor(len(targets) / (len(classes) * counts), dtype=torch.float32)
    faults = [f"{name!r} is no class{did_you_mean(name, classes)}" for name in wanted if name not in classes]
    faults += [f"{name!r} has no weight" for name in classes if name not in wanted]
    if faults:
        raise DataError(
            fault_list(f"class_weights does not fit the {len(classes)} classes", faults, "Give every class a weight, or 'balanced'")
        )
    return torch.tensor([wanted[name] for name in classes], dtype=torch.float32)
