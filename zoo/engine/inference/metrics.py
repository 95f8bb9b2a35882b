"""All that an evaluation measures: metrics of the task, those on request, the user's own, prediction sets, confidence intervals."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from zoo.data.splits.train_valid import normal_group
from zoo.data.table import Table
from zoo.engine.inference.confidence_intervals import check_level, check_specificity
from zoo.engine.inference.confidence_intervals import intervals as bootstrap
from zoo.engine.inference.decoding.decoder import Decoder
from zoo.engine.options.own_parts import own_metrics, take_own_parts
from zoo.errors import DataError, OptionError, count, examples, fault_message, refusals
from zoo.models.task_model import TaskModel
from zoo.tasks.find import find_task
from zoo.tasks.task import Task
from zoo.tasks.thresholds import moved
from zoo.trust import class_metrics, label_metrics
from zoo.trust.conformal import least_samples
from zoo.trust.metric_table import ALL, METRICS, Metric, find_metrics, metric_names
from zoo.trust.outcome import outcome_of

log = logging.getLogger("zoo")

FEW_GROUPS = 10  # below which a bootstrap of whole groups covers too little (Cameron, Gelbach and Miller 2008)
USUAL_LEVEL = 0.9  # of the sets whose coverage is measured where no level is given


@dataclass(frozen=True)
class WantedMetrics:
    """What is measured beside the metrics of the task.

    Attributes:
        metrics: The user's own metrics, and those asked for by name.
        intervals: Share that confidence intervals cover, or None.
        specificity: Specificity at which the sensitivity is wanted, or None.
        sensitivity: Sensitivity at which the specificity is wanted, or None.
        by_name: Names that were asked for one by one, those that are always measured too.
    """

    metrics: Mapping[str, Any]
    intervals: float | None = None
    specificity: float | None = None
    sensitivity: float | None = None
    by_name: tuple[str, ...] = ()

    @property
    def asked(self) -> list[str]:
        """Metrics that must have a value."""
        at = {"sensitivity_at_specificity": self.specificity, "specificity_at_sensitivity": self.sensitivity}
        return [*self.by_name, *(name for name, value in at.items() if value is not None)]

    def named(self, task: Task) -> dict[str, Metric]:
        """Return the metrics that are always measured, asked for by name, or given by ``specificity`` or ``sensitivity``."""
        found = {name: metric for name, metric in METRICS.get(task.name, {}).items() if name == "ece"}
        found |= {name: metric for name, metric in self.metrics.items() if isinstance(metric, Metric)}
        of_task = label_metrics if task.thresholded else class_metrics
        if self.specificity is not None:
            compute = of_task.sensitivity_at(self.specificity)
            found["sensitivity_at_specificity"] = Metric("sensitivity_at_specificity", "", compute)
        if self.sensitivity is not None:
            compute = of_task.specificity_at(self.sensitivity)
            found["specificity_at_sensitivity"] = Metric("specificity_at_sensitivity", "", compute)
        return found


def wanted_metrics(
    model: TaskModel, metrics: Any, *, intervals: float | None, specificity: float | None, sensitivity: float | None
) -> WantedMetrics:
    """Return what is measured, checked against the task.

    Raises:
        OptionError: If a metric is unknown or cannot be used, or the task has no such intervals or no specificity.
    """
    faults, by_name = list[str](), tuple[str, ...]()
    if isinstance(metrics, str | list | tuple | set) and all(isinstance(name, str) for name in metrics):
        own: dict[str, Any] = {}
        faults += refusals(lambda: own.update(find_metrics(model.task, metrics, model.num_classes)))
        by_name = tuple(name for name in metric_names(metrics) if name != ALL)
    else:
        own = dict(take_own_parts({"metrics": metrics}, find_task(model.task), faults).metrics)
    faults += [] if intervals is None else refusals(check_level, model.task, intervals)
    for name, value in (("specificity", specificity), ("sensitivity", sensitivity)):
        faults += [] if value is None else refusals(check_specificity, model.task, value, name)
    if faults:
        raise OptionError(fault_message("these metrics cannot be measured:", faults))
    return WantedMetrics(own, intervals, specificity, sensitivity, by_name)


def measure(wanted: WantedMetrics, decoder: Decoder, table: Table, outputs: Any, *, turned: bool) -> dict[str, float]:
    """Return all metrics of the samples that were read; ``turned`` means that the first of two classes is the positive one.

    Raises:
        DataError: If a metric that was asked for by name has no value on these data.
    """
    task, classes, targets = decoder.task, table.classes, np.asarray(table.targets)
    logits, named = decoder.logits(outputs), wanted.named(task)
    _warn_of_odd_values(logits, table)
    found = compute_metrics(task, logits, targets, classes, decoder.thresholds)
    own = {name: function for name, function in wanted.metrics.items() if name not in named}
    found |= own_metrics(own, task, logits, targets, thresholds=decoder.thresholds)
    found |= _calibrated_metrics(decoder, outputs, targets)
    if turned:  # metrics above do not depend on the order
        logits, targets, classes = logits[:, ::-1], 1 - targets, classes[::-1]
    if len(classes) == 2 and (wanted.specificity is not None or wanted.sensitivity is not None):
        log.info("sensitivity and specificity are those for %r; positive=… (--positive) names the other class", classes[1])
    values = {name: metric.value(task, logits, targets, decoder.thresholds) for name, metric in named.items()}
    if odd := [name for name, value in values.items() if name in wanted.metrics and not np.isfinite(value)]:
        log.warning("metrics: undefined on these data and left out: %s", ", ".join(odd))
    found |= {name: value for name, value in values.items() if np.isfinite(value)}
    _check_asked(wanted, found, table, finite=logits.dtype == object or bool(np.isfinite(logits).all()))
    if wanted.intervals is not None:
        drawn: dict[str, Any] = {"groups": drawn_groups(table), "level": wanted.intervals}
        drawn["more"] = {name: metric for name, metric in named.items() if metric.drawn}
        found |= bootstrap(task.name, logits, targets, thresholds=decoder.thresholds, **drawn)
    return found


def _check_asked(wanted: WantedMetrics, found: Mapping[str, float], table: Table, *, finite: bool) -> None:
    """Check that what was asked for by name has a value; outputs that are not finite, which take it away, are warned of.

    Raises:
        DataError: With the classes that the data have, and the remedy.
    """
    missing = [name for name in dict.fromkeys(wanted.asked) if name not in found]
    if missing and finite:
        present = [f"{name!r} ({number})" for name, number in table.counts().items() if number]
        what = f", which have {examples(present)}" if present else ""
        remedy = "take data that have every class, or ask for another metric (--metrics)"
        raise DataError(f"{table.source}: {', '.join(missing)} cannot be measured on these data{what}; {remedy}")


def _warn_of_odd_values(logits: Any, table: Table) -> None:
    """Warn of samples whose outputs are NaN or infinite, which make most metrics undefined."""
    if logits.dtype == object:  # words beyond the maximum length have NaN
        return
    if odd := int((~np.isfinite(logits)).any(1).sum()):
        log.warning("%s: the model's outputs for %s of %d are not finite", table.source, count(odd, "sample"), len(logits))


def _calibrated_metrics(decoder: Decoder, outputs: Any, targets: npt.NDArray[Any]) -> dict[str, float]:
    """Return what the calibration of a model was good for: the calibration error without it, coverage and size of its sets."""
    calibration, task = decoder.calibration, decoder.task
    if calibration is None:
        return {}
    found = {}
    if "ece" in METRICS[task.name] and np.isfinite(before := METRICS[task.name]["ece"].value(task, outputs, targets)):
        found["ece_uncalibrated"] = before
    level = decoder.sets or (USUAL_LEVEL if calibration.labelled >= least_samples(USUAL_LEVEL) else None)
    logits = decoder.logits(outputs)
    if level is None or not np.isfinite(logits).all():
        return found
    log.info("coverage is that of the prediction sets of level %g", level)
    return found | calibration.measured(task, outcome_of(task, logits, targets, decoder.thresholds), level)


def drawn_groups(table: Table) -> list[str] | None:
    """Return the group of each sample in the form that is compared; None if the table has none."""
    if table.groups is None:
        log.info("%s has no groups (patients): the intervals draw samples as if each came from another", table.source)
        return None
    found = [normal_group(group) for group in table.groups]
    if (number := len(set(found))) < FEW_GROUPS:
        line = "%s has %s: intervals drawn from so few are too narrow; take more groups, or cross-validate with as many folds (zoo cv)"
        log.warning(line, table.source, count(number, "group"))
    return found


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
