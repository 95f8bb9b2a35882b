"""Predictions from a few labelled samples, on features that are computed once."""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from zoo.data.open import open_data
from zoo.data.sources.read import kind_of
from zoo.data.splits.leaks import check_leak
from zoo.data.table import Table, names_of
from zoo.engine.inference.inference_options import InferenceOptions
from zoo.engine.inference.predict import embed_table
from zoo.engine.loading.sources import image_channels
from zoo.errors import DataError, OptionError, check_options, checked_arguments, count, examples
from zoo.models.backbone import Backbone
from zoo.models.find import find_backbone
from zoo.models.task_model import TaskModel
from zoo.saved.load import load_with_update
from zoo.tasks.labels.names import OTHER_CLASSES
from zoo.transfer.fewshot.heads import head_named
from zoo.transfer.fewshot.tip_adapter import TIP_METHODS, TipOptions, tip_adapter, zero_shot_model

TASK = "single-label"
_OWN_REMEDY = "Correct the labels, or give queries without labels: files in one folder, or a table without a column of labels."
Array = npt.NDArray[Any]


@dataclass(frozen=True)
class FewShot:
    """Predictions for queries.

    Attributes:
        names: A name for each query: its path, its text, or ``row N``.
        predictions: The class of each query.
        probabilities: ``(queries, classes)``, float32; softmax of the method's logits, which are not calibrated.
        classes: Names of the classes.
        accuracy: Share of right predictions, in [0, 1]; None where the queries have no labels.
    """

    names: list[str]
    predictions: list[str]
    probabilities: Array
    classes: tuple[str, ...]
    accuracy: float | None


@checked_arguments("few_shot()")
def few_shot(
    backbone: Backbone | TaskModel | str,
    support: Any,
    query: Any,
    method: str = "simpleshot",
    *,
    columns: Mapping[str, str] | None = None,
    root: str | os.PathLike[str] | None = None,
    allow_leak: bool = False,
    **options: Any,
) -> FewShot:
    """Predict the classes of queries from a support set of one labelled sample per class or more; nothing of the backbone trains.

    Args:
        backbone: A backbone, its name, or a model, whose features are then used.
        support: Labelled samples, as ``fit`` takes them.
        query: Samples, with or without labels.
        method: ``simpleshot``, ``prototypes``, ``centroid``, ``ridge``, ``logistic`` or ``baseline++``; see ``heads``. Of a dual
            encoder also ``tip-adapter`` and ``tip-adapter-f``.
        columns: Names of the columns of a table by role, for both.
        root: Folder of the files that a table names, for both.
        allow_leak: Allow queries that are in the support.
        **options: Of the pass, see ``zoo.engine.inference.inference_options.InferenceOptions``, and of Tip-Adapter, see ``TipOptions``.

    Raises:
        OptionError: For an unknown method or option, or Tip-Adapter without a dual encoder.
        DataError: If the support has fewer than two classes, or the queries have others.
        LeakError: If a query is in the support.
    """
    own = {name: options.pop(name) for name in TipOptions.__dataclass_fields__ if name in options}
    if own and method not in TIP_METHODS:
        raise OptionError(f"{', '.join(own)}: of Tip-Adapter, and method is {method!r}; take method='tip-adapter', or leave it out")
    tip = TipOptions(**own)
    head = head_named(method) if method not in TIP_METHODS else None
    opening: dict[str, Any] = {"columns": columns or {}, "root": root}
    beside = ("method", "columns", "root", "allow_leak", *TipOptions.__dataclass_fields__)
    check_pass_options(options, "few_shot()", beside=beside)
    model = found_backbone(backbone)
    table = opened(model, support, opening, labelled=True)
    model = model if head else zero_shot_model(model, table.classes, tip)
    queries = opened(model, query, opening, labelled=None, classes=table.classes)
    if queries.targets is not None:
        check_leak(table, queries, allow=allow_leak)
    features, others = features_of(model, (table, queries), options)
    targets = torch.as_tensor(table.targets)
    with torch.no_grad():
        if head:
            logits = head(features, targets, len(table.classes))(others)
        else:
            assert isinstance(model, TaskModel), "a zero-shot model"
            found: Any = model.head
            logits = tip_adapter(features, targets, found, tip, trained=method == "tip-adapter-f")(others)
    chosen = logits.argmax(1).numpy()
    accuracy = None if queries.targets is None else float(np.mean(chosen == queries.targets))
    names = names_of(queries.inputs, range(len(queries)))
    return FewShot(names, [table.classes[row] for row in chosen], logits.softmax(1).numpy(), table.classes, accuracy)


def check_pass_options(options: Mapping[str, Any], owner: str, *, beside: Collection[str]) -> None:
    """Check the options of the pass over support and queries.

    Args:
        options: Options by name.
        owner: The function that they are given to.
        beside: Names of its other options.

    Raises:
        OptionError: For an unknown option, or if inputs that cannot be read are to be skipped: they would have features of NaN.
    """
    check_options(options, InferenceOptions.__dataclass_fields__, owner, beside=beside)
    if options.get("on_error", "stop") != "stop":
        raise OptionError(f"on_error={options['on_error']!r}: few-shot needs all inputs; remove those that cannot be read")


def found_backbone(backbone: Backbone | TaskModel | str) -> Backbone | TaskModel:
    """Return a backbone by its name, or the one that was given; of a folder with adapters or learned tokens the model."""
    if not isinstance(backbone, str | os.PathLike):
        return backbone
    return load_with_update(Path(backbone)) or find_backbone(backbone)


def opened(
    model: Backbone | TaskModel, source: Any, opening: Mapping[str, Any], *, labelled: bool | None, classes: tuple[str, ...] | None = None
) -> Table:
    """Open the support, or queries with its classes.

    Args:
        model: What reads them.
        source: The data.
        opening: ``columns`` and ``root`` of ``zoo.data.open.open_data``.
        labelled: As there.
        classes: Those of the support for queries; None for the support.

    Raises:
        DataError: If the support has fewer than two classes, or queries have others.
    """
    inputs = model.spec.inputs
    reading: dict[str, Any] = {"reads": kind_of(inputs, TASK), "channels": image_channels(inputs), **opening}
    try:
        table = open_data(source, task=TASK, classes=classes, labelled=labelled, **reading)
    except DataError as error:
        error.args = (str(error).replace(OTHER_CLASSES, _OWN_REMEDY),)
        raise
    if classes is None:
        counts = table.counts()
        if missing := [name for name, number in counts.items() if not number]:
            raise DataError(f"the support has no sample of {count(len(missing), 'class')}: {examples(missing)}; give one of each or more")
        if len(counts) < 2:
            raise DataError(f"the support has one class, {next(iter(counts), 'none')!r}; give samples of two classes or more")
    return table


def features_of(model: Backbone | TaskModel, tables: tuple[Table, ...], options: Mapping[str, Any]) -> list[torch.Tensor]:
    """Return the pooled features of tables, ``(samples, dim)`` float32 each, from one backbone with its values."""
    if isinstance(model, Backbone):
        model = model.adapt(max(2, len(tables[0].classes)), task=TASK)
    return [torch.from_numpy(embed_table(model, replace(table, targets=None, classes=()), **options)) for table in tables]
