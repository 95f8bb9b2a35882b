"""Folds of a cross-validation."""

from __future__ import annotations

import logging
from typing import Any

import numpy as np
import pytest
from sklearn.model_selection import GroupKFold, KFold, LeaveOneGroupOut, RepeatedStratifiedKFold, ShuffleSplit, StratifiedKFold

from zoo.data.splits.folds import cross_validation_folds, digest_of, division_name
from zoo.data.table import Table
from zoo.errors import DataError, LeakError, OptionError


def table(counts: dict[str, int], *, groups: list[str] | None = None) -> Table:
    targets = np.repeat(np.arange(len(counts)), list(counts.values()))
    inputs = np.arange(len(targets) * 12, dtype=np.uint8).reshape(len(targets), 2, 2, 3)
    return Table(inputs, targets, classes=tuple(counts), groups=None if groups is None else tuple(groups))


def held(folds: Any) -> np.ndarray[Any, Any]:
    return np.concatenate([fold.held_out for fold in folds])


def test_every_row_is_held_out_once_per_repeat_and_classes_are_spread() -> None:
    data = table({"a": 20, "b": 10})
    folds = cross_validation_folds(data, 5, repeats=3, seed=1)
    assert len(folds) == 15
    assert [fold.repeat for fold in folds] == [0] * 5 + [1] * 5 + [2] * 5
    for repeat in range(3):
        assert sorted(held([fold for fold in folds if fold.repeat == repeat])) == list(range(30))
    for fold in folds:
        assert np.bincount(data.targets[fold.held_out]).tolist() == [4, 2]  # type: ignore[index]  # it has targets
        assert not set(fold.train) & set(fold.held_out)
    assert digest_of(folds) == digest_of(cross_validation_folds(data, 5, repeats=3, seed=1))
    assert digest_of(folds) != digest_of(cross_validation_folds(data, 5, repeats=3, seed=2))


def test_groups_are_never_divided_whatever_their_spelling() -> None:
    names = [f"{number:03d}" if row % 2 else str(number) for row in range(3) for number in range(10)]
    data = table({"a": 15, "b": 15}, groups=names)
    assert division_name(data, 5) == "stratified by class and by group"
    for fold in cross_validation_folds(data, 5):
        assert not {int(names[row]) for row in fold.train} & {int(names[row]) for row in fold.held_out}


def test_equal_samples_stay_in_one_fold() -> None:
    data = table({"a": 10, "b": 10})
    inputs = np.asarray(data.inputs).copy()
    inputs[11:15] = inputs[10]
    for fold in cross_validation_folds(Table(inputs, data.targets, classes=data.classes), 4):
        assert len({row in fold.held_out for row in range(10, 15)}) == 1


@pytest.mark.parametrize(
    "splitter", [StratifiedKFold(3), RepeatedStratifiedKFold(n_splits=3, n_repeats=2, random_state=0), ShuffleSplit(4, random_state=0)]
)
def test_splitters_of_scikit_learn_are_taken_as_they_are(splitter: Any) -> None:
    data = table({"a": 9, "b": 9})
    found = cross_validation_folds(data, splitter)
    wanted = list(splitter.split(np.zeros(18), data.targets))
    assert [fold.held_out.tolist() for fold in found] == [rows.tolist() for _, rows in wanted]
    if isinstance(splitter, RepeatedStratifiedKFold):
        assert [fold.repeat for fold in found] == [0, 0, 0, 1, 1, 1]


def test_splitters_get_the_groups_and_pairs_of_rows_are_folds() -> None:
    data = table({"a": 4, "b": 4}, groups=list("xyzwxyzw"))
    assert len(cross_validation_folds(data, LeaveOneGroupOut())) == 4
    pairs = [(range(4, 8), range(4)), (range(4), range(4, 8))]
    plain = table({"a": 4, "b": 4})
    assert held(cross_validation_folds(plain, pairs)).tolist() == list(range(8))
    first = np.arange(8) < 4
    assert held(cross_validation_folds(plain, [(~first, first), (first, ~first)])).tolist() == list(range(8))  # masks
    with pytest.raises(DataError, match=r"a mask has the shape \(4,\), and there are 8 rows"):
        cross_validation_folds(plain, [(first[:4], first)])
    with pytest.raises(OptionError, match=r"folds is the class KFold; give an object of it, such as folds=KFold\(\)"):
        cross_validation_folds(plain, KFold)


def test_folds_that_divide_a_group_are_a_leak(caplog: pytest.LogCaptureFixture) -> None:
    data = table({"a": 4, "b": 4}, groups=list("xyzwxyzw"))
    with pytest.raises(LeakError, match=r"folds=KFold divides 4 groups of 4: 'w', 'x', 'y', 'z'; take folds=GroupKFold"):
        cross_validation_folds(data, KFold(2))
    assert len(cross_validation_folds(data, KFold(2), allow_leak=True)) == 2
    assert "divides 4 groups of 4" in caplog.text
    assert len(cross_validation_folds(data, GroupKFold(2))) == 2


def test_too_few_samples_groups_or_samples_of_a_class_are_told_with_what_to_do() -> None:
    with pytest.raises(DataError, match=r"3 samples, fewer than 5 folds; take at most folds=3"):
        cross_validation_folds(table({"a": 2, "b": 1}), 5)
    with pytest.raises(DataError, match=r"2 groups, fewer than 3 folds; take at most folds=2"):
        cross_validation_folds(table({"a": 3, "b": 3}, groups=list("xxyyxx")), 3)
    with pytest.raises(DataError, match=r"largest class has 3 samples, fewer than 5 folds; take at most folds=3"):
        cross_validation_folds(table({"a": 3, "b": 3}), 5)
    with pytest.raises(OptionError, match=r"(?s)folds is 1.*repeats is 0"):
        cross_validation_folds(table({"a": 3, "b": 3}), 1, repeats=0)
    with pytest.raises(OptionError, match="repeats"):
        cross_validation_folds(table({"a": 3, "b": 3}), StratifiedKFold(3), repeats=2)
    with pytest.raises(DataError, match="groups come from a column"):
        cross_validation_folds(table({"a": 3, "b": 3}), GroupKFold(2))
    with pytest.raises(DataError, match=r"(?s)fold 0: held out has no rows.*fold 1: 1 row in train and held out.*outside"):
        cross_validation_folds(table({"a": 3, "b": 3}), [([0, 1], []), ([0, 1], [1, 2]), ([0], [99])])


def test_rare_classes_are_told(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, logger="zoo"):
        folds = cross_validation_folds(table({"a": 20, "b": 3, "c": 1}), 5)
    assert "fewer than 5 folds can hold out 'b' (3 samples)" in caplog.text
    assert "a single sample has 'c'; the fold that holds it out is trained without the class" in caplog.text
    assert sorted(held(folds)) == list(range(24))
