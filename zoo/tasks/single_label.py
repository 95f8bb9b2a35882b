"""Single-label classification."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from zoo.tasks.labels.encode import encode_single
from zoo.tasks.losses import CLASSES
from zoo.tasks.scores import area, mean, ranked, softmax
from zoo.tasks.task import Array, Task

if TYPE_CHECKING:
    from torch import Tensor


SKEWED = 4.0  # from this ratio of the commonest class to the mean of the others (80 % of two), accuracy hardly sees the others


class SingleLabel(Task):
    """Cross entropy on class indices ``(batch,)`` or probabilities ``(batch, classes)``; predicts the likeliest class.

    Class weights count for the target's class; label smoothing is that of Szegedy et al. 2016.
    """

    name = "single-label"
    losses = CLASSES
    monitors = ("accuracy", "balanced_accuracy", "macro_f1", "auroc", "loss")
    exclusive = True
    least_outputs = 2
    has_specificity = True

    def encode(
        self, labels: Sequence[Any], inputs: Sequence[Any], classes: Sequence[str] | None, source: str
    ) -> tuple[Array, tuple[str, ...]]:
        """Return int64 class indices ``(n,)``."""
        return encode_single(labels, inputs, classes, source)

    def weight(self, targets: Tensor, weights: Tensor | None = None) -> Tensor | float:
        """Return the sum of the weights of the targets, mixed ones included."""
        if weights is None:
            return float(len(targets))
        counted = targets @ weights if targets.is_floating_point() else weights[targets]
        return counted.sum().clamp(min=1e-12)

    def soften(self, targets: Tensor, outputs: int) -> Tensor:
        """Return one-hot rows."""
        from torch.nn import functional

        return functional.one_hot(targets, outputs).float()

    def metrics(self, logits: Array, targets: Array, classes: Sequence[str]) -> dict[str, float]:
        """Return loss, accuracy, balanced_accuracy, macro_f1, majority and auroc; the formulas are scikit-learn's.

        macro_f1 is the mean over the classes that occur in the targets or the predictions.
        """
        targets = np.asarray(targets, dtype=np.int64)
        predicted = logits.argmax(1)
        right = predicted == targets
        support, named, found = (np.bincount(part, minlength=logits.shape[1]) for part in (targets, predicted, targets[right]))
        present, occurs = np.flatnonzero(support), support + named > 0
        result = {
            "loss": self.log_loss(logits, targets),
            "accuracy": float(right.mean()),
            "balanced_accuracy": float((found[present] / support[present]).mean()),
            "macro_f1": float((2 * found[occurs] / (support + named)[occurs]).mean()),
            "majority": float(support.max() / len(targets)),
        }
        return result | _auroc(logits, targets, present)

    def log_loss(self, logits: Array, targets: Array) -> float:
        """Return the mean cross entropy."""
        return float(_losses(logits, np.asarray(targets, dtype=np.int64)).mean())

    def is_skewed(self, targets: Array) -> bool:
        """Return whether the commonest class is ``SKEWED`` times as frequent as the others on average."""
        counts = _occurring(targets)
        return len(counts) > 1 and bool(counts.max() * (len(counts) - 1) >= SKEWED * (counts.sum() - counts.max()))

    def default_monitor(self, targets: Array, *, medical: bool = False) -> str:
        """Return accuracy; for unequal classes and medical samples auroc of two classes and balanced_accuracy of more."""
        classes = len(_occurring(targets))
        if classes < 2 or not (medical or self.is_skewed(targets)):
            return self.monitors[0]
        return "auroc" if classes == 2 else "balanced_accuracy"

    def weighted_metrics(self, logits: Array, targets: Array, weights: Array) -> dict[str, Array] | None:
        """Return loss, accuracy, balanced_accuracy, macro_f1 and auroc for each row of weights."""
        targets, classes = np.asarray(targets, dtype=np.int64), logits.shape[1]
        scores = np.stack([logits[:, 0] - logits[:, 1], logits[:, 1] - logits[:, 0]], 1) if classes == 2 else softmax(logits)
        truth = np.eye(classes)[targets] > 0
        found = ranked(scores, truth, weights, only=[1] if classes == 2 else range(classes))
        return self._counted(logits, targets, weights) | found

    def weighted_metric(self, name: str, logits: Array, targets: Array, weights: Array) -> Array | None:
        """Return one metric for each row of weights; only auroc needs the samples in order."""
        counted = self._counted(logits, np.asarray(targets, dtype=np.int64), weights)
        return counted[name] if name in counted else super().weighted_metric(name, logits, targets, weights)

    def _counted(self, logits: Array, targets: Array, weights: Array) -> dict[str, Array]:
        """Return the weighted metrics that are sums over the samples."""
        classes, w = logits.shape[1], weights
        truth, named = np.eye(classes)[targets], np.eye(classes)[logits.argmax(1)]
        total, support, right = w.sum(1), w @ truth, w @ (truth * named)
        return {
            "loss": w @ _losses(logits, targets) / total,
            "accuracy": right.sum(1) / total,
            "balanced_accuracy": mean(right / support),
            "macro_f1": mean(2 * right / (support + w @ named)),
        }

    def pool(self, logits: Array) -> Array:
        """Return logits whose softmax is the mean of the windows' probabilities."""
        logits = logits.astype(np.float64)
        return np.asarray(np.logaddexp.reduce(logits - _log_sum(logits)[:, None]) - np.log(len(logits)))

    def probabilities(self, logits: Array) -> Array | None:
        """Return the softmax."""
        return softmax(logits)

    def decode(self, logits: Array, labels: Sequence[Any]) -> list[Any]:
        """Return the likeliest class."""
        return [labels[k] for k in logits.argmax(1)]


def _occurring(targets: Array) -> Array:
    """Return how many samples each class has that has any."""
    counts = np.bincount(np.asarray(targets, dtype=np.int64))
    return counts[counts > 0]


def _losses(logits: Array, targets: Array) -> Array:
    """Return the cross entropy of each sample."""
    return np.asarray(_log_sum(logits) - logits[np.arange(len(targets)), targets])


def _log_sum(logits: Array) -> Array:
    highest = logits.max(1)
    shifted = logits - highest[:, None]
    return np.asarray(highest + np.log(np.exp(shifted, out=shifted).sum(1)))


def _auroc(logits: Array, targets: Array, present: Array) -> dict[str, float]:
    if len(present) < 2 or not np.isfinite(logits).all():
        return {}
    if logits.shape[1] == 2:
        return {"auroc": area(logits[:, 1] - logits[:, 0], targets == 1)}
    probabilities = softmax(logits)
    return {"auroc": float(np.mean([area(probabilities[:, k], targets == k) for k in present]))}
