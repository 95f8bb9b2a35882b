"""Probabilities, and ranking metrics for many rows of sample weights at once."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]


def softmax(logits: Array) -> Array:
    """Return probabilities along the last axis."""
    shifted = np.exp(logits - logits.max(-1, keepdims=True))
    return np.asarray(shifted / shifted.sum(-1, keepdims=True))


def sigmoid(logits: Array) -> Array:
    """Return the probability of each label on its own, without overflow."""
    return np.asarray(0.5 * (1 + np.tanh(0.5 * logits)))


def ranked(
    scores: Array, truth: Array, w: Array, specificity: float | None = None, *, only: Sequence[int], known: Array | None = None
) -> dict[str, Array]:
    """Return ``auroc``, and the sensitivity at a specificity where one is given: means over the classes ``only``.

    Args:
        scores: ``(n, classes)``.
        truth: ``(n, classes)``, bool.
        w: Weights ``(draws, n)``.
        specificity: In [0, 1], or None.
        only: The classes to average over.
        known: ``(n, classes)``, False where a sample's label is missing; None where all are known.
    """
    if not np.isfinite(scores).all():
        return {}
    metrics: dict[str, Callable[[Array, Array], Array]] = {"auroc": lambda tp, fp: _area(tp, fp)}
    if specificity is not None:
        metrics["sensitivity_at_specificity"] = lambda tp, fp: _sensitivity(tp, fp, specificity)
    rows = np.ones_like(truth) if known is None else known
    curves = [_curve(scores[rows[:, k], k], truth[rows[:, k], k], w[:, rows[:, k]]) for k in only]
    return {name: mean(np.stack([metric(tp, fp) for tp, fp in curves], 1)) for name, metric in metrics.items()}


def area(scores: Array, truth: Array) -> float:
    """Return the area under the ROC curve of scores ``(n,)``; NaN where all ``truth`` is equal."""
    return float(_area(*_curve(scores, truth, np.ones((1, len(scores)))))[0])


def precision(scores: Array, truth: Array, w: Array | None = None) -> Array:
    """Return the average precision of scores ``(n,)`` per row of weights, ``(1,)`` where there are none."""
    tp, fp = _curve(scores, truth, np.ones((1, len(scores))) if w is None else w)
    gained = np.diff(tp, axis=1, prepend=0)
    return np.asarray(np.nansum(gained * tp / (tp + fp), 1) / tp[:, -1])


def mean(values: Array) -> Array:
    """Return the mean over the classes in which a metric is defined, NaN if there are none."""
    defined = np.isfinite(values)
    return np.asarray(np.where(defined, values, 0).sum(1) / defined.sum(1))


def _curve(scores: Array, truth: Array, w: Array) -> tuple[Array, Array]:
    """Return the weights of true and of false positives at each threshold, from the highest; equal scores share one."""
    if not len(scores):
        return np.zeros((len(w), 1)), np.zeros((len(w), 1))
    order = np.argsort(-scores, kind="stable")
    ends = np.flatnonzero(np.append(np.diff(scores[order]) != 0, True))
    ordered, positive = w[:, order], truth[order]
    return np.cumsum(ordered * positive, 1)[:, ends], np.cumsum(ordered * ~positive, 1)[:, ends]


def _area(tp: Array, fp: Array) -> Array:
    before_tp, before_fp = (np.pad(part, ((0, 0), (1, 0)))[:, :-1] for part in (tp, fp))
    area = ((fp - before_fp) * (tp + before_tp) / 2).sum(1)
    return np.asarray(area / (tp[:, -1] * fp[:, -1]))


def _sensitivity(tp: Array, fp: Array, specificity: float) -> Array:
    allowed = fp / fp[:, -1:] <= 1 - specificity + 1e-12
    defined = (tp[:, -1] > 0) & (fp[:, -1] > 0)
    return np.asarray(np.where(defined, np.where(allowed, tp / tp[:, -1:], 0).max(1), np.nan))
