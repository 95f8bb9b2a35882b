"""Files that tables name: by a root, without endings, in the other form of Unicode, and in Hugging Face image folders."""

from __future__ import annotations

import json
import logging
import os
import time
import unicodedata
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from tests.data.make import write
from zoo.data.open import open_data, open_train_valid
from zoo.errors import DataError, OptionError, ZooError
from zoo.tasks.labels.names import check_classes


@pytest.fixture
def images(tmp_path: Path) -> Path:
    for index in range(4):
        write(tmp_path / "images" / f"isic_{index}.png", index)
    return tmp_path


def ids(folder: Path, names: list[str], column: str = "image_id") -> Path:
    path = folder / "train.csv"
    pd.DataFrame({column: names, "label": ["a", "b"] * (len(names) // 2)}).to_csv(path, index=False)
    return path


def found(table: Any) -> list[str]:
    return [Path(item).name for item in table.inputs]


def test_ids_without_endings_are_found_below_a_root(images: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    path = ids(images, ["isic_0", "isic_1"])
    assert found(open_data(path, root=images / "images")) == ["isic_0.png", "isic_1.png"]
    (line,) = [record.getMessage() for record in caplog.records if "found" in record.getMessage()]
    assert "2 files of 2" in line
    assert ".png" in line
    assert found(open_data(path, root=str(images))) == ["isic_0.png", "isic_1.png"]  # in a folder below
    with pytest.raises(DataError, match=r"2 files of 2 that do not exist.*root="):
        open_data(path)


def test_ids_may_be_numbers_and_have_folders(images: Path) -> None:
    write(images / "images" / "7.png")
    write(images / "more" / "7.png")
    frame = pd.DataFrame({"image_id": [7], "label": ["a"]})
    assert found(open_data(frame, root=images / "more")) == ["7.png"]
    with pytest.raises(DataError, match=r"several files fit 1 name of 1: '7' \(.*images/7.png.*more/7.png"):
        open_data(frame, root=images)
    nested = open_data(pd.DataFrame({"image_id": ["more/7"], "label": ["a"]}), root=images)
    assert Path(nested.inputs[0]).parent.name == "more"


def test_an_id_of_two_endings_is_refused(images: Path) -> None:
    write(images / "images" / "isic_0.jpg")
    with pytest.raises(DataError, match=r"'isic_0' \('isic_0.jpg', 'isic_0.png'\)|'isic_0' \('isic_0.png', 'isic_0.jpg'\)"):
        open_data(ids(images, ["isic_0", "isic_1"]), root=images / "images")


@pytest.mark.parametrize(("given", "fact"), [({"root": "gone"}, "no such folder"), ({"root": ".", "source": "images"}, "needs a table")])
def test_a_root_without_use_is_refused(images: Path, given: dict[str, str], fact: str) -> None:
    source = images / given.pop("source") if "source" in given else ids(images, ["isic_0", "isic_1"])
    with pytest.raises((DataError, OptionError), match=fact):
        open_data(source, **given)  # type: ignore[arg-type]


@pytest.mark.parametrize("split", [False, True])
def test_names_of_files_in_a_hub_dataset_are_looked_for(images: Path, split: bool) -> None:
    import datasets  # type: ignore[import-untyped]  # ships no types

    hub = datasets.Dataset.from_dict({"image_id": ["isic_0", "isic_1"], "label": ["a", "b"]})
    source = datasets.DatasetDict({"train": hub}) if split else hub
    assert found(open_data(source, root=images)) == ["isic_0.png", "isic_1.png"]
    with pytest.raises(DataError, match=r"2 files of 2 that do not exist.*'isic_0', 'isic_1'"):
        open_data(source)


def test_messages_show_a_root_as_text(images: Path) -> None:
    for root, source in ((images, ([1.0], [1])), (images / "gone", ids(images, ["isic_0", "isic_1"]))):
        with pytest.raises(ZooError) as caught:
            open_data(source, root=root, reads="volume")
        assert repr(str(root)) in str(caught.value)
        assert "Path(" not in str(caught.value)


def test_a_folder_is_a_volume_and_no_picture(images: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    (images / "images" / "isic_0").mkdir()
    path = ids(images, ["isic_0", "isic_1"])
    assert found(open_data(path, root=images / "images")) == ["isic_0.png", "isic_1.png"]
    with pytest.raises(DataError, match=r"1 file of 1 that .*images' \(a folder\)"):
        open_data([str(images / "images")])
    caplog.clear()
    assert open_data([str(images / "images")], reads="volume").inputs == [str(images / "images")]
    assert "found" not in caplog.text


def test_backslashes_and_decomposed_names_are_found(images: Path) -> None:
    (images / "images" / "isic_0.png").rename(images / "images" / unicodedata.normalize("NFD", "é.png"))
    table = open_data(ids(images, ["images\\é.png", "images\\isic_1.png"], "path"))
    assert [unicodedata.normalize("NFC", name) for name in found(table)] == ["é.png", "isic_1.png"]


def test_class_names_in_both_forms_of_unicode_are_one_class(tmp_path: Path) -> None:
    for form in ("NFC", "NFD"):
        write(tmp_path / unicodedata.normalize(form, "café") / f"{form}.png", len(form))
    write(tmp_path / "tea" / "0.png")
    assert open_data(tmp_path).counts() == {"café": 2, "tea": 1}
    labels = [unicodedata.normalize("NFD", "café"), "café", "tea"]
    names = [str(path) for path in sorted(tmp_path.rglob("*.png"))]
    assert open_data((names, labels), classes=[labels[0], "tea"]).counts() == {"café": 2, "tea": 1}


@pytest.mark.parametrize("kind", ["csv", "jsonl", "parquet"])
def test_metadata_of_an_image_folder_is_its_table(images: Path, kind: str) -> None:
    frame = pd.DataFrame({"file_name": [f"isic_{index}.png" for index in range(4)], "label": ["b", "a", "a", "b"]})
    path = images / "images" / f"metadata.{kind}"
    if kind == "csv":
        frame.to_csv(path, index=False)
    elif kind == "jsonl":
        path.write_text("\n".join(json.dumps(row) for row in frame.to_dict("records")))
    else:
        frame.to_parquet(path)
    table = open_data(images / "images")
    assert table.targets.tolist() == [1, 0, 0, 1]  # type: ignore[union-attr]
    assert found(open_data(images / "images", labelled=False)) == frame.file_name.tolist()


def test_metadata_of_splits_and_its_own_columns(tmp_path: Path) -> None:
    for split in ("train", "validation"):
        write(tmp_path / split / "0.png", len(split))
        write(tmp_path / split / "1.png", len(split) + 1)
        (tmp_path / split / "metadata.csv").write_text("file_name,kind\n0.png,x\n1.png,y\n")
    train, valid = open_train_valid(tmp_path, columns={"label": "kind"})
    assert (len(train), len(valid or ()), train.classes) == (2, 2, ("x", "y"))
    with pytest.raises(DataError, match=r"'knd' \(did you mean 'kind'\?\)"):
        open_train_valid(tmp_path, columns={"label": "knd"})


def test_metadata_without_labels_leaves_the_class_folders(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    write(tmp_path / "a" / "0.png")
    write(tmp_path / "b" / "0.png", 1)
    (tmp_path / "metadata.csv").write_text("file_name,caption\na/0.png,x\nb/0.png,y\n")
    write(tmp_path / "b" / "1.png", 2)
    caplog.set_level(logging.INFO)
    assert open_data(tmp_path).classes == ("a", "b")
    assert "metadata.csv is not read" in caplog.text
    assert len(open_data(tmp_path)) == len(open_data(tmp_path, labelled=False)) == 3


@pytest.mark.parametrize(("columns", "number"), [("file_name,label", 1), ("file_name,caption", 1), ("caption,label", 2)])
def test_metadata_are_the_same_table_for_training_and_prediction(
    tmp_path: Path, columns: str, number: int, caplog: pytest.LogCaptureFixture
) -> None:
    for index in range(2):
        write(tmp_path / f"{index}.png", index)
    (tmp_path / "metadata.csv").write_text(f"{columns}\n0.png,x\n")
    caplog.set_level(logging.INFO)
    assert len(open_data(tmp_path, labelled=None)) == len(open_data(tmp_path, labelled=False)) == number
    assert ("is read as the table" in caplog.text) == (number == 1)


def test_splits_of_other_names_get_a_hint(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    for index in range(12):
        write(tmp_path / f"{index}.png", index)
    splits = ["train"] * 8 + ["validation_matched", "validation_mismatched"] * 2
    rows = "".join(f"{index}.png,{'ab'[index % 2]},{split}\n" for index, split in enumerate(splits))
    (tmp_path / "x.csv").write_text(f"file_name,label,split\n{rows}")
    open_train_valid(tmp_path / "x.csv")
    assert "valid_split='validation_matched'" in caplog.text
    with pytest.raises(DataError, match=r"no split 'validation' \(did you mean 'validation_matched'"):
        open_data(tmp_path / "x.csv", split="validation")
    write(tmp_path / "f" / "train" / "a" / "0.png")
    write(tmp_path / "f" / "validation_matched" / "a" / "0.png")
    with pytest.raises(DataError, match="look like splits"):
        open_data(tmp_path / "f")


@pytest.mark.parametrize("separator", [",", "\t"])
def test_two_columns_of_one_name_are_refused(tmp_path: Path, separator: str) -> None:
    write(tmp_path / "0.png")
    rows = [["file_name", "label", "label"], ["0.png", "a", "b"]]
    (tmp_path / "x.csv").write_text("\n".join(map(separator.join, rows)) + "\n")
    with pytest.raises(DataError, match=r"same name: 'label'"):
        open_data(tmp_path / "x.csv")


def test_pictures_that_cannot_be_decoded_are_named(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    write(tmp_path / "a" / "0.png")
    for index in range(3):
        (tmp_path / "a" / f"{index}.jxl").write_bytes(b"x")
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "0.psd").write_bytes(b"x")
    assert open_data(tmp_path).counts() == {"a": 1, "b": 0}
    assert "3 .jxl files cannot be decoded" in caplog.text
    assert "1 .psd file" in caplog.text
    with pytest.raises(DataError, match=r"no image that can be read; 1 .psd file"):
        open_data(tmp_path / "b")


@pytest.fixture
def deep(tmp_path: Path) -> Iterator[Path]:
    """A folder of images, one of them 1500 levels down; walked step by step, as a path may have 4096 characters only."""
    write(tmp_path / "data" / "b" / "0.png")
    top, here = tmp_path / "data" / "a", Path.cwd()
    top.mkdir()
    os.chdir(top)
    for _ in range(1500):
        Path("d").mkdir()
        os.chdir("d")
    write(Path("0.png"))
    os.chdir(here)
    yield tmp_path / "data"
    os.chdir(top)
    for _ in range(1500):
        os.chdir("d")
    Path("0.png").unlink()
    for _ in range(1500):  # shutil.rmtree is recursive
        os.chdir("..")
        Path("d").rmdir()
    os.chdir(here)


def test_a_very_deep_folder_is_no_recursion_error(deep: Path) -> None:
    assert open_data(deep).counts() == {"a": 1, "b": 1}


def test_a_parquet_that_unpacks_to_very_much_is_refused(tmp_path: Path) -> None:
    pd.DataFrame({"file_name": ["x" * 2**20] * 600, "label": "a"}).to_parquet(tmp_path / "x.parquet", compression="zstd")
    assert (tmp_path / "x.parquet").stat().st_size < 2**20 * 2
    with pytest.raises(DataError, match=r"unpacks to more than"):
        open_data(tmp_path / "x.parquet")


def test_an_error_message_has_an_end() -> None:
    assert len(str(DataError("x" * 5_000_000 + "remedy"))) < 20_000
    assert str(DataError("x" * 5_000_000 + "remedy")).endswith("remedy")
    with pytest.raises(ZooError) as caught:
        open_data((["y" * 10**6, "z" * 10**6], ["a", "b"]), root=".")
    assert len(str(caught.value)) < 5_000


def test_many_classes_are_checked_in_no_time() -> None:
    started = time.perf_counter()
    assert len(check_classes([f"class {index}" for index in range(200_000)])) == 200_000
    assert time.perf_counter() - started < 5
