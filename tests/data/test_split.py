from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest

from tests.data.make import folder
from zoo.data.open import open_data, open_train_valid
from zoo.data.splits.train_valid import hold_out, normal_group
from zoo.data.table import Table
from zoo.errors import DataError, OptionError


def table(targets: list[int], groups: list[str] | None = None, **options: Any) -> Table:
    names = tuple("abcdefgh"[: max(targets) + 1])
    inputs = [np.full((4, 4), index, np.uint8) for index in range(len(targets))]
    return Table(inputs, np.array(targets), names, tuple(groups) if groups else None, **options)


def ids(part: Table) -> list[int]:
    return [int(item[0, 0]) for item in part.inputs]


def test_a_hold_out_keeps_the_shares_of_the_classes() -> None:
    train, valid = hold_out(table([0] * 80 + [1] * 20), seed=0)
    assert (train.counts(), valid.counts()) == ({"a": 64, "b": 16}, {"a": 16, "b": 4})


def test_a_hold_out_is_decided_by_the_seed() -> None:
    whole = table([0, 1] * 30)
    first, again, other = (hold_out(whole, seed)[1] for seed in (1, 1, 2))
    assert ids(first) == ids(again) != ids(other)


def test_any_seed_will_do() -> None:
    for groups in (None, [str(index // 3) for index in range(60)]):
        assert len(hold_out(table([0, 1] * 30, groups), seed=2**62 + 1)[1]) > 0


def test_a_hold_out_and_its_rest_are_everything_once() -> None:
    train, valid = hold_out(table([0, 1, 2] * 9), seed=0)
    assert sorted(ids(train) + ids(valid)) == list(range(27))


def test_a_class_with_one_sample_trains() -> None:
    train, valid = hold_out(table([0] * 9 + [1]), seed=0)
    assert (train.counts()["b"], len(valid)) == (1, 2)


@pytest.mark.parametrize("seed", range(5))
def test_a_hold_out_never_cuts_a_group(seed: int) -> None:
    rng = np.random.default_rng(seed)
    groups = [f"P{number:03d}" if rng.random() < 0.5 else f" p{number:03d}" for number in rng.integers(0, 40, 200)]
    train, valid = hold_out(table(rng.integers(0, 3, 200).tolist(), groups), seed)
    left, right = ({normal_group(group) for group in part.groups or ()} for part in (train, valid))
    assert not left & right
    assert 20 <= len(valid) <= 60


def test_groups_hold_for_several_labels_and_for_numbers() -> None:
    groups = tuple(str(index // 4) for index in range(80))
    inputs = [np.zeros((4, 4), np.uint8)] * 80
    many = Table(inputs, (np.random.default_rng(0).random((80, 3)) < 0.4).astype(np.float32), ("a", "b", "c"), groups)
    number = Table(inputs, np.arange(80, dtype=np.float32), (), groups)
    for whole in (many, number):
        train, valid = hold_out(whole, 0)
        assert (len(valid), set(train.groups or ()) & set(valid.groups or ())) == (16, set())


def test_one_group_only_cannot_be_split() -> None:
    with pytest.raises(DataError, match=r"all samples are of one group.*; give a validation set"):
        hold_out(table([0, 1] * 5, ["x"] * 10), 0)


def test_too_few_samples_ask_for_a_validation_set() -> None:
    for targets in ([0, 1], [0], [0, 1, 2]):
        with pytest.raises(DataError, match=r"give a validation set, or train on everything with valid=False \(--no-valid\)"):
            hold_out(table(targets), 0)


@pytest.mark.parametrize("variants", [("007", "7"), ("7 ", "7"), ("7.0", "07"), ("Ann", " ann"), ("0", "000")])
def test_spellings_of_one_id_are_one_group(variants: tuple[str, str]) -> None:
    assert normal_group(variants[0]) == normal_group(variants[1])


@pytest.mark.parametrize("variants", [("7", "70"), ("a7", "a07"), ("7.5", "7")])
def test_other_ids_are_other_groups(variants: tuple[str, str]) -> None:
    assert normal_group(variants[0]) != normal_group(variants[1])


def test_a_group_on_both_sides_is_refused_and_its_pairs_are_listed() -> None:
    train, valid = table([0, 1, 0, 1], ["007", "8", "9", "10"]), table([0, 1], ["7 ", "11"])
    valid = replace(valid, inputs=[np.full((4, 4), 100 + index, np.uint8) for index in range(2)])
    with pytest.raises(DataError, match=r"1 group of 2 in valid \(1 sample\)") as caught:
        open_train_valid(train, valid)
    assert "group '007': row 0 in train, group '7 ': row 0 in valid" in str(caught.value)
    assert len(open_train_valid(train, valid, allow_leak=True)[1]) == 2


def test_a_split_column_that_cuts_groups_is_refused() -> None:
    leaky = table([0, 1, 0, 1], ["1", "2", "3", "1"], splits=("train", "train", "train", "val"))
    with pytest.raises(DataError, match="allow_leak"):
        open_train_valid(leaky)


def test_random_labels_cannot_be_learned_across_a_grouped_split() -> None:
    # The canary: label and picture depend on the patient alone, labels are random. Nearest neighbours score near 1
    # where patients are cut, and at chance where they are not.
    rng = np.random.default_rng(0)
    patients = np.repeat(np.arange(100), 4)
    labels = rng.integers(0, 2, 100)[patients]
    pictures = rng.normal(size=(100, 16))[patients] + 0.01 * rng.normal(size=(400, 16))

    def score(groups: list[str] | None) -> float:
        train, valid = (np.array(part) for part in map(ids_of, hold_out(whole(groups), 0)))
        distance = ((pictures[valid][:, None] - pictures[train][None]) ** 2).sum(-1)
        return float((labels[train][distance.argmin(1)] == labels[valid]).mean())

    def whole(groups: list[str] | None) -> Table:
        return Table(list(range(400)), labels, ("a", "b"), tuple(groups) if groups else None)

    def ids_of(part: Table) -> list[int]:
        return list(part.inputs)

    assert score(None) > 0.9
    assert score([str(patient) for patient in patients]) <= 0.5 + 3 * 0.5 / np.sqrt(20)


def test_two_ways_to_name_the_validation_data_are_one_too_many() -> None:
    with pytest.raises(OptionError, match="not both"):
        open_train_valid(table([0, 1]), table([0, 1]), valid_split="0")


def test_a_validation_split_that_does_not_exist_is_refused() -> None:
    with pytest.raises(DataError, match=r"no split 'fold9' \(did you mean 'fold1'"):
        open_train_valid(table([0, 1] * 2, splits=("fold0", "fold1") * 2), valid_split="fold9")


def test_a_train_split_is_preferred_to_everything_else() -> None:
    whole = table([0, 1] * 3, splits=("train", "train", "extra", "extra", "val", "val"))
    train, valid = open_train_valid(whole)
    assert (ids(train), ids(valid)) == ([0, 1], [4, 5])


def test_a_split_that_was_made_is_not_asked_for_again() -> None:
    splits = tuple("0123" * 4)
    whole = table([0, 0, 0, 0, 1, 1, 1, 1] * 2, splits=splits)
    train, valid = open_train_valid(whole, valid_split="0")
    assert (len(train), len(valid), train.splits, valid.splits) == (12, 4, None, None)
    again = open_train_valid(train, valid)
    assert [ids(part) for part in again] == [ids(train), ids(valid)]
    held = open_train_valid(table([0, 1] * 10, splits=("train",) * 20))
    assert [part.splits for part in held] == [None, None]


def test_a_question_for_the_fold_shows_it_as_it_has_to_be_typed() -> None:
    with pytest.raises(DataError, match="such as valid_split='fold0'"):
        open_train_valid(table([0, 1] * 2, splits=("fold0", "fold1") * 2))


def test_rows_of_other_classes_are_left_out_only_when_it_is_asked_for(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    whole = table([0, 1, 2, 2] * 5)
    with pytest.raises(DataError, match=r"(?s)'c': 10 samples.*drop_other_classes=True"):
        open_train_valid(whole, classes=["b", "a"])
    train, valid = open_train_valid(whole, classes=["b", "a"], drop_other_classes=True)
    assert (train.classes, len(train) + len(valid)) == (("b", "a"), 10)
    assert not {2, 3} & {row % 4 for row in ids(train) + ids(valid)}
    assert "10 of 20 samples are of other classes and are left out: 'c' (10)" in caplog.text
    with pytest.raises(DataError, match=r"no sample of aa.*did you mean 'a'"):
        open_train_valid(whole, classes=["aa", "bb"], drop_other_classes=True)
    for wrong in ({}, {"classes": ["a"], "task": "multi-label"}):
        with pytest.raises(OptionError, match="drop_other_classes=True needs"):
            open_train_valid(whole, drop_other_classes=True, **wrong)


def test_a_file_on_both_sides_is_refused_and_a_text_is_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    here = folder(tmp_path / "train", ant=2, bee=2)
    with pytest.raises(DataError, match="4 of 4 samples in valid are also in train"):
        open_train_valid(here, here)
    assert len(open_train_valid(here, here, allow_leak=True)[1]) == 4
    first, second = (["one", "two"], ["a", "b"]), (["two", "three"], ["b", "a"])
    assert len(open_train_valid(first, second, reads="text")[1]) == 2
    assert "1 of 2 samples in valid is also in train" in caplog.text


def repeated(tmp_path: Path) -> list[tuple[str, str]]:
    """Twenty files of two classes, those of one three times, and a copy of each of the first four under another name."""
    chance = np.random.default_rng(0)
    rows = []
    for index in range(20):
        path = tmp_path / f"{index}.png"
        PIL.Image.fromarray(chance.integers(0, 255, (8, 8, 3), dtype=np.uint8)).save(path)
        rows += [(str(path), "ab"[index % 2])] * (3 if index % 2 else 1)
        if index < 4:
            shutil.copy(path, tmp_path / f"copy{index}.png")
            rows.append((str(tmp_path / f"copy{index}.png"), "ab"[index % 2]))
    return rows


@pytest.mark.parametrize("grouped", [False, True])
def test_equal_files_stay_on_one_side_of_a_split(grouped: bool, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    rows = repeated(tmp_path)
    paths, labels = map(list, zip(*rows, strict=True))
    groups = tuple(f"p{index // 5}" for index in range(len(paths))) if grouped else None
    table = replace(open_data((paths, labels)), groups=groups)
    for seed in range(5):
        with caplog.at_level("INFO"):
            train, valid = hold_out(table, seed)
        contents = [{Path(path).read_bytes() for path in part.inputs} for part in (train, valid)]
        assert not contents[0] & contents[1]
        assert len(train) + len(valid) == len(table)
        if grouped:
            assert not set(train.groups or ()) & set(valid.groups or ())
    assert "24 samples repeat another one" in caplog.text
    assert "contradicting" not in caplog.text


def test_contradicting_labels_of_equal_samples_are_told(caplog: pytest.LogCaptureFixture) -> None:
    pixels = np.random.default_rng(0).integers(0, 255, (12, 8, 8, 3), dtype=np.uint8)
    pixels[1] = pixels[0]
    hold_out(open_data((pixels, ["a", "b"] * 6)), 0)
    assert "1 set of equal samples with contradicting labels" in caplog.text


def test_a_copy_of_a_training_file_in_the_validation_data_is_a_leak(tmp_path: Path) -> None:
    rows = repeated(tmp_path)
    parts = ([row for row in rows if Path(row[0]).name.startswith("copy") == copied] for copied in (False, True))
    train, valid = (tuple(list(column) for column in zip(*part, strict=True)) for part in parts)
    with pytest.raises(DataError, match="4 of 4 samples in valid are also in train"):
        open_train_valid(train, valid)


def test_a_trial_with_equal_samples_alone_is_split_all_the_same(caplog: pytest.LogCaptureFixture) -> None:
    train, valid = hold_out(open_data((np.zeros((20, 8, 8, 3), np.uint8), ["a", "b"] * 10)), 0)
    assert (len(train), len(valid)) == (16, 4)
    assert "all samples are equal" in caplog.text
