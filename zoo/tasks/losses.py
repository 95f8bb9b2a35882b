"""Losses that a run can select by name: sums over the batch, with class weights and label smoothing."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

NamedLoss = Callable[..., "Tensor"]
GAMMA = 2.0  # of the focal loss, as in the paper
NEGATIVE, MARGIN = 4.0, 0.05  # of the asymmetric loss, as in the paper
EPSILON = 1.0  # of PolyLoss, as the paper has it for images


def cross_entropy(logits: Tensor, targets: Tensor, *, weights: Tensor | None = None, smoothing: float = 0.0) -> Tensor:
    """Return the sum of the cross entropies, of class indices or probabilities."""
    from torch.nn import functional

    return functional.cross_entropy(logits, targets, weight=weights, label_smoothing=smoothing, reduction="sum")


def focal(logits: Tensor, targets: Tensor, *, weights: Tensor | None = None, smoothing: float = 0.0) -> Tensor:
    """Return the sum of ``(1 - p)**2 * cross entropy``: well-classified samples count less (Lin et al. 2017)."""
    logs = logits.log_softmax(-1)
    parts = _soft(logits, targets, smoothing) * (1 - logs.exp()) ** GAMMA * logs
    return -(parts if weights is None else parts * weights).sum()


def poly(logits: Tensor, targets: Tensor, *, weights: Tensor | None = None, smoothing: float = 0.0) -> Tensor:
    """Return the sum of ``cross entropy + (1 - p)``, p that of the target (PolyLoss, Leng et al. 2022, with epsilon 1)."""
    soft = _soft(logits, targets, smoothing)
    missing = soft * (1 - logits.softmax(-1))
    extra = missing if weights is None else missing * weights
    return cross_entropy(logits, targets, weights=weights, smoothing=smoothing) + EPSILON * extra.sum()


def one_against_rest(logits: Tensor, targets: Tensor, *, weights: Tensor | None = None, smoothing: float = 0.0) -> Tensor:
    """Return the sum over samples of the mean binary cross entropy over classes (Wightman et al. 2021); smoothing as in ``focal``."""
    from torch.nn import functional

    values = functional.binary_cross_entropy_with_logits(logits, _soft(logits, targets, smoothing), pos_weight=weights, reduction="none")
    return values.mean(-1).sum()


def binary(logits: Tensor, targets: Tensor, *, weights: Tensor | None = None, smoothing: float = 0.0) -> Tensor:
    """Return the sum of the binary cross entropies of all known labels; weights count for positives, smoothing moves toward one half."""
    from torch.nn import functional

    smooth, known = _known(targets, smoothing)
    return functional.binary_cross_entropy_with_logits(logits, smooth, known, pos_weight=weights, reduction="sum")


def binary_by_label(logits: Tensor, targets: Tensor, *, weights: Tensor | None = None, smoothing: float = 0.0) -> Tensor:
    """Return the losses ``(labels,)`` whose sum is ``binary``."""
    from torch.nn import functional

    smooth, known = _known(targets, smoothing)
    return functional.binary_cross_entropy_with_logits(logits, smooth, known, pos_weight=weights, reduction="none").sum(0)


def focal_labels(logits: Tensor, targets: Tensor, *, weights: Tensor | None = None, smoothing: float = 0.0) -> Tensor:
    """Return the sum of the focal losses of all known labels (Lin et al. 2017, without their alpha); arguments as in ``binary``."""
    from torch.nn import functional

    smooth, known = _known(targets, smoothing)
    p = logits.sigmoid()
    values = functional.binary_cross_entropy_with_logits(logits, smooth, known, pos_weight=weights, reduction="none")
    return (values * (smooth * (1 - p) + (1 - smooth) * p) ** GAMMA).sum()


def asymmetric(logits: Tensor, targets: Tensor, *, weights: Tensor | None = None, smoothing: float = 0.0) -> Tensor:
    """Return the sum of the asymmetric losses: easy negatives count less, very easy ones nothing (Ridnik et al. 2021)."""
    smooth, known = _known(targets, smoothing)
    p = logits.sigmoid()
    absent = (1 - p + MARGIN).clamp(max=1)
    positives = smooth * p.clamp(min=1e-8).log()
    negatives = (1 - smooth) * absent.clamp(min=1e-8).log() * (1 - absent) ** NEGATIVE
    return -(((positives if weights is None else positives * weights) + negatives) * known).sum()


def squared(logits: Tensor, targets: Tensor, *, weights: Tensor | None = None, smoothing: float = 0.0) -> Tensor:
    """Return the sum of the squared errors."""
    from torch.nn import functional

    return functional.mse_loss(logits, targets.reshape(logits.shape), reduction="sum")


def huber(logits: Tensor, targets: Tensor, *, weights: Tensor | None = None, smoothing: float = 0.0) -> Tensor:
    """Return the sum of the Huber losses: squared up to one standard unit, linear beyond (Huber 1964)."""
    from torch.nn import functional

    return functional.huber_loss(logits, targets.reshape(logits.shape), reduction="sum")


def _soft(logits: Tensor, targets: Tensor, smoothing: float) -> Tensor:
    """Return targets as probabilities, smoothed toward the uniform ones (Szegedy et al. 2016)."""
    from torch.nn import functional

    classes = logits.shape[-1]
    soft = targets if targets.is_floating_point() else functional.one_hot(targets, classes).to(logits.dtype)
    return soft * (1 - smoothing) + smoothing / classes


def _known(targets: Tensor, smoothing: float) -> tuple[Tensor, Tensor]:
    """Return smoothed targets without NaN, and 1 for each known label, 0 for each missing one."""
    known = ~targets.isnan()
    return targets.where(known, 0.0) * (1 - smoothing) + smoothing / 2, known.to(targets.dtype)


CONVEX = frozenset({"cross-entropy", "bce", "mse", "huber"})  # in the logits
CLASSES: Mapping[str, NamedLoss] = MappingProxyType({"cross-entropy": cross_entropy, "focal": focal, "bce": one_against_rest, "poly": poly})
LABELS: Mapping[str, NamedLoss] = MappingProxyType({"bce": binary, "focal": focal_labels, "asymmetric": asymmetric})
NUMBERS: Mapping[str, NamedLoss] = MappingProxyType({"mse": squared, "huber": huber})
