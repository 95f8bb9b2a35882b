"""Multi-label classification."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from zoo.tasks.labels import encode_multi
from zoo.tasks.losses import LABELS
from zoo.tasks.scores import mean, precision, ranked, sigmoid
from zoo.tasks.task import Array, Task

if TYPE_CHECKING:
    from torch import Tensor


class MultiLabel(Task):
    """Binary cross entropy on ``(batch, labels)``; predicts the labels with a sigmoid above one half.

    Class weights count for positives; label smoothing moves targets toward one half.
    """

    name = "multi-label"
    losses = LABELS
    monitors = ("map", "macro_f1", "micro_f1", "auroc", "loss")
    empty_is_none = True
    has_specificity = True

    def encode(
        self, labels: Sequence[Any], inputs: Sequence[Any], classes: Sequence[str] | None, source: str
    ) -> tuple[Array, tuple[str, ...]]:
        """Return float32 rows of 0 and 1, ``(n, classes)``."""
        return encode_multi(labels, inputs, classes, source)

    def weight(self, targets: Tensor, weights: Tensor | None = None) -> Tensor | float:
        """Return the number of labels of all samples."""
        return float(targets.numel())

    def class_weights(self, targets: Array, classes: Sequence[str]) -> Array:
        """Return the number of a label's negatives per positive."""
        positives = np.maximum(np.asarray(targets, dtype=np.float64).sum(0), 1.0)
        return np.asarray(np.maximum((len(targets) - positives) / positives, 1e-3))

    def metrics(self, logits: Array, targets: Array, classes: Sequence[str]) -> dict[str, float]:
        """Return loss, macro_f1, micro_f1, map and auroc; the formulas are scikit-learn's."""
        from sklearn.metrics import average_precision_score, f1_score, roc_auc_score  # type: ignore[import-untyped]  # ships no types

        truth, predicted = (targets > 0.5).astype(np.int64), (logits > 0).astype(np.int64)
        positives = [k for k in range(truth.shape[1]) if truth[:, k].any()]
        both = [k for k in positives if not truth[:, k].all()]
        result = {
            "loss": float((np.logaddexp(0, logits) - logits * targets).mean()),
            "macro_f1": float(f1_score(truth, predicted, average="macro", zero_division=0.0)),
            "micro_f1": float(f1_score(truth, predicted, average="micro", zero_division=0.0)),
        }
        if positives and np.isfinite(logits).all():
            result["map"] = float(np.mean([average_precision_score(truth[:, k], logits[:, k]) for k in positives]))
        if both and np.isfinite(logits).all():
            result["auroc"] = float(np.mean([roc_auc_score(truth[:, k], logits[:, k]) for k in both]))
        return result

    def weighted_metrics(self, logits: Array, targets: Array, weights: Array, specificity: float | None = None) -> dict[str, Array] | None:
        """Return loss, macro_f1, micro_f1, map and auroc for each row of weights."""
        w, truth, named = weights, (targets > 0.5).astype(np.float64), (logits > 0).astype(np.float64)
        total, support, right, found = w.sum(1), w @ truth, w @ (truth * named), w @ named
        labels = range(truth.shape[1])
        result = {
            "loss": w @ (np.logaddexp(0, logits) - logits * targets).mean(1) / total,
            "macro_f1": np.nan_to_num(2 * right / (support + found)).mean(1),
            "micro_f1": np.nan_to_num(2 * right.sum(1) / (support + found).sum(1)),
            "map": mean(np.stack([precision(logits[:, k], truth[:, k] > 0, w) for k in labels], 1)),
        }
        return result | ranked(logits, truth > 0, w, specificity, only=labels)

    def probabilities(self, logits: Array) -> Array | None:
        """Return a sigmoid for each label."""
        return sigmoid(logits)

    def decode(self, logits: Array, labels: Sequence[Any]) -> list[Any]:
        """Return a tuple of the labels whose probability is above one half."""
        likely = np.asarray(sigmoid(logits.astype(np.float64)), dtype=np.float32) > 0.5
        return [tuple(labels[int(k)] for k in np.flatnonzero(row)) for row in likely]
