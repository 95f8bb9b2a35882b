"""Cross-validation folds of a labelled table: stratified by class, by group where there are groups."""

from __future__ import annotations

import warnings

import numpy as np

from zoo.data.split import is_single_label, normal_group
from zoo.data.table import Array, Table
from zoo.data.texts.encode import TextWindow

FOLDS = 5


def folds_of(table: Table, seed: int, folds: int = FOLDS) -> list[tuple[Array, Array]]:
    """Return training and held-out rows of each fold.

    No group is on both sides, and no window of a text. A class whose samples are all in one fold is not held out, because a model
    that was trained without it says nothing about it.

    Args:
        table: Labelled rows.
        seed: Seed of the division.
        folds: At most so many; fewer samples or groups give fewer.

    Returns:
        Pairs of row indices; none where the samples cannot be divided, such as a single sample per class.
    """
    groups = _groups(table)
    units = len(table) if groups is None else int(groups.max(initial=-1)) + 1
    if min(units, folds) < 2:
        return []
    targets = np.asarray(table.targets) if is_single_label(table) else None
    parts = _parts(len(table), targets, groups, min(units, folds), seed % 2**32)  # all that numpy's old generator takes
    if targets is not None:
        parts = [(train, held[np.isin(targets[held], targets[train])]) for train, held in parts]
    return [(train, held) for train, held in parts if len(train) and len(held)]


def _parts(count: int, targets: Array | None, groups: Array | None, folds: int, seed: int) -> list[tuple[Array, Array]]:
    from sklearn.model_selection import GroupKFold, KFold, StratifiedGroupKFold, StratifiedKFold  # type: ignore[import-untyped]

    rows = np.zeros(count)
    if targets is not None:
        folds = min(folds, int(np.bincount(targets).max()))
    if folds < 2:
        return []
    options = {"shuffle": True, "random_state": seed}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # about classes with fewer samples than folds, which are dealt with above
        if groups is not None:
            splitter = GroupKFold(folds, **options) if targets is None else StratifiedGroupKFold(folds, **options)
            return list(splitter.split(rows, targets, groups))
        return list((KFold if targets is None else StratifiedKFold)(folds, **options).split(rows, targets))


def _groups(table: Table) -> Array | None:
    """Return the number of the group of each row: its own group, or the text that it is a window of; None without groups."""
    if table.groups is not None:
        return np.unique([normal_group(group) for group in table.groups], return_inverse=True)[1]
    if len(table) and isinstance(table.inputs[0], TextWindow):
        return np.unique([window.text for window in table.inputs], return_inverse=True)[1]
    return None
