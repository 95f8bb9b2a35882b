"""Volumes: axes, spacing and values against plain numpy and nibabel; the same random numbers give the same volume."""

from __future__ import annotations

import builtins
import logging
import pickle
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from zoo.data.images.augment import Augment
from zoo.data.images.decode import decode
from zoo.data.images.scans.nifti import load_array, read_nifti
from zoo.data.images.scans.volumes import read_volume, volume_transform
from zoo.data.open import open_data, open_train_valid
from zoo.declare import Volume
from zoo.errors import CorruptInputError, DataError, DeclarationError, MissingExtraError

nibabel = pytest.importorskip("nibabel")
RNG = np.random.default_rng(0)
CODES = [("R", "A", "S"), ("L", "P", "S"), ("S", "R", "A"), ("P", "I", "L")]


@pytest.fixture(scope="module", autouse=True)
def _monai() -> None:
    """Import it here, which takes seconds: tests are collected by every worker."""
    pytest.importorskip("monai")


def prepared(source: Any, inputs: Volume, augment: bool = False, seed: int = 0) -> torch.Tensor:
    return volume_transform(inputs, Augment() if augment else None)(source, random.Random(seed))


def saved(values: Any, path: Path, spacing: Any = (1, 1, 1), codes: Any = ("R", "A", "S")) -> Path:
    """Write RAS values as a file whose axes run along ``codes``."""
    image = nibabel.Nifti1Image(values, np.diag([*spacing, 1.0]))
    turn = nibabel.orientations.axcodes2ornt(codes)
    image.as_reoriented(nibabel.orientations.ornt_transform(nibabel.io_orientation(image.affine), turn)).to_filename(path)
    assert nibabel.aff2axcodes(nibabel.load(path).affine) == codes
    return path


@pytest.mark.parametrize("codes", CODES)
def test_however_the_axes_lie_in_the_file_they_end_as_right_anterior_superior(codes: Any, tmp_path: Path) -> None:
    values = RNG.normal(size=(5, 6, 7)).astype(np.float32)
    read, affine = read_nifti(saved(values, tmp_path / "v.nii.gz", (1, 2, 3), codes))
    assert np.array_equal(read[0], values)
    assert np.allclose(np.abs(affine[:3, :3]), np.diag([1, 2, 3]))


@pytest.mark.parametrize("codes", CODES)
def test_volumes_are_resampled_to_millimetres(codes: Any, tmp_path: Path) -> None:
    """A value that grows by one per millimetre still does, at the new spacing."""
    grid = np.meshgrid(*[np.arange(size) * mm for size, mm in zip((12, 10, 8), (2.0, 3.0, 1.5), strict=True)], indexing="ij")
    for axis in range(3):
        path = saved(grid[axis].astype(np.float32), tmp_path / f"{axis}.nii", (2.0, 3.0, 1.5), codes)
        x = prepared(path, Volume(size=(6, 6, 6), spacing=(1.0, 2.0, 0.5), window=(500, 1000)))[0] * 1000
        slope = (x.select(axis, 4) - x.select(axis, 2)) / 2
        assert torch.allclose(slope, torch.full_like(slope, (1.0, 2.0, 0.5)[axis]), atol=1e-3)


def test_a_volume_larger_or_smaller_than_the_size_is_cut_or_padded_around_its_middle() -> None:
    values = RNG.random((6, 4, 8)).astype(np.float32)
    x = prepared(values, Volume(size=(4, 6, 8), window=(0.5, 1)))[0]
    assert torch.allclose(x[:, 1:5], torch.from_numpy(values[1:5]), atol=1e-6)
    assert (x[:, [0, 5]] == values.min()).all()


def test_without_a_spacing_the_whole_volume_is_resized() -> None:
    values = np.repeat(RNG.random((4, 5, 6)), 2, axis=0).astype(np.float32)
    assert prepared(values, Volume(size=(16, 10, 12), spacing=None)).shape == (1, 16, 10, 12)
    same = prepared(values, Volume(size=(8, 5, 6), spacing=None, window=(0.5, 1)))
    assert torch.allclose(same[0], torch.from_numpy(values), atol=1e-6)


def test_a_window_becomes_0_to_1_and_without_one_a_volume_is_standardised() -> None:
    values = RNG.integers(-1000, 1000, (6, 6, 6)).astype(np.int16)
    x = prepared(values, Volume(size=6, window=(40, 400), mean=(0.5,), std=(0.25,)))
    assert torch.allclose(x[0], torch.from_numpy((np.clip((values + 160) / 400, 0, 1) - 0.5) / 0.25).float(), atol=1e-5)
    y = prepared(values, Volume(size=6))
    assert torch.allclose(y[0], torch.from_numpy((values - values.mean()) / values.std()).float(), atol=1e-5)


def test_one_channel_is_repeated_and_several_are_taken_as_they_are(tmp_path: Path) -> None:
    values = RNG.normal(size=(2, 5, 5, 5)).astype(np.float32)
    two = Volume(size=5, mean=(0.0, 0.0), std=(1.0, 1.0))
    repeated = prepared(values[0], two)
    assert torch.equal(repeated[0], repeated[1])
    path = tmp_path / "two.nii"
    nibabel.Nifti1Image(np.moveaxis(values, 0, 3), np.eye(4)).to_filename(path)
    assert torch.equal(prepared(path, two), prepared(values, two))


def test_every_real_volume_is_read_or_refused_with_its_shape(shared: Path) -> None:
    told = {"example4d.nii.gz": "its 2 volumes", "example_nifti2.nii.gz": "its 2 volumes", "functional.nii": "its 20 volumes"}
    files = sorted((shared / "data/medical/nifti").glob("*.nii*"))
    assert len(files) == 6
    for path in files:
        if path.name in told:
            with pytest.raises(CorruptInputError, match=told[path.name]):
                read_volume(path)
            continue
        reference = nibabel.as_closest_canonical(nibabel.load(path))
        values, _ = read_volume(str(path))
        assert np.array_equal(values[0], reference.get_fdata(dtype=np.float32))
        size = tuple(round(a * b / 4) for a, b in zip(reference.shape, reference.header.get_zooms(), strict=True))
        x = prepared(path, Volume(size=size, spacing=4.0))
        assert x.shape == (1, *size)
        assert abs(float(x.mean())) < 0.1


def test_the_same_random_numbers_give_the_same_volume_and_others_another() -> None:
    values, inputs = RNG.normal(size=(12, 12, 12)), Volume(size=(10, 12, 14))
    plain, once, again, other = (prepared(values, inputs, augment, seed) for augment, seed in ((False, 0), (True, 1), (True, 1), (True, 2)))
    assert torch.equal(once, again)
    assert not torch.equal(once, other)
    assert not torch.equal(once, plain)
    assert torch.equal(plain, prepared(values, inputs, False, 5))
    state = np.random.get_state()[1].copy()  # type: ignore[union-attr]
    prepared(values, inputs, True, 3)
    assert np.array_equal(state, np.random.get_state()[1])


def test_a_transform_can_be_pickled_for_workers() -> None:
    transform = volume_transform(Volume(size=4), Augment())
    values = RNG.random((5, 5, 5))
    assert torch.equal(pickle.loads(pickle.dumps(transform))(values, random.Random(1)), transform(values, random.Random(1)))


def test_arrays_are_read_from_files_without_pickle(tmp_path: Path) -> None:
    values = RNG.random((5, 6, 7))
    np.save(tmp_path / "a.npy", values)
    np.savez(tmp_path / "one.npz", values)
    np.savez(tmp_path / "two.npz", a=values, b=values)
    np.save(tmp_path / "object.npy", np.array([{}], dtype=object), allow_pickle=True)
    for name in ("a.npy", "one.npz"):
        assert np.allclose(read_volume(tmp_path / name)[0][0], values)
    for name, message in (("two.npz", "several arrays"), ("object.npy", "no readable array"), ("absent.npy", "does not exist")):
        with pytest.raises(CorruptInputError, match=message):
            load_array(str(tmp_path / name))
    np.save(tmp_path / "picture.npy", np.arange(12, dtype=np.uint8).reshape(3, 4))
    assert np.array_equal(decode(tmp_path / "picture.npy", 1), np.arange(12).reshape(3, 4))


def test_what_is_no_volume_is_refused_by_its_name(tmp_path: Path) -> None:
    (tmp_path / "bad.nii").write_bytes(b"no volume")
    (tmp_path / "cut.nii.gz").write_bytes(saved(RNG.random((9, 9, 9)), tmp_path / "whole.nii.gz").read_bytes()[:500])
    cases = {
        str(tmp_path / "bad.nii"): "no readable NIfTI",
        str(tmp_path / "cut.nii.gz"): "no readable NIfTI",
        "picture.png": "no volume; the model reads .nii",
    }
    for source, message in cases.items():
        with pytest.raises(CorruptInputError, match=message):
            read_volume(source)
    with pytest.raises(CorruptInputError, match="2 voxels that are NaN"):
        read_volume(np.array([[[np.nan, np.inf, 1]]]))
    with pytest.raises(CorruptInputError, match=r"expected \(depth, height, width\)"):
        read_volume(np.zeros((3, 4)))
    with pytest.raises(CorruptInputError, match="is a volume, and the model reads images"):
        decode(tmp_path / "whole.nii.gz")


def test_a_prepared_tensor_passes_and_one_of_another_shape_is_refused() -> None:
    x = torch.randn(1, 4, 4, 4)
    assert torch.equal(prepared(x, Volume(size=4)), x)
    with pytest.raises(DataError, match=r"the model takes \(1, 5, 4, 4\)"):
        prepared(x, Volume(size=(5, 4, 4)))
    with pytest.raises(CorruptInputError, match="64 values that are NaN or infinite"):
        prepared(x * torch.inf, Volume(size=4))


def test_a_declaration_names_all_its_faults() -> None:
    assert Volume(size=4, spacing=2) == Volume(size=(4, 4, 4), spacing=(2, 2, 2))
    with pytest.raises(DeclarationError, match=r"(?s)size is .*spacing is .*std is .*window is"):
        Volume(size=(4, 4), spacing=(0, 1, 1), std=(0.0,), window=(40, 0))


@pytest.mark.parametrize(("package", "source"), [("monai", "a.npy"), ("nibabel", "a.nii")])
def test_the_missing_package_is_named(package: str, source: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(name: str, *args: Any, **kwargs: Any) -> Any:
        if name.split(".")[0] == package:
            raise ImportError(name)
        return real(name, *args, **kwargs)

    real = builtins.__import__
    monkeypatch.setattr(builtins, "__import__", fail)
    with pytest.raises(MissingExtraError, match=f"pip install {package}"):
        prepared(source, Volume(size=4))


@pytest.mark.parametrize("kind", ["a shape of 10^12", "a damaged stream"])
def test_every_error_of_an_array_file_names_the_path(tmp_path: Path, kind: str) -> None:
    path = tmp_path / ("scan.npy" if kind.startswith("a shape") else "scan.npz")
    if path.suffix == ".npy":
        header = b"{'descr': '<f8', 'fortran_order': False, 'shape': (1000000000000,), }".ljust(117) + b"\n"
        path.write_bytes(b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header)
    else:
        np.savez_compressed(path, np.random.default_rng(0).random((8, 8, 8)))
        content = bytearray(path.read_bytes())
        content[200:400] = b"\xff" * 200
        path.write_bytes(content)
    with pytest.raises(CorruptInputError, match=r"scan\.np.' is no readable array: .*remove or replace it"):
        read_volume(path)


@pytest.mark.parametrize(("suffix", "reads", "fault"), [(".nii.gz", "image", "is a volume, and"), (".png", "volume", "is no volume")])
def test_files_of_another_kind_are_refused_before_anything_is_divided(
    suffix: str, reads: str, fault: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "zoo")
    for number in range(20):
        path = tmp_path / "ab"[number % 2] / f"{number}{suffix}"
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"")
    with pytest.raises(DataError, match=f"has 20 files: .*; each of them {fault}"):
        open_train_valid(tmp_path, reads=reads)
    assert not caplog.records
    assert len(open_train_valid(tmp_path, reads="volume" if reads == "image" else "image")[0]) == 16


def test_folders_of_series_may_be_named_as_files_are(tmp_path: Path) -> None:
    paths = [str(tmp_path / f"{number}.dcm") for number in range(4)]
    for path in paths:
        Path(path).mkdir()
    assert len(open_data((paths, list("abab")), labelled=True, reads="volume")) == 4
