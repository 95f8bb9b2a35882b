"""Predictions for labelled samples, in the forms that metrics take."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from zoo.tasks.task import Task
from zoo.tasks.thresholds import moved

Array = npt.NDArray[Any]


class Outcome(NamedTuple):
    """Predictions and targets.

    Attributes:
        logits: ``(n, outputs)``, float64; of a regression its values.
        targets: int64 ``(n,)`` for classes; ``(n, outputs)`` for labels, NaN where one is missing, and for numbers.
        probabilities: ``(n, outputs)``, or None.
        decisions: Predicted class ``(n,)``, or whether each label is predicted ``(n, outputs)``.
    """

    logits: Array
    targets: Array
    probabilities: Array | None
    decisions: Array

    @property
    def right(self) -> Array:
        """Whether each prediction is the target."""
        return np.asarray(self.decisions == self.targets)

    @property
    def confidence(self) -> Array:
        """The probability of the predicted class."""
        assert self.probabilities is not None, "classes have probabilities"
        return np.asarray(self.probabilities.max(1))


def outcome_of(task: Task, logits: Array, targets: Array, thresholds: Sequence[float] | Array | None = None) -> Outcome:
    """Return the outcome of a built-in task with one row of outputs per sample."""
    logits, targets = np.asarray(logits, dtype=np.float64), np.asarray(targets)
    if not task.has_classes:
        return Outcome(logits, targets.astype(np.float64).reshape(logits.shape), None, logits)
    with np.errstate(invalid="ignore"):  # of infinite logits
        probabilities = task.probabilities(logits)
    if task.thresholded:
        return Outcome(logits, targets.astype(np.float64), probabilities, moved(logits, thresholds) > 0)
    return Outcome(logits, targets.astype(np.int64), probabilities, logits.argmax(1))
