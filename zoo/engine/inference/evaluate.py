"""Evaluation of a model on labelled data."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any

import numpy as np
import numpy.typing as npt

from zoo.data.open import open_data
from zoo.data.split import normal_group
from zoo.data.table import Table
from zoo.engine.distributed.ranks import Ranks
from zoo.engine.distributed.rendezvous import joined
from zoo.engine.inference.all_outputs import TIMEOUT, AllOutputs, check_same_inputs, run_whole
from zoo.engine.inference.confidence_intervals import check_level, check_specificity, sensitivity_at_specificity
from zoo.engine.inference.confidence_intervals import intervals as bootstrap
from zoo.engine.inference.evaluation import Evaluation
from zoo.engine.inference.inference_options import BATCH_SIZE, InferenceOptions, inputs_in_use
from zoo.engine.inference.result_columns import decoder_of
from zoo.engine.loading.sources import channels_of, check_targets, reads
from zoo.engine.options.own_parts import own_metrics, take_own_parts
from zoo.engine.runtime.signals import StopFlag, Stopped, stop_signals
from zoo.errors import InterruptedRunError, OptionError, did_you_mean, fault_list
from zoo.models.task_model import TaskModel
from zoo.tasks.find import find_task
from zoo.tasks.task import Task
from zoo.tasks.thresholds import Wanted, moved

log = logging.getLogger("zoo")

_NONE: Mapping[str, str | Sequence[str]] = MappingProxyType({})


def evaluate(
    model: TaskModel,
    data: Any,
    *,
    split: str | None = None,
    columns: Mapping[str, str | Sequence[str]] = _NONE,
    label_columns: Sequence[str] = (),
    uncertain: str | None = None,
    root: str | os.PathLike[str] | None = None,
    intervals: float | None = None,
    specificity: float | None = None,
    positive: str | None = None,
    window: tuple[float, float] | None = None,
    overflow: str | None = None,
    image_size: int | tuple[int, int] | None = None,
    drop_other_classes: bool = False,
    metrics: Mapping[str, Callable[..., Any]] | None = None,
    thresholds: Wanted | None = None,
    batch_size: int = BATCH_SIZE,
    workers: int | None = None,
    device: str = "auto",
    precision: str = "auto",
    on_error: str = "stop",
    quiet: bool = True,
) -> Evaluation:
    """Return the metrics of the model's task on labelled data.

    All processes of a launcher share the data, and each returns the metrics of all; every one of them must call it.

    single-label: loss, accuracy, balanced_accuracy, macro_f1, auroc, and majority, the accuracy of always naming the most
    frequent class. multi-label: loss, map, macro_f1, micro_f1, auroc. regression: mae, rmse, r2. Metrics that the data
    leave undefined are omitted. token-classification: loss, f1, precision and recall by entity, accuracy by word.

    Args:
        model: The model.
        data: Any source with labels, see ``zoo.data.open.open_data``.
        split: Only this split of the data.
        columns: Own names of the columns of a table.
        label_columns: Columns that hold the labels, one per class.
        uncertain: What a label of -1 counts as: ``mask``, ``positive`` or ``negative``; None refuses it.
        root: Folder of the files that a table names.
        intervals: Share that a confidence interval covers, such as 0.95: adds ``auroc_low`` and ``auroc_high``, and so on for
            every metric, from 1000 draws of whole groups (patients) where the data have groups, else of samples.
        specificity: Adds ``sensitivity_at_specificity``, the sensitivity at this specificity, such as 0.95.
        positive: Of two classes the one that ``sensitivity_at_specificity`` is about; the last one where None.
        window: Centre and width through which scans are shown, where it differs from the model's.
        overflow: What becomes of texts that are too long, where it differs from the model's: ``truncate``, ``error`` or ``windows``.
        image_size: Height and width in pixels, where they differ from the model's; one number means a square.
        drop_other_classes: Leave out the samples whose label is none of the model's, instead of refusing them.
        metrics: Functions of your own by name, as for ``fit``.
        thresholds: Multi-label: probability above which labels are predicted, one for all, one per label, or by label; None takes
            those of the model. They count for macro_f1 and micro_f1.
        batch_size: Samples per forward.
        workers: Loader processes; None chooses.
        device: ``auto``, ``cpu``, ``cuda`` or ``mps``.
        precision: ``auto`` (bf16 on GPUs that have it), ``fp32`` or ``bf16``.
        on_error: At an input that cannot be read, ``stop`` with an error, or ``skip`` it: it counts in no metric.
        quiet: Show no progress.

    Returns:
        The metrics, a dict that also has ``predictions()``, ``confusion()``, ``per_class()`` and ``mistakes()``.

    Raises:
        DataError: If the data have no labels, or labels outside the model's.
        OptionError: If ``intervals`` or ``specificity`` is out of range, or the task has none.
    """
    own = _checked_metrics(model, metrics, intervals, specificity)
    decoder = decoder_of(model, thresholds)
    options = InferenceOptions(
        window=window,
        overflow=overflow,
        image_size=image_size,
        batch_size=batch_size,
        workers=workers,
        device=device,
        precision=precision,
        on_error=on_error,
        quiet=quiet,
    )
    opening: dict[str, Any] = {"split": split, "columns": columns, "label_columns": label_columns, "uncertain": uncertain, "root": root}
    opening |= {"drop_other_classes": drop_other_classes, "keep_unreadable": options.skip}
    with joined(device, TIMEOUT) as ranks:
        with ranks.together():
            table = open_data(
                data, labelled=True, task=model.task, classes=model.labels, reads=reads(model), channels=channels_of(model), **opening
            )
            check_targets(model, table)
            inputs_in_use(model, table, options)
            turned = positive is not None and _turned(model, table.classes, positive)
        check_same_inputs(ranks, table)
        done = _run(model, table, options, ranks)
    found, used = Evaluation({}, decoder, table, done.values, done.errors), table
    logits, targets = done.values, np.asarray(table.targets)
    if done.errors:
        logits, targets, used = logits[found.rows], targets[found.rows], table.select(found.rows)
    found |= compute_metrics(decoder.task, logits, targets, table.classes, decoder.thresholds)
    found |= own_metrics(own, decoder.task, logits, targets, thresholds=decoder.thresholds)
    if turned:  # metrics above do not depend on the order
        logits, targets = logits[:, ::-1], 1 - targets
    if specificity is not None:
        found |= _sensitivity(model.task, logits, targets, specificity, table.classes[::-1] if turned else table.classes)
    if intervals is not None:
        drawn: dict[str, Any] = {"groups": _groups(used), "level": intervals, "specificity": specificity}
        found |= bootstrap(model.task, logits, targets, thresholds=decoder.thresholds, **drawn)
    return found


def _checked_metrics(model: TaskModel, metrics: Any, intervals: float | None, specificity: float | None) -> Mapping[str, Any]:
    """Return the user's own metrics, after all that is measured was checked against the task.

    Raises:
        OptionError: If a function cannot be used, or the task has no such intervals or no specificity.
    """
    faults: list[str] = []
    own = take_own_parts({"metrics": metrics}, find_task(model.task), faults)
    if faults:
        raise OptionError(fault_list("these parts cannot be used:", faults))
    if intervals is not None:
        check_level(model.task, intervals)
    if specificity is not None:
        check_specificity(model.task, specificity)
    return own.metrics


def _run(model: TaskModel, table: Table, options: InferenceOptions, ranks: Ranks) -> AllOutputs:
    """Return the outputs for all rows, of which each rank computes a share.

    Raises:
        InterruptedRunError: If several ranks were stopped by a signal; a single process ends as any program does.
    """
    if ranks.count == 1:
        return run_whole(model, table, model, options)
    with stop_signals() as stop:

        def poll() -> None:
            stop.poll()
            ranks.heed()

        try:
            return run_whole(model, table, model, options, ranks, poll)
        except Stopped:
            signal = StopFlag()
            signal.signum = max(ranks.gather(stop.signum))
            error = InterruptedRunError(f"stopped by {signal.name}; nothing was written")
            error.exit_code = signal.exit_code
            raise ranks.known(error) from None


def _sensitivity(task: str, logits: Any, targets: Any, specificity: float, classes: Sequence[str]) -> dict[str, float]:
    """Return the sensitivity at a specificity, of two classes for the last one; empty where it is undefined."""
    if len(classes) == 2:
        log.info("sensitivity is that for %r (positive=… names another class)", classes[1])
    value = sensitivity_at_specificity(task, logits, targets, specificity)
    return {} if value is None else {"sensitivity_at_specificity": value}


def _turned(model: TaskModel, classes: tuple[str, ...], positive: str) -> bool:
    """Return whether the first of two classes is the positive one.

    Raises:
        OptionError: If there are not two classes, or none of them has this name.
    """
    if not find_task(model.task).exclusive or len(classes) != 2:
        raise OptionError(f"positive is for two classes; the task is {model.task} with {len(classes)} classes")
    if positive not in classes:
        raise OptionError(f"positive is {positive!r}{did_you_mean(positive, classes)}; the classes are: {', '.join(classes)}")
    return positive == classes[0]


def _groups(table: Table) -> list[str] | None:
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
