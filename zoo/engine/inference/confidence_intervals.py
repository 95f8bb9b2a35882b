"""Confidence intervals of metrics by a bootstrap over patients: groups are drawn with replacement, whole (Efron 1979).

A draw is a weight per sample, the number of times that its group was drawn, and every metric is computed for all draws at once.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from zoo.engine.inference.metrics import softmax
from zoo.errors import DataError, OptionError

log = logging.getLogger("zoo")

Array = npt.NDArray[Any]
DRAWS = 1000
_CELLS = 4_000_000  # weights held at once


def check_level(task: str, level: float) -> None:
    """Refuse a level out of range, and a task without intervals.

    Raises:
        OptionError: If ``level`` is outside (0, 1), or the task has no metrics of single samples.
    """
    if not 0 < level < 1:
        raise OptionError(f"intervals is {level}; it is the share that an interval covers, in (0, 1), such as 0.95")
    if task == "token-classification":
        raise OptionError("intervals are for classes and numbers; token classification counts entities, not samples")


def intervals(
    task: str,
    logits: Array,
    targets: Array,
    *,
    groups: Sequence[str] | None = None,
    level: float = 0.95,
    draws: int = DRAWS,
    seed: int = 0,
    specificity: float | None = None,
) -> dict[str, float]:
    """Return ``NAME_low`` and ``NAME_high`` for each metric of the task: percentiles over draws in which it is defined.

    Args:
        task: ``single-label``, ``multi-label`` or ``regression``.
        logits: ``(n, classes)``, or outputs.
        targets: As ``zoo.engine.inference.metrics.compute_metrics`` takes them.
        groups: What is drawn as a whole, such as the patient, per sample; None draws samples.
        level: Share of the draws between the two, in (0, 1).
        draws: Number of draws.
        seed: Decides the draws.
        specificity: Where given, of ``sensitivity_at_specificity`` too.

    Raises:
        OptionError: If ``level`` is outside (0, 1), or the task has no metrics of single samples.
        DataError: If there are fewer than two groups.
    """
    check_level(task, level)
    names: Any = np.arange(len(logits)) if groups is None else np.asarray(groups)
    ids = np.unique(names, return_inverse=True)[1]
    number = int(ids.max()) + 1
    if number < 2:
        raise DataError(f"intervals need two or more groups to draw from; the data have {number}")
    rng = np.random.default_rng(seed)
    step = max(1, _CELLS // len(ids))
    parts = []
    for start in range(0, draws, step):
        counts = rng.multinomial(number, np.full(number, 1 / number), size=min(step, draws - start))
        parts.append(weighted_metrics(task, logits, targets, counts[:, ids].astype(np.float64), specificity=specificity))
    result: dict[str, float] = {}
    for name in parts[0]:
        values = np.concatenate([part[name] for part in parts])
        values = values[np.isfinite(values)]
        if len(values):
            ends = np.quantile(values, [(1 - level) / 2, (1 + level) / 2])
            result |= {f"{name}_low": float(ends[0]), f"{name}_high": float(ends[1])}
    return result


def weighted_metrics(task: str, logits: Array, targets: Array, weights: Array, *, specificity: float | None = None) -> dict[str, Array]:
    """Return each metric of the task for each row of weights; NaN where it is undefined.

    Args:
        task: ``single-label``, ``multi-label`` or ``regression``.
        logits: ``(n, classes)``, or outputs.
        targets: Per sample.
        weights: ``(draws, n)``, how often each sample counts.
        specificity: Where given, ``sensitivity_at_specificity`` is added.
    """
    logits = np.asarray(logits, dtype=np.float64)
    with np.errstate(divide="ignore", invalid="ignore"):
        if task == "single-label":
            return _single_label(logits, np.asarray(targets, dtype=np.int64), weights, specificity)
        if task == "multi-label":
            return _multi_label(logits, np.asarray(targets), weights, specificity)
        return _regression(logits, np.asarray(targets, dtype=np.float64).reshape(logits.shape), weights)


def _single_label(logits: Array, targets: Array, w: Array, specificity: float | None) -> dict[str, Array]:
    classes = logits.shape[1]
    truth, named = np.eye(classes)[targets], np.eye(classes)[logits.argmax(1)]
    log_sum = logits.max(1) + np.log(np.exp(logits - logits.max(1, keepdims=True)).sum(1))
    total, support = w.sum(1), w @ truth
    right = w @ (truth * named)
    result = {
        "loss": w @ (log_sum - logits[np.arange(len(targets)), targets]) / total,
        "accuracy": right.sum(1) / total,
        "balanced_accuracy": _mean(right / support),
        "macro_f1": np.nan_to_num(2 * right / (support + w @ named)).mean(1),
    }
    scores = np.stack([logits[:, 0] - logits[:, 1], logits[:, 1] - logits[:, 0]], 1) if classes == 2 else softmax(logits)
    return result | _ranked(scores, truth > 0, w, specificity, only=[1] if classes == 2 else range(classes))


def _multi_label(logits: Array, targets: Array, w: Array, specificity: float | None) -> dict[str, Array]:
    truth, named = (targets > 0.5).astype(np.float64), (logits > 0).astype(np.float64)
    total, support, right, found = w.sum(1), w @ truth, w @ (truth * named), w @ named
    result = {
        "loss": w @ (np.logaddexp(0, logits) - logits * targets).mean(1) / total,
        "macro_f1": np.nan_to_num(2 * right / (support + found)).mean(1),
        "micro_f1": np.nan_to_num(2 * right.sum(1) / (support + found).sum(1)),
    }
    labels = range(truth.shape[1])
    result["map"] = _mean(np.stack([_precision(logits[:, k], truth[:, k] > 0, w) for k in labels], 1))
    return result | _ranked(logits, truth > 0, w, specificity, only=labels)


def _regression(outputs: Array, targets: Array, w: Array) -> dict[str, Array]:
    error, total = outputs - targets, w.sum(1)
    centred = targets - targets.mean(0)  # for the variance below to lose no digits
    spread = w @ centred**2 - (w @ centred) ** 2 / total[:, None]
    spread = np.where(spread > 0, spread, np.nan)
    return {
        "mae": w @ np.abs(error).mean(1) / total,
        "rmse": np.sqrt(w @ (error**2).mean(1) / total),
        "r2": (1 - (w @ error**2) / spread).mean(1),
    }


def _ranked(scores: Array, truth: Array, w: Array, specificity: float | None, *, only: Sequence[int]) -> dict[str, Array]:
    if not np.isfinite(scores).all():
        return {}
    metrics: dict[str, Callable[[Array, Array], Array]] = {"auroc": lambda tp, fp: _area(tp, fp)}
    if specificity is not None:
        metrics["sensitivity_at_specificity"] = lambda tp, fp: _sensitivity(tp, fp, specificity)
    curves = [_curve(scores[:, k], truth[:, k], w) for k in only]
    return {name: _mean(np.stack([metric(tp, fp) for tp, fp in curves], 1)) for name, metric in metrics.items()}


def _curve(scores: Array, truth: Array, w: Array) -> tuple[Array, Array]:
    """Return the weights of true and of false positives at each threshold, from the highest; equal scores share one."""
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


def _precision(scores: Array, truth: Array, w: Array) -> Array:
    tp, fp = _curve(scores, truth, w)
    gained = np.diff(tp, axis=1, prepend=0)
    return np.asarray(np.nansum(gained * tp / (tp + fp), 1) / tp[:, -1])


def _mean(values: Array) -> Array:
    """Return the mean over classes of those in which a metric is defined, NaN where it is in none."""
    defined = np.isfinite(values)
    return np.asarray(np.where(defined, values, 0).sum(1) / defined.sum(1))


def check_specificity(task: str, specificity: float) -> None:
    """Refuse a specificity out of range, and a task without classes.

    Raises:
        OptionError: Naming the value or the task.
    """
    if not 0 <= specificity <= 1:
        raise OptionError(f"specificity is {specificity}; it is a share, in [0, 1], such as 0.95")
    if task not in ("single-label", "multi-label"):
        raise OptionError(f"specificity is for classes; the task is {task}")


def sensitivity_at_specificity(task: str, logits: Array, targets: Array, specificity: float) -> float | None:
    """Return the highest sensitivity of any threshold whose specificity is at least the given one.

    Of two classes the second is the positive one; of several classes or labels it is the mean of each against the rest. None
    where no class has both positives and negatives.

    Raises:
        OptionError: If ``specificity`` is outside [0, 1], or the task has no classes of single samples.
    """
    check_specificity(task, specificity)
    found = weighted_metrics(task, logits, targets, np.ones((1, len(logits))), specificity=specificity)
    value = found.get("sensitivity_at_specificity", np.array([np.nan]))[0]
    return float(value) if np.isfinite(value) else None
