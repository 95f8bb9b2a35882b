"""A DICOM series becomes the volume that a NIfTI file of the same scan would be, or is refused with the reason."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.data.test_dicom import made
from zoo.data.images.scans.volumes import read_volume
from zoo.errors import CorruptInputError

nibabel = pytest.importorskip("nibabel")
pydicom = pytest.importorskip("pydicom")
VALUES = np.random.default_rng(0).integers(0, 2000, (7, 6, 5)).astype(np.int16)  # left to right, back to front, bottom to top


def series(folder: Path, values: Any = VALUES, *, step: float = 3.0, uid: str = "1.2", skip: tuple[int, ...] = (), **tags: Any) -> Path:
    """Write a volume as a series of axial slices, the names in no order of place: rows run to the back, columns to the left."""
    folder.mkdir(parents=True, exist_ok=True)
    columns, rows, depth = values.shape
    for place in range(depth):
        if place in skip:
            continue
        pixels = (values[::-1, ::-1, place].T + 1024).astype(np.uint16)
        data = made(pixels, RescaleSlope=1, RescaleIntercept=-1024, SeriesInstanceUID=uid, **tags)
        data.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
        data.ImagePositionPatient = [-(columns - 1) * 2.0, -(rows - 1) * 1.5, place * step]
        data.PixelSpacing = [1.5, 2.0]
        data.save_as(folder / f"{(place * 3) % depth}.dcm", enforce_file_format=True)
    return folder


def test_a_series_is_the_volume_of_the_nifti_file_of_the_same_scan(tmp_path: Path) -> None:
    path = tmp_path / "scan.nii"
    nibabel.Nifti1Image(VALUES, np.diag([2.0, 1.5, 3.0, 1.0])).to_filename(path)
    (series(tmp_path / "scan") / "notes.txt").write_text("no slice")
    (values, affine), (wanted, reference) = read_volume(tmp_path / "scan"), read_volume(path)
    assert np.array_equal(values, wanted)
    assert affine is not None
    assert reference is not None
    assert np.allclose(affine, reference)


def test_real_slices_of_one_series_are_refused_where_some_are_absent(shared: Path) -> None:
    with pytest.raises(CorruptInputError, match="unevenly spaced slices"):
        read_volume(shared / "data/medical/dicom/77654033/CT2")
    with pytest.raises(CorruptInputError, match="holds 3 DICOM series"):
        read_volume(shared / "data/medical/dicom/98892003/MR2")
    values, affine = read_volume(shared / "data/medical/dicom/98892001/CT5N")
    assert values.shape == (1, 16, 16, 5)
    assert affine is not None
    assert np.linalg.norm(affine[:3, 2]) == pytest.approx(2.5)


def test_what_is_no_series_is_refused_with_the_reason(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(CorruptInputError, match="0 DICOM slices"):
        read_volume(tmp_path / "empty")
    with pytest.raises(CorruptInputError, match="a slice may be absent"):
        read_volume(series(tmp_path / "gap", skip=(2,)))
    series(tmp_path / "two", VALUES[..., :2])
    series(tmp_path / "two", VALUES[..., 2:5], uid="1.3")
    with pytest.raises(CorruptInputError, match="2 DICOM series"):
        read_volume(tmp_path / "two")
    finer = pydicom.dcmread(series(tmp_path / "finer") / "2.dcm")
    finer.PixelSpacing = [0.75, 1.0]
    finer.save_as(tmp_path / "finer" / "2.dcm")
    with pytest.raises(CorruptInputError, match="several pixel spacings"):
        read_volume(tmp_path / "finer")
    with pytest.raises(CorruptInputError, match="two slices at one place"):
        read_volume(series(tmp_path / "flat", step=0.0))


def test_a_place_that_is_no_number_is_refused_by_its_file(tmp_path: Path) -> None:
    path = series(tmp_path / "scan") / "0.dcm"
    content = path.read_bytes()
    assert content.count(b"-12.0") == 1  # of ImagePositionPatient
    path.write_bytes(content.replace(b"-12.0", b"-1x.0"))
    with pytest.raises(CorruptInputError, match=r"0\.dcm' has in ImagePositionPatient no 3 numbers"):
        read_volume(tmp_path / "scan")
