from __future__ import annotations

import logging
import os
from pathlib import Path

import PIL.Image
import pytest

from tests.data.make import folder, write
from zoo.data.open import open_data, open_train_valid
from zoo.errors import DataError, OptionError


def test_real_photos_in_train_and_val_folders_are_one_source(shared: Path) -> None:
    train, valid = open_train_valid(shared / "data/images/hymenoptera")
    assert (len(train), len(valid), train.classes) == (244, 153, ("ants", "bees"))
    assert train.counts() == {"ants": 123, "bees": 121}
    assert all("/val/" in path for path in valid.inputs)


def test_files_at_any_depth_below_a_class_folder_belong_to_it(tmp_path: Path) -> None:
    folder(tmp_path, cat=1, dog=1)
    write(tmp_path / "cat/2024/may/ä ö\n.PNG")
    (tmp_path / "cat/notes.txt").write_text("not an image")
    (tmp_path / "cat/.hidden.png").write_text("left out")
    assert open_data(tmp_path).counts() == {"cat": 2, "dog": 1}


def test_a_link_back_to_a_folder_above_is_not_followed(tmp_path: Path) -> None:
    folder(tmp_path, cat=2, dog=1)
    (tmp_path / "cat/again").symlink_to(tmp_path)
    (tmp_path / "cat/self").symlink_to(tmp_path / "cat")
    counts = open_data(tmp_path).counts()
    assert counts == {"cat": 2, "dog": 1}


def test_a_link_to_nothing_is_an_image_of_its_class(tmp_path: Path) -> None:
    folder(tmp_path, cat=2, dog=1)
    (tmp_path / "cat/lost.png").symlink_to(tmp_path / "moved away.png")
    table = open_data(tmp_path)
    assert table.counts() == {"cat": 3, "dog": 1}
    assert [path for path in table.inputs if path.endswith("lost.png")]  # which the run then names


def test_class_folders_named_by_integers_are_in_numeric_order(tmp_path: Path) -> None:
    folder(tmp_path, **{"10": 1, "2": 1, "1": 1})
    assert open_data(tmp_path).classes == ("1", "2", "10")


@pytest.mark.parametrize("name", ["val", "valid", "validation", "Val"])
def test_every_spelling_of_valid_is_the_validation_split(tmp_path: Path, name: str) -> None:
    folder(tmp_path / "train", a=2, b=2)
    folder(tmp_path / name, a=1, b=1)
    train, valid = open_train_valid(tmp_path)
    assert (len(train), len(valid)) == (4, 2)
    assert len(open_data(tmp_path, split="valid")) == 2


def test_classes_called_train_and_bus_are_classes(tmp_path: Path) -> None:
    assert open_data(folder(tmp_path, train=1, bus=2)).counts() == {"bus": 2, "train": 1}


def test_the_test_split_is_left_alone(tmp_path: Path) -> None:
    for name in ("train", "test"):
        folder(tmp_path / name, a=10, b=10)
    train, valid = open_train_valid(tmp_path)
    assert (len(train), len(valid)) == (16, 4)
    assert not any("/test/" in path for path in (*train.inputs, *valid.inputs))


def test_a_test_folder_without_labels_does_not_disturb_training(tmp_path: Path) -> None:
    folder(tmp_path / "train", a=5, b=5)
    write(tmp_path / "test/1.png")
    assert sum(map(len, open_train_valid(tmp_path))) == 10
    assert len(open_data(tmp_path, split="test", labelled=False)) == 1


def test_a_folder_of_images_alone_is_for_prediction(tmp_path: Path) -> None:
    write(tmp_path / "b.png")
    write(tmp_path / "a.jpg")
    table = open_data(tmp_path)
    assert table.targets is None
    assert [Path(path).name for path in table.inputs] == ["a.jpg", "b.png"]
    with pytest.raises(DataError, match="no labels"):
        open_train_valid(tmp_path)


def test_prediction_ignores_what_folders_are_called(tmp_path: Path) -> None:
    folder(tmp_path, monday=2)
    write(tmp_path / "loose.png")
    table = open_data(tmp_path, classes=["ant", "bee"], labelled=False)
    assert (len(table), table.targets, table.classes) == (3, None, ("ant", "bee"))


def test_loose_images_beside_class_folders_are_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    write(folder(tmp_path, a=1, b=1) / "loose.png")
    assert len(open_data(tmp_path)) == 2
    assert "1 images beside the class folders" in caplog.text


def test_opening_decodes_nothing_and_reads_every_folder_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        for index in range(500):
            (tmp_path / name / f"{index}.jpg").touch()
    scans: list[str] = []
    scan = os.scandir
    monkeypatch.setattr(os, "scandir", lambda path: scans.append(str(path)) or scan(path))
    monkeypatch.setattr(PIL.Image, "open", lambda *_: pytest.fail("an image was opened"))
    assert len(open_data(tmp_path)) == 1000
    assert len(scans) <= 5


def test_a_missing_path_names_the_nearest_one(tmp_path: Path) -> None:
    folder(tmp_path / "train", a=1)
    with pytest.raises(DataError, match=r"no 'trian' in .*did you mean 'train'"):
        open_data(tmp_path / "trian" / "a")


def test_an_empty_folder_says_what_is_looked_for(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a/readme.txt").touch()
    with pytest.raises(DataError, match=r"no image.*\.jpeg \.jpg"):
        open_data(tmp_path)


def test_a_class_without_images_in_train_is_named(tmp_path: Path) -> None:
    folder(tmp_path / "train", ant=2, bee=2, wasp=0)
    folder(tmp_path / "val", ant=1, bee=1)
    with pytest.raises(DataError, match="1 class without samples in train: 'wasp'"):
        open_train_valid(tmp_path / "train", tmp_path / "val")


def test_a_class_that_only_validation_has_is_named(tmp_path: Path) -> None:
    folder(tmp_path / "train", ant=2, bee=2)
    folder(tmp_path / "val", ant=1, wasp=1)
    with pytest.raises(DataError, match="without samples in train: 'wasp'"):
        open_train_valid(tmp_path)


def test_one_class_only_cannot_be_trained(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="only one class, 'ant'"):
        open_train_valid(folder(tmp_path, ant=5))


def test_a_folder_outside_the_classes_is_refused_with_its_nearest(tmp_path: Path) -> None:
    folder(tmp_path, ant=1, bees=3)
    with pytest.raises(
        DataError, match=r"(?s)1 label outside the 2 classes.*'bees' \(did you mean 'bee'\?\): 3 samples, first .*bees/0.png"
    ):
        open_data(tmp_path, classes=["ant", "bee"])


def test_a_new_folder_cannot_shift_the_classes_of_a_model(tmp_path: Path) -> None:
    folder(tmp_path, ant=1, bee=1)
    assert open_data(tmp_path, classes=["bee", "ant"]).targets.tolist() == [1, 0]  # type: ignore[union-attr]
    folder(tmp_path, aaa=1)
    with pytest.raises(DataError, match="'aaa'"):
        open_data(tmp_path, classes=["bee", "ant"])


def test_an_unknown_split_is_refused_with_its_nearest(tmp_path: Path) -> None:
    folder(tmp_path / "train", a=1)
    folder(tmp_path / "test", a=1)
    with pytest.raises(DataError, match=r"no split 'tests'.*did you mean 'test'"):
        open_data(tmp_path, split="tests")
    with pytest.raises(DataError, match="has no splits"):
        open_data(tmp_path / "train", split="val")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_folder_that_may_not_be_read_is_named(tmp_path: Path) -> None:
    folder(tmp_path, a=1, b=1)
    (tmp_path / "b").chmod(0)
    try:
        with pytest.raises(DataError, match="may not be read"):
            open_data(tmp_path)
    finally:
        (tmp_path / "b").chmod(0o700)


def test_columns_are_for_tables(tmp_path: Path) -> None:
    with pytest.raises(OptionError, match="needs a table"):
        open_data(folder(tmp_path, a=1, b=1), columns={"label": "x"})


def test_a_file_of_another_kind_is_refused(tmp_path: Path) -> None:
    (tmp_path / "data.zip").touch()
    with pytest.raises(DataError, match=r"data\.zip.*\.csv"):
        open_data(tmp_path / "data.zip")


def test_a_hold_out_is_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "zoo"):
        open_train_valid(folder(tmp_path / "few", a=10, b=10), seed=3)
        open_train_valid(folder(tmp_path / "more", a=25, b=25), seed=3)
    few, more = caplog.messages
    assert "4 of 20 samples (20 %) held out stratified by class, seed 3; so few judge little" in few
    assert more.endswith("10 of 50 samples (20 %) held out stratified by class, seed 3")


def test_dicom_files_without_an_ending_and_volumes_are_found(tmp_path: Path) -> None:
    for name, content in {
        "a/4648": b"\0" * 128 + b"DICM",
        "a/1.2.840.5": b"\0" * 128 + b"DICM",
        "b/x.nii.gz": b"",
        "b/notes": b"text",
        "b/y.DCM": b"",
    }.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(content)
    assert [Path(path).name for path in open_data(tmp_path).inputs] == ["1.2.840.5", "4648", "x.nii.gz", "y.DCM"]
