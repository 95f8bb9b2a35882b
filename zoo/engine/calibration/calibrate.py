"""Calibration of a model: temperature, scores for prediction sets and features for outliers, measured on held-out data."""

from __future__ import annotations

import logging
import os
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import numpy as np

from zoo.data.splits.duplicates import samples_digest
from zoo.data.table import Table
from zoo.engine.inference.all_outputs import run_whole
from zoo.engine.inference.inference_options import InferenceOptions
from zoo.engine.inference.opening import open_labelled
from zoo.engine.loading.sources import table_digest
from zoo.errors import DataError, OptionError, count
from zoo.models.task_model import TaskModel
from zoo.tasks.find import find_task
from zoo.tasks.task import Task
from zoo.trust.calibrated import Calibration, calibrated
from zoo.trust.calibration import tempered_threshold
from zoo.trust.metric_table import METRICS
from zoo.trust.stale_calibration import head_digest

log = logging.getLogger("zoo")

FEW = 100  # samples below which a temperature is uncertain
SHOWN = ("loss", "ece", "brier")  # what a temperature changes
_NONE: Mapping[str, str | Sequence[str]] = MappingProxyType({})


@dataclass(frozen=True)
class Calibrated:
    """The result of a calibration.

    Attributes:
        samples: Number of held-out samples.
        temperature: Divisor of the logits; 1 for a regression.
        before: ``loss``, ``ece`` and ``brier`` on the held-out samples without the temperature; empty for a regression.
        after: The same with it, on the samples that chose it; ``evaluate`` on others tells what it is worth.
        highest_level: The highest level of prediction sets that so many samples with a label can give.
        ood: Whether there were enough samples for scores of outliers.
    """

    samples: int
    temperature: float
    before: dict[str, float]
    after: dict[str, float]
    highest_level: float
    ood: bool


def calibrate(
    model: TaskModel,
    data: Any,
    *,
    split: str | None = None,
    columns: Mapping[str, str | Sequence[str]] = _NONE,
    label_columns: Sequence[str] = (),
    uncertain: str | None = None,
    root: str | os.PathLike[str] | None = None,
    drop_other_classes: bool = False,
    **options: Any,
) -> Calibrated:
    """Calibrate a model on held-out data, in place: validation data, or better data that chose nothing.

    Afterwards probabilities are those of the logits divided by a temperature, ``predict(sets=0.9)`` gives prediction sets, and
    ``ood_score`` tells how unlike these data an input is. Predictions stay as they are: the thresholds of labels move with the
    temperature. ``save`` keeps it all; ``fit`` drops it.

    Args:
        model: The model; its ``calibration`` is replaced.
        data: Any source with labels, see ``zoo.data.open.open_data``.
        split: As for ``evaluate``.
        columns: As for ``evaluate``.
        label_columns: As for ``evaluate``.
        uncertain: As for ``evaluate``.
        root: As for ``evaluate``.
        drop_other_classes: As for ``evaluate``.
        **options: Fields of ``InferenceOptions``, as for ``evaluate``.

    Returns:
        What was found.

    Raises:
        OptionError: If the task has not one row of outputs per sample.
        DataError: If the data have no labels, or labels outside the model's.
    """
    task, chosen = find_task(model.task), InferenceOptions(**options)
    if model.task not in METRICS or task.per_token:
        raise OptionError(f"calibration is for tasks with one answer per sample; the task is {task.words}")
    opening: dict[str, Any] = {"columns": columns, "label_columns": label_columns, "uncertain": uncertain, "root": root}
    opening |= {"drop_other_classes": drop_other_classes, "default_split": "valid"}
    table = open_labelled(model, data, chosen, split=split, verb="calibrate the model", **opening)
    digest = table_digest(table)
    _warn(model, table, {digest, samples_digest(table)})
    with chosen.naming_skip():
        found = run_whole(model, table, model.outputs_and_features, chosen)
    good = [row for row in range(len(table)) if row not in found.errors]
    outputs, targets = found.values[good].astype(np.float64), np.asarray(table.select(good).targets)
    logits, features = outputs[:, : model.num_classes], outputs[:, model.num_classes :]
    if not np.isfinite(logits).all():
        raise DataError(f"{table.source}: the model's outputs are not finite; such a model cannot be calibrated")
    named = {"head": head_digest(model.head), "data": digest, "source": table.source}
    calibration = calibrated(task, logits, targets, features, **named)
    _move_thresholds(model, calibration)
    model.calibration = calibration
    return _result(task, calibration, logits, targets)


def _warn(model: TaskModel, table: Table, digests: Collection[str]) -> None:
    if any(digest in model.trained_on for digest in digests):
        log.warning(
            "%s: the model was trained on these data, on which it is surer and more often right than on others; "
            "its probabilities and sets will promise too much: calibrate on data that it has not seen",
            table.source,
        )
    if len(table) < FEW and find_task(model.task).has_classes:  # numbers have no temperature
        log.warning("%s has %s: a temperature from fewer than %d is uncertain", table.source, count(len(table), "sample"), FEW)


def _move_thresholds(model: TaskModel, calibration: Calibration) -> None:
    """Move the thresholds of labels so that they decide on the new probabilities as they did on those before."""
    if model.thresholds is not None:
        ratio = calibration.temperature / (model.calibration.temperature if model.calibration else 1.0)
        model.thresholds = tuple(tempered_threshold(threshold, ratio) for threshold in model.thresholds)


def _result(task: Task, calibration: Calibration, logits: Any, targets: Any) -> Calibrated:
    def measured(values: Any) -> dict[str, float]:
        if not task.has_classes:
            return {}
        found = task.metrics(values, targets, ()) | {
            name: METRICS[task.name][name].value(task, values, targets) for name in SHOWN if METRICS[task.name][name].compute
        }
        return {name: found[name] for name in SHOWN if name in found}

    return Calibrated(
        samples=calibration.samples,
        temperature=calibration.temperature,
        before=measured(logits),
        after=measured(calibration.logits(logits)),
        highest_level=calibration.labelled / (calibration.labelled + 1),
        ood=calibration.neighbours is not None,
    )
