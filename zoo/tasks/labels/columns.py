"""Labels in a column per class (one-hot), or per value of a regression."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from zoo.data.raw import Indicators, Raw
from zoo.data.table import item_name
from zoo.errors import DataError, OptionError, count, did_you_mean, examples
from zoo.tasks.labels.names import check_classes
from zoo.tasks.task import Task

_SHOWN = 4  # rows of an error


def by_task(raw: Raw, task: Task) -> Raw:
    """Return rows whose labels from several columns are as the task reads them.

    One class per sample: the name of the column that has the 1. Numbers: a list of them. Several labels per sample: as they are.

    Raises:
        DataError: If the task has one class per sample, and a row has not exactly one 1.
        OptionError: If the task labels words.
    """
    if not any(isinstance(label, Indicators) for label in raw.labels or ()):
        return raw
    if task.per_token:
        raise OptionError(f"label columns hold one value per sample, and task {task.name!r} labels words")
    if not task.has_classes:
        return replace(
            raw, labels=[list(label.values) if isinstance(label, Indicators) else label for label in raw.labels or ()], classes=None
        )
    return replace(raw, labels=_single(raw)) if task.exclusive else raw


def _single(raw: Raw) -> list[Any]:
    labels, odd = list(raw.labels or ()), list[str]()
    for row, label in enumerate(labels):
        if isinstance(label, Indicators):
            ones = [name for name, value in zip(label.names, label.values, strict=True) if value == 1]
            known = all(value in (0, 1) or math.isnan(value) for value in label.values)
            labels[row] = ones[0] if len(ones) == 1 and known else None
            if labels[row] is None:
                odd.append(f"{item_name(raw.inputs, row)} ({_written(label)})" if len(odd) < _SHOWN else "")
    if odd:
        raise DataError(
            f"{raw.source}: each row needs exactly one 1 in its label columns, unlike {count(len(odd), 'row')} of {len(labels)}: "
            f"{examples(odd)}; correct them, or take task='multi-label' (--task multi-label), where several or none may apply"
        )
    return labels


def _written(label: Indicators) -> str:
    """Return a row with the values that are not 0 first, such as ``cat=1, dog=empty, bird=0``."""
    pairs = sorted(zip(label.names, label.values, strict=True), key=lambda pair: pair[1] == 0)
    return examples([f"{name}={'empty' if math.isnan(value) else f'{value:g}'}" for name, value in pairs], 6)


def in_order(labels: Sequence[Any], classes: Sequence[str] | None, source: str) -> tuple[list[Any], Sequence[str] | None]:
    """Return labels from several columns as rows in the order of the classes, and the classes; other labels as they are.

    Raises:
        DataError: If columns and classes differ.
    """
    found = next((label for label in labels if isinstance(label, Indicators)), None)
    if found is None:
        return list(labels), classes
    known = check_classes(found.names if classes is None else classes)
    place = {name: index for index, name in enumerate(check_classes(found.names))}
    unknown, absent = [name for name in place if name not in set(known)], [name for name in known if name not in place]
    if unknown or absent:
        parts = [f"{name!r} is no class{did_you_mean(name, known)}" for name in unknown] + [
            f"there is no column {name!r}" for name in absent
        ]
        raise DataError(f"{source}: the label columns are not the {count(len(known), 'class')}: {examples(parts)}")
    order = [place[name] for name in known]
    return [[label.values[index] for index in order] if isinstance(label, Indicators) else label for label in labels], known
