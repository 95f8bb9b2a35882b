"""All that an evaluation measures: metrics of the task, the user's own, a sensitivity, and confidence intervals."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from zoo.data.split import normal_group
from zoo.data.table import Table
from zoo.engine.inference.confidence_intervals import check_level, check_specificity, sensitivity_at_specificity
from zoo.engine.inference.confidence_intervals import intervals as bootstrap
from zoo.engine.inference.result_columns import Decoder
from zoo.engine.options.own_parts import own_metrics, take_own_parts
from zoo.errors import OptionError, fault_list
from zoo.tasks.find import find_task
from zoo.tasks.task import Task
from zoo.tasks.thresholds import moved

log = logging.getLogger("zoo")


class WantedMetrics(NamedTuple):
    """What is measured beside the metrics of the task.

    Attributes:
        metrics: The user's own metrics.
        intervals: Share that confidence intervals cover, or None.
        specificity: Specificity at which the sensitivity is wanted, or None.
    """

    metrics: Mapping[str, Any]
    intervals: float | None
    specificity: float | None


def wanted_metrics(task: str, metrics: Any, intervals: float | None, specificity: float | None) -> WantedMetrics:
    """Return what is measured, checked against the task.

    Raises:
        OptionError: If a function cannot be used, or the task has no such intervals or no specificity.
    """
    faults: list[str] = []
    own = take_own_parts({"metrics": metrics}, find_task(task), faults)
    if faults:
        raise OptionError(fault_list("these parts cannot be used:", faults))
    if intervals is not None:
        check_level(task, intervals)
    if specificity is not None:
        check_specificity(task, specificity)
    return WantedMetrics(own.metrics, intervals, specificity)


def measure(wanted: WantedMetrics, decoder: Decoder, table: Table, logits: Any, *, turned: bool) -> dict[str, float]:
    """Return all metrics of the samples that were read; ``turned`` means that the first of two classes is the positive one."""
    task, classes, targets = decoder.task, table.classes, np.asarray(table.targets)
    found = compute_metrics(task, logits, targets, classes, decoder.thresholds)
    found |= own_metrics(wanted.metrics, task, logits, targets, thresholds=decoder.thresholds)
    if turned:  # metrics above do not depend on the order
        logits, targets, classes = logits[:, ::-1], 1 - targets, classes[::-1]
    if wanted.specificity is not None:
        found |= _sensitivity(task.name, logits, targets, wanted.specificity, classes)
    if wanted.intervals is not None:
        drawn: dict[str, Any] = {"groups": drawn_groups(table), "level": wanted.intervals, "specificity": wanted.specificity}
        found |= bootstrap(task.name, logits, targets, thresholds=decoder.thresholds, **drawn)
    return found


def _sensitivity(task: str, logits: Any, targets: Any, specificity: float, classes: Sequence[str]) -> dict[str, float]:
    """Return the sensitivity at a specificity, of two classes for the last one; empty where it is undefined."""
    if len(classes) == 2:
        log.info("sensitivity is that for %r (positive=… names another class)", classes[1])
    value = sensitivity_at_specificity(task, logits, targets, specificity)
    return {} if value is None else {"sensitivity_at_specificity": value}


def drawn_groups(table: Table) -> list[str] | None:
    """Return the group of each sample in the form that is compared; None if the table has none."""
    if table.groups is None:
        log.info("%s has no groups (patients): the intervals draw samples as if each came from another", table.source)
        return None
    return [normal_group(group) for group in table.groups]


def compute_metrics(
    task: Task,
    logits: npt.NDArray[Any],
    targets: npt.NDArray[Any],
    classes: Sequence[str] = (),
    thresholds: Sequence[float] | None = None,
) -> dict[str, float]:
    """Return the metrics of a task; one that the data leave undefined (no positive, one class only) is left out.

    Args:
        task: The task.
        logits: ``(n, outputs)``; for a regression the outputs in the targets' unit; for words an array of n arrays.
        targets: One row per sample.
        classes: Names of the classes.
        thresholds: Probability above which each label is predicted; None for one half.
    """
    logits, targets = logits if logits.dtype == object else np.asarray(logits, dtype=np.float64), np.asarray(targets)
    found = task.metrics(logits, targets, classes)
    if thresholds is not None:
        decided = task.metrics(moved(logits, thresholds), targets, classes)
        found |= {name: decided[name] for name in task.thresholded if name in decided}
    return found
