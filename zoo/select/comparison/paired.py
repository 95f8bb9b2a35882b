"""Paired tests of two models: on the folds of a cross-validation, or on predictions for the same samples."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import numpy as np
import numpy.typing as npt

from zoo.engine.inference.confidence_intervals import LEVEL, drawn_metrics, interval_of, weighted_metrics
from zoo.errors import DataError
from zoo.select.crossval.resampled import holm, paired_test
from zoo.select.crossval.result import CrossValidation
from zoo.tasks.find import find_task
from zoo.tasks.task import Task
from zoo.trust.metric_table import Metric, ends_of

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class Predictions:
    """Outputs of one model for samples that others predict as well.

    Attributes:
        task: Name of the task.
        outputs: A row per sample.
        targets: Their targets.
        groups: Group of each sample, or None.
        thresholds: Probability above which each label is predicted, ``(labels,)``, or ``(samples, labels)`` where it differs between
            samples, such as those of several folds; None for one half.
    """

    task: str
    outputs: Array
    targets: Array
    groups: Sequence[str] | None = None
    thresholds: Array | None = None

    def select(self, places: Array) -> Predictions:
        """Return the predictions at some places."""
        groups = None if self.groups is None else [self.groups[place] for place in places]
        thresholds = self.thresholds[places] if self.thresholds is not None and self.thresholds.ndim == 2 else self.thresholds
        return Predictions(self.task, self.outputs[places], self.targets[places], groups, thresholds)


@dataclass(frozen=True)
class Pair:
    """The comparison of two entries.

    Attributes:
        first: Position of the first.
        second: Position of the second.
        difference: Metric of the first minus that of the second; NaN where it could not be tested.
        low: Lower end of its interval.
        high: Upper end.
        p: Two-sided p-value, adjusted for the number of pairs (Holm 1979); NaN without a test that gives one.
        test: Name of the test; empty where none could be made.
        better: Position of the better one; None where they cannot be told apart.
        note: Why there is no test, or what the numbers rest on.
    """

    first: int
    second: int
    difference: float = math.nan
    low: float = math.nan
    high: float = math.nan
    p: float = math.nan
    test: str = ""
    better: int | None = None
    note: str = ""


def by_folds(first: CrossValidation, second: CrossValidation, metric: str, *, level: float = LEVEL) -> dict[str, Any]:
    """Return the corrected resampled t-test on the same folds as fields of a ``Pair``."""
    found = paired_test(first.values(metric), second.values(metric), first.ratio, level=level, ends=ends_of(metric))
    return {
        "difference": found.difference,
        "low": found.low,
        "high": found.high,
        "p": found.p,
        "test": "corrected resampled t",
        "note": f"{found.folds} folds",
    }


def by_samples(
    first: Predictions, second: Predictions, metric: str, *, level: float = LEVEL, more: Mapping[str, Metric] = MappingProxyType({})
) -> dict[str, Any]:
    """Return the bootstrap of the difference on the same samples, and for accuracy McNemar's test, as fields of a ``Pair``.

    Args:
        first: Predictions of the one model.
        second: Predictions of the other for the same samples.
        metric: The metric.
        level: Share that the interval covers.
        more: Metrics on request, of which ``metric`` may be one.
    """
    asked = {name: one for name, one in more.items() if one.drawn}
    if not has_draws(first.task):
        return {"note": f"the task is {find_task(first.task).words}, which has no metrics of single samples, as a bootstrap needs"}
    try:
        drawn = [
            drawn_metrics(first.task, one.outputs, one.targets, groups=first.groups, thresholds=one.thresholds, more=asked)
            for one in (first, second)
        ]
    except DataError as error:
        return {"note": str(error)}
    if metric not in drawn[0]:
        return {"note": f"{metric!r} has no interval; those that have one are: {', '.join(drawn[0])}"}
    low, high = interval_of(drawn[0][metric] - drawn[1][metric], level) or (math.nan, math.nan)
    whole = [drawn_once(one, metric, asked) for one in (first, second)]
    units = "samples" if first.groups is None else "groups"
    count = len(first.outputs) if first.groups is None else len(set(first.groups))
    found = {"difference": whole[0] - whole[1], "low": low, "high": high, "test": "bootstrap", "note": f"{count} {units}"}
    if metric == "accuracy" and find_task(first.task).exclusive and first.groups is None:
        right = [one.outputs.argmax(1) == one.targets for one in (first, second)]
        found |= {"p": mcnemar(right[0], right[1]), "test": "bootstrap, McNemar"}
    return found


def has_draws(task: str) -> bool:
    """Return whether a task has metrics of single samples, which a bootstrap needs."""
    return type(find_task(task)).weighted_metrics is not Task.weighted_metrics


def drawn_once(one: Predictions, metric: str, more: Mapping[str, Metric] = MappingProxyType({})) -> float:
    """Return a metric of all samples."""
    weights = np.ones((1, len(one.outputs)))
    return float(weighted_metrics(one.task, one.outputs, one.targets, weights, thresholds=one.thresholds, more=more)[metric][0])


def mcnemar(first: Array, second: Array) -> float:
    """Return the exact two-sided p-value of McNemar's test (1947) for which samples two models are right about."""
    from scipy.special import bdtr  # type: ignore[import-untyped]  # ships no types

    only_first, only_second = int((first & ~second).sum()), int((second & ~first).sum())
    number = only_first + only_second
    return 1.0 if not number else min(1.0, 2.0 * float(bdtr(min(only_first, only_second), number, 0.5)))


def judged(pairs: Sequence[dict[str, Any]], *, lower: bool) -> list[Pair]:
    """Return pairs with p-values adjusted for their number, and which of each is better.

    A pair cannot be told apart if its interval holds zero, or its p-value is above 0.05.

    Args:
        pairs: Fields of ``Pair``; the intervals are of the level that ``level_for`` gives for their number.
        lower: Whether the lowest value of the metric is the best.
    """
    adjusted = holm([pair.get("p", math.nan) for pair in pairs])
    found = []
    for pair, p in zip(pairs, adjusted, strict=True):
        low, high = pair.get("low", math.nan), pair.get("high", math.nan)
        apart = not low <= 0.0 <= high and not math.isnan(low) and not (p > 1 - LEVEL)
        first_wins = (pair.get("difference", math.nan) > 0) != lower
        better = (pair["first"] if first_wins else pair["second"]) if apart else None
        found.append(Pair(**pair | {"p": p, "better": better}))
    return found


def level_for(pairs: int) -> float:
    """Return the level of each interval, so that all of them hold together (Bonferroni)."""
    return 1 - (1 - LEVEL) / max(1, pairs)
