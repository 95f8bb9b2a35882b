"""Classes that are empty, rare, in some splits only, or nearly spelt alike."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from zoo.data.table import Array
from zoo.engine.loading.class_counts import EXTREME, FEW
from zoo.errors import count, examples
from zoo.select.audit.findings.finding import Finding, found
from zoo.select.audit.reading.sources import Opened
from zoo.tasks.labels.spelling import looks_alike

_SHOWN = 8


def class_faults(data: Opened) -> Iterator[Finding]:
    """Yield what is odd about the classes of the labelled rows."""
    table, labelled = data.table, data.labelled
    if not len(table):
        return
    unlabelled = len(table) - int(labelled.sum())
    if labelled.any() and unlabelled:
        rows = np.flatnonzero(~labelled)
        where = examples([f"{name} ({int((data.splits[rows] == name).sum())})" for name in data.names if (data.splits[rows] == name).any()])
        yield found("classes", "note", f"{count(unlabelled, 'sample')} without a label: {where}", rows[:, None])
    if not labelled.any():
        return
    names = np.asarray(table.classes, dtype=object)
    counts = counts_by_split(data)
    total = np.sum(list(counts.values()), axis=0)
    if empty := [repr(name) for name, number in zip(names, total, strict=True) if not number]:
        yield _of_classes("warning", f"{count(len(empty), 'class')} without samples: {examples(empty, _SHOWN)}; remove them", len(empty))
    train = counts.get("train", total)
    few = [f"{name!r} ({number})" for name, number in zip(names, train, strict=True) if 0 < number < FEW]
    if few:
        yield _of_classes(
            "warning", f"{count(len(few), 'class')} with fewer than {FEW} samples in train: {examples(few, _SHOWN)}", len(few)
        )
    largest, smallest = int(train.max()), int(train[train > 0].min()) if train.any() else 0
    if smallest and largest / smallest >= EXTREME:
        shares = f"{names[train.argmax()]!r} has {largest} samples, {names[np.where(train > 0, train, largest).argmin()]!r} {smallest}"
        yield _of_classes(
            "warning", f"1 class has {largest / smallest:.0f} times as many samples as another: {shares}; look at macro recall", 1
        )
    yield from _by_split(data, counts)
    if alike := looks_alike(table.classes):
        pairs = [" and ".join(map(repr, pair)) for pair in alike]
        yield _of_classes(
            "warning",
            f"{count(len(alike), 'set')} of classes that differ in case, blanks or the spelling of a number only: {examples(pairs)}",
            len(alike),
        )


def counts_by_split(data: Opened) -> dict[str, Array]:
    """Return the number of samples of each class, by split, of the splits with labels."""
    targets, labelled = np.asarray(data.table.targets), data.labelled
    rows = {name: labelled & (data.splits == name) for name in data.names}
    return {name: np.bincount(targets[some], minlength=len(data.table.classes)) for name, some in rows.items() if some.any()}


def _by_split(data: Opened, counts: dict[str, Array]) -> Iterator[Finding]:
    names = np.asarray(data.table.classes, dtype=object)
    for split, numbers in counts.items():
        if (numbers > 0).sum() == 1:
            only = repr(names[numbers.argmax()])
            yield _of_classes("warning", f"1 class only in {split}: {only}; no model can be trained on it, and no metric measured", 1)
    if "train" not in counts:
        return
    for split, numbers in counts.items():
        if split == "train":
            continue
        new = [f"{name!r} ({number})" for name, number, known in zip(names, numbers, counts["train"], strict=True) if number and not known]
        absent = [repr(name) for name, number, known in zip(names, numbers, counts["train"], strict=True) if known and not number]
        if new:
            yield _of_classes("warning", f"{count(len(new), 'class')} in {split} and not in train: {examples(new, _SHOWN)}", len(new))
        if absent:
            yield _of_classes(
                "warning", f"{count(len(absent), 'class')} of train without samples in {split}: {examples(absent, _SHOWN)}", len(absent)
            )


def _of_classes(level: str, message: str, number: int) -> Finding:
    return Finding("classes", level, message, number)  # type: ignore[arg-type]  # one of two literals


def majority(data: Opened) -> dict[str, float]:
    """Return the accuracy of always saying the largest class of train, by split."""
    if not data.labelled.any():
        return {}
    counts = counts_by_split(data)
    largest = int(counts.get("train", np.sum(list(counts.values()), axis=0)).argmax())
    return {split: float(numbers[largest] / numbers.sum()) for split, numbers in counts.items()}
