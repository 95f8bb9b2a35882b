"""Out-of-fold predictions: metrics of all of them together, and their table."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from zoo.data.splits.folds import Fold
from zoo.data.table import Table
from zoo.engine.inference.decoding.decoder import Decoder
from zoo.engine.inference.decoding.result_columns import Column, Columns, result_columns
from zoo.engine.inference.metrics import compute_metrics
from zoo.engine.options.own_parts import OwnParts, own_metrics
from zoo.engine.output.formats import write_columns
from zoo.errors import MissingExtraError
from zoo.select.crossval.result import PREDICTIONS
from zoo.tasks.thresholds import moved
from zoo.util.extras import require_extra

log = logging.getLogger("zoo")
Array = npt.NDArray[Any]


def metrics_of(decoder: Decoder, own: OwnParts, table: Table, outputs: Array) -> dict[str, float]:
    """Return the metrics of the task, and the user's own, of outputs for the rows of a table."""
    targets = np.asarray(table.targets)
    found = compute_metrics(decoder.task, outputs, targets, table.classes, decoder.thresholds)
    return found | own_metrics(own.metrics, decoder.task, outputs, targets, thresholds=decoder.thresholds)


class Part(NamedTuple):
    """The held-out samples of a fold.

    Attributes:
        fold: The fold.
        decoder: Of its model, with the thresholds that were chosen there.
        outputs: Outputs for the held-out samples.
    """

    fold: Fold
    decoder: Decoder
    outputs: Array


def metrics_of_all(parts: Sequence[Part], own: OwnParts, table: Table) -> dict[str, float]:
    """Return the metrics of all held-out samples together, each decided by the thresholds of its fold."""
    rows, decoder = np.concatenate([part.fold.held_out for part in parts]), parts[0].decoder
    plain = replace(decoder, thresholds=None)
    found = metrics_of(plain, own, table.select(rows), np.concatenate([part.outputs for part in parts]))
    if decoder.task.thresholded:
        decided = np.concatenate([moved(part.outputs, part.decoder.thresholds) for part in parts])
        by_threshold = metrics_of(plain, OwnParts(), table.select(rows), decided)
        found |= {name: by_threshold[name] for name in decoder.task.thresholded if name in by_threshold}
    return found


def write_predictions(folder: Path, parts: Sequence[Part], table: Table) -> None:
    """Write the out-of-fold predictions as ``zoo eval --predictions`` does, with the columns ``fold`` and ``repeat``.

    They are ordered by repeat and row. Without the packages that write tables they are left out, which is logged.
    """
    try:
        require_extra("tables", f"{PREDICTIONS} of a cross-validation")
    except MissingExtraError as error:
        log.warning("%r is left out: %s", str(folder / PREDICTIONS), error)
        return
    each = [_columns(number, part, table) for number, part in enumerate(parts)]
    keys = np.concatenate([_row_numbers(part) for part in parts])
    repeats = np.concatenate([np.asarray(columns["repeat"].values) for columns in each])
    order = np.lexsort((keys, repeats))
    columns = {}
    for name, (kind, _) in each[0].items():
        values = np.concatenate([np.asarray(found[name].values, dtype=None if kind in ("share", "whole") else object) for found in each])
        columns[name] = Column(kind, values[order])
    write_columns(folder / PREDICTIONS, columns)


def _columns(number: int, part: Part, table: Table) -> Columns:
    rows = part.fold.held_out.tolist()
    found = result_columns(part.decoder, table, rows, part.outputs, {})
    size = len(next(iter(found.values())).values)
    places = {"fold": number, "repeat": part.fold.repeat}
    columns = {name: column for name, column in found.items() if name != "error"}
    return columns | {name: Column("whole", np.full(size, place, dtype=np.int64)) for name, place in places.items()}


def _row_numbers(part: Part) -> Array:
    """Return the number of the sample of each row of ``_columns``; stable sorting keeps the words of a sentence in order."""
    lengths = [len(each) for each in part.outputs] if part.outputs.dtype == object else 1
    return np.repeat(part.fold.held_out, lengths)
