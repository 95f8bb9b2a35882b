"""Evaluation, prediction and embedding of data with a model."""

from __future__ import annotations

import inspect
import logging
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType
from typing import Any

import numpy as np
import numpy.typing as npt

from zoo.data.open import Table, open_data
from zoo.data.split import normal_group
from zoo.declare import Text
from zoo.engine.inference.batched_inference import in_batches_that_fit, run_all, run_words
from zoo.engine.inference.confidence_intervals import check_level, check_specificity, sensitivity_at_specificity
from zoo.engine.inference.confidence_intervals import intervals as bootstrap
from zoo.engine.loading.loader import Loader, default_workers
from zoo.engine.loading.samples import samples_for
from zoo.engine.loading.sources import as_trained, channels_of, check_targets, reads, refuse_window
from zoo.engine.loading.start_method import usable_workers
from zoo.engine.loading.stream import Function
from zoo.engine.options.own_parts import own_metrics, take_own_parts
from zoo.engine.runtime.device import choose_device, choose_precision, placed
from zoo.engine.runtime.progress import Progress
from zoo.errors import DataError, OptionError, check_options, did_you_mean, fault_list
from zoo.models.task_model import TaskModel
from zoo.tasks.find import find_task
from zoo.tasks.labels import UNCERTAIN_AS
from zoo.tasks.task import Task

log = logging.getLogger("zoo")

BATCH_SIZE = 64
_NONE: Mapping[str, str] = MappingProxyType({})
Array = npt.NDArray[np.float32]


def check_given(function: Callable[..., Any], options: Mapping[str, Any]) -> None:
    """Check that ``evaluate``, or another function of this module, has these options.

    Raises:
        OptionError: With the nearest option.
    """
    signature = inspect.signature(evaluate if function is evaluate else _predict_outputs)
    known = [name for name, parameter in signature.parameters.items() if parameter.kind is parameter.KEYWORD_ONLY]
    check_options(options, known, f"{function.__name__}()")


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
    drop_other_classes: bool = False,
    metrics: Mapping[str, Callable[..., Any]] | None = None,
    batch_size: int = BATCH_SIZE,
    workers: int | None = None,
    device: str = "auto",
    precision: str = "auto",
    quiet: bool = True,
) -> dict[str, float]:
    """Return the metrics of the model's task on labelled data.

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
        drop_other_classes: Leave out the samples whose label is none of the model's, instead of refusing them.
        metrics: Functions of your own by name, as for ``fit``.
        batch_size: Samples per forward.
        workers: Loader processes; None chooses.
        device: ``auto``, ``cpu``, ``cuda`` or ``mps``.
        precision: ``auto`` (bf16 on GPUs that have it), ``fp32`` or ``bf16``.
        quiet: Show no progress.

    Raises:
        DataError: If the data have no labels, or labels outside the model's.
        OptionError: If ``intervals`` or ``specificity`` is out of range, or the task has none.
    """
    faults: list[str] = []
    own = take_own_parts({"metrics": metrics}, find_task(model.task), faults)
    if faults:
        raise OptionError(fault_list("these parts cannot be used:", faults))
    if intervals is not None:
        check_level(model.task, intervals)
    if specificity is not None:
        check_specificity(model.task, specificity)
    opening: dict[str, Any] = {"task": model.task, "classes": model.labels, "split": split, "columns": columns}
    if uncertain is not None and (not find_task(model.task).partial or uncertain not in UNCERTAIN_AS):
        raise OptionError(f"uncertain is {uncertain!r}; it is {' or '.join(map(repr, UNCERTAIN_AS))}, for a multi-label task")
    opening |= {"label_columns": label_columns, "uncertain": uncertain, "root": root, "channels": channels_of(model)}
    table = open_data(data, labelled=True, reads=reads(model), drop_other_classes=drop_other_classes, **opening)
    check_targets(model, table)
    turned = positive is not None and _turned(model, table.classes, positive)
    logits = _outputs(
        model, table, model, batch_size=batch_size, workers=workers, device=device, precision=precision, quiet=quiet, window=window
    )
    targets = np.asarray(table.targets)
    found = compute_metrics(find_task(model.task), logits, targets, table.classes)
    found |= own_metrics(own.metrics, find_task(model.task), logits, targets)
    if turned:  # metrics above do not depend on the order
        logits, targets = logits[:, ::-1], 1 - targets
    if specificity is not None:
        value = sensitivity_at_specificity(model.task, logits, targets, specificity)
        found |= {} if value is None else {"sensitivity_at_specificity": value}
        if len(table.classes) == 2:
            log.info("sensitivity is that for %r (positive=… names another class)", table.classes[0 if turned else 1])
    if intervals is not None:
        found |= bootstrap(model.task, logits, targets, groups=_groups(table), level=intervals, specificity=specificity)
    return found


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


def predict(model: TaskModel, inputs: Any, **options: Any) -> list[Any]:
    """Return the prediction for each input, in order.

    A label (its index where the model has no labels), a tuple of the labels above 0.5, or a number (a tuple where the
    model has several outputs); for token classification a list with the label of each word. ``options`` are those of
    ``predict_proba``.
    """
    return decoded(model, _predict_outputs(model, inputs, model, **options))


def predict_proba(model: TaskModel, inputs: Any, **options: Any) -> Array:
    """Return probabilities ``(n, num_classes)``, float32: softmax, or for multi-label a sigmoid for each label.

    For token classification an array of n arrays ``(words, num_classes)``, NaN for a word beyond the maximum length.

    Args:
        model: The model.
        inputs: Any source that ``zoo.data.open.open_data`` takes: paths, a folder, images, arrays; labels are ignored.
        **options: ``split``, ``columns``, ``root``, ``window``, ``batch_size``, ``workers``, ``device``, ``precision`` and
            ``quiet`` as in ``evaluate``.

    Raises:
        OptionError: If the model is a regression.
    """
    if type(find_task(model.task)).probabilities is Task.probabilities:
        raise OptionError(f"the task {model.task!r} has no probabilities; use predict()")
    return probabilities(model, _predict_outputs(model, inputs, model, **options))


def predict_logits(model: TaskModel, inputs: Any, **options: Any) -> Array:
    """Return the logits of each input; arguments as in ``predict_proba``."""
    return _predict_outputs(model, inputs, model, **options)


def decoded(model: TaskModel, logits: Array) -> list[Any]:
    """Return the predictions for logits."""
    return find_task(model.task).decode(logits, model.labels or range(model.num_classes))


def probabilities(model: TaskModel, logits: Array) -> Array:
    """Return the probabilities for logits; the task must have them."""
    found = find_task(model.task).probabilities(logits if logits.dtype == object else logits.astype(np.float64))
    assert found is not None, "the task has no probabilities"
    return found if found.dtype == object else np.asarray(found, dtype=np.float32)


def compute_metrics(task: Task, logits: npt.NDArray[Any], targets: npt.NDArray[Any], classes: Sequence[str] = ()) -> dict[str, float]:
    """Return the metrics of a task; one that the data leave undefined (no positive, one class only) is left out.

    Args:
        task: The task.
        logits: ``(n, outputs)``; for a regression the outputs in the targets' unit; for words an array of n arrays.
        targets: One row per sample.
        classes: Names of the classes.
    """
    return task.metrics(logits if logits.dtype == object else np.asarray(logits, dtype=np.float64), np.asarray(targets), classes)


def embed(model: TaskModel, inputs: Any, **options: Any) -> Array:
    """Return the pooled features ``(n, dim)`` of each input, float32; arguments as in ``predict_proba``."""
    return _predict_outputs(model, inputs, model.embed_batch, **options)


def _predict_outputs(
    model: TaskModel,
    inputs: Any,
    forward: Function,
    *,
    split: str | None = None,
    columns: Mapping[str, str] = _NONE,
    root: str | os.PathLike[str] | None = None,
    window: tuple[float, float] | None = None,
    batch_size: int = BATCH_SIZE,
    workers: int | None = None,
    device: str = "auto",
    precision: str = "auto",
    quiet: bool = True,
) -> Array:
    source = inputs if isinstance(model.inputs, Text) else _as_list(inputs, model.spec.modality, channels_of(model))
    table = open_data(
        source, task=model.task, split=split, columns=columns, labelled=False, reads=reads(model), root=root, channels=channels_of(model)
    )
    return _outputs(
        model, table, forward, batch_size=batch_size, workers=workers, device=device, precision=precision, quiet=quiet, window=window
    )


def _as_list(inputs: Any, kind: str, channels: int) -> Any:
    """Return one image or volume as a list of one."""
    if kind == "volume":
        return [inputs] if getattr(inputs, "ndim", 0) == 3 else inputs
    if type(inputs).__module__.startswith("PIL."):
        return [inputs]
    single = getattr(inputs, "ndim", 0) == 2 or (
        getattr(inputs, "ndim", 0) == 3 and (hasattr(inputs, "numpy") or inputs.shape[-1] in (1, 3, 4, channels))
    )
    return [inputs] if single and not hasattr(inputs, "columns") else inputs


def _outputs(
    model: TaskModel,
    table: Table,
    forward: Function,
    *,
    batch_size: int,
    workers: int | None,
    device: str,
    precision: str,
    quiet: bool,
    window: tuple[float, float] | None,
) -> Array:
    import torch

    inputs = model.inputs
    if window is not None:
        if isinstance(inputs, Text):
            raise OptionError("window is for scans; the model reads texts")
        refuse_window(window, table, channels_of(model))
        inputs = replace(inputs, window=window)
    table = as_trained(model, table)
    if batch_size < 1:
        raise OptionError(f"batch_size is {batch_size}; it must be at least 1")
    if not len(table):
        raise DataError(f"{table.source} is empty")
    where = choose_device(device)
    half = choose_precision(precision, where) == "bf16"
    autocast = torch.autocast(where.type, dtype=torch.bfloat16, enabled=half)
    with placed(model, where) as layout, Progress(quiet, "") as progress, autocast:
        model.eval()
        number = usable_workers(workers, default_workers(where), {table.source: table.inputs})
        loader = Loader(samples_for(inputs, table), where, workers=number, layout=layout)
        progress.begin("evaluate", len(table))
        words = find_task(model.task).per_token and forward is model
        run = run_words if words else run_all
        return in_batches_that_fit(lambda size: run(forward, loader, len(table), size, each=progress.step), batch_size, halved=lambda: None)
