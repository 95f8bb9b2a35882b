"""Multi-label classification."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from zoo.tasks.labels.sets import encode_sets, parse_sets
from zoo.tasks.losses import LABELS, binary_by_label
from zoo.tasks.scores import area, mean, precision, ranked, sigmoid
from zoo.tasks.task import Array, Task

if TYPE_CHECKING:
    from torch import Tensor


class MultiLabel(Task):
    """Binary cross entropy on ``(batch, labels)``; predicts the labels with a sigmoid above one half (see ``zoo.tasks.thresholds``).

    Class weights count for positives; label smoothing moves targets toward one half. A missing label is NaN in the targets and
    counts neither in the loss nor in a metric.
    """

    name = "multi-label"
    losses = LABELS
    losses_by_output = staticmethod(binary_by_label)
    monitors = ("map", "macro_f1", "micro_f1", "auroc", "loss")
    empty_is_none = True
    partial = True
    has_specificity = True
    thresholded = frozenset({"macro_f1", "micro_f1"})

    def parse(self, labels: Sequence[Any], classes: Sequence[str] | None, source: str) -> Sequence[Any]:
        """Return lists of names, or rows of numbers."""
        return parse_sets(labels, classes, source)

    def encode(
        self, labels: Sequence[Any], inputs: Sequence[Any], classes: Sequence[str] | None, source: str
    ) -> tuple[Array, tuple[str, ...]]:
        """Return float32 rows ``(n, classes)`` of 0 and 1, NaN for a missing and -1 for an uncertain label."""
        return encode_sets(labels, inputs, classes, source)

    def weight(self, targets: Tensor, weights: Tensor | None = None) -> Tensor | float:
        """Return the number of known labels of all samples."""
        return (~targets.isnan()).sum().to(targets.dtype).clamp(min=1e-12)

    def class_weights(self, targets: Array, classes: Sequence[str]) -> Array:
        """Return the number of a label's negatives per positive."""
        positives = np.maximum(np.nansum(np.asarray(targets, dtype=np.float64), axis=0), 1.0)
        known = (~np.isnan(targets)).sum(0)
        return np.asarray(np.maximum((known - positives) / positives, 1e-3))

    def metrics(self, logits: Array, targets: Array, classes: Sequence[str]) -> dict[str, float]:
        """Return loss, macro_f1, micro_f1, map and auroc over the known labels; the formulas are scikit-learn's."""
        known = ~np.isnan(targets)
        if not known.any():
            return {}
        truth, predicted = (np.nan_to_num(targets) > 0.5) & known, (logits > 0) & known
        right, total = 2.0 * (truth & predicted).sum(0), truth.sum(0) + predicted.sum(0)
        result = {
            "loss": self.log_loss(logits, targets),
            "macro_f1": float((right / np.maximum(total, 1))[known.any(0)].mean()),
            "micro_f1": float(right.sum() / max(total.sum(), 1)),
        }
        if not np.isfinite(logits).all():
            return result
        columns = [(logits[rows, k], truth[rows, k]) for k, rows in enumerate(known.T)]
        positive = [column for column in columns if column[1].any()]
        divided = [column for column in positive if not column[1].all()]
        if positive:
            result["map"] = float(np.mean([precision(*column) for column in positive]))
        if divided:
            result["auroc"] = float(np.mean([area(*column) for column in divided]))
        return result

    def log_loss(self, logits: Array, targets: Array) -> float:
        """Return the mean binary cross entropy of the known labels; NaN without any."""
        known = ~np.isnan(targets)
        return float(_losses(logits, targets, known).sum() / known.sum()) if known.any() else float("nan")

    def weighted_metrics(self, logits: Array, targets: Array, weights: Array) -> dict[str, Array] | None:
        """Return loss, macro_f1, micro_f1, map and auroc over the known labels for each row of weights."""
        w, known = weights, ~np.isnan(targets)
        truth, predicted = ((np.nan_to_num(targets) > 0.5) & known).astype(np.float64), ((logits > 0) & known).astype(np.float64)
        right, total = 2 * (w @ (truth * predicted)), w @ truth + w @ predicted
        labels = range(truth.shape[1])
        f1 = np.where(w @ known > 0, np.nan_to_num(right / total), np.nan)
        result = {
            "loss": w @ _losses(logits, targets, known).sum(1) / (w @ known.sum(1)),
            "macro_f1": mean(f1),
            "micro_f1": np.nan_to_num(right.sum(1) / total.sum(1)),
            "map": mean(
                np.stack([precision(logits[rows, k], truth[rows, k] > 0, w[:, rows]) for k, rows in zip(labels, known.T, strict=True)], 1)
            ),
        }
        return result | ranked(logits, truth > 0, w, only=labels, known=known)

    def pool(self, logits: Array) -> Array:
        """Return logits whose sigmoid is the mean of the windows' probabilities."""
        logits = logits.astype(np.float64)
        return np.asarray(np.logaddexp.reduce(-np.logaddexp(0, -logits)) - np.logaddexp.reduce(-np.logaddexp(0, logits)))

    def probabilities(self, logits: Array) -> Array | None:
        """Return a sigmoid for each label."""
        return sigmoid(logits)

    def decode(self, logits: Array, labels: Sequence[Any]) -> list[Any]:
        """Return a tuple of the labels whose probability is above one half."""
        likely = np.asarray(sigmoid(logits.astype(np.float64)), dtype=np.float32) > 0.5
        return [tuple(labels[int(k)] for k in np.flatnonzero(row)) for row in likely]


def _losses(logits: Array, targets: Array, known: Array) -> Array:
    """Return the binary cross entropy of each label, 0 for a missing one."""
    return np.where(known, np.logaddexp(0, logits) - logits * np.where(known, targets, 0.0), 0.0)
