"""The predictions of a task from the outputs of a model, with its thresholds and calibration."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from zoo.engine.loading.stream import Function
from zoo.errors import OptionError, count
from zoo.models.ensemble import Ensemble
from zoo.models.task_model import TaskModel
from zoo.tasks.find import find_task
from zoo.tasks.member import Member
from zoo.tasks.several import SeveralTasks
from zoo.tasks.task import Task
from zoo.tasks.thresholds import Wanted, check_thresholds, moved
from zoo.trust.calibrated import Calibration
from zoo.trust.conformal import check_level
from zoo.trust.outliers import needs_more
from zoo.trust.stale_calibration import current_calibration
from zoo.util.numbers import is_whole

log = logging.getLogger("zoo")
Array: TypeAlias = "npt.NDArray[Any]"


@dataclass(frozen=True)
class Decoder:
    """The predictions of a task from the outputs of a model.

    Attributes:
        task: The task.
        labels: Names of the classes, or their numbers.
        outputs: Number of outputs.
        thresholds: Probability above which each label is predicted; None for one half.
        calibration: That of the model, or None.
        sets: How often a prediction set is to hold the truth, or None for no sets.
        ood: Whether the outputs have pooled features behind the logits, for scores of outliers.
        top: How many of the likeliest classes are wanted with their probabilities, or None.
    """

    task: Task
    labels: Sequence[Any]
    outputs: int
    thresholds: tuple[float, ...] | None = None
    calibration: Calibration | None = None
    sets: float | None = None
    ood: bool = False
    top: int | None = None

    @property
    def names(self) -> list[str]:
        """Names of the classes."""
        return list(map(str, self.labels))

    @property
    def of_classes(self) -> list[bool]:
        """Whether each output is that of a class and not a number."""
        members = self.task.members if isinstance(self.task, SeveralTasks) else ()
        return [one.task.has_classes for one in members for _ in range(one.outputs)] or [self.task.has_classes] * self.outputs

    def of(self, member: Member) -> Decoder:
        """Return the decoder of one of several tasks, for its outputs alone."""
        return Decoder(member.task, member.own_classes(self.labels) or range(member.outputs), member.outputs)

    @property
    def has_probabilities(self) -> bool:
        """Whether the task has probabilities."""
        return type(self.task).probabilities is not Task.probabilities

    def forward(self, model: TaskModel) -> Function:
        """Return the function of a model that gives the outputs which are decoded."""
        return model.outputs_and_features if self.ood else model

    def logits(self, outputs: Array) -> Array:
        """Return the logits among outputs, divided by the temperature of the calibration."""
        if outputs.dtype == object:
            return outputs
        logits = outputs[:, : self.outputs]
        return logits if self.calibration is None else self.calibration.logits(logits)

    def decode(self, outputs: Array) -> list[Any]:
        """Return the prediction for each row of outputs."""
        return self.task.decode(moved(self.logits(outputs), self.thresholds), self.labels)

    def set_labels(self, outputs: Array) -> list[tuple[Any, ...]]:
        """Return the classes of each prediction set, the likeliest first; of a regression the two ends of each interval."""
        assert self.calibration is not None, "sets need a calibration"
        assert self.sets is not None, "sets have a level"
        logits = self.logits(outputs).astype(np.float64)
        if not self.task.has_classes:
            low, high = self.calibration.intervals(logits, self.sets)
            pairs = np.stack([low, high], 2).tolist()
            return [tuple(row[0]) if len(row) == 1 else tuple(map(tuple, row)) for row in pairs]
        chosen, order = self.calibration.sets(self.task, logits, self.sets), np.argsort(-logits, axis=1, kind="stable")
        return [tuple(self.labels[int(k)] for k in likely if row[k]) for row, likely in zip(chosen, order, strict=True)]

    def top_labels(self, outputs: Array) -> list[list[tuple[Any, float]]]:
        """Return the likeliest classes of each row with their probabilities, the likeliest first."""
        shares = self.task.probabilities(self.logits(outputs).astype(np.float64))
        assert shares is not None, "a task without probabilities has been refused"
        order = np.argsort(-shares, axis=1, kind="stable")[:, : self.top]
        found = np.take_along_axis(shares, order, 1).astype(np.float32)
        return [
            [(self.labels[k], share) for k, share in zip(*row, strict=True)] for row in zip(order.tolist(), found.tolist(), strict=True)
        ]

    def ood_scores(self, outputs: Array) -> Array:
        """Return how unlike the data of the calibration each row is, float32 ``(n,)``."""
        assert self.calibration is not None, "scores of outliers need a calibration"
        return self.calibration.outliers(outputs[:, self.outputs :])

    def probabilities(self, outputs: Array) -> Array:
        """Return the probabilities for outputs, float32; for words an array of arrays.

        Raises:
            OptionError: If the task has none.
        """
        logits = self.logits(outputs)
        found = self.task.probabilities(logits if logits.dtype == object else logits.astype(np.float64))
        if found is None:
            raise OptionError(f"the task is {self.task.words}, which has no probabilities; use predict()")
        return found if found.dtype == object else np.asarray(found, dtype=np.float32)


def decoder_of(
    model: TaskModel,
    thresholds: Wanted | None = None,
    *,
    sets: float | None = None,
    ood: bool = False,
    top: int | None = None,
    predicts: bool = True,
) -> Decoder:
    """Return the decoder of a model with its own calibration and thresholds, or with the thresholds that are given.

    Args:
        model: The model.
        thresholds: One for all labels, one per label, or some by label; None takes those of the model.
        sets: How often a prediction set is to hold the truth; None for no sets.
        ood: Whether outputs have pooled features behind the logits.
        top: How many of the likeliest classes are wanted; None for no such list.
        predicts: Whether outputs of the head are wanted, of which a random one is warned of.

    Raises:
        OptionError: If the thresholds or ``top`` do not fit the model or its task, or it is not calibrated, or on too few samples.
    """
    if model.has_random_head and predicts:
        log.warning("%s: %s", model.spec.name, model.random_head_warning)
    task, labels = find_task(model.task), model.labels or range(model.num_classes)
    own = model.thresholds if task.thresholded else None
    wanted = own if thresholds is None else check_thresholds(task, thresholds, list(map(str, labels)), own)
    calibration = model.calibration and current_calibration(model.calibration, model.head)
    if calibration is None and (sets is not None or ood):
        asked = "prediction sets (sets)" if sets is not None else "scores of outliers (ood)"
        remedy = "calibrate it on held-out data first: model.calibrate(data), or: zoo calibrate MODEL DATA"
        if isinstance(model, Ensemble):
            remedy = "an ensemble takes none: calibrate a member, or one model distilled from it (--objective distill)"
        raise OptionError(f"{asked} need a calibration, which the model has not; {remedy}")
    if sets is not None and calibration is not None:
        check_level(sets, calibration.labelled)
    if ood and calibration is not None and calibration.neighbours is None:
        raise needs_more(calibration.samples)
    if top is not None:
        top = _checked_top(top, task, model.num_classes)
    return Decoder(task, labels, model.num_classes, wanted, calibration, sets, ood, top)


def _checked_top(top: Any, task: Task, classes: int) -> int:
    """Return how many of the likeliest classes are given: all of them where more are wanted, with a warning."""
    if isinstance(task, SeveralTasks) or task.per_token or type(task).probabilities is Task.probabilities:
        raise OptionError(f"top={top!r} (--top): the task is {task.words}, which has no likeliest classes of an input; leave it out")
    if not is_whole(top) or top < 1:
        raise OptionError(f"top={top!r} (--top): give a whole number from 1 to {classes}, as the model has {count(classes, 'class')}")
    if top > classes:
        log.warning("top=%d (--top): the model has %s, and all of them are given", top, count(classes, "class"))
    return min(int(top), classes)
