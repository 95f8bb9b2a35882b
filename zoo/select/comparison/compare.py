"""Comparison of finished runs and cross-validations."""

from __future__ import annotations

import itertools
import logging
import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from zoo.engine.inference.confidence_intervals import LEVEL
from zoo.engine.inference.metrics import drawn_groups
from zoo.engine.options.model_selection import resolve_monitor
from zoo.errors import OptionError, SavedModelError, examples, fault_list
from zoo.saved.config import read_config
from zoo.select.comparison.entries import Entry, differences, read_entry
from zoo.select.comparison.paired import Pair, Predictions, by_folds, by_samples, has_draws, judged, level_for
from zoo.select.crossval.held_out import Array, HeldOut, read_outputs
from zoo.select.crossval.resampled import LEAST, Summary
from zoo.select.merging.candidates import score_of
from zoo.tasks.find import find_task
from zoo.tasks.task import Task
from zoo.tasks.thresholds import USUAL
from zoo.trust.metric_table import METRICS, Metric, find_metrics
from zoo.util.numbers import score_text

log = logging.getLogger("zoo")


@dataclass(frozen=True)
class Comparison:
    """The result of ``compare``.

    Attributes:
        entries: What was compared.
        metric: The metric of the tests.
        settings: Settings that differ, with the value of each entry.
        scores: The metric of each entry, with its interval where there is one.
        pairs: A test for every two entries.
    """

    entries: tuple[Entry, ...]
    metric: str
    settings: dict[str, list[str]]
    scores: tuple[Summary, ...]
    pairs: tuple[Pair, ...]

    def verdict(self, pair: Pair) -> str:
        """Return what a pair shows, in one sentence."""
        first, second = self.entries[pair.first].name, self.entries[pair.second].name
        if math.isnan(pair.low):
            return f"{first} and {second} cannot be tested: {pair.note}"
        p = "" if math.isnan(pair.p) else f", p {pair.p:.2g}"
        by, low, high = (f"{'+' * (value >= 0)}{score_text(self.metric, value)}" for value in (pair.difference, pair.low, pair.high))
        values = f"difference {by} [{low}, {high}]{p}; {pair.test}, {pair.note}"
        if pair.better is None:
            return f"{first} and {second} cannot be told apart by {self.metric}: {values}"
        other = second if pair.better == pair.first else first
        return f"{self.entries[pair.better].name} is better than {other} by {self.metric}: {values}"


def compare(*runs: str | Path, test: Any = None, metric: str | None = None, **options: Any) -> Comparison:
    """Compare finished runs and cross-validations: what they differ in, their scores, and whether these can be told apart.

    Cross-validations on the same folds, three or more, are compared by the corrected resampled t (Nadeau and Bengio 2003). With ``test``,
    on other folds of the same samples, and with two folds, the difference of the predictions is drawn 1000 times (bootstrap), beside
    McNemar's test for accuracy.
    With more than two entries, p-values and intervals are adjusted for the number of pairs.

    Args:
        *runs: Folders of runs or cross-validations, two or more.
        test: Labelled data that all of them predict, also called ``on``; None takes the out-of-fold predictions.
        metric: The metric of the tests, also one that is measured on request; None for that of the first entry.
        **options: As for ``evaluate``, with ``test``.

    Raises:
        OptionError: For fewer than two runs, one that is given twice, other tasks, or a metric that the task does not have.
        SavedModelError: If a folder holds no finished run.
    """
    if len(runs) < 2:
        raise OptionError(f"compare takes two runs or more, and {len(runs)} is given")
    places = [Path(run).resolve() for run in runs]
    if twice := dict.fromkeys(str(run) for run, place in zip(runs, places, strict=True) if places.count(place) > 1):
        raise OptionError(f"compare takes different runs, and {', '.join(map(repr, twice))} is given more than once")
    if "on" in options and test is not None:
        raise OptionError("test and on are the same data, and both are given; leave on= out")
    test = options.pop("on", test)
    if options and test is None:
        raise OptionError(f"{', '.join(options)}: options of the evaluation on data; give test=… (--test)")
    entries = tuple([read_entry(run) for run in runs])
    if faults := [f"of {entry.name} it is {find_task(entry.task).words}" for entry in entries if entry.task != entries[0].task]:
        ours = f"the task of {entries[0].name} is {find_task(entries[0].task).words}"
        raise OptionError(fault_list(f"{ours}, and others cannot be compared with it:", faults))
    task = find_task(entries[0].task)
    own = [name for entry in entries for name in entry.scores]
    wanted = metric or entries[0].monitor
    more = {} if wanted in task.monitors else _on_request(task, wanted, own)
    metric = resolve_monitor(wanted, task, [*own, *more], name="metric")
    found = [(None, None) if test is None else _evaluated(entry, test, options, metric, more) for entry in entries]
    predictions = [one for one, _ in found]
    scores = [_score(entry, metrics, metric) for entry, (_, metrics) in zip(entries, found, strict=True)]
    couples = list(itertools.combinations(range(len(entries)), 2))
    level = level_for(len(couples))
    tests = [{"first": a, "second": b} | _tested(entries, predictions, (a, b), metric, level=level, more=more) for a, b in couples]
    lower = more[metric].lower if metric in more else metric in task.lower_is_better
    pairs = judged(tests, lower=lower)
    return Comparison(entries, metric, differences(entries), tuple(scores), tuple(pairs))


def _on_request(task: Task, metric: str, own: Collection[str]) -> dict[str, Metric]:
    """Return a metric of the table of metrics; nothing for tasks without, and for one of the user's own, which only the runs have measured.

    Raises:
        OptionError: If there is none of this name.
    """
    try:
        return find_metrics(task.name, [metric]) if task.name in METRICS else {}
    except OptionError:
        if metric in own:
            return {}
        raise


def _evaluated(
    entry: Entry, data: Any, options: dict[str, Any], metric: str, more: Mapping[str, Metric]
) -> tuple[Predictions, dict[str, float]]:
    """Return the predictions of a run for data, and their metrics with intervals.

    Raises:
        SavedModelError: If the data leave the metric undefined.
    """
    from zoo.saved.load import load

    model = load(entry.folder)
    level = LEVEL if has_draws(entry.task) else None
    found = model.evaluate(data, intervals=level, **{**({"metrics": list(more)} if more else {}), **options})
    if metric in {*find_task(entry.task).monitors, *more}:
        score_of(found, metric, entry.folder)
    thresholds = None if found.thresholds is None else np.asarray(found.thresholds)
    return Predictions(entry.task, found.outputs, np.asarray(found.table.targets), drawn_groups(found.table), thresholds), dict(found)


def _score(entry: Entry, metrics: dict[str, float] | None, metric: str) -> Summary:
    if metrics is None:
        return entry.scores.get(metric, Summary(math.nan, math.nan, math.nan, math.nan, 0))
    ends = [metrics.get(f"{metric}_{end}", math.nan) for end in ("low", "high")]
    return Summary(metrics.get(metric, math.nan), ends[0], ends[1], math.nan, 1)


def _tested(
    entries: Sequence[Entry],
    predictions: Sequence[Predictions | None],
    pair: tuple[int, int],
    metric: str,
    *,
    level: float,
    more: Mapping[str, Metric],
) -> dict[str, Any]:
    first, second = (entries[place] for place in pair)
    one, other = (predictions[place] for place in pair)
    if one is not None and other is not None:
        if not np.array_equal(one.targets, other.targets, equal_nan=one.targets.dtype.kind == "f"):
            return {"note": "they could not read the same samples, or have their classes in another order"}
        return by_samples(one, other, metric, level=level, more=more)
    if first.folds is None or second.folds is None:
        return {"note": "there are no predictions for the same samples; give data that all predict: test=… (--test DATA)"}
    if first.data != second.data:
        return {"note": "they were made on different data; give data that all predict: test=… (--test DATA)"}
    enough = len(first.folds.folds) >= LEAST or not has_draws(first.task)  # of two folds the t-test says next to nothing
    if enough and first.division == second.division and metric in first.scores and metric in second.scores:
        return by_folds(first.folds, second.folds, metric, level=level)
    found = by_samples(*_aligned(first, second), metric, level=level, more=more)
    repeated = " of the first repeat" if any(fold.repeat for cv in (first.folds, second.folds) for fold in cv.folds) else ""
    return found | {"note": f"{found['note']}, out of {'the same' if first.division == second.division else 'other'} folds{repeated}"}


def _out_of_fold(entry: Entry) -> tuple[Any, Predictions]:
    """Return the rows that were held out first, in order, and the predictions for them, each with the thresholds of its fold.

    Raises:
        SavedModelError: If the outputs of a fold are missing.
    """
    assert entry.folds is not None, "it is a cross-validation"
    folders = [entry.folder / fold.folder for fold in entry.folds.folds if fold.repeat == 0]
    parts = [read_outputs(folder) for folder in folders]
    if missing := [str(folder) for folder, part in zip(folders, parts, strict=True) if part is None]:
        raise SavedModelError(f"{examples(missing)}: the predictions are missing; cross-validate again, or give data: test=… (--test)")
    known = [part for part in parts if part is not None]
    rows = np.concatenate([part.rows for part in known])
    order = np.argsort(rows, kind="stable")
    outputs, targets = (np.concatenate([getattr(part, name) for part in known])[order] for name in ("outputs", "targets"))
    grouped = all(part.groups is not None for part in known)
    groups = np.concatenate([part.groups for part in known])[order].tolist() if grouped else None
    return rows[order], Predictions(entry.task, outputs, targets, groups, _thresholds(folders, known, order))


def _thresholds(folders: Sequence[Path], parts: Sequence[HeldOut], order: Array) -> Array | None:
    """Return the thresholds of the fold of each sample, ``(samples, labels)``; None where no fold has any."""
    chosen = [read_config(folder).zoo.thresholds for folder in folders]
    if not any(chosen):
        return None
    rows = [np.tile(each or [USUAL] * part.outputs.shape[1], (len(part.rows), 1)) for each, part in zip(chosen, parts, strict=True)]
    return np.asarray(np.concatenate(rows)[order])


def _aligned(first: Entry, second: Entry) -> tuple[Predictions, Predictions]:
    """Return the out-of-fold predictions of two cross-validations for the samples that both held out."""
    (rows, one), (others, other) = _out_of_fold(first), _out_of_fold(second)
    _, left, right = np.intersect1d(rows, others, return_indices=True)
    return one.select(left), other.select(right)
