"""Sources that are nearly right: each is read as it is meant, or refused with what is wrong."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from tests.data.make import image
from zoo.data.images.decode import decode
from zoo.data.open import open_data, open_train_valid
from zoo.errors import CorruptInputError, DataError, MissingExtraError
from zoo.util.extras import MODULES


def written(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path


def test_cells_with_separators_and_no_quotation_marks_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="more cells than its header"):
        open_data(written(tmp_path / "a.csv", "text,label\nHello, world,spam\nGood, day,ham\n"), reads="text")


def test_a_quoted_line_break_stays_in_its_cell(tmp_path: Path) -> None:
    table = open_data(written(tmp_path / "a.tsv", 'text\n"line one\nline two"\n'), reads="text", labelled=False)
    assert table.inputs == ["line one\nline two"]


def test_a_table_with_a_row_per_sentence_is_no_conll_file(tmp_path: Path) -> None:
    file = written(tmp_path / "a.tsv", "words\tlabel\nEU rejects\tB-ORG O\n\n\n")
    table = open_data(file, task="token-classification", reads="words")
    assert (table.inputs, table.classes) == ([["EU", "rejects"]], ("B-ORG", "O"))


def test_lists_that_were_written_as_text_are_refused(tmp_path: Path) -> None:
    frame = pd.DataFrame({"words": [["EU", "rejects"]], "label": [["B-ORG", "O"]]})
    assert open_data(frame, task="token-classification", reads="words").inputs == [["EU", "rejects"]]
    frame.to_csv(tmp_path / "a.csv", index=False)
    with pytest.raises(DataError, match="Parquet"):
        open_data(tmp_path / "a.csv", task="token-classification", reads="words")


def test_a_hub_dataset_is_checked_like_a_table() -> None:
    import datasets  # type: ignore[import-untyped]  # ships no types

    with pytest.raises(DataError, match="empty in 1 row"):
        open_data(datasets.Dataset.from_dict({"text": ["a", None], "label": ["x", "y"]}), reads="text")


def test_two_sentences_in_a_tuple_are_two_inputs() -> None:
    table = open_data((["She", "has"], ["He", "had"]), task="token-classification", reads="words", labelled=False)
    assert list(table.inputs) == [["She", "has"], ["He", "had"]]


@pytest.mark.parametrize("text", ["é" * 300, "Please open report.csv", "data", "a\nb"])
def test_a_text_to_predict_is_not_taken_for_a_file(text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "data").mkdir()
    monkeypatch.chdir(tmp_path)
    assert open_data(text, reads="text", labelled=False).inputs == [text]


def test_a_folder_of_tables_takes_own_names_of_columns(tmp_path: Path) -> None:
    for name in ("train", "valid"):
        written(tmp_path / f"{name}.csv", f"body,label\n{name} one,a\n{name} two,b\n")
    train, valid = open_train_valid(tmp_path, columns={"text": "body"}, reads="text")
    assert (train.inputs, valid.inputs) == (["train one", "train two"], ["valid one", "valid two"])
    written(tmp_path / "train.tsv", "body\tlabel\nx\ta\n")
    with pytest.raises(DataError, match="two tables of one split"):
        open_train_valid(tmp_path, columns={"text": "body"}, reads="text")


def test_a_filtered_column_of_a_data_frame_is_a_list() -> None:
    frame = pd.DataFrame({"text": ["a", "b", "c"], "x": [0, 1, 2]})
    assert open_data(frame[frame.x > 0]["text"], reads="text", labelled=False).inputs == ["b", "c"]


def test_columns_of_one_name_are_refused_and_numbers_are_names() -> None:
    twice = pd.DataFrame([["a", "b", "x"]], columns=["text", "text", "label"])
    with pytest.raises(DataError, match="same name: 'text'"):
        open_data(twice, reads="text")
    numbered = pd.DataFrame({0: ["a", "b"], 1: ["x", "y"]})
    assert open_data(numbered, columns={"text": "0", "label": "1"}, reads="text").inputs == ["a", "b"]


@pytest.mark.parametrize(("labels", "match"), [([0, 1], "no list of labels"), ([["O"], ["O", "O"]], "each word needs one label")])
def test_labels_of_words_of_the_wrong_kind_are_named(labels: Any, match: str) -> None:
    with pytest.raises(DataError, match=match):
        open_data((["a b", "c d"], labels), task="token-classification", reads="words")


def test_numbers_as_labels_of_words_count_into_the_classes() -> None:
    table = open_data((["a b"], [[1, 0]]), task="token-classification", reads="words", classes=("O", "B-X"))
    assert table.targets is not None
    assert table.targets[0].tolist() == [1, 0]


def test_volumes_come_as_arrays() -> None:
    volumes = np.zeros((3, 8, 8, 8))
    assert len(open_data((volumes, ["a", "b", "a"]), reads="volume")) == 3
    with pytest.raises(DataError, match="put one volume into a list"):
        open_data(volumes[0], reads="volume", labelled=False)


@pytest.mark.parametrize("name", ["a.tsv", "a.txt", "a.conll"])
def test_words_and_labels_without_a_task_are_pointed_to_it(tmp_path: Path, name: str) -> None:
    file = written(tmp_path / name, "EU\tB-ORG\nrejects\tO\n\nGermany\tB-LOC\n")
    with pytest.raises(DataError, match=r"CoNLL.*--task token-classification"):
        open_data(file, reads="text")
    assert len(open_data(file, task="token-classification", reads="words")) == 2


def test_a_table_of_texts_with_empty_lines_is_no_conll_file(tmp_path: Path) -> None:
    file = written(tmp_path / "a.tsv", "sentence\tlabel\nfine\tgood\n\nbad\tbad\n")
    assert open_data(file, reads="text").classes == ("bad", "good")


@pytest.mark.parametrize(
    ("content", "match"),
    [
        ("text,label\nfine,a\n".encode("utf-16"), r"is UTF-16; save it as UTF-8"),
        ("text,label\nschön,a\n".encode("latin-1"), r"is no UTF-8 \(byte f6 at 14\), perhaps Latin-1; .*encoding='latin-1'"),
        (b"\x1f\x8b\x08\x00", "gunzip"),
        (b"PK\x03\x04\x00\x00", r"Excel sheet.*pd\.read_excel"),
        (b"version https://git-lfs.github.com/spec/v1\n", "git lfs pull"),
        (b"sep=;\ntext;label\nfine;a\n", "remove that line"),
        (b"<!DOCTYPE html><html>", "web page"),
    ],
)
def test_tables_that_are_something_else_are_named(content: bytes, match: str, tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_bytes(content)
    with pytest.raises(DataError, match=match):
        open_data(tmp_path / "a.csv", reads="text")


def test_a_sheet_is_no_table_and_gets_the_remedy(tmp_path: Path) -> None:
    (tmp_path / "a.xlsx").touch()
    with pytest.raises(DataError, match=r"pd\.read_excel"):
        open_data(tmp_path / "a.xlsx")


def test_rows_that_a_quotation_mark_swallows_are_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    open_data(written(tmp_path / "a.csv", 'text,label\n"one,a\ntwo,b\nthree",a\nfour,b\n'), reads="text")
    assert "1 cell over several lines that look like rows (row 0)" in caplog.text
    caplog.clear()
    open_data(written(tmp_path / "b.csv", 'text,label\n"one\ntwo",a\nfour,b\n'), reads="text")
    assert not caplog.records


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("t.jsonl", '{"a": 1}\n\n{oops\n[1]\n', r"2 lines are no JSON object: line 3 \(.*column 2\), line 4 \(list\)"),
        ("t.csv", b"PAR1\x15\x04\x82", r"is a Parquet file; call it \.parquet"),
        ("t.parquet", "file_name,label\na.png,x\n", r"is no Parquet file: it starts with 'file_name,label'; .*\.csv"),
        ("t.csv", "file_name,label\na.png,x\nb.png,y,z,w\n", "line 3 has 4 cells, and the header 2; put cells that hold ','"),
        ("t.csv", "# exported today\nfile_name,label\na.png,x\n", "starts with a comment .*remove it"),
        ("t.csv", "file_name|label\na.png|x\n", r"separate its cells by '\|'; save it with ','"),
    ],
)
def test_a_table_of_another_form_says_which_and_where(name: str, text: str | bytes, message: str, tmp_path: Path) -> None:
    path = tmp_path / name
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    with pytest.raises(DataError, match=message):
        open_data(path)


def test_a_column_that_starts_with_a_hash_is_no_comment(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("#id,text,label\n1,good,a\n2,bad,b\n")
    assert open_data(tmp_path / "t.csv", reads="text").classes == ("a", "b")


def test_an_array_with_nan_is_told_as_such() -> None:
    with pytest.raises(CorruptInputError, match="48 values that are not finite, such as NaN"):
        decode(np.full((4, 4, 3), np.nan, np.float32), 3)


def test_the_folder_of_a_run_is_no_data(tmp_path: Path) -> None:
    image(1).save(tmp_path / "curves.png")
    assert len(open_data(tmp_path)) == 1
    (tmp_path / "run.json").write_text("{}")
    with pytest.raises(DataError, match="is the folder of a run or a saved model, and no data"):
        open_data(tmp_path)
    assert len(open_data(tmp_path, labelled=False)) == 1, "its pictures may be predicted"


def test_a_folder_of_save_to_disk_is_read_with_the_names_of_its_classes_and_its_splits(tmp_path: Path) -> None:
    import datasets

    features = datasets.Features({"text": datasets.Value("string"), "label": datasets.ClassLabel(names=["no", "yes"])})
    part = datasets.Dataset.from_dict({"text": ["a", "b", "c"], "label": [0, 1, 1]}, features=features)
    part.save_to_disk(tmp_path / "one")
    table = open_data(tmp_path / "one", reads="text")
    assert (table.inputs, table.classes, np.asarray(table.targets).tolist()) == (["a", "b", "c"], ("no", "yes"), [0, 1, 1])
    assert table.source == repr(str(tmp_path / "one"))
    datasets.DatasetDict(train=part, test=part.select([0])).save_to_disk(tmp_path / "two")
    assert open_data(tmp_path / "two", reads="text", split="test").inputs == ["a"]
    next((tmp_path / "one").glob("*.arrow")).write_bytes(b"cut off")
    with pytest.raises(DataError, match=r"one' cannot be opened by datasets.load_from_disk \(.*save it again"):
        open_data(tmp_path / "one", reads="text")


def test_a_table_of_pyarrow_is_a_table_and_not_a_dataset_of_rows() -> None:
    import pyarrow as pa  # type: ignore[import-untyped]  # ships no types

    table = open_data(pa.table({"text": ["a", "b"], "label": ["x", "y"]}), reads="text")
    assert (table.inputs, table.classes) == (["a", "b"], ("x", "y"))


def test_a_table_of_pyarrow_without_pandas_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    import pyarrow as pa

    monkeypatch.setitem(MODULES, "tables", ("not_installed", "pyarrow"))
    with pytest.raises(MissingExtraError, match=r"a pyarrow table needs not_installed.*the extra 'tables'"):
        open_data(pa.table({"text": ["a"], "label": ["x"]}), reads="text")


def test_pairs_and_what_is_read_only_once_come_with_the_lists_to_make() -> None:
    pairs = [("a.png", "x"), ("b.png", "y")]
    for data, remedy in ((pairs, r"X, y = zip\(\*data\)"), (iter(pairs), "only once"), ([{"label": "x"}], r"pandas\.DataFrame\(data\)")):
        with pytest.raises(DataError, match=remedy):
            open_data(data)
    with pytest.raises(DataError, match="only once"):
        open_data(iter(pairs), reads="text")


def test_paths_beside_labels_are_looked_for_before_they_are_decoded() -> None:
    with pytest.raises(DataError, match=r"2 names of 2 are URLs, which are not fetched"):
        open_data((["https://x.org/a.png", "https://x.org/b.png"], ["x", "y"]))
    with pytest.raises(DataError, match=r"names 1 file of 1 that does not exist: 'none\.png'"):
        open_data((["none.png"], ["x"]))
