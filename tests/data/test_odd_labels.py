"""Labels that are nearly right: each is read as it is meant, told, or refused with the remedy."""

from __future__ import annotations

import logging
import os
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from torch.utils.data import ConcatDataset, DataLoader, Dataset, Subset

from tests.data.make import folder, image, write
from zoo.data.images.decode import decode
from zoo.data.open import open_data, open_train_valid
from zoo.data.table import names_of
from zoo.errors import CorruptInputError, DataError, HoldOutError
from zoo.tasks.labels.spelling import looks_alike

PICTURES = [image(row) for row in range(8)]


def read(labels: Any, task: str = "single-label", **options: Any) -> Any:
    return open_data(([PICTURES[row % 8] for row in range(len(labels))], labels), task=task, **options)


@pytest.mark.parametrize(("values", "told"), [(["1", ""], "every known value of 2 labels is positive"), (["1", "0"], "")])
def test_columns_of_1_and_blank_are_told(values: list[str], told: str, caplog: pytest.LogCaptureFixture) -> None:
    frame = pd.DataFrame({"image": PICTURES, "a": values * 4, "b": values[::-1] * 4})
    open_data(frame, task="multi-label", label_columns=["a", "b"])
    assert told in caplog.text
    assert ("fill the blanks with 0" in caplog.text) == bool(told)


@pytest.mark.parametrize("start", [1_700_000_000, 20_000_001])
def test_numbers_that_float32_cannot_tell_apart_are_refused(start: int) -> None:
    with pytest.raises(DataError, match=rf"targets from {start} to {start + 7}.*subtract a constant"):
        read([start + row for row in range(8)], "regression")
    assert read([start + 10**7 * row for row in range(8)], "regression").targets.dtype == np.float32


@pytest.mark.parametrize("kind", ["datetime64[ns]", "datetime64[D]", "timedelta64[s]"])
@pytest.mark.parametrize("task", ["regression", "single-label"])
def test_dates_and_durations_are_refused(kind: str, task: str) -> None:
    values = np.arange(8).astype(kind)
    for labels in (values, list(values)):
        with pytest.raises(DataError, match=r"8 labels of 8 are dates or durations.*np\.timedelta64"):
            read(labels, task)


@pytest.mark.parametrize("joint", ["/", " + ", "+", "\n", "\t", " & ", ":", "，"])
@pytest.mark.parametrize("names", [("a", "b", "a{}b", "a"), ("cat{}animal", "dog{}animal", "ship", "ship"), ("a{}b", "a", "ship", "a")])
def test_several_labels_joined_by_another_separator_are_refused(joint: str, names: tuple[str, ...]) -> None:
    labels = [name.format(joint) for name in names] * 2
    with pytest.raises(DataError, match=r"like several labels joined by .*write '\|' in its place, or name the classes"):
        read(labels, "multi-label")
    assert read(labels, "multi-label", classes=sorted(set(labels))).counts()[labels[0]] == labels.count(labels[0])


@pytest.mark.parametrize("joint", [" ", " and "])
def test_words_that_may_be_several_labels_are_told(joint: str, caplog: pytest.LogCaptureFixture) -> None:
    read([f"cat{joint}animal", f"dog{joint}animal", "ship"] * 2, "multi-label")
    assert "like several labels joined by" in caplog.text


def test_names_with_a_separator_stay_where_samples_have_several_labels(caplog: pytest.LogCaptureFixture) -> None:
    assert read(["church/indoor", "church/outdoor|old", "old"] * 2, "multi-label").classes == ("church/indoor", "church/outdoor", "old")
    assert not caplog.text
    read(["Edema, left|Mass", "Edema, right"] * 2, "multi-label")
    assert "'Edema, left', 'Edema, right' look like several labels joined by ','" in caplog.text
    with pytest.raises(DataError, match="'cat,animal' looks like several labels"):
        read(["cat,animal", "cat|animal"] * 2, "multi-label")


def test_names_in_quotation_marks_lose_them() -> None:
    table = read(['"a","b, c"', '"a"', "a", ""] * 2, "multi-label")
    assert table.classes == ("a", "b, c")
    assert table.targets.tolist() == [[1, 1], [1, 0], [1, 0], [0, 0]] * 2


def test_mixed_separators_are_told(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    read(["a;b", "b,c"] * 4, "multi-label")
    assert "split at '|' and ';' (4 cells), so a comma is part of a name (4 cells)" in caplog.text


@pytest.mark.parametrize(
    "pair", [("3", "3.0"), ("TRUE", "True"), ("1", "01"), ("Cat", "cat"), ("big cat", "big  cat"), ("cat", "ca\u200bt"), ("ａ", "a")]
)
def test_classes_that_look_alike_are_told_once(pair: tuple[str, str], caplog: pytest.LogCaptureFixture) -> None:
    open_train_valid((PICTURES, [*pair, "dog", "dog"] * 2), ([image(90)], ["dog"]))
    (line,) = [record.getMessage() for record in caplog.records if "classes that differ" in record.getMessage()]
    assert all(repr(name) in line for name in pair)
    caplog.clear()
    read([*pair] * 4, classes=pair)
    assert not caplog.records


def test_labels_in_bytes_are_text() -> None:
    assert read(np.array(["cat", "dog"] * 4, dtype="S3")).classes == ("cat", "dog")


@pytest.mark.parametrize(
    ("inputs", "labels", "match"),
    [
        (PICTURES, dict.fromkeys("abcdefgh", 1), r"labels are a dict.*\[y\[name\] for name in X\]"),
        (PICTURES, (row for row in range(8)), r"labels are a generator.*list\(y\)"),
        (map(np.asarray, PICTURES), [0] * 8, r"inputs are a map.*list\(X\)"),
        (PICTURES, set("abcdefgh"), r"labels are a set.*sorted\(y\)"),
        (list(range(8)), PICTURES, r"the order is \(input, target\)"),
        (["a\0.png"] * 8, list(range(8)), "8 paths with a NUL character"),
        (PICTURES, np.eye(2)[[0, 1] * 4], r"one-hot: give y\.argmax\(1\)"),
        (PICTURES, np.zeros((8, 1)), r"y\.ravel\(\)"),
    ],
)
def test_inputs_and_labels_of_the_wrong_kind_are_refused(inputs: Any, labels: Any, match: str) -> None:
    with pytest.raises(DataError, match=match):
        open_data((inputs, labels))


def test_a_lone_surrogate_names_its_row() -> None:
    for source in (["fine", "a\ud800"], pd.DataFrame({"text": ["fine", "a\ud800"]}, dtype=object)):
        with pytest.raises(DataError, match=r"cannot be read as .*: row 1 \(it has a lone surrogate"):
            open_data(source, reads="text", labelled=False)


def test_an_empty_path_is_refused() -> None:
    with pytest.raises(DataError, match="empty text; give a folder"):
        open_data("", labelled=False)


def test_a_pipe_is_no_image_and_is_not_waited_for(tmp_path: Path) -> None:
    pipe = tmp_path / "a.png"
    os.mkfifo(pipe)
    with pytest.raises(DataError, match="no regular file"):
        open_data([str(pipe)], labelled=False)
    with pytest.raises(CorruptInputError, match="no regular file"):
        decode(str(pipe))
    with pytest.raises(CorruptInputError, match="null"):
        decode("a\0.png")
    with pytest.raises(CorruptInputError, match="rows differ in length"):
        decode([[1, 2], [3]])


def test_names_of_results_are_utf8() -> None:
    (name,) = names_of(["caf\udce9.png"], [0])
    assert name == "caf\\udce9.png"


@pytest.mark.parametrize("column", ["Patient ID", "PatientID", "subject", "SUBJECT-ID", "patient_id"])
def test_a_missing_id_is_a_group_of_its_own(column: str) -> None:
    ids = [0, 0, None, 1, 1, 2, 2, None]
    table = open_data(pd.DataFrame({"image": PICTURES, "label": list("ab") * 4, column: ids}))
    assert table.groups is not None
    assert [group for group in table.groups if "no id" not in group] == ["0", "0", "1", "1", "2", "2"]
    assert len(set(table.groups)) == 5
    held = open_train_valid(table.select([0, 1, 2]), table.select([3, 4, 7]))
    assert held[1] is not None


@pytest.mark.parametrize(
    "names",
    [
        ("training_set", "test_set"),
        ("seg_train", "seg_test", "seg_pred_test"),
        ("train_images", "val_images"),
        ("train", "holdout"),
        ("trainset", "testset"),
    ],
)
def test_folders_that_look_like_splits_are_refused(names: tuple[str, ...], tmp_path: Path) -> None:
    for name in names:
        folder(tmp_path / name, a=1, b=1)
    with pytest.raises(DataError, match=r"splits.*fit\(train, valid\)"):
        open_data(tmp_path)


def test_class_folders_with_the_same_subfolders_are_read_with_a_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    for name in ("cat", "dog"):
        folder(tmp_path / name, front=1, back=1)
    assert open_data(tmp_path).classes == ("cat", "dog")
    assert "are read as classes, and all hold the folders 'back', 'front'; if they are splits" in caplog.text


@pytest.mark.parametrize("name", ["eval", "validate", "evaluation"])
def test_eval_and_validate_are_validation(name: str, tmp_path: Path) -> None:
    folder(tmp_path / "train", a=2, b=2)
    folder(tmp_path / name, a=1, b=1)
    train, valid = open_train_valid(tmp_path)
    assert (len(train), valid and len(valid)) == (4, 2)


def test_rows_of_splits_that_are_not_used_are_counted(caplog: pytest.LogCaptureFixture) -> None:
    frame = pd.DataFrame({"image": PICTURES, "label": list("ab") * 4, "Split": ["train"] * 4 + ["eval"] * 2 + ["extra"] * 2})
    train, valid = open_train_valid(frame)
    assert (len(train), valid and len(valid)) == (4, 2)
    assert "not used: 2 rows of split 'extra'" in caplog.text


def test_folders_of_odd_names(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    folder(tmp_path, **{"nan": 1, " rice ": 2, "__neg__": 3})
    assert open_data(tmp_path).counts() == {"nan": 1, "rice": 2}
    assert "'__neg__' (3)" in caplog.text
    with pytest.raises(DataError, match=r"adapt\(labels=…\)"):
        read(["nan", "a"] * 4)


def test_a_nested_folder_is_named(tmp_path: Path) -> None:
    folder(tmp_path / "data", a=1, b=1)
    with pytest.raises(DataError, match=r"in 2 folders of .*data': give that one"):
        open_train_valid(tmp_path)


@pytest.mark.parametrize("name", ["0.PNG", " 0.png ", "C:\\pictures\\x\\0.png"])
def test_names_of_files_written_otherwise_are_found(name: str, tmp_path: Path) -> None:
    file, _ = write(tmp_path / "x" / "0.png"), write(tmp_path / "y" / "0.png")
    frame = pd.DataFrame({"file_name": [name], "label": ["a"]})
    root = tmp_path if "\\" in name else tmp_path / "x"
    assert open_data(frame, root=root).inputs == [str(file)]


def test_numbers_name_columns() -> None:
    frame = pd.DataFrame({0: PICTURES, 1: [0, 1] * 4, 2: [1, 0] * 4})
    assert open_data(frame, columns={"file_name": 0, "label": 1}).classes == ("0", "1")  # type: ignore[dict-item]
    assert open_data(frame, columns={"file_name": 0}, label_columns=[1, 2]).classes == ("1", "2")  # type: ignore[dict-item, list-item]


def test_the_column_that_is_taken_is_told(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    open_data(pd.DataFrame({"image": PICTURES, "label": [0, 1] * 4, "labels": [1, 0] * 4}))
    assert "column 'label' is taken as the label, not 'labels'" in caplog.text


def test_a_column_of_images_goes_before_one_of_names() -> None:
    import datasets  # type: ignore[import-untyped]  # ships no types

    features = datasets.Features(
        {"path": datasets.Value("string"), "image": datasets.Image(), "label": datasets.ClassLabel(names=["d", "b"])}
    )
    hub = datasets.Dataset.from_dict({"path": ["x.png"] * 8, "image": PICTURES, "label": [0, 1] * 4}, features=features)
    assert decode(open_data(hub).inputs[0]).size == PICTURES[0].size
    for source in (DataLoader(hub), DataLoader(Subset(hub, [0, 1])), ConcatDataset([hub, hub])):
        assert open_data(source, columns={"file_name": "image"}).classes == ("d", "b")


def test_arrays_of_hub_datasets_keep_their_type() -> None:
    import datasets

    features = datasets.Features({"image": datasets.Array3D((4, 4, 3), "uint8"), "label": datasets.Value("int64")})
    hub = datasets.Dataset.from_dict({"image": list(np.zeros((2, 4, 4, 3), np.uint8)), "label": [0, 1]}, features=features)
    assert open_data(hub).inputs[0].dtype == np.uint8


class Sized(Dataset[Any]):
    """A dataset with a length and a ``class_to_idx`` of its own."""

    def __init__(self, *lengths: Any) -> None:
        self.lengths, self.class_to_idx = list(lengths), {"dog": 1, "cat": 0}

    def __len__(self) -> int:
        return self.lengths.pop(0) if len(self.lengths) > 1 else self.lengths[0]  # type: ignore[no-any-return]  # on purpose

    def __getitem__(self, row: int) -> Any:
        return PICTURES[row % 8], row % 2


def test_lengths_of_datasets_are_checked() -> None:
    assert open_data(Sized(4)).classes == ("cat", "dog")
    with pytest.raises(DataError, match=r"does not tell its length: TypeError.*whole number"):
        open_data(Sized(2.5))
    with pytest.raises(DataError, match="at first and then"):
        open_data(Sized(8, 4))


@pytest.mark.parametrize("blank", ["N/A", "unknown", "-", "None", "null", "?", "-1"])
def test_words_for_a_missing_label_are_told_with_their_number(blank: str, caplog: pytest.LogCaptureFixture) -> None:
    told = f"1 class is written like a missing label, and counts as a class: {blank!r} (4)"
    read(["cat", "dog", blank] * 4, "single-label")
    assert (told in caplog.text, "--drop-other-classes" in caplog.text) == (True, False)
    caplog.clear()
    open_train_valid(([PICTURES[row % 8] for row in range(12)], ["cat", "dog", blank] * 4), False)
    assert (told in caplog.text, "--drop-other-classes" in caplog.text) == (True, True)
    caplog.clear()
    read(["cat", "dog", blank] * 4, "single-label", classes=["cat", "dog", blank])
    read([-1, 0, 1] * 4, "single-label")
    assert "missing label" not in caplog.text


def test_words_for_a_missing_label_are_told_among_several_labels(caplog: pytest.LogCaptureFixture) -> None:
    read(["cat", "cat|dog", "N/A"] * 4, "multi-label")
    assert "counts as a class: 'N/A' (4); if no label is meant, remove these rows" in caplog.text
    assert "drop_other_classes" not in caplog.text


def test_minus_one_beside_names_is_refused() -> None:
    with pytest.raises(DataError, match="-1 beside names in 4 samples of 12"):
        read(["cat", "cat|dog", "-1"] * 4, "multi-label")
    assert read(["1", "1|2", "-1"] * 4, "multi-label").classes == ("-1", "1", "2")


@pytest.mark.parametrize("missing", [float("nan"), None, pd.NA, ""])
def test_a_missing_cell_of_names_means_the_same_in_a_frame_and_in_a_file(
    missing: object, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    for index in range(3):
        write(tmp_path / f"{index}.png", index)
    frame = pd.DataFrame({"file_name": [f"{index}.png" for index in range(3)], "label": ["cat|dog", missing, "cat"]})
    frame.to_csv(tmp_path / "x.csv", index=False)
    for source, options in ((frame, {"root": tmp_path}), (tmp_path / "x.csv", {})):
        caplog.clear()
        table = open_data(source, task="multi-label", **options)
        assert table.targets is not None
        assert table.targets.tolist() == [[1, 1], [0, 0], [1, 0]]
        assert "1 sample of 3 have none of the classes" in caplog.text
        with pytest.raises(DataError, match=r"no label \(empty or NaN\) in 1 sample of 3"):
            open_data(source, **options)


@pytest.mark.parametrize("number", [12, 120])
def test_measured_values_as_classes_are_refused_in_a_short_message(number: int) -> None:
    with pytest.raises(DataError, match=rf"{number} different numbers.*task='regression'") as error:
        read([f"{0.37 * row:.2f}" for row in range(number)], "single-label")
    assert len(str(error.value)) < 400
    assert len(read(["1.5", "2.0", "2.5"] * 4, "single-label").classes) == 3


def test_classes_that_cannot_be_held_out_are_counted_with_the_smallest() -> None:
    with pytest.raises(HoldOutError, match=r"30 classes, the smallest first: 'c0' \(1\), .* \(26 more\); give a validation set") as error:
        open_train_valid((np.arange(30 * 36, dtype=np.int64).astype(np.uint8).reshape(30, 6, 6), [f"c{row}" for row in range(30)]))
    assert len(str(error.value)) < 400


def test_one_number_in_two_spellings_is_told_and_numbers_that_differ_in_the_last_digit_are_not(caplog: pytest.LogCaptureFixture) -> None:
    alike = looks_alike(["1e3", "1000", "1000.0", "007", "7", ".5", "0.50", "-0", "0", "2e99999", "1" + 30 * "0", "1" + 29 * "0" + "1"])
    assert alike == [["1e3", "1000", "1000.0"], ["007", "7"], [".5", "0.50"], ["-0", "0"]]
    read(["1e3", "1000", "5", "5"])
    assert "'1000' and '1e3'" in caplog.text


def test_a_long_name_of_digits_is_compared_in_a_time_that_grows_with_its_length() -> None:
    assert looks_alike(["9" * 200_000 + "x", "9" * 200_000 + "X"]) == [["9" * 200_000 + "x", "9" * 200_000 + "X"]]


def test_numbers_that_are_all_the_same_are_told(caplog: pytest.LogCaptureFixture) -> None:
    pixels = np.zeros((6, 8, 8, 3), dtype=np.uint8)
    open_data((pixels, [3.0] * 5 + [3.5]), task="regression")
    assert not caplog.text
    open_data((pixels, [3.0] * 6), task="regression")
    assert "all 6 targets are 3: there is nothing to learn" in caplog.text
    open_data((pixels, np.stack([np.arange(6.0), np.full(6, 2.5)], axis=1)), task="regression")
    assert "all 6 targets of output 2 are 2.5" in caplog.text


@pytest.mark.parametrize(("known", "given"), [("1.0", 1), ("false", False), ("007", 7), ("Cat", "cat "), ("1e3", 1000)])
def test_a_label_that_is_a_class_in_another_spelling_is_told_so(known: str, given: object) -> None:
    with pytest.raises(DataError, match=rf"the class '{known}' in another spelling\? write both alike"):
        open_data((np.zeros((2, 4, 4), np.uint8), [given, "dog"]), classes=[known, "dog"])


@pytest.mark.parametrize(("cell", "remedy"), [("1,5", "decimal=','"), ("5 %", "without the sign %"), ("many", "correct or remove")])
def test_numbers_that_a_regression_cannot_read_come_with_how_to_write_them(cell: str, remedy: str) -> None:
    with pytest.raises(DataError, match=f"regression needs finite numbers.*{remedy}"):
        open_data((np.zeros((2, 4, 4), np.uint8), [cell, "2"]), task="regression")
