"""Training losses, one per task."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional

from zoo.errors import DataError, did_you_mean, fault_list

Loss: TypeAlias = Callable[[Tensor, Tensor], Tensor]


def make_loss(task: str, *, smoothing: float = 0.0, weights: Tensor | None = None) -> Loss:
    """Return the mean loss over a batch as a function of logits ``(batch, classes)`` and targets.

    single-label: cross entropy on class indices ``(batch,)`` or probabilities ``(batch, classes)``, with class weights
    and label smoothing (Szegedy et al. 2016). multi-label: binary cross entropy with logits on ``(batch, classes)``; the
    weights count for positives. regression: squared error on ``(batch, outputs)``. token-classification: cross entropy on
    logits ``(batch, tokens, classes)`` and class indices ``(batch, tokens)``, where -100 does not count.
    """
    if task == "token-classification":
        return lambda logits, target: functional.cross_entropy(
            logits.flatten(0, 1), target.flatten(), weight=weights, label_smoothing=smoothing
        )
    if task == "single-label":
        return lambda logits, target: functional.cross_entropy(logits, target, weight=weights, label_smoothing=smoothing)
    if task == "multi-label":
        return lambda logits, target: functional.binary_cross_entropy_with_logits(
            logits, target * (1 - smoothing) + smoothing / 2, pos_weight=weights
        )
    return lambda logits, target: functional.mse_loss(logits, target.reshape(logits.shape))


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
