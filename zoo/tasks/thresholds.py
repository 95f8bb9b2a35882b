"""Probabilities above which each label of a multi-label task is predicted.

A threshold is applied by moving the logits, so that a task decides by logits above zero whatever the thresholds are.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np

from zoo.errors import OptionError, did_you_mean, fault_list
from zoo.tasks.scores import sigmoid
from zoo.tasks.task import Array, Task

USUAL = 0.5
Wanted: TypeAlias = "float | Collection[float] | Mapping[str, float]"


def best_thresholds(logits: Array, targets: Array) -> tuple[float, ...]:
    """Return the threshold of each label that has the highest F1 on these data.

    Macro F1 is a mean over labels, so each label is cut by itself, as in Lipton, Elkan and Narayanaswamy 2014 ("Optimal
    thresholding of classifiers to maximize F1 measure"). A threshold lies halfway between two neighbouring probabilities. A label
    without positives, or that any threshold gives an F1 of zero, keeps one half.

    Args:
        logits: ``(n, labels)``.
        targets: ``(n, labels)``, 0 or 1, NaN where a label is missing.
    """
    probabilities = sigmoid(np.asarray(logits, dtype=np.float64))
    known = ~np.isnan(np.asarray(targets, dtype=np.float64))
    columns = zip(probabilities.T, np.asarray(targets).T, known.T, strict=True)
    return tuple(_best(scores[rows], truth[rows] > USUAL) for scores, truth, rows in columns)


def _best(scores: Array, truth: Array) -> float:
    if not truth.any() or not np.isfinite(scores).all():
        return USUAL
    order = np.argsort(-scores, kind="stable")
    ends = np.flatnonzero(np.append(np.diff(scores[order]) != 0, True))  # equal scores are predicted together
    right = np.cumsum(truth[order])[ends]
    best = int(np.argmax(2 * right / (ends + 1 + truth.sum())))
    upper = scores[order][ends[best]]
    lower = scores[order][ends[best + 1]] if best + 1 < len(ends) else 0.0
    return float(np.clip((upper + lower) / 2, 1e-6, 1 - 1e-6))


def check_thresholds(task: Task, wanted: Wanted, labels: Sequence[str], before: Sequence[float] | None = None) -> tuple[float, ...]:
    """Return one threshold per label.

    Args:
        task: The task.
        wanted: One for all labels, one per label in order, or some by label.
        labels: Names of the labels, or their numbers.
        before: Thresholds of labels that a mapping does not name; one half if None.

    Raises:
        OptionError: If the task has none, a label is unknown, or a value is outside (0, 1); all at once.
    """
    if not task.thresholded:
        raise OptionError(f"thresholds are for labels that are predicted by themselves (multi-label); the task is {task.words}")
    faults, found = list[str](), dict[str, Any](zip(labels, before or (USUAL,) * len(labels), strict=True))
    if isinstance(wanted, Mapping):
        faults += [f"there is no label {name!r}{did_you_mean(str(name), labels)}" for name in wanted if name not in found]
        found |= {name: value for name, value in wanted.items() if name in found}
    elif isinstance(wanted, str) or not isinstance(wanted, Collection):
        found = dict.fromkeys(labels, wanted)
    elif len(wanted) != len(labels):
        faults.append(f"there are {len(wanted)} values for {len(labels)} labels")
    else:
        found = dict(zip(labels, wanted, strict=True))
    faults += [f"{name!r} has {value!r}; it must be a number between 0 and 1" for name, value in found.items() if not _fits(value)]
    if faults:
        raise OptionError(fault_list("thresholds cannot be used:", faults[:8], "Give one number, or one per label."))
    return tuple(map(float, found.values()))


def _fits(value: Any) -> bool:
    return not isinstance(value, bool | str) and hasattr(value, "__float__") and 0 < float(value) < 1


def moved(logits: Array, thresholds: Sequence[float] | Array | None) -> Array:
    """Return logits that are above zero where a probability is above its threshold, ``(labels,)`` or ``(n, labels)``; equal without."""
    if thresholds is None:
        return logits
    cut = np.asarray(thresholds, dtype=np.float64)
    return np.asarray(logits, dtype=np.float64) - np.log(cut / (1 - cut))
