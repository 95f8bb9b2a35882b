"""Folds of a table: what they keep together, and what they cannot divide."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from zoo.data.splits.folds import folds_of
from zoo.data.table import Table


def labelled(targets: Any, groups: Any = None, classes: int = 2) -> Table:
    names = tuple(map(str, range(classes)))
    return Table(list(range(len(targets))), np.asarray(targets), names, groups=None if groups is None else tuple(map(str, groups)))


def test_each_sample_is_held_out_once_and_classes_are_stratified() -> None:
    table = labelled([0] * 20 + [1] * 10)
    folds = folds_of(table, seed=3)
    assert sorted(np.concatenate([held for _, held in folds])) == list(range(30))
    assert all(not set(train) & set(held) for train, held in folds)
    assert [int((held >= 20).sum()) for _, held in folds] == [2] * 5


def test_equal_seeds_give_equal_folds() -> None:
    table = labelled([0, 1] * 10)
    once, again, other = (folds_of(table, seed) for seed in (1, 1, 2))
    assert all((one[1] == two[1]).all() for one, two in zip(once, again, strict=True))
    assert any((one[1] != two[1]).any() for one, two in zip(once, other, strict=True))


def test_a_group_is_never_on_both_sides_however_its_id_is_written() -> None:
    groups = ["7", "007", "7.0", "a", "A ", "b", "c", "c", "d", "e"] * 2
    for train, held in folds_of(labelled([0, 1] * 10, groups), seed=0):
        sides = [{"7" if groups[row][0] in "07" else groups[row].strip().lower() for row in rows} for rows in (train, held)]
        assert not sides[0] & sides[1]


@pytest.mark.parametrize("groups", [None, [str(row // 2) for row in range(60)]], ids=["alone", "in groups"])
def test_copies_of_a_sample_are_never_on_both_sides(groups: list[str] | None) -> None:
    names = [f"text {row}" for row in range(20)] * 3
    table = Table(names, np.array([0, 1] * 30), ("a", "b"), reads="text", groups=groups and tuple(groups))
    folds = folds_of(table, seed=0)
    assert len(folds) == 5
    assert sorted(np.concatenate([held for _, held in folds])) == list(range(60))
    assert not any({names[row] for row in train} & {names[row] for row in held} for train, held in folds)


def test_samples_that_are_all_equal_are_divided_as_if_they_differed() -> None:
    assert len(folds_of(Table(["text"] * 10, np.array([0, 1] * 5), ("a", "b"), reads="text"), seed=0)) == 5


def test_a_class_of_one_sample_is_not_held_out() -> None:
    held = np.concatenate([held for _, held in folds_of(labelled([0] * 10 + [1] * 10 + [2], classes=3), seed=0)])
    assert sorted(held) == list(range(20))


@pytest.mark.parametrize(
    "table",
    [labelled([0]), labelled([0, 1]), labelled([0, 1, 0, 1], groups=["a"] * 4)],
    ids=["one sample", "one of each class", "one group"],
)
def test_what_cannot_be_divided_gives_no_folds(table: Table) -> None:
    assert folds_of(table, seed=0) == []


def test_numbers_and_label_rows_are_divided_without_classes() -> None:
    for targets in (np.arange(7, dtype=np.float32), np.eye(7, 3, dtype=np.float32)):
        folds = folds_of(Table(list(range(7)), targets), seed=0)
        assert sorted(np.concatenate([held for _, held in folds])) == list(range(7))
