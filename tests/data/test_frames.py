from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from tests.data.make import write
from zoo.data.open import open_data, open_train_valid
from zoo.data.sources.tables import table_files
from zoo.data.table import Table
from zoo.errors import DataError, OptionError

CHEST = {"file_name": "file", "split": "group_fold", "group": "patient_id"}


@pytest.fixture
def files(tmp_path: Path) -> Path:
    for index in range(4):
        write(tmp_path / "img" / f"{index}.png", index)
    return tmp_path


def table(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


def test_chest_x_rays_split_by_fold_without_cutting_a_patient(shared: Path) -> None:
    train, valid = open_train_valid(shared / "data/medical/chest_xray_covid/index.csv", columns=CHEST, valid_split="0")
    assert len(train) + len(valid) == 1124
    assert not set(train.groups or ()) & set(valid.groups or ())
    fold = open_data(shared / "data/medical/chest_xray_covid/index.csv", columns=CHEST, split="0")
    assert list(valid.inputs) == list(fold.inputs)


def test_folds_without_a_choice_ask_for_one(shared: Path) -> None:
    with pytest.raises(DataError, match=r"'0', '1'.*valid_split="):
        open_train_valid(shared / "data/medical/chest_xray_covid/index.csv", columns=CHEST)


def test_paths_are_relative_to_the_file_and_text_stays_text(files: Path) -> None:
    path = table(files / "x.csv", "file_name,label,split,group\nimg/0.png,None,train,007\nimg/1.png,NA,val,07\n")
    read = open_data(path)
    assert read.classes == ("NA", "None")
    assert read.groups == ("007", "07")
    assert [Path(item).is_file() for item in read.inputs] == [True, True]
    assert len(open_data(read, split="validation")) == 1


@pytest.mark.parametrize("separator", [",", ";", "\t"])
def test_any_usual_separator_is_found(files: Path, separator: str) -> None:
    rows = [["path", "label"], ["img/0.png", "a"], ["img/1.png", "b"]]
    path = table(files / "x.csv", "\n".join(separator.join(row) for row in rows))
    assert open_data(path).classes == ("a", "b")


@pytest.mark.parametrize("first", ["", "  "])
def test_a_blank_first_line_does_not_hide_the_separator(first: str, files: Path) -> None:
    path = table(files / "x.csv", f"{first}\npath;label\nimg/0.png;a\nimg/1.png;b\n")
    assert open_data(path).classes == ("a", "b")


def test_csv_tsv_parquet_and_frames_give_the_same_table(files: Path) -> None:
    frame = pd.DataFrame({"file_name": [f"img/{i}.png" for i in range(4)], "label": [10, 2, 2, 10], "group": [7, 7, 8, 9]})
    frame.to_csv(files / "x.csv", index=False)
    frame.to_csv(files / "x.tsv", index=False, sep="\t")
    frame.to_parquet(files / "x.parquet")
    placed = frame.assign(file_name=[str(files / name) for name in frame.file_name])
    for source in (files / "x.csv", str(files / "x.tsv"), files / "x.parquet", placed):
        read = open_data(source)
        assert read.classes == ("2", "10")
        assert read.targets.tolist() == [1, 0, 0, 1]  # type: ignore[union-attr]
        assert read.groups == ("7", "7", "8", "9")


def test_several_labels_are_separated_by_a_bar(files: Path) -> None:
    path = table(files / "x.csv", "file_name,label\nimg/0.png,cat|dog\nimg/1.png,\nimg/2.png,cat\nimg/3.png,cow; dog\n")
    read = open_data(path, task="multi-label")
    assert read.classes == ("cat", "cow", "dog")
    assert read.targets.tolist() == [[1, 0, 1], [0, 0, 0], [1, 0, 0], [0, 1, 1]]  # type: ignore[union-attr]
    assert read.counts() == {"cat": 2, "cow": 1, "dog": 2}


def test_numbers_are_regression_targets(files: Path) -> None:
    path = table(files / "x.csv", "file_name,label\nimg/0.png,1.5\nimg/1.png,-2\n")
    read = open_data(path, task="regression")
    assert read.targets.dtype == np.float32  # type: ignore[union-attr]
    assert (read.targets.tolist(), read.classes) == ([1.5, -2.0], ())  # type: ignore[union-attr]


def test_missing_columns_are_told_with_the_nearest(files: Path) -> None:
    path = table(files / "x.csv", "fil_name,lable\nimg/0.png,a\n")
    with pytest.raises(DataError, match=r"'file_name' \(did you mean 'fil_name'\?\), 'label' \(did you mean 'lable'\?\)"):
        open_train_valid(path)


def test_a_table_that_grows_while_it_is_read_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, parse = tmp_path / "a.csv", table_files._parse_cells
    path.write_text("text,label\nsun,a\n")

    def slow(path: Path) -> Any:
        frame = parse(path)
        with path.open("a") as file:
            file.write("rain,b\n")
        return frame

    monkeypatch.setattr(table_files, "_parse_cells", slow)
    with pytest.raises(DataError, match=r"a\.csv' changed while it was read \(17 bytes, then 24\); wait until it is complete"):
        table_files.parse_file(path)
    monkeypatch.undo()
    assert len(table_files.parse_file(path)) == 2


def test_a_renamed_column_that_is_missing_is_told(files: Path) -> None:
    path = table(files / "x.csv", "file_name,label,patient\nimg/0.png,a,1\n")
    with pytest.raises(DataError, match=r"'patient_id' \(did you mean 'patient'"):
        open_data(path, columns={"group": "patient_id"})
    with pytest.raises(OptionError, match=r"'groups' .*'group'"):
        open_data(path, columns={"groups": "patient"})


def test_a_table_without_labels_predicts(files: Path) -> None:
    path = table(files / "x.csv", "file_name\nimg/0.png\n")
    assert open_data(path).targets is None
    with pytest.raises(DataError, match="no column 'label'"):
        open_data(path, labelled=True)


def test_missing_files_are_counted_and_four_are_named(files: Path) -> None:
    rows = "".join(f"img/{index}.png,a\n" for index in range(3, 10))
    with pytest.raises(DataError, match=r"6 files of 7 .*4\.png'.*5\.png'.*6\.png'.*7\.png', … \(2 more\)"):
        open_data(table(files / "x.csv", f"file_name,label\n{rows}"))


@pytest.mark.parametrize("cell", ["", "nan"])
def test_empty_labels_are_told_with_their_files(files: Path, cell: str) -> None:
    path = table(files / "x.csv", f"file_name,label\nimg/0.png,a\nimg/1.png,{cell}\n")
    with pytest.raises(DataError, match=r"no label .*1 sample of 2: .*img/1\.png"):
        open_data(path)


def test_nan_labels_of_a_frame_are_refused(files: Path) -> None:
    frame = pd.DataFrame({"file_name": [str(files / "img/0.png")] * 2, "label": [1.0, float("nan")]})
    for task in ("single-label", "multi-label", "regression"):
        with pytest.raises(DataError, match="1 sample of 2"):
            open_data(frame, task=task)


def test_empty_groups_are_refused(files: Path) -> None:
    path = table(files / "x.csv", "file_name,label,group\nimg/0.png,a,1\nimg/1.png,b, \n")
    with pytest.raises(DataError, match=r"'group' \(group\) is empty in 1 row: row 1"):
        open_data(path)


@pytest.mark.parametrize(
    ("name", "content"), [("x.csv", b""), ("x.csv", b"\xff\xfe\x00"), ("x.parquet", b"PAR1no"), ("y.csv", b'a,b\n"1,2\n3')]
)
def test_a_file_that_cannot_be_parsed_is_named(tmp_path: Path, name: str, content: bytes) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=name):
        open_data(tmp_path / name)


def test_a_table_without_rows_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no rows"):
        open_data(table(tmp_path / "x.csv", "file_name,label\n"))


def test_a_frame_may_hold_the_images_themselves() -> None:
    from tests.data.make import image

    read = open_data(pd.DataFrame({"image": [image(0), image(1)], "label": ["a", "b"]}))
    assert read.inputs[1].size == (12, 10)


def test_a_table_can_be_opened_again_with_other_classes(files: Path) -> None:
    first = open_data(table(files / "x.csv", "file_name,label\nimg/0.png,a\nimg/1.png,b\n"))
    again = open_data(first, classes=["c", "b", "a"])
    assert isinstance(again, Table)
    assert again.targets.tolist() == [2, 1]  # type: ignore[union-attr]


@pytest.mark.parametrize("column", ["patient_id", "patient", "subject_id"])
def test_a_column_of_patients_is_the_group_and_the_log_says_so(files: Path, column: str, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    path = table(files / "x.csv", f"file_name,label,{column}\nimg/0.png,a,1\nimg/1.png,b,2\n")
    assert open_data(path).groups == ("1", "2")
    assert f"column '{column}' is taken as the group" in caplog.text
    assert open_data(path, labelled=False).groups is None
    gaps = table(files / "y.csv", f"file_name,label,{column}\nimg/0.png,a,1\nimg/1.png,b,\n")
    assert open_data(gaps).groups == ("1", "no id, row 1")
    assert f"column '{column}' is empty in 1 row of 2" in caplog.text


def test_class_names_that_datasets_wrote_into_parquet_are_the_classes(tmp_path: Path) -> None:
    import datasets  # type: ignore[import-untyped]  # ships no types

    label, tag = datasets.ClassLabel(names=["neg", "pos", "rare"]), datasets.ClassLabel(names=["O", "B-X"])
    features = {"text": datasets.Value("string"), "label": label, "words": datasets.Sequence(datasets.Value("string"))}
    features["tags"] = datasets.Sequence(tag)
    rows = {"text": ["a b", "c d"], "label": [1, 0], "words": [["a", "b"], ["c"]], "tags": [[0, 1], [1]]}
    hub = datasets.Dataset.from_dict(rows, features=datasets.Features(features))
    hub.to_parquet(tmp_path / "x.parquet")
    columns = {"label": "tags"}
    for source in (hub, tmp_path / "x.parquet"):
        single = open_data(source, reads="text")
        assert (single.classes, single.targets.tolist()) == (("neg", "pos", "rare"), [1, 0])  # type: ignore[union-attr]
        words = open_data(source, reads="words", task="token-classification", columns=columns)
        assert (words.classes, [list(row) for row in words.targets]) == (("O", "B-X"), [[0, 1], [1]])  # type: ignore[union-attr]


@pytest.mark.parametrize(
    "metadata", ["no json", "[]", '{"info": {"features": {"label": 3}}}', '{"info": {"features": {"label": {"names": 2}}}}']
)
def test_metadata_of_parquet_that_declares_no_classes_leaves_the_numbers(metadata: str, tmp_path: Path) -> None:
    import pyarrow as pa  # type: ignore[import-untyped,unused-ignore]
    from pyarrow import parquet

    table = pa.table({"text": ["a", "b"], "label": [3, 7]}).replace_schema_metadata({"huggingface": metadata})
    parquet.write_table(table, tmp_path / "x.parquet")
    assert open_data(tmp_path / "x.parquet", reads="text").classes == ("3", "7")


def test_numbers_of_no_class_are_refused_and_negative_ones_have_no_label(tmp_path: Path) -> None:
    import pyarrow as pa
    from pyarrow import parquet

    metadata = {"huggingface": '{"info": {"features": {"label": {"names": ["a", "b"], "_type": "ClassLabel"}}}}'}
    for labels, words in ([0, 2], r"the label 2.* is the number of no class; the source declares 2: a, b"), ([0, -1], "no label"):
        parquet.write_table(pa.table({"text": ["x", "y"], "label": labels}).replace_schema_metadata(metadata), tmp_path / "x.parquet")
        with pytest.raises(DataError, match=words):
            open_data(tmp_path / "x.parquet", reads="text")


def test_text_in_a_column_of_class_numbers_is_told_with_its_remedy(tmp_path: Path) -> None:
    import pyarrow as pa
    from pyarrow import parquet

    metadata = {"huggingface": '{"info": {"features": {"label": {"names": ["cat", "dog"], "_type": "ClassLabel"}}}}'}
    rows = pa.table({"text": ["x", "y"], "label": ["cat", "dog"]})
    parquet.write_table(rows.replace_schema_metadata(metadata), tmp_path / "x.parquet")
    with pytest.raises(DataError, match=r"the label 'cat' is text.*: cat, dog; store the numbers"):
        open_data(tmp_path / "x.parquet", reads="text")


@pytest.mark.parametrize("name", ["path", "image_path", "filepath", "file_name"])
@pytest.mark.parametrize("other", [["a cat", "a dog"], [101, 102], ["", None], ["img-17", "img-18"]])
def test_of_several_usual_columns_the_one_that_has_files_is_read(name: str, other: list[Any], files: Path) -> None:
    frame = pd.DataFrame({"image": other, name: ["img/0.png", "img/1.png"], "label": ["a", "b"]})
    assert open_data(frame, root=files).inputs == [str(files / "img/0.png"), str(files / "img/1.png")]
    if None not in other:
        frame.to_csv(files / "x.csv", index=False)
        assert open_data(files / "x.csv").inputs == [str(files / "img/0.png"), str(files / "img/1.png")]


def test_images_in_a_column_are_read_where_another_names_files_that_are_gone(files: Path) -> None:
    encoded = [(files / f"img/{row}.png").read_bytes() for row in range(2)]
    frame = pd.DataFrame({"path": ["gone/0.png", "gone/1.png"], "image": encoded, "label": ["a", "b"]})
    assert open_data(frame).inputs == encoded
    with pytest.raises(
        DataError, match=r"do not exist.*column 'path' was read, not 'image': columns=\{'file_name': …\} \(--columns file_name="
    ):
        open_data(frame.assign(image=["x", "y"]))


@pytest.mark.parametrize("marks", [[False, False, False, True], ["False", "False", "False", "True"], [0, 0, 0, 1]])
def test_is_valid_marks_the_rows_for_validation(marks: list[Any], files: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "zoo")
    rows = {"path": [f"img/{row}.png" for row in range(4)], "label": ["a", "b", "a", "b"], "is_valid": marks}
    pd.DataFrame(rows).to_csv(files / "x.csv", index=False)
    train, valid = open_train_valid(files / "x.csv")
    assert (len(train), valid and valid.inputs) == (3, [str(files / "img/3.png")])
    assert "the 1 of 4 rows whose column 'is_valid' is true are the validation part" in caplog.text


def test_is_valid_that_is_true_for_most_rows_is_asked_about(files: Path) -> None:
    rows = {"path": [f"img/{row}.png" for row in range(4)], "label": ["a", "b", "a", "b"], "is_valid": [True, True, True, False]}
    frame = pd.DataFrame(rows)
    with pytest.raises(DataError, match=r"'is_valid' is true in 3 of 4 rows.*columns=\{'split': 'is_valid'\} \(--columns split=is_valid\)"):
        open_train_valid(frame, root=files)
    train = open_data(frame, root=files, split="train", columns={"split": "is_valid"})
    assert train.inputs == [str(files / "img/3.png")]
    whole = frame.assign(is_valid=True)
    assert len(open_data(whole, root=files)) == 4
    with pytest.raises(DataError, match="train"):
        open_train_valid(whole, root=files)
    both = frame.assign(split=["train", "train", "val", "val"])
    assert [len(part or ()) for part in open_train_valid(both, root=files)] == [2, 2]


@pytest.mark.parametrize("named", [{}, {"file_name": "img/0.png", "label": "cat"}])
def test_a_table_without_a_header_is_told_whether_or_not_its_columns_are_named(files: Path, named: dict[str, str]) -> None:
    path = table(files / "x.csv", "img/0.png,cat\nimg/1.png,dog\nimg/2.png,cat\nimg/3.png,dog\n")
    with pytest.raises(DataError, match=r"first line looks like a sample \('img/0.png', 'cat'\); add a line .*file_name,label"):
        open_data(path, labelled=True, columns=named)


@pytest.mark.parametrize("named", [{}, {"text": "a very good film", "label": "pos"}])
def test_texts_without_a_header_are_told(files: Path, named: dict[str, str]) -> None:
    path = table(files / "x.csv", "a very good film,pos\nawful,neg\nnice,pos\n")
    with pytest.raises(DataError, match=r"first line looks like a sample .*text,label"):
        open_data(path, labelled=True, columns=named, reads="text")


def test_a_column_named_after_one_of_its_classes_is_read(files: Path) -> None:
    path = table(files / "x.csv", "scan,tumor\nimg/0.png,tumor\nimg/1.png,normal\n")
    assert open_data(path, columns={"file_name": "scan", "label": "tumor"}).classes == ("normal", "tumor")
    with pytest.raises(DataError, match="Name yours with columns="):
        open_data(path, labelled=True, columns={"file_name": "scan"})


def test_columns_per_class_are_told_where_the_files_are_unknown_too(files: Path) -> None:
    path = table(files / "x.csv", "ID,cat,dog\nimg/0.png,1,0\nimg/1.png,0,1\n")
    with pytest.raises(DataError, match=r"--label-columns cat,dog\. Name yours with .*--columns file_name=ID"):
        open_data(path, labelled=True)


@pytest.mark.parametrize(("column", "role"), [("class", "label"), ("Target", "label"), ("category", "label"), ("id", "file_name")])
def test_columns_that_may_have_a_role_are_proposed(files: Path, column: str, role: str) -> None:
    other = "file_name" if role == "label" else "label"
    path = table(files / "x.csv", f"{other},{column}\nimg/0.png,img/1.png\n")
    with pytest.raises(DataError, match=rf"no column '{role}' \(is it '{column}'\?\).*--columns {role}={column}"):
        open_data(path, labelled=True)


def test_columns_that_are_mapped_to_roles_are_told_to_be_turned_round(files: Path) -> None:
    path = table(files / "x.csv", "name,class\nimg/0.png,a\nimg/1.png,b\n")
    with pytest.raises(OptionError, match=r"maps a role to your column: \{'file_name': 'name'\} \(--columns file_name=name\)"):
        open_data(path, columns={"name": "file_name", "class": "label"})


def test_a_table_under_another_suffix_is_told_what_to_call_it(files: Path) -> None:
    path = table(files / "x.txt", "file_name,label\nimg/0.png,a\nimg/1.png,b\n")
    with pytest.raises(DataError, match=r"if it is a table, call it \.csv or \.tsv"):
        open_data(path)
