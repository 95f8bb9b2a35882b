"""Random divisions of rows that keep the shares of the classes, row for row those of scikit-learn.

To import scikit-learn takes 1.7 s of CPU time, more than a small training, and training needs no more of it than this.
Source: ``KFold``, ``StratifiedKFold`` and ``StratifiedShuffleSplit`` of scikit-learn 1.9 (Pedregosa et al. 2011).
"""

from __future__ import annotations

import numpy as np

from zoo.data.table import Array


def shuffled_folds(count: int, folds: int, seed: int) -> list[Array]:
    """Return the held-out rows of each fold, in ascending order.

    Args:
        count: Rows, at least as many as folds.
        folds: How many.
        seed: Of numpy's old generator, below 2**32.
    """
    rows = np.random.RandomState(seed).permutation(count)
    return [np.sort(part) for part in np.array_split(rows, folds)]


def stratified_folds(targets: Array, folds: int, seed: int) -> list[Array]:
    """Return the held-out rows of each fold, in ascending order; each has the classes in about the shares of all rows.

    Args:
        targets: Class of each row, ``(rows,)``. Of a class with fewer rows than folds, some folds have none.
        folds: How many, at most the rows of the largest class.
        seed: Of numpy's old generator, below 2**32.
    """
    _, first, inverse = np.unique(targets, return_index=True, return_inverse=True)
    classes = np.argsort(np.argsort(first))[inverse]  # numbered in the order in which they come
    ordered = np.sort(classes)
    shares = np.stack([np.bincount(ordered[fold::folds], minlength=len(first)) for fold in range(folds)])
    source, found = np.random.RandomState(seed), np.empty(len(targets), dtype=np.int64)
    for number in range(len(first)):
        own = np.arange(folds).repeat(shares[:, number])
        source.shuffle(own)
        found[classes == number] = own
    return [np.flatnonzero(found == fold) for fold in range(folds)]


def stratified_part(targets: Array, size: int, seed: int) -> Array:
    """Return random rows in ascending order that have the classes in about the shares of all rows.

    Args:
        targets: Class of each row, ``(rows,)``; of each class at least two rows.
        size: How many rows, at least as many as classes; as many are to be left.
        seed: Of numpy's old generator, below 2**32.
    """
    _, classes, counts = np.unique(targets, return_inverse=True, return_counts=True)
    source = np.random.RandomState(seed)
    left = _likeliest_draw(counts, len(targets) - size, source)
    drawn = _likeliest_draw(counts - left, size, source)
    parts = []
    for number in range(len(counts)):
        rows = np.flatnonzero(classes == number)[source.permutation(counts[number])]
        parts.append(rows[left[number] : left[number] + drawn[number]])
    return np.sort(np.concatenate(parts))


def _likeliest_draw(counts: Array, size: int, source: np.random.RandomState) -> Array:
    """Return how many of each class are likeliest among ``size`` rows drawn without replacement; chance decides between equals."""
    exact = counts / counts.sum() * size
    found: Array = np.floor(exact).astype(np.int64)
    rest = exact - found
    missing = size - int(found.sum())
    for value in np.unique(rest)[::-1]:
        if not missing:
            break
        equal = np.flatnonzero(rest == value)
        more = min(len(equal), missing)
        found[source.choice(equal, size=more, replace=False)] += 1
        missing -= more
    return found
