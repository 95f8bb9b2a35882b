"""Metrics per task; the formulas are scikit-learn's."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from zoo.engine.inference.entity_metrics import entity_metrics

Array = npt.NDArray[Any]


def compute_metrics(task: str, logits: Array, targets: Array, classes: Sequence[str] = ()) -> dict[str, float]:
    """Return the metrics of ``task``; one that the data leave undefined (no positive, one class only) is left out.

    Args:
        task: One of ``zoo.declare.TASKS``.
        logits: ``(n, classes)``; for a regression the outputs in the targets' unit.
        targets: ``(n,)`` class indices, ``(n, classes)`` zeros and ones, or ``(n,)`` / ``(n, outputs)`` numbers.
        classes: Their names; token classification needs them.
    """
    if task == "token-classification":
        return entity_metrics(logits, targets, classes)
    logits = np.asarray(logits, dtype=np.float64)
    if task == "single-label":
        return _single_label(logits, np.asarray(targets, dtype=np.int64))
    if task == "multi-label":
        return _multi_label(logits, np.asarray(targets))
    return _regression(logits, np.asarray(targets, dtype=np.float64).reshape(logits.shape))


def softmax(logits: Array) -> Array:
    """Return probabilities along the last axis."""
    shifted = np.exp(logits - logits.max(-1, keepdims=True))
    return np.asarray(shifted / shifted.sum(-1, keepdims=True))


def sigmoid(logits: Array) -> Array:
    """Return the probability of each label on its own, without overflow."""
    return np.asarray(0.5 * (1 + np.tanh(0.5 * logits)))


def _single_label(logits: Array, targets: Array) -> dict[str, float]:
    from sklearn.metrics import accuracy_score, f1_score  # type: ignore[import-untyped]  # ships no types

    classes = np.arange(logits.shape[1])
    predicted = logits.argmax(1)
    present = np.unique(targets)
    recalls = [(predicted[targets == k] == k).mean() for k in present]
    log_sum = logits.max(1) + np.log(np.exp(logits - logits.max(1, keepdims=True)).sum(1))
    result = {
        "loss": float((log_sum - logits[np.arange(len(targets)), targets]).mean()),
        "accuracy": float(accuracy_score(targets, predicted)),
        "balanced_accuracy": float(np.mean(recalls)),
        "macro_f1": float(f1_score(targets, predicted, labels=classes, average="macro", zero_division=0.0)),
        "majority": float(np.bincount(targets).max() / len(targets)),
    }
    return result | _auroc_single(logits, targets, present)


def _auroc_single(logits: Array, targets: Array, present: Array) -> dict[str, float]:
    from sklearn.metrics import roc_auc_score

    if len(present) < 2 or not np.isfinite(logits).all():
        return {}
    if logits.shape[1] == 2:
        return {"auroc": float(roc_auc_score(targets, logits[:, 1] - logits[:, 0]))}
    probabilities = softmax(logits)
    return {"auroc": float(np.mean([roc_auc_score(targets == k, probabilities[:, k]) for k in present]))}


def _multi_label(logits: Array, targets: Array) -> dict[str, float]:
    from sklearn.metrics import average_precision_score, f1_score, roc_auc_score

    truth = (targets > 0.5).astype(np.int64)
    predicted = (logits > 0).astype(np.int64)
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


def _regression(outputs: Array, targets: Array) -> dict[str, float]:
    from sklearn.metrics import r2_score

    error = outputs - targets
    result = {"mae": float(np.abs(error).mean()), "rmse": float(np.sqrt((error**2).mean()))}
    if len(targets) > 1 and np.isfinite(error).all():
        result["r2"] = float(r2_score(targets, outputs))
    return result
