"""Labels of several classes per sample: missing ones, uncertain ones, and cells in every common form."""

from __future__ import annotations

import logging
import time
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from tests.data.make import write
from zoo.data.dataset import Samples
from zoo.data.images.transforms import eval_transform
from zoo.data.open import open_data, open_train_valid
from zoo.data.table import Table
from zoo.declare import Image
from zoo.errors import DataError, OptionError

NAN = float("nan")


def pixels(number: int) -> Any:
    return np.zeros((number, 6, 6), np.uint8)


def read(labels: Any, task: str = "multi-label", **options: Any) -> Table:
    return open_data((pixels(len(labels)), labels), task=task, **options)


def rows(table: Table) -> list[list[float | None]]:
    assert table.targets is not None
    return [[None if np.isnan(value) else float(value) for value in row] for row in table.targets]


@pytest.mark.parametrize("missing", [NAN, None, pd.NA, np.float32("nan")])
def test_a_missing_value_in_a_row_of_numbers_is_no_class(missing: Any, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    table = read([[1, 0, missing], [0, 1, 1]] * 20)
    assert table.classes == ("0", "1", "2")
    assert rows(table)[:2] == [[1, 0, None], [0, 1, 1]]
    assert table.missing() == {"2": 20}
    (line,) = [record.getMessage() for record in caplog.records if "missing" in record.getMessage()]
    assert "20 of 120 labels" in line
    assert "'2' 20" in line


def test_an_array_and_a_data_frame_of_labels_keep_their_gaps_and_names() -> None:
    values = np.array([[1, NAN], [0, 1]])
    assert rows(read(values)) == [[1, None], [0, 1]]
    frame = read(pd.DataFrame({"dog": [1, None], "cat": ["", "1"]}))
    assert frame.classes == ("dog", "cat")
    assert rows(frame) == [[1, None], [None, 1]]


def test_minus_one_is_uncertain_and_what_it_counts_as_is_said() -> None:
    labels = [[1, -1], [0, 1], [-1, -1]]
    with pytest.raises(DataError, match=r"(?s)3 labels are -1.*'1' 2.*row 0, row 2.*uncertain='mask'"):
        read(labels)
    assert rows(read(labels, uncertain="mask")) == [[1, None], [0, 1], [None, None]]
    assert rows(read(labels, uncertain="positive")) == [[1, 1], [0, 1], [1, 1]]
    assert rows(read(labels, uncertain="negative")) == [[1, 0], [0, 1], [0, 0]]


@pytest.mark.parametrize(
    ("labels", "facts"),
    [
        ([[1, 0], [2, 0.5]], ["2 values", "row 1: 2", "row 1: 0.5", "NaN"]),
        ([[0, 2], [1]], ["1, 2 columns", "class indices are given as names"]),
        ([[1, 0], ["cat", "dog"]], ["1 sample of 2", "numbers", "names"]),
        ([["cat", None], ["dog"]], ["1 list", "row 0"]),
        ([[NAN, NAN], [None, None]], ["all 4 labels are missing"]),
        ([None, [1, 0]], ["1 sample of 2", "no label", "row 0"]),
    ],
)
def test_other_lists_are_refused_with_their_rows(labels: Any, facts: list[str]) -> None:
    with pytest.raises(DataError) as caught:
        read(labels)
    for fact in facts:
        assert fact in str(caught.value)


def test_missing_single_labels_and_numbers_are_counted_with_their_rows() -> None:
    with pytest.raises(DataError, match=r"2 samples of 4.*row 1, row 3"):
        read(["a", NAN, "b", None], task="single-label")
    with pytest.raises(DataError, match=r"1 sample of 3.*row 2"):
        read([1.0, 2.0, NAN], task="regression")
    with pytest.raises(DataError, match=r"1 label of 2.*row 1"):
        read([[1.0, 2.0], [1.0, NAN]], task="regression")


CAT_AND_DOG = [[1, 0], [0, 1], [1, 1], [0, 0]]


@pytest.mark.parametrize(
    "cells",
    [
        ["cat", "dog", "cat|dog", ""],
        ["cat", "dog", "dog; cat", ""],
        ["cat", "dog", "cat,dog", ""],
        ["cat", "dog", "cat, dog", ""],
        ["['cat']", "['dog']", "['cat', 'dog']", "[]"],
        ['["cat"]', '["dog"]', '["cat", "dog"]', "[]"],
        ["{'cat'}", "{'dog'}", "{'cat', 'dog'}", ""],
        ["('cat',)", "('dog',)", "('cat', 'dog')", "()"],
        ["[cat]", "[dog]", "[cat, dog]", "[]"],
        ["['cat']", "['dog']", "['cat' 'dog']", "[]"],
        [["cat"], ["dog"], ["cat", "dog"], []],
        [("cat",), {"dog"}, {"cat", "dog"}, set()],
        [np.array(["cat"]), np.array(["dog"]), np.array(["cat", "dog"]), np.array([])],
    ],
)
def test_names_in_every_common_form(cells: Any) -> None:
    table = read(cells)
    assert table.classes == ("cat", "dog")
    assert rows(table) == CAT_AND_DOG


@pytest.mark.parametrize(
    "cells",
    [
        ["[1, 0]", "[0, 1]", "[1, 1]", "[0, 0]"],
        ["[1. 0.]", "[0. 1.]", "[1. 1.]", "[0. 0.]"],
        ["1 0", "0 1", "1 1", "0 0"],
        ["1,0", "0,1", "1,1", "0,0"],
        ["1|0", "0|1", "1|1", "0|0"],
        ["1.0 0.0", "0 1", "1 1", "0 0"],
        [np.array([1, 0]), np.array([0, 1]), np.array([1, 1]), np.array([0, 0])],
        [[True, False], [False, True], [True, True], [False, False]],
    ],
)
def test_rows_in_every_common_form(cells: Any) -> None:
    assert rows(read(cells, classes=["cat", "dog"])) == CAT_AND_DOG


def test_rows_written_as_text_have_gaps_too() -> None:
    assert rows(read(["1 nan", "[null, 1]"], classes=["a", "b"])) == [[1, None], [None, 1]]


def test_a_split_at_commas_is_said_once_and_names_with_commas_stay(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    cells = ["cat", "dog", "cat,dog"] * 4
    open_train_valid((pixels(12), cells), (pixels(12) + 1, cells), task="multi-label")
    assert sum("split at ','" in record.getMessage() for record in caplog.records) == 1
    assert read(["Edema, pulmonary|Mass", "Mass"]).classes == ("Edema, pulmonary", "Mass")
    assert read(["Edema, pulmonary", "Mass"], classes=["Edema, pulmonary", "Mass"]).counts() == {"Edema, pulmonary": 1, "Mass": 1}


def test_a_class_made_of_others_is_told_as_several_labels(caplog: pytest.LogCaptureFixture) -> None:
    read(["cat", "dog", "cat,dog"], task="single-label")
    assert "'cat,dog' looks like several labels" in caplog.text
    with pytest.raises(DataError, match=r"(?s)'cat/dog' looks like several labels joined by '/'"):
        read(["cat", "cat/dog"], classes=["cat", "dog"])


def test_numbers_as_names_stay_names() -> None:
    assert read(["3|7", "7", "10"]).classes == ("3", "7", "10")


@pytest.mark.parametrize("labels", [[[1, 0, 0], [0, 1, 1]] * 4, [["0", "2"], ["1"], []] * 4, ["0|1|2", "2", ""] * 4])
def test_a_table_that_is_read_again_keeps_its_targets(labels: Any) -> None:
    table = read(labels)
    again = open_data(table, task="multi-label")
    assert (again.classes, rows(again)) == (table.classes, rows(table))
    assert rows(open_data(table, task="multi-label", classes=table.classes)) == rows(table)
    train, valid = open_train_valid(table, open_data((pixels(len(labels)) + 1, labels), task="multi-label"), task="multi-label")
    assert valid is not None
    assert rows(train) == rows(valid) == rows(table)


def test_equal_cells_mean_the_same_in_train_and_validation() -> None:
    names = ["0", "1", "0|1", ""]
    train, valid = open_train_valid((pixels(4), names), (pixels(2) + 1, ["0|1", "0|1"]), task="multi-label")
    assert (rows(train), rows(valid)) == ([[1, 0], [0, 1], [1, 1], [0, 0]], [[1, 1], [1, 1]])  # type: ignore[arg-type]
    train, valid = open_train_valid((pixels(4), ["1|0", "0|1", "1|1", "0|0"]), (pixels(1) + 1, ["0|1"]), task="multi-label")
    assert (rows(train), rows(valid)) == ([[1, 0], [0, 1], [1, 1], [0, 0]], [[0, 1]])  # type: ignore[arg-type]


def test_cells_of_given_classes_are_names_and_rows_where_they_can_be_nothing_else() -> None:
    two = ["0", "1"]
    assert rows(read(["0|1", "0|1"], classes=two)) == [[1, 1], [1, 1]]
    assert rows(read(["0|1", "0|1"], classes=["0", "1", "2"])) == [[1, 1, 0], [1, 1, 0]]
    assert rows(read(["0|1", "1|0"], classes=two)) == [[0, 1], [1, 0]]
    assert rows(read(["0|1", "1|1"], classes=two)) == [[0, 1], [1, 1]]
    assert rows(read(["0 1", "0 1"], classes=two)) == [[0, 1], [0, 1]]


def test_lists_of_text_are_names_and_sets_have_no_order() -> None:
    with pytest.raises(DataError, match=r"(?s)2 labels outside the 2 classes.*'1'.*'0'"):
        read([["1", "0"], ["0", "1"]], classes=["cat", "dog"])
    assert read([{0, 1}, frozenset({3})]).classes == read(["{0, 1}", "{3}"]).classes == ("0", "1", "3")


def test_mappings_are_refused_with_their_rows() -> None:
    for cells in ([["cat"], {"cat": 1}], ["cat", '{"cat": 1}'], ["cat", "{'cat': 1, 'dog': 0}"]):
        with pytest.raises(DataError, match=r"mapping \(1 sample of 2\): row 1 .*cat.*label_columns"):
            read(cells)
    with pytest.raises(DataError, match="cannot be one class name"):
        read(["cat", {"cat": 1}], task="single-label")


def test_empty_cells_between_rows_are_named() -> None:
    with pytest.raises(DataError, match=r"a value for every class.*empty in 1 sample of 3: row 1"):
        read(["1,0", "", "0,1"], classes=["cat", "dog"])


@pytest.fixture
def chest(tmp_path: Path) -> Path:
    for index in range(4):
        write(tmp_path / f"{index}.png", index)
    (tmp_path / "x.csv").write_text("path,Edema,Mass\n0.png,1.0,0.0\n1.png,,1.0\n2.png,0.0,\n3.png,-1.0,1\n")
    return tmp_path / "x.csv"


@pytest.mark.parametrize(
    "given", [{"label_columns": ["Mass", "Edema"]}, {"label_columns": "Mass, Edema"}, {"columns": {"label": ["Mass", "Edema"]}}]
)
def test_a_column_per_class_is_read_with_its_gaps(chest: Path, given: dict[str, Any]) -> None:
    table = open_data(chest, task="multi-label", uncertain="mask", **given)
    assert table.classes == ("Mass", "Edema")
    assert rows(table) == [[0, 1], [1, None], [None, 0], [1, None]]
    # The model's order decides, not that of the columns.
    turned = open_data(chest, task="multi-label", uncertain="mask", classes=["Edema", "Mass"], **given)
    assert rows(turned) == [[1, 0], [None, 1], [0, None], [None, 1]]
    again = open_data(turned, task="multi-label", classes=["Mass", "Edema"])
    assert rows(again) == rows(table)


def test_wrong_label_columns_are_named(chest: Path) -> None:
    for given, fact in [
        ({"label_columns": ["Edem", "Mass"]}, r"'Edem' \(did you mean 'Edema'\?\)"),
        ({"label_columns": ["Edema", "path"]}, r"column 'path': 4 cells, row 0 \('0.png'\)"),
        ({"label_columns": ["Edema", "Mass"], "classes": ["Edema", "Nodule"]}, r"'Mass' is no class.*no column 'Nodule'"),
    ]:
        with pytest.raises(DataError, match=fact):
            open_data(chest, task="multi-label", uncertain="mask", **given)  # type: ignore[arg-type]
    with pytest.raises(OptionError, match="leave one of them out"):
        open_data(chest, label_columns=["Edema"], columns={"label": "Mass"})
    with pytest.raises(OptionError, match="needs a table"):
        open_data((pixels(2), ["a", "b"]), label_columns=["a"])


def test_one_hot_columns_of_a_single_label_have_exactly_one_1() -> None:
    frame = pd.DataFrame({"image": list(pixels(4)), "cat": [1, 0, 0, 1], "dog": [0, 1, 1, 0]})
    table = open_data(frame, label_columns=["dog", "cat"])
    assert table.classes == ("dog", "cat")
    assert table.targets.tolist() == [1, 0, 0, 1]  # type: ignore[union-attr]
    with pytest.raises(DataError, match=r"exactly one 1.*2 rows of 4: row 0 \(dog=1, cat=1\), row 1 \(dog=0, cat=0\).*--task multi-label"):
        open_data(frame.assign(dog=[1, 0, 1, 0]), label_columns=["dog", "cat"])
    with pytest.raises(DataError, match=r"2 rows of 4: row 0 \(dog=0\.5, cat=1\), row 1 \(dog=empty, cat=0\)"):
        open_data(frame.assign(dog=["0.5", "", "1", "0"]), label_columns=["dog", "cat"])


def test_a_table_without_a_label_column_that_has_one_per_class_gets_the_remedy(tmp_path: Path) -> None:
    frame = pd.DataFrame({"file_name": [write(tmp_path / f"{row}.png").name for row in range(3)], "age": [0, 1, 2], "cat": [1, 0, ""]})
    frame.assign(dog=[0, 1, -1]).to_csv(tmp_path / "x.csv", index=False)
    remedy = r"'cat', 'dog' look like a column per class: label_columns=\['cat', 'dog'\], on the command line --label-columns cat,dog"
    for source in (tmp_path / "x.csv", frame.assign(dog=[0, True, -1], file_name=[str(tmp_path / name) for name in frame.file_name])):
        with pytest.raises(DataError, match=remedy):
            open_data(source, labelled=True)
    with pytest.raises(DataError, match=r"Name yours with columns="):
        open_data(frame, labelled=True)


@pytest.mark.parametrize(("task", "values"), [("single-label", ["b", "a"]), ("single-label", [1, 0]), ("regression", [1.5, 2.0])])
def test_a_frame_of_one_column_is_that_column(task: str, values: list[Any]) -> None:
    frame = pd.DataFrame({"label": values})
    whole, column = read(frame[["label"]], task), read(frame["label"], task)
    assert whole.classes == column.classes
    assert np.array_equal(whole.targets, column.targets)  # type: ignore[arg-type]


def test_label_columns_of_a_regression_are_its_numbers() -> None:
    frame = pd.DataFrame({"image": list(pixels(2)), "x": [1.5, 2.0], "y": ["3", "4.5"]})
    table = open_data(frame, task="regression", label_columns=["x", "y"])
    assert table.targets.tolist() == [[1.5, 3.0], [2.0, 4.5]]  # type: ignore[union-attr]


def test_missing_targets_pass_into_batches_and_infinite_ones_do_not() -> None:
    samples = Samples(read([[1, NAN], [0, 1]]), eval_transform(Image(size=6, mean=(0.5,), std=(0.5,))))
    batch = samples.collate([samples[0], samples[1]])
    assert torch.equal(batch.y.isnan(), torch.tensor([[False, True], [False, False]]))


def test_targets_of_very_many_labels_are_bounded() -> None:
    names = [f"c{index}" for index in range(100_000)]
    labels = [[names[row % 100_000], names[(7 * row) % 100_000]] for row in range(100_000)]
    with pytest.raises(DataError, match=r"100000 samples and 100000 labels take 40 GB, more than the 4.29 GB"):
        open_data((list(range(100_000)), labels), task="multi-label", reads="volume")


def test_label_columns_of_a_hub_dataset() -> None:
    import datasets  # type: ignore[import-untyped]  # ships no types

    hub = datasets.Dataset.from_dict({"text": ["x", "y"], "a": [1, None], "b": [0, 1]})
    table = open_data(hub, reads="text", task="multi-label", label_columns=["b", "a"])
    assert (table.classes, rows(table)) == (("b", "a"), [[0, 1], [1, None]])


def test_very_long_cells_take_no_time() -> None:
    started = time.perf_counter()
    cells = ["1" * 200_000 + "x", "1 " * 100_000 + "x", "[" * 100_000 + "]" * 100_000, "['a" + "\\" * 100_000 + "]"]
    for cell in cells:
        assert len(read([cell, cell]).classes) >= 1
    assert time.perf_counter() - started < 10


def test_only_the_label_has_several_columns() -> None:
    with pytest.raises(OptionError, match=r"group=\['a', 'b'\]"):
        open_data(pd.DataFrame({"image": list(pixels(2)), "label": ["a", "b"]}), columns={"group": ["a", "b"]})
