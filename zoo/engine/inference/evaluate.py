"""Evaluation of a model on labelled data."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from types import MappingProxyType
from typing import Any

from zoo.data.table import Table
from zoo.data.unreadable_input import SKIPPED
from zoo.engine.distributed.ranks import Ranks
from zoo.engine.distributed.rendezvous import joined
from zoo.engine.inference.all_outputs import TIMEOUT, AllOutputs, check_same_inputs, run_whole
from zoo.engine.inference.decoding.decoder import Decoder, decoder_of
from zoo.engine.inference.evaluation import Evaluation
from zoo.engine.inference.inference_options import BATCH_SIZE, InferenceOptions
from zoo.engine.inference.metrics import measure, wanted_metrics
from zoo.engine.inference.opening import open_labelled
from zoo.engine.loading.sources import table_digest
from zoo.engine.runtime.signals import StopFlag, Stopped, stop_signals
from zoo.errors import InterruptedRunError, OptionError, check_together, did_you_mean, examples
from zoo.models.task_model import TaskModel
from zoo.tasks.find import find_task
from zoo.tasks.thresholds import Wanted

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
    sensitivity: float | None = None,
    positive: str | None = None,
    window: tuple[float, float] | None = None,
    overflow: str | None = None,
    max_length: int | None = None,
    image_size: int | tuple[int, int] | None = None,
    drop_other_classes: bool = False,
    metrics: str | Sequence[str] | Mapping[str, Callable[..., Any]] | None = None,
    thresholds: Wanted | None = None,
    sets: float | None = None,
    batch_size: int = BATCH_SIZE,
    workers: int | None = None,
    device: str = "auto",
    precision: str = "auto",
    on_error: str = "stop",
    quiet: bool = True,
    share: bool = False,
    remedy: str = SKIPPED,
) -> Evaluation:
    """Return the metrics of the model's task on labelled data.

    single-label: loss, accuracy, balanced_accuracy, macro_f1, auroc, and majority, the accuracy of always naming the most
    frequent class. multi-label: loss, map, macro_f1, micro_f1, auroc. regression: mae, rmse, r2. token-classification: loss, f1,
    precision and recall by entity, accuracy by word. With classes or labels also ece, the calibration error. Metrics that the data
    leave undefined are omitted. A calibrated model has ece_uncalibrated, coverage and set_size (interval_width) too.

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
        sensitivity: Adds ``specificity_at_sensitivity``, the specificity at this sensitivity, such as 0.95.
        positive: Of two classes the one that these two and ``average_precision`` are about; the last one where None.
        window: Centre and width through which scans are shown, where it differs from the model's.
        overflow: What becomes of texts that are too long, where it differs from the model's: ``truncate``, ``error`` or ``windows``.
        max_length: Most tokens of a text, where they differ from the model's.
        image_size: Height and width in pixels, where they differ from the model's; one number means a square.
        drop_other_classes: Leave out the samples whose label is none of the model's, instead of refusing them.
        metrics: Names of further metrics, such as ``["mcc", "kappa"]`` or ``all``, see docs/metrics.md; or functions of your own by name,
            as for ``fit``.
        thresholds: Multi-label: probability above which labels are predicted, one for all, one per label, or by label; None takes
            those of the model. They count for macro_f1 and micro_f1.
        sets: How often a prediction set of a calibrated model is to hold the truth, such as 0.9: its measured coverage and the mean
            size of the sets are added; where None, those of 0.9.
        batch_size: Samples per forward.
        workers: Loader processes; None chooses.
        device: ``auto``, ``cpu``, ``cuda`` or ``mps``.
        precision: ``auto`` (bf16 on GPUs that have it), ``fp32`` or ``bf16``.
        on_error: At an input that cannot be read, ``stop`` with an error, or ``skip`` it: it counts in no metric.
        quiet: Show no progress.
        share: Share the data among the processes of a launcher; each of them must then call it, and gets the metrics of all.
        remedy: What an error of an input that cannot be read proposes.

    Returns:
        The metrics, a dict that also has ``predictions()``, ``confusion()``, ``per_class()``, ``mistakes()``, ``baselines()`` and
        ``selective()``.

    Raises:
        DataError: If the data have no labels, or labels outside the model's.
        OptionError: If ``intervals`` or ``specificity`` is out of range, or the task has none.
    """
    how: dict[str, Any] = {"window": window, "overflow": overflow, "image_size": image_size, "batch_size": batch_size, "workers": workers}
    how |= {"max_length": max_length, "device": device, "precision": precision, "on_error": on_error, "quiet": quiet}
    wanted, decoder, options, _ = check_together(
        "a model cannot be measured with these:",
        lambda: wanted_metrics(model, metrics, intervals=intervals, specificity=specificity, sensitivity=sensitivity),
        lambda: decoder_of(model, thresholds, sets=sets),
        lambda: InferenceOptions(**how),
        lambda: None if positive is None or not model.labels else _turned(model, model.labels, positive),
    )
    opening: dict[str, Any] = {"columns": columns, "label_columns": label_columns, "uncertain": uncertain, "root": root}
    opening |= {"drop_other_classes": drop_other_classes, "default_split": "test"}
    with joined(device, TIMEOUT) if share else nullcontext(Ranks()) as ranks:
        with ranks.together():
            table = open_labelled(model, data, options, split=split, verb="are measured", **opening)
            turned = positive is not None and _turned(model, table.classes, positive)
        check_same_inputs(ranks, table)
        with options.naming_skip(remedy):
            done = _run(model, table, options, ranks)
    _warn_of_calibration_data(decoder, table)
    found = Evaluation({}, decoder, table, done.values, done.errors, wanted.named(decoder.task))
    if done.errors:
        table, done.values = table.select(found.rows), done.values[found.rows]
    found |= measure(wanted, decoder, table, done.values, turned=turned)
    return found


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
            ranks.raise_if_another_rank_failed()

        try:
            return run_whole(model, table, model, options, ranks, poll)
        except Stopped:
            signal = StopFlag()
            signal.signum = max(ranks.gather(stop.signum))
            error = InterruptedRunError(f"stopped by {signal.name}; nothing was written")
            error.exit_code = signal.exit_code
            raise ranks.known(error) from None


def _warn_of_calibration_data(decoder: Decoder, table: Table) -> None:
    if decoder.calibration is not None and decoder.calibration.data and decoder.calibration.data == table_digest(table):
        log.warning("%s: the model was calibrated on these data; coverage and ece look better on them than they are", table.source)


def _turned(model: TaskModel, classes: tuple[str, ...], positive: str) -> bool:
    """Return whether the first of two classes is the positive one.

    Raises:
        OptionError: If there are not two classes, or none of them has this name.
    """
    if not find_task(model.task).exclusive or len(classes) != 2:
        raise OptionError(f"positive is for two classes; the task is {find_task(model.task).words} with {len(classes)} classes")
    if positive not in classes:
        raise OptionError(f"positive is {positive!r}{did_you_mean(positive, classes)}; the classes are: {examples(classes)}")
    return positive == classes[0]
