"""Divisions of rows equal those of scikit-learn."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
from sklearn.model_selection import GroupKFold, KFold, StratifiedKFold, StratifiedShuffleSplit

from zoo.data.splits.folds import folds_of
from zoo.data.splits.stratified import shuffled_folds, stratified_folds, stratified_part
from zoo.data.table import Table


@pytest.mark.parametrize("seed", range(20))
def test_divisions_are_row_for_row_those_of_scikit_learn(seed: int) -> None:
    source = np.random.default_rng(seed)
    for classes in range(1, 7):
        targets = source.integers(0, classes, int(source.integers(12, 90)))
        folds, drawn = int(source.integers(2, 7)), int(source.integers(2**32))
        splitters = [cls(folds, shuffle=True, random_state=drawn) for cls in (KFold, StratifiedKFold)]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # a class has fewer rows than folds
            expected = [[held.tolist() for _, held in splitter.split(targets, targets)] for splitter in splitters]
        assert [held.tolist() for held in shuffled_folds(len(targets), folds, drawn)] == expected[0]
        assert [held.tolist() for held in stratified_folds(targets, folds, drawn)] == expected[1]
        targets = targets[np.bincount(targets)[targets] > 1]
        size = max(round(0.2 * len(targets)), classes)
        part = next(StratifiedShuffleSplit(1, test_size=size, random_state=drawn).split(targets, targets))[1]
        assert stratified_part(targets, size, drawn).tolist() == sorted(part)


@pytest.mark.parametrize("seed", range(10))
def test_numbers_with_groups_are_divided_as_scikit_learn_does(seed: int) -> None:
    source = np.random.default_rng(seed)
    groups = source.integers(0, 9, 40)
    table = Table(list(range(40)), source.normal(size=(40, 1)), groups=tuple(f"patient {group}" for group in groups))
    expected = GroupKFold(4, shuffle=True, random_state=seed).split(groups, groups=np.unique(groups, return_inverse=True)[1])
    found = folds_of(table, seed, 4)
    assert [[rows.tolist() for rows in fold] for fold in found] == [[rows.tolist() for rows in fold] for fold in expected]
