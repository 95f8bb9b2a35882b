"""The target domain: opened without labels, and compared with the source."""

from __future__ import annotations

import logging
from typing import Any

from zoo.data.open import open_data
from zoo.data.splits.duplicates import content_keys, samples_digest
from zoo.data.table import Table
from zoo.engine.loading.sources import beside_training, channels_of, reads, table_digest
from zoo.engine.options.config import Config
from zoo.errors import DataError, OptionError, count, examples
from zoo.models.task_model import TaskModel

log = logging.getLogger("zoo")
_REMEDY = "Give the unlabelled data of another domain as target"
MOST_EQUAL = 0.5  # share of the target's samples that may be of the source


def open_target(model: TaskModel, target: Any, source: Table | None = None, config: Config | None = None) -> Table:
    """Return a target domain without its labels.

    Args:
        model: The model, which says how the samples are read.
        target: As for ``zoo.open_data``; labels that it may have are not read.
        source: The checked training data, like which its float tensors are read; None leaves them to the check of the run.
        config: The options of a run with a source, which say what becomes of damaged samples.

    Raises:
        DataError: If it cannot be opened, has fewer than two samples, or its float tensors do not fit those of the source.
    """
    table = open_data(target, labelled=False, reads=reads(model), channels=channels_of(model))
    if len(table) < 2:
        raise DataError(f"the target {table.source} has {count(len(table), 'sample')}; a domain needs at least 2")
    return table if source is None or config is None else beside_training(model, table, source, config)


def check_other(source: Table, target: Table) -> None:
    """Check that the target is not the source; samples that are in both are logged.

    Raises:
        DataError: If more than half of the target's samples are in the source.
    """
    ours, theirs = content_keys(source, target)
    here = set(ours)
    both = [row for row, key in enumerate(theirs) if key in here]
    if not both:
        return
    message = f"{len(both)} of {count(len(target), 'sample')} of the target are in the source too: {examples([*map(target.name_of, both)])}"
    if len(both) > MOST_EQUAL * len(target):
        raise DataError(f"the target is the source: {message}. {_REMEDY}")
    log.warning("%s", message)


def with_own_labels(model: TaskModel, target: Any, **how: Any) -> Table | None:
    """Return a target with the labels that it may have, to know it again; None without any, and where they are of another kind.

    Nothing is logged of it: the log has what is odd about its files when it is opened, and its labels are not used.
    """

    def quiet(_record: logging.LogRecord) -> bool:
        return False

    log.addFilter(quiet)
    try:
        return open_data(target, reads=reads(model), **how)
    except (DataError, OptionError):
        return None
    finally:
        log.removeFilter(quiet)


def check_unseen(model: TaskModel, target: Any) -> None:
    """Check that a model was not trained on a target, which its record of training data tells where the target has its labels.

    Raises:
        DataError: If it was.
    """
    table = with_own_labels(model, target, classes=model.labels)
    if table is not None and table.targets is not None and {table_digest(table), samples_digest(table)} & {*model.trained_on}:
        raise DataError(f"the target is the source: the model was trained on {table.source}. {_REMEDY}")
