"""What a check finds in volumes: copies of other bytes, flips, odd spacings, scouts, spacing and scanner as shortcuts, patients."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from tests.data.test_dicom import made
from tests.data.test_series import series
from tests.select.audit.test_exact import of
from zoo.select.audit import check_data
from zoo.select.audit.findings.finding import Audit

nibabel = pytest.importorskip("nibabel")
pytest.importorskip("pydicom")
RNG = np.random.default_rng(0)


def volume() -> Any:
    """Return a volume that is like no other one: a few blobs."""
    return np.kron(RNG.integers(-500, 500, (4, 4, 4)), np.ones((4, 4, 4))).astype(np.int16)


def write(values: Any, path: Path, spacing: Any = (1, 1, 2)) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    nibabel.Nifti1Image(values, np.diag([*spacing, 1.0])).to_filename(path)
    return path


def checked(source: Any, **options: Any) -> Audit:
    return check_data(source, skip=("labels", "drift"), quiet=True, **options)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for split, number in (("train", 12), ("test", 6)):
        for label in ("sick", "well"):
            for index in range(number):
                write(volume(), tmp_path / "data" / split / label / f"{index}.nii.gz")
    return tmp_path / "data"


def test_clean_volumes_have_no_finding(folder: Path) -> None:
    audit = checked(folder)
    assert (audit.reads, audit.findings) == ("volume", [])
    assert audit.figures["values"]["longest step in mm"] == {"min": 2.0, "median": 2.0, "max": 2.0}


def test_copies_in_other_bytes_are_equal_and_flips_and_rescaled_values_near(folder: Path) -> None:
    read = lambda name: np.asarray(nibabel.load(folder / "train" / name).dataobj)  # noqa: E731
    write(read("sick/0.nii.gz"), folder / "test" / "sick" / "plain.nii")
    write(read("sick/1.nii.gz").astype(np.float32), folder / "train" / "well" / "other.nii")
    for number, axes in enumerate(((0,), (2,), (0, 1))):
        write(np.flip(read(f"well/{number}.nii.gz"), axes), folder / "test" / "well" / f"flip{number}.nii.gz")
    write(read("well/5.nii.gz") / 3 + 1024, folder / "test" / "well" / "scaled.nii.gz")
    audit = checked(folder)
    (leak,), (against,) = of(audit, "duplicates", "leak"), of(audit, "duplicates", "warning")
    assert "plain.nii" in leak.message
    assert "other.nii" in against.message
    assert "contradicting labels" in against.message
    (near,) = of(audit, "near-duplicates")
    assert (near.level, near.count) == ("leak", 4)


def test_odd_spacings_scouts_and_empty_volumes_are_told(folder: Path) -> None:
    for number in range(36):  # so that the spacings vary
        write(volume(), folder / "train" / "sick" / f"more{number}.nii.gz", (1, 1, 2 + number / 36))
    write(volume(), folder / "train" / "sick" / "thick.nii.gz", (1, 1, 40))
    write(volume()[..., :3], folder / "train" / "sick" / "scout.nii.gz")
    write(np.zeros((16, 16, 16), np.int16), folder / "train" / "well" / "empty.nii.gz")
    audit = checked(folder)
    told = {name: finding.message for finding in of(audit, "values") for name in ("thick", "scout") if f"{name}.nii" in finding.message}
    assert "longest step in mm is far from the median" in told["thick"]
    assert "fewer than 5 slices" in told["scout"]
    assert any("of a single value" in finding.message and "empty.nii" in finding.message for finding in of(audit, "values"))
    assert any("2 shapes: 16x16x16 (74), 16x16x3 (1)" in finding.message for finding in of(audit, "values"))


@pytest.mark.parametrize("planted", ["spacing", "camera", "lowest value", "kind of file"])
def test_what_surrounds_the_content_of_a_volume_and_tells_the_label_is_a_shortcut(planted: str, tmp_path: Path) -> None:
    for number in range(40):
        label, told = number % 2, number % 2 if number % 10 else 1 - number % 2
        values = volume()
        values[0, 0, 0] = -2000 if told and planted == "lowest value" else -1024
        path = tmp_path / f"data/{'ab'[label]}/{number}.nii.gz"
        write(values.astype(np.int32 if told and planted == "kind of file" else np.int16), path, (1, 1, 2 + (planted == "spacing") * told))
        scanner = {"Manufacturer": "Maker", "ManufacturersModelName": f"M{told * (planted == 'camera')}"}
        path.with_name(f"{number}.json").write_text(json.dumps(scanner))
    figures = checked(tmp_path / "data", reads="volume").figures["shortcuts"]
    assert figures[planted] > 0.85
    assert all(value < 0.7 for name, value in figures.items() if name not in (planted, "file size", "all together"))


def test_a_series_is_checked_as_a_volume_and_its_patient_and_scanner_are_read(tmp_path: Path) -> None:
    pytest.importorskip("monai")
    rows = []
    for number in range(8):
        tags = {"PatientID": f"P{number % 7}", "Manufacturer": "Maker", "ManufacturerModelName": f"M{number % 2}"}
        series(tmp_path / f"scan{number}", volume()[:7, :6, :5], **tags)
        rows.append((f"scan{number}", "ab"[number % 2], "train" if number < 5 else "val"))
    pd.DataFrame(rows, columns=["file_name", "label", "split"]).to_csv(tmp_path / "table.csv", index=False)
    audit = checked(tmp_path / "table.csv", reads="volume")
    assert not of(audit, "files")
    (leak,) = of(audit, "groups", "leak")
    assert "1 patient of the DICOM headers in more than one split: P0" in leak.message
    assert leak.rows == ((0, 7),)
    assert audit.figures["values"]["longest step in mm"]["max"] == 3.0


def test_the_patient_of_dicom_images_is_read_where_no_column_names_one(tmp_path: Path) -> None:
    for number in range(8):
        path = tmp_path / ("train" if number < 5 else "val") / "ab"[number % 2] / f"{number}.dcm"
        path.parent.mkdir(parents=True, exist_ok=True)
        pixels = RNG.integers(0, 255, (32, 32)).astype(np.uint8)
        made(pixels, PatientID=f"P{number % 6}", Manufacturer="Maker").save_as(path, enforce_file_format=True)
    assert [finding.count for finding in of(checked(tmp_path), "groups", "leak")] == [2]
    for path in tmp_path.rglob("*.dcm"):  # made anonymous: one id for all
        made(RNG.integers(0, 255, (32, 32)).astype(np.uint8), PatientID="ANON").save_as(path, enforce_file_format=True)
    (note,) = of(checked(tmp_path), "groups")
    assert note.level == "note"
    assert "'ANON' in 8 of them" in note.message


def test_scans_without_a_window_are_read_through_the_one_that_is_given(tmp_path: Path) -> None:
    for number in range(6):
        path = tmp_path / "ab"[number % 2] / f"{number}.dcm"
        path.parent.mkdir(parents=True, exist_ok=True)
        made(RNG.integers(-900, 900, (32, 32)).astype(np.int16)).save_as(path, enforce_file_format=True)
    assert of(checked(tmp_path), "files")[0].count == 6
    assert not of(checked(tmp_path, window=(0.0, 2000.0)), "files")


def test_patients_of_headers_are_groups_of_the_folds_of_a_check_unless_switched_off(tmp_path: Path) -> None:
    for number in range(48):  # the size tells the patient, and the patient the label
        path = tmp_path / "ab"[number // 4 % 2] / f"{number}.dcm"
        path.parent.mkdir(parents=True, exist_ok=True)
        pixels = RNG.integers(0, 255, (24 + number // 4, 32)).astype(np.uint8)
        made(pixels, PatientID=f"P{number // 4}").save_as(path, enforce_file_format=True)
    together, apart = (checked(tmp_path, columns=columns).figures["shortcuts"] for columns in ({}, {"group": "none"}))
    assert apart["image size"] > 0.95 > 0.8 > together["image size"]
