"""Encoding of labels as targets; class names are found, ordered and checked, never guessed from positions."""

from __future__ import annotations

import logging
import math
import reprlib
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from zoo.data.raw import Raw
from zoo.data.sources.cells import is_unlabelled
from zoo.data.table import Array, item_name
from zoo.errors import DataError, OptionError, count, did_you_mean, examples
from zoo.tasks.labels.columns import in_order
from zoo.tasks.labels.names import (
    INTEGER,
    are_indices,
    check_classes,
    class_order,
    is_number,
    name_of,
    plain,
    refuse_unknown,
    separator_hint,
)
from zoo.tasks.labels.sets import UNCERTAIN
from zoo.tasks.task import Task

log = logging.getLogger("zoo")
UNCERTAIN_AS = {"mask": math.nan, "positive": 1.0, "negative": 0.0}


def useless_uncertain(task: Task) -> str:
    """Return why ``uncertain`` does not apply to a task; empty if it does."""
    return "" if task.partial else f"it is for labels of -1 of a multi-label task, and the task is {task.words}"


def check_uncertain(uncertain: str | None, task: Task) -> None:
    """Check what an uncertain label counts as.

    Raises:
        OptionError: If the task has no uncertain labels, or there is no such way.
    """
    if uncertain is not None and (why := useless_uncertain(task)):
        raise OptionError(f"uncertain: {why}")
    if uncertain is not None and uncertain not in UNCERTAIN_AS:
        known = " or ".join(map(repr, UNCERTAIN_AS))
        raise OptionError(f"uncertain is {uncertain!r}{did_you_mean(uncertain, UNCERTAIN_AS)}; it is {known}")


def class_names(raw: Raw, task: Task) -> tuple[str, ...] | None:
    """Return the classes that a source declares, else those in its labels; None for a task without classes."""
    if not task.has_classes or raw.classes is not None:
        return raw.classes if task.has_classes else None
    # What an uncertain label counts as does not change the names.
    return encode(raw.labels or (), raw.inputs, task=task, classes=None, source=raw.source, uncertain="negative")[1]


def keep_classes(raw: Raw, classes: Sequence[str] | None, task: Task) -> Raw:
    """Return the rows whose label is one of ``classes``; rows without a label stay, to be refused.

    Args:
        raw: Single-label rows.
        classes: The classes to keep.
        task: Where several labels may apply, leaving out a row or a label means different things; so neither is done.

    Raises:
        OptionError: If there are no classes to keep, or the task is another.
        DataError: If no row is left.
    """
    if not task.exclusive or not classes:
        one = "a task with one class per sample, such as 'single-label'"
        need = "the classes to keep: classes=, or the labels of the model" if task.exclusive else one
        raise OptionError(f"drop_other_classes=True needs {need}")
    known, members = check_classes(classes), frozenset(check_classes(classes))
    labels = [plain(label) for label in raw.labels or ()]
    if are_indices(labels, known):
        return raw
    others = Counter(name_of(label) for label in labels if _is_other(label, members))
    if len(labels) and sum(others.values()) == len(labels):
        near = did_you_mean(known[0], others)
        raise DataError(f"{raw.source} has no sample of {examples(known, 8)}{near}; its classes: {examples(class_order(set(others)), 8)}")
    if others:
        left_out = ", ".join(f"{name!r} ({number})" for name, number in others.most_common(8))
        log.info("%s: %d of %d samples are of other classes and are left out: %s", raw.source, sum(others.values()), len(labels), left_out)
    rows = raw if not labels else raw.select([row for row, label in enumerate(labels) if not _is_other(label, members)])
    return replace(rows, classes=known)


def _is_other(label: Any, known: Collection[str]) -> bool:
    return not isinstance(label, list | tuple | set) and not is_unlabelled(label) and name_of(label) not in known


def encode(
    labels: Sequence[Any],
    inputs: Sequence[Any],
    *,
    task: Task,
    classes: Sequence[str] | None,
    source: str,
    uncertain: str | None = None,
) -> tuple[Array, tuple[str, ...]]:
    """Encode labels as targets.

    Args:
        labels: One per sample. Single-label: text or integers. Multi-label: see ``zoo.tasks.labels.sets``. Regression: a number or
            a list of numbers. Token classification: a list of names, one per word. Values of label columns: see
            ``zoo.tasks.labels.columns``.
        inputs: The samples, for error messages.
        task: Name of the task.
        classes: The classes to use, or None to find them.
        source: Name of the data, for messages.
        uncertain: What a label of -1 counts as: ``mask``, ``positive`` or ``negative``; None refuses it.

    Returns:
        Targets as ``Table.targets`` describes them, and the class names (empty for regression).

    Raises:
        DataError: If a label is missing, is not of the task's kind or is none of ``classes``; all faults at once.
    """
    labels, classes = in_order(labels, classes, source) if not task.exclusive else (labels, classes)
    _refuse_times(labels, inputs, source)
    labels = [plain(label) for label in labels]
    _refuse_missing(labels, inputs, task, source, classes)
    targets, names = task.encode(labels, inputs, classes, source)
    return _resolved(targets, names, inputs, source, uncertain) if task.partial else targets, names


def _resolved(targets: Array, names: Sequence[str], inputs: Sequence[Any], source: str, uncertain: str | None) -> Array:
    """Return targets whose uncertain values are replaced (U-Ignore, U-Ones and U-Zeros of Irvin et al. 2019)."""
    marked = targets == UNCERTAIN
    if marked.any() and uncertain is None:
        per_label = [f"{name!r} {number}" for name, number in zip(names, marked.sum(0), strict=True) if number]
        first = [item_name(inputs, int(row)) for row in np.flatnonzero(marked.any(1))[:4]]
        number, be = count(int(marked.sum()), "label"), "is" if marked.sum() == 1 else "are"
        raise DataError(
            f"{source}: {number} {be} -1, that is, uncertain: {examples(per_label)}; first {examples(first)}. "
            "Say what they count as: uncertain='mask' (--uncertain mask), in no loss and no metric, or 'positive' or 'negative'"
        )
    if marked.any():
        targets = np.where(marked, np.float32(UNCERTAIN_AS[uncertain or "mask"]), targets)
    if targets.size and np.isnan(targets).all():
        raise DataError(f"{source}: all {targets.size} labels are missing (NaN or empty)")
    return targets


def _refuse_times(labels: Sequence[Any], inputs: Sequence[Any], source: str) -> None:
    """Check that no label is a date or a duration of numpy, which are whole numbers of any unit."""
    rows = [row for row, label in enumerate(labels) if getattr(getattr(label, "dtype", None), "kind", "") in ("M", "m")]
    if rows:
        where = examples([f"{item_name(inputs, row)} ({labels[row]})" for row in rows[:4]] + [""] * (len(rows) - 4))
        raise DataError(
            f"{source}: {count(len(rows), 'label')} of {len(labels)} are dates or durations: {where}; "
            f"give numbers in a unit of your choice, "
            "such as (y - y.min()) / np.timedelta64(1, 'D'), or text"
        )


def _refuse_missing(labels: Sequence[Any], inputs: Sequence[Any], task: Task, source: str, classes: Sequence[str] | None) -> None:
    known = frozenset(map(str, classes or ()))
    rows = [
        row
        for row, label in enumerate(labels)
        if is_unlabelled(label, empty_is_none=task.empty_is_none) and not (isinstance(label, str) and label in known)
    ]
    if rows:
        where = examples([item_name(inputs, row) for row in rows[:4]] + [""] * (len(rows) - 4))
        hint = (
            "; a class of this name is given by adapt(labels=…) (--classes A,B)"
            if any(labels[row] for row in rows if isinstance(labels[row], str))
            else ""
        )
        raise DataError(
            f"{source}: no label (empty or NaN) in {count(len(rows), 'sample')} of {len(labels)}: {where}; label or remove them{hint}"
        )


def encode_single(
    labels: Sequence[Any], inputs: Sequence[Any], classes: Sequence[str] | None, source: str
) -> tuple[Array, tuple[str, ...]]:
    """Return int64 class indices ``(n,)`` and the classes."""
    odd = [
        label
        for label in labels
        if isinstance(label, list | tuple | set | frozenset | Mapping) or (isinstance(label, float) and not label.is_integer())
    ]
    if odd:
        wrong = f"{count(len(odd), 'label')} such as {reprlib.repr(odd[0])}"
        raise DataError(f"{source}: {wrong} cannot be one class name; {_remedy_of_lists(labels, odd[0])}")
    names = [name_of(label) for label in labels]
    known = check_classes(classes) if classes is not None else class_order(set(names))
    if classes is not None and are_indices(labels, known):
        return np.asarray([int(label) for label in labels], dtype=np.int64), known
    if classes is None:
        _check_measured(known, len(names), source)
    hint = separator_hint(known) if classes is None else ""
    if hint:
        log.warning("%s: %s", source, hint)
    place = {name: index for index, name in enumerate(known)}
    refuse_unknown([[name] for name in names], place, inputs, source)
    return np.asarray([place[name] for name in names], dtype=np.int64), known


def _check_measured(known: Sequence[str], samples: int, source: str) -> None:
    """Check that classes are no measured values: many numbers with fractions are refused, many whole numbers logged.

    Raises:
        DataError: With the task that reads them.
    """
    if len(known) <= max(10, samples // 5) or not all(map(is_number, known)):
        return
    if any(not INTEGER.fullmatch(name) for name in known):
        raise DataError(
            f"{source}: the labels of {samples} samples are {len(known)} different numbers, such as {examples(known)}: take "
            "task='regression' (--task regression), or name the classes if they are ones: adapt(labels=…) (--classes A,B)"
        )
    if len(known) > 20:
        log.warning("%s: %d samples have %d classes, all of them numbers; is the task 'regression'?", source, samples, len(known))


def _remedy_of_lists(labels: Sequence[Any], first: Any) -> str:
    """Return what to do about labels that are lists, or numbers with a fraction."""
    lists = [label for label in labels if isinstance(label, list | tuple)]
    if len(lists) == len(labels) and all(len(label) == 1 for label in lists):
        return "give one value per sample: y.ravel(), or [label[0] for label in y]"
    if len(lists) == len(labels) and all(label.count(1) == 1 and label.count(0) == len(label) - 1 for label in lists):
        return "they look one-hot: give y.argmax(1), or take task='multi-label'"
    return f"is the task {'regression' if isinstance(first, float) else 'multi-label'!r}?"
