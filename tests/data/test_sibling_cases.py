"""Odd tables, labels and arrays as people bring them: each is read right, or refused or told with what to do."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from tests.data.make import image
from zoo.data.open import open_data, open_train_valid
from zoo.errors import DataError

NAMES = ["a", "b"] * 6
PICTURES = [image(seed) for seed in range(12)]
PIXELS = np.zeros((4, 8, 8), dtype=np.uint8)


def frame(**columns: Any) -> pd.DataFrame:
    return pd.DataFrame({"image": PICTURES, **columns})


@pytest.mark.parametrize("name", ["set", "Subset", "partition", "part of data"])
@pytest.mark.parametrize("words", [("train", "val"), ("Training", "Test")])
def test_a_column_that_names_splits_and_is_not_read_is_told(name: str, words: tuple[str, str], caplog: pytest.LogCaptureFixture) -> None:
    open_train_valid(frame(label=NAMES, **{name: [words[0]] * 8 + [words[1]] * 4}))
    assert f"column {name!r} names splits" in caplog.text
    assert f"columns={{'split': {name!r}}}" in caplog.text


def test_a_column_that_is_no_split_is_not_told(caplog: pytest.LogCaptureFixture) -> None:
    split = ["train"] * 8 + ["val"] * 4
    train, valid = open_train_valid(frame(label=NAMES, split=split, mode=["train"] * 12, fold=[0, 1] * 6, note=["test", "dog"] * 6))
    assert (len(train), len(valid or ())) == (8, 4)
    open_data(frame(label=NAMES, mode=["train", "val"] * 6), labelled=False)
    assert "names splits" not in caplog.text


def test_a_flag_of_training_rows_is_told(caplog: pytest.LogCaptureFixture) -> None:
    open_train_valid(frame(label=NAMES, is_train=[True] * 8 + [False] * 4))
    assert "column 'is_train' is not read; name the splits in a column 'split'" in caplog.text


def test_names_of_several_words_are_no_joined_labels(caplog: pytest.LogCaptureFixture) -> None:
    open_data(frame(label=["hot dog", "dog", "No Finding", "C++"] * 3), task="multi-label")
    assert "joined by" not in caplog.text


@pytest.mark.parametrize("labels", [pd.Series([True, False] * 6), pd.Categorical(NAMES, categories=["b", "a", "unused"])])
def test_booleans_and_categories_are_classes(labels: Any) -> None:
    table = open_data(frame(label=labels))
    assert table.classes in (("False", "True"), ("a", "b"))
    assert table.counts() == dict.fromkeys(table.classes, 6)


@pytest.mark.parametrize("name", ["file_name", None])
def test_a_frame_whose_index_has_the_files_is_refused_with_the_remedy(name: str | None) -> None:
    table = pd.DataFrame({"label": NAMES}, index=pd.Index([f"{row}.png" for row in range(12)], name=name))
    with pytest.raises(DataError, match=r"the index has text such as '0\.png': frame\.reset_index\(\) makes it a column"):
        open_data(table)
    with pytest.raises(DataError) as caught:
        open_data(pd.DataFrame({"label": NAMES}))
    assert "reset_index" not in str(caught.value)


def test_a_table_without_a_header_is_told_from_one_with_other_names(tmp_path: Path) -> None:
    (tmp_path / "x.csv").write_text("0.png,a\n1.png,b\n")
    with pytest.raises(DataError, match=r"The first line looks like a sample .*; add a line with the names of the columns"):
        open_data(tmp_path / "x.csv", labelled=True)


def test_urls_in_a_table_are_not_looked_for_as_files(tmp_path: Path) -> None:
    (tmp_path / "x.csv").write_text("file_name,label\nhttps://example.org/0.png,a\nS3://bucket/1.png,b\n")
    with pytest.raises(DataError, match=r"2 names of 2 are URLs, which are not fetched.*root=FOLDER"):
        open_data(tmp_path / "x.csv")


def test_a_list_of_files_as_text_is_refused_with_the_form_of_a_table(tmp_path: Path) -> None:
    (tmp_path / "x.txt").write_text("0.png a\n1.png b\n")
    with pytest.raises(DataError, match="a CSV file whose first line is file_name,label"):
        open_data(tmp_path / "x.txt")


def test_a_dict_of_columns_is_refused_with_what_makes_a_table_of_it() -> None:
    with pytest.raises(DataError, match=r"pandas\.DataFrame\(data\) makes a table"):
        open_data({"file_name": ["0.png"], "label": ["a"]})


def test_sparse_and_masked_arrays_are_refused_with_the_remedy() -> None:
    sparse = pytest.importorskip("scipy.sparse")
    with pytest.raises(DataError, match=r"the inputs are a sparse matrix; give an array: X\.toarray\(\)"):
        open_data((sparse.csr_matrix(np.eye(4)), [0, 1, 0, 1]))
    masked = np.ma.array(PIXELS, mask=np.arange(256).reshape(4, 8, 8) == 7)
    with pytest.raises(DataError, match=r"masked values, which are not read; fill them: X\.filled\(0\)"):
        open_data((masked, [0, 1, 0, 1]))
    assert len(open_data((np.ma.array(PIXELS), [0, 1, 0, 1]))) == 4


def test_masked_labels_are_missing() -> None:
    with pytest.raises(DataError, match=r"no label \(empty or NaN\) in 1 sample of 4: row 2"):
        open_data((PIXELS, np.ma.array([0, 1, 0, 1], mask=[0, 0, 1, 0])))


def test_a_long_label_is_shortened_in_the_error() -> None:
    with pytest.raises(DataError, match="cannot be one class name") as caught:
        open_data((PIXELS, [list(range(1000))] * 4))
    assert len(str(caught.value)) < 200


@pytest.mark.parametrize("labels", [[0.0, 1.0] * 2, [np.int64(0), np.int64(1)] * 2, np.array([0, "0", 1, "1"], dtype=object)])
def test_numbers_are_one_class_however_they_are_written(labels: Any, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING, "zoo")
    assert open_data((PIXELS, labels)).classes == ("0", "1")
