"""Encoding of labels as targets; class names are found, ordered and checked, never guessed from positions."""

from __future__ import annotations

import logging
import math
import re
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from zoo.data.raw import Raw
from zoo.data.table import Array, item_name
from zoo.errors import DataError, OptionError, count, did_you_mean, examples, fault_list
from zoo.tasks.task import Task

log = logging.getLogger(__name__)
_INTEGER = re.compile(r"[+-]?\d+")
_LARGEST = float(np.finfo(np.float32).max)  # larger values would be infinite as float32 targets


def class_order(names: set[str]) -> tuple[str, ...]:
    """Return class names sorted: as numbers where all are integers (``2`` before ``10``), else as text."""
    if all(_INTEGER.fullmatch(name) for name in names):
        return tuple(sorted(names, key=lambda name: (int(name), name)))
    return tuple(sorted(names))


def class_names(raw: Raw, task: Task) -> tuple[str, ...] | None:
    """Return the classes that a source declares, else those in its labels; None for a task without classes."""
    if not task.has_classes or raw.classes is not None:
        return raw.classes if task.has_classes else None
    return encode(raw.labels or (), raw.inputs, task=task, classes=None, source=raw.source)[1]


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
    known = check_classes(classes)
    labels = [_plain(label) for label in raw.labels or ()]
    if _are_indices(labels, known):
        return raw
    others = Counter(_name(label) for label in labels if _is_other(label, known))
    if len(labels) and sum(others.values()) == len(labels):
        near = did_you_mean(known[0], others)
        raise DataError(f"{raw.source} has no sample of {examples(known, 8)}{near}; its classes: {examples(class_order(set(others)), 8)}")
    if others:
        left_out = ", ".join(f"{name!r} ({number})" for name, number in others.most_common(8))
        log.info("%s: %d of %d samples are of other classes and are left out: %s", raw.source, sum(others.values()), len(labels), left_out)
    rows = raw if not labels else raw.select([row for row, label in enumerate(labels) if not _is_other(label, known)])
    return replace(rows, classes=known)


def _is_other(label: Any, known: Sequence[str]) -> bool:
    return not isinstance(label, list | tuple | set) and not _missing(label) and _name(label) not in known


def check_classes(classes: Sequence[str]) -> tuple[str, ...]:
    """Return class names as text.

    Raises:
        DataError: If a name occurs twice or there is none.
    """
    names = tuple(str(name) for name in classes)
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice or not names:
        raise DataError(f"classes must be distinct names, one or more; {f'twice: {examples(twice)}' if twice else 'none given'}")
    return names


def encode(
    labels: Sequence[Any], inputs: Sequence[Any], *, task: Task, classes: Sequence[str] | None, source: str
) -> tuple[Array, tuple[str, ...]]:
    """Encode labels as targets.

    Args:
        labels: One per sample. Single-label: text or integers. Multi-label: text separated by ``|`` or ``;``, lists of
            names, or rows of 0 and 1. Regression: a number or a list of numbers. Token classification: a list of names,
            one per word.
        inputs: The samples, for error messages.
        task: Name of the task.
        classes: The classes to use, or None to find them.
        source: Name of the data, for messages.

    Returns:
        Targets as ``Table.targets`` describes them, and the class names (empty for regression).

    Raises:
        DataError: If a label is missing, is not of the task's kind or is none of ``classes``; all faults at once.
    """
    labels = [_plain(label) for label in labels]
    _refuse_missing(labels, inputs, task, source)
    return task.encode(labels, inputs, classes, source)


def _plain(label: Any) -> Any:
    if isinstance(label, str):
        return label.strip()
    if hasattr(label, "tolist"):  # numpy scalars and arrays, torch tensors
        return label.tolist()
    return label


def _missing(label: Any, *, empty_is_none: bool = False) -> bool:
    if isinstance(label, str):
        # An empty cell means "none of the classes" where several may apply.
        return label.lower() == "nan" or (not label and not empty_is_none)
    if label is None or type(label).__name__ in ("NAType", "NaTType"):
        return True
    return isinstance(label, float) and math.isnan(label)


def _refuse_missing(labels: Sequence[Any], inputs: Sequence[Any], task: Task, source: str) -> None:
    rows = [row for row, label in enumerate(labels) if _missing(label, empty_is_none=task.empty_is_none)]
    if rows:
        where = examples([item_name(inputs, row) for row in rows[:4]] + [""] * (len(rows) - 4))
        raise DataError(
            f"{count(len(rows), 'sample')} of {len(labels)} in {source} have no label (empty or NaN): {where}; label or remove them"
        )


def encode_single(
    labels: Sequence[Any], inputs: Sequence[Any], classes: Sequence[str] | None, source: str
) -> tuple[Array, tuple[str, ...]]:
    """Return int64 class indices ``(n,)`` and the classes."""
    odd = [label for label in labels if isinstance(label, list | tuple | set) or (isinstance(label, float) and not label.is_integer())]
    if odd:
        kind = "regression" if isinstance(odd[0], float) else "multi-label"
        raise DataError(f"{source}: {count(len(odd), 'label')} such as {odd[0]!r} cannot be one class name; is the task {kind!r}?")
    names = [_name(label) for label in labels]
    known = check_classes(classes) if classes is not None else class_order(set(names))
    if classes is not None and _are_indices(labels, known):
        return np.asarray([int(label) for label in labels], dtype=np.int64), known
    if classes is None and len(known) > max(20, len(names) // 5) and all(_INTEGER.fullmatch(name) for name in known):
        log.warning("%s: %d samples have %d classes, all of them numbers; is the task 'regression'?", source, len(names), len(known))
    place = {name: index for index, name in enumerate(known)}
    _refuse_unknown([[name] for name in names], place, inputs, source)
    return np.asarray([place[name] for name in names], dtype=np.int64), known


def _name(label: Any) -> str:
    if isinstance(label, float) and label.is_integer():
        return str(int(label))
    return str(label)


def _are_indices(labels: Sequence[Any], known: Sequence[str]) -> bool:
    """Return whether in-memory integers are class indices, because the class names are not numbers."""
    if any(_INTEGER.fullmatch(name) for name in known):
        return False
    return bool(labels) and all(type(label) is int and 0 <= label < len(known) for label in labels)


def encode_by_word(
    labels: Sequence[Any], inputs: Sequence[Any], classes: Sequence[str] | None, source: str
) -> tuple[Array, tuple[str, ...]]:
    """Return an array of int64 arrays, one number per word."""
    wrong = [f"row {row} ({label!r})" for row, label in enumerate(labels) if not isinstance(label, str | list | tuple)]
    if wrong:
        raise DataError(f"{source}: {count(len(wrong), 'sentence')} have no list of labels, one per word: {examples(wrong)}")
    plain = [label.split() if isinstance(label, str) else [_plain(part) for part in label] for label in labels]
    if classes is not None and _are_indices([part for row in plain for part in row], tuple(map(str, classes))):
        plain = [[classes[int(part)] for part in row] for row in plain]
    rows = [[_name(part) for part in row] for row in plain]
    words = [len(item.split() if isinstance(item, str) else item) for item in (inputs[row] for row in range(len(rows)))]
    odd = [f"row {row} ({words[row]} words, {len(tags)} labels)" for row, tags in enumerate(rows) if len(tags) != words[row]]
    if odd:
        raise DataError(f"{source}: {count(len(odd), 'sentence')} have not one label per word: {examples(odd)}")
    known = check_classes(classes) if classes is not None else class_order({tag for tags in rows for tag in tags})
    place = {name: index for index, name in enumerate(known)}
    _refuse_unknown(rows, place, inputs, source)
    targets = np.empty(len(rows), dtype=object)
    targets[:] = [np.array([place[tag] for tag in tags], dtype=np.int64) for tags in rows]
    return targets, known


def encode_multi(labels: Sequence[Any], inputs: Sequence[Any], classes: Sequence[str] | None, source: str) -> tuple[Array, tuple[str, ...]]:
    """Return float32 rows of 0 and 1, ``(n, classes)``, and the classes."""
    if labels and all(isinstance(label, list | tuple) and _is_row(label) for label in labels):
        return _rows(labels, classes, source)
    sets = [_names(label) for label in labels]
    known = check_classes(classes) if classes is not None else class_order({name for names in sets for name in names})
    place = {name: index for index, name in enumerate(known)}
    _refuse_unknown(sets, place, inputs, source)
    targets = np.zeros((len(sets), len(known)), dtype=np.float32)
    for row, names in enumerate(sets):
        targets[row, [place[name] for name in names]] = 1
    return targets, known


def _is_row(label: Sequence[Any]) -> bool:
    return len(label) > 0 and all(isinstance(value, bool | int | float) and value in (0, 1) for value in label)


def _rows(labels: Sequence[Any], classes: Sequence[str] | None, source: str) -> tuple[Array, tuple[str, ...]]:
    widths = sorted({len(label) for label in labels})
    known = check_classes(classes) if classes is not None else tuple(map(str, range(widths[-1])))
    if widths != [len(known)]:
        raise DataError(f"{source}: rows of 0 and 1 have {examples(widths)} columns, but there are {count(len(known), 'class')}")
    return np.asarray(labels, dtype=np.float32), known


def _names(label: Any) -> list[str]:
    if isinstance(label, str):
        return [part.strip() for part in re.split(r"[|;]", label) if part.strip()]
    if isinstance(label, list | tuple | set | frozenset):
        return [_name(_plain(part)) for part in label]
    return [_name(label)]


def _refuse_unknown(labels: Sequence[Sequence[str]], place: dict[str, int], inputs: Sequence[Any], source: str) -> None:
    rows = defaultdict(list)
    for row, names in enumerate(labels):
        for name in names:
            if name not in place:
                rows[name].append(row)
    if rows:
        faults = [
            f"{name!r}{did_you_mean(name, place)}: {count(len(at), 'sample')}, first {examples([item_name(inputs, row) for row in at[:2]])}"
            for name, at in list(rows.items())[:4]
        ]
        faults += [f"… and {count(len(rows) - 4, 'label')} more"] if len(rows) > 4 else []
        headline = f"{source} has {count(len(rows), 'label')} outside the {len(place)} classes ({examples(list(place), 8)})"
        raise DataError(
            fault_list(
                headline, faults, "Correct the labels, give classes= (in the order of the model's outputs), or drop_other_classes=True."
            )
        )


def encode_numbers(labels: Sequence[Any], inputs: Sequence[Any], source: str) -> Array:
    """Return float32 numbers ``(n,)`` or ``(n, values)``."""
    values, faults = [], []
    for row, label in enumerate(labels):
        try:
            parts = re.split(r"[|;]", label) if isinstance(label, str) else label
            values.append([float(part) for part in parts] if isinstance(parts, list | tuple) else [float(parts)])
            if not all(abs(value) <= _LARGEST for value in values[-1]):  # NaN included
                raise ValueError("not finite")
        except (TypeError, ValueError):
            faults.append(f"{item_name(inputs, row)}: {label!r}")
    if faults:
        raise DataError(
            f"{source}: {count(len(faults), 'label')} of {len(labels)} are no finite numbers: {examples(faults)}; regression needs numbers"
        )
    widths = sorted({len(value) for value in values})
    if len(widths) > 1:
        raise DataError(f"{source}: labels have {examples(widths)} values per sample; give every sample the same number")
    array = np.asarray(values, dtype=np.float32)
    return array[:, 0] if widths == [1] else array
