"""Consistency between two views of unlabelled samples, and thresholds that follow how much is learned of each class."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

UNUSED = -1  # class of an unlabelled sample that no prediction was sure enough of yet


def consistency(weak: Tensor, strong: Tensor, thresholds: Tensor | float) -> Tensor:
    """Return the cross-entropy of strong views against the classes that weak views of the same samples are predicted to have.

    Samples whose most likely class is less likely than its threshold count as 0 (FixMatch, Sohn et al. 2020, eq. 4; with a threshold per
    class FlexMatch, Zhang et al. 2021, eq. 8). No gradient flows through the predictions.

    Args:
        weak: Logits of the weak views, ``(n, classes)``.
        strong: Logits of the strong views, ``(n, classes)``.
        thresholds: Least probability, one number or one per class, ``(classes,)``.

    Returns:
        One value per sample, ``(n,)``.
    """
    confidence, labels = weak.detach().softmax(1).max(1)
    least = thresholds[labels] if isinstance(thresholds, Tensor) else thresholds
    return functional.cross_entropy(strong, labels, reduction="none") * (confidence >= least)


def class_thresholds(chosen: Tensor, classes: int, threshold: float, *, low_start: bool = True, floor: float = 0.0) -> Tensor:
    """Return a threshold per class, the lower the fewer unlabelled samples are surely of it (FlexMatch, Zhang et al. 2021).

    With counts s of the samples of each class, a class has ``threshold * b / (2 - b)``, where b is s divided by the largest s (eq. 6, 7),
    or with ``low_start`` by the number of samples of no class where that is larger (eq. 11).

    Args:
        chosen: The class that each unlabelled sample was last surely predicted to have, ``(samples,)``; ``UNUSED`` for none.
        classes: Number of classes.
        threshold: The threshold of the class that is learned best, in [0, 1].
        low_start: Whether thresholds start low while most samples have no class.
        floor: The least threshold of a class, in [0, 1], where ``threshold`` is not below it.

    Returns:
        ``(classes,)``, float32; all ``floor`` where no sample has a class.
    """
    counts = torch.bincount(chosen[chosen != UNUSED], minlength=classes).float()
    unused = float((chosen == UNUSED).sum()) if low_start else 0.0
    share = counts / max(float(counts.max()), unused, 1.0)
    return (threshold * share / (2 - share)).clamp(min=min(floor, threshold))
