"""Patients of DICOM headers stay on one side of every split, unless they are switched off."""

from __future__ import annotations

import logging
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

import zoo.data.images.scans.dicom as dicom
from tests.data.test_dicom import made
from zoo.data.open import open_data, open_train_valid
from zoo.data.splits.folds import cross_validation_folds
from zoo.data.splits.patients import known_groups
from zoo.data.table import Table
from zoo.engine.options.begun import option_differences
from zoo.engine.train.record import data_difference, data_record
from zoo.errors import DataError, HoldOutError, LeakError, MissingExtraError, OptionError

RNG = np.random.default_rng(0)


def scans(root: Path, patients: Sequence[str], studies: Sequence[str] = (), *, part: int = 0) -> Path:
    """Class folders of DICOM files, of both classes in turn; the first ``part`` of them as train/, the others as val/."""
    for number, patient in enumerate(patients):
        path = root / (["val", "train"][number < part] if part else "") / "ab"[number % 2] / f"{number}.dcm"
        path.parent.mkdir(parents=True, exist_ok=True)
        tags = {"PatientID": patient, "StudyInstanceUID": studies[number] if studies else ""}
        made(RNG.integers(0, 255, (8, 8)).astype(np.uint8), **tags).save_as(path, enforce_file_format=True)
    return root


class Items(torch.utils.data.Dataset[dict[str, object]]):
    """A dataset of dicts."""

    def __init__(self, items: list[dict[str, object]]) -> None:
        self.items = items

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, index: int) -> dict[str, object]:
        return self.items[index]


def numbers(table: Table | None) -> set[int]:
    assert table is not None
    return {int(Path(name).stem) for name in table.inputs}


PATIENTS = [f"P{number // 4}" for number in range(40)]


def test_patients_of_headers_are_on_one_side_of_a_hold_out_and_of_folds(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "zoo")
    train, valid = open_train_valid(scans(tmp_path, PATIENTS))
    assert {number // 4 for number in numbers(train)}.isdisjoint(number // 4 for number in numbers(valid))
    assert "10 patients by the headers (PatientID) of 40 DICOM files" in caplog.text
    assert "columns={'group': 'none'}" in caplog.text
    whole, _ = open_train_valid(tmp_path, False)
    for fold in cross_validation_folds(whole, 3):
        names = [{PATIENTS[int(Path(whole.inputs[row]).stem)] for row in rows} for rows in (fold.train, fold.held_out)]
        assert names[0].isdisjoint(names[1])


def test_headers_are_read_once_and_without_pixels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from pydicom import filereader

    scans(tmp_path, PATIENTS)
    read, before = [], filereader.read_partial

    def counted(file, *given, **options):  # type: ignore[no-untyped-def]
        header = before(file, *given, **options)
        read.append((file.tell(), "PixelData" in header))
        return header

    monkeypatch.setattr("pydicom.filereader.read_partial", counted)
    open_train_valid(tmp_path)
    open_train_valid(tmp_path, False)
    assert len(read) == 40
    assert not any(pixels for _, pixels in read)


def test_none_switches_it_off_and_an_attribute_chooses_otherwise(tmp_path: Path) -> None:
    scans(tmp_path, PATIENTS, [f"1.{number // 20}" for number in range(40)])
    assert open_data(tmp_path, labelled=True, columns={"group": "none"}).groups is None
    by_study = open_data(tmp_path, labelled=True, columns={"group": "StudyInstanceUID"}).groups
    assert set(by_study or ()) == {"1.0", "1.1"}
    with pytest.raises(DataError, match="no DICOM file has StationName in its header"):
        open_data(tmp_path, labelled=True, columns={"group": "StationName"})
    with pytest.raises(OptionError, match="did you mean 'PatientID'"):
        open_data(tmp_path, labelled=True, columns={"group": "PatientId"})


def test_a_column_goes_before_the_headers_and_none_before_both(tmp_path: Path) -> None:
    names = sorted(map(str, scans(tmp_path, PATIENTS).rglob("*.dcm")))
    frame = pd.DataFrame({"file_name": names, "label": [Path(name).parent.name for name in names], "patient_id": ["x", "y"] * 20})
    assert set(open_data(frame, labelled=True).groups or ()) == {"x", "y"}
    assert open_data(frame, labelled=True, columns={"group": "none"}).groups is None
    assert set(open_data(frame, labelled=True, columns={"group": "PatientID"}).groups or ()) == set(PATIENTS)
    assert set(open_data(frame.drop(columns="patient_id"), labelled=True).groups or ()) == set(PATIENTS)


def test_a_patient_on_both_sides_of_given_splits_is_a_leak(tmp_path: Path) -> None:
    scans(tmp_path, PATIENTS, part=30)
    with pytest.raises(LeakError, match=r"1 group of 3 in valid \(2 samples\)[\s\S]*columns=\{'group': 'none'\} ignores"):
        open_train_valid(tmp_path)
    with pytest.raises(LeakError, match="1 group of 3"):
        open_train_valid(tmp_path / "train", tmp_path / "val")
    assert numbers(open_train_valid(tmp_path, columns={"group": "none"})[1]) == set(range(30, 40))


def test_a_class_per_patient_cannot_be_held_out_and_the_error_names_the_switch(tmp_path: Path) -> None:
    with pytest.raises(HoldOutError, match=r"columns=\{'group': 'none'\} ignores"):
        open_train_valid(scans(tmp_path, ["P0", "P1"] * 10))


@pytest.mark.parametrize(
    ("patients", "studies", "told"),
    [
        ([""] * 8, "00112233", "is empty"),
        (["ANON"] * 8, "00112233", "is 'ANON' in 8 of them"),
        (["ANON"] * 5 + ["P1", "P2", "P3"], "00112233", "is 'ANON' in 5 of them"),
        ([f"P{row}" for row in range(8)], "00112233", "differs between samples of one study"),
    ],
)
def test_studies_take_the_place_of_ids_that_tell_nothing(patients: list[str], studies: str, told: str) -> None:
    known = known_groups(patients, list(studies))
    assert known.divides
    assert known.ids == tuple(studies)
    assert told in known.odd


def test_ids_that_are_all_different_or_of_one_large_study_are_no_placeholders() -> None:
    single = known_groups([f"P{row}" for row in range(8)], [str(row) for row in range(8)])
    assert (single.odd, single.divides) == ("", False)
    large = known_groups(["P0"] * 5 + ["P1", "P2", "P3"], ["0"] * 5 + ["1", "2", "3"])
    assert (large.odd, large.divides, large.number) == ("", True, 4)


@pytest.mark.parametrize("patient", ["", "ANON"])
def test_files_without_any_id_are_warned_of(patient: str, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    assert open_data(scans(tmp_path, [patient] * 10), labelled=True).groups is None
    assert "nothing else in the headers tells which are of one patient" in caplog.text
    assert "columns={'group': …}" in caplog.text


def test_a_key_of_arrays_or_of_items_may_have_the_name_of_an_attribute(tmp_path: Path) -> None:
    pixels, labels, patients = np.zeros((4, 8, 8), np.uint8), np.array([0, 1, 0, 1]), np.array(["p", "p", "q", "q"])
    np.savez(tmp_path / "data.npz", images=pixels, labels=labels, PatientID=patients, group=labels)
    items = [{"image": one, "label": int(label), "PatientID": str(who)} for one, label, who in zip(pixels, labels, patients, strict=True)]
    for source in (tmp_path / "data.npz", Items(items)):
        assert list(open_data(source, labelled=True, columns={"group": "PatientID"}).groups or ()) == patients.tolist()
        assert open_data(source, labelled=True, columns={"group": "none"}).groups is None


def test_an_attribute_that_pydicom_is_missing_for_is_not_told_as_absent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scans(tmp_path, PATIENTS)
    for name in ("pydicom", "pydicom.filereader", "pydicom.datadict"):
        monkeypatch.setitem(sys.modules, name, None)
    monkeypatch.setattr(dicom.importlib.util, "find_spec", lambda _name: None)
    with pytest.raises(MissingExtraError, match="pip install pydicom"):
        open_data(tmp_path, labelled=True, columns={"group": "StudyInstanceUID"})


def test_a_run_that_divided_patients_goes_on_with_its_division(tmp_path: Path) -> None:
    scans(tmp_path, PATIENTS)
    begun = data_record(open_train_valid(tmp_path, columns={"group": "none"}))
    now = data_record(open_train_valid(tmp_path))
    assert "columns={'group': 'none'} divides them as before" in data_difference("train", now["train"], begun["train"])
    assert data_difference("train", begun["train"], begun["train"]) == ""
    assert option_differences({"columns": {"group": "none"}}, {"columns": {}}) == []
    assert option_differences({"columns": {}}, {"columns": {"group": "none"}}) != []
    assert option_differences({"columns": {"group": "none"}}, {"columns": {"group": "patient"}}) != []


def test_a_series_and_an_encoded_file_have_headers_and_other_files_none(tmp_path: Path) -> None:
    (path := tmp_path / "one").mkdir()
    (path / "a.txt").write_text("no DICOM")
    made(np.zeros((4, 4), np.uint8), PatientID="P7").save_as(path / "b", enforce_file_format=True)
    assert dicom.read_header(path, ["PatientID"]) == {"PatientID": "P7"}
    assert dicom.read_header((path / "b").read_bytes(), ["PatientID", "StudyInstanceUID"]) == {"PatientID": "P7"}
    assert dicom.read_header(path / "a.txt", ["PatientID"]) is None
