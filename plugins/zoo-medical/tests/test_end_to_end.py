"""Files in, a model out: a three-dimensional network learns from .nii.gz files, and patients stay whole."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pandas as pd
import pytest

import zoo

SIZE = 16


@pytest.fixture(scope="module")
def scans(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """48 volumes of 24 patients: a small or a large ball in noise, stored in two orientations."""
    folder, rng = tmp_path_factory.mktemp("scans"), np.random.default_rng(0)
    rows = []
    for number in range(48):
        label = ("small", "large")[number % 2]
        size = SIZE + number % 3
        grid = np.stack(np.meshgrid(*[np.arange(size)] * 3, indexing="ij")) - rng.uniform(6, size - 6, (3, 1, 1, 1))
        radius = np.sqrt((grid**2).sum(0))
        inside = radius < (2 if label == "small" else 5)
        values = (100 * inside + rng.normal(0, 20, inside.shape)).astype(np.int16)
        image = nibabel.Nifti1Image(values, np.diag([1.0, 1.0, 1.0, 1.0]))
        if number % 4 > 1:
            image = image.as_reoriented(np.array([[0, -1], [1, 1], [2, 1]]))
        image.to_filename(folder / f"{number}.nii.gz")
        rows.append({"file_name": f"{number}.nii.gz", "label": label, "patient_id": f"p{number // 4 * 2 + number % 2}"})
    pd.DataFrame(rows).to_csv(folder / "scans.csv", index=False)
    return folder


def test_a_network_learns_from_nifti_files_and_its_saved_model_predicts_the_same(scans: Path, tmp_path: Path, caplog: Any) -> None:
    caplog.set_level("INFO")
    backbone = zoo.get("monai/resnet10-3d", weights=False, img_size=SIZE, conv1_t_stride=2)
    model = backbone.adapt(2)
    run = model.fit(scans / "scans.csv", recipe="full", epochs=5, batch_size=8, lr=1e-3, augment="none", out=tmp_path / "run", quiet=True)
    assert "column 'patient_id' is taken as the group" in caplog.text
    assert "held out by group" in caplog.text
    metrics = model.evaluate(scans / "scans.csv", intervals=0.95, specificity=0.95)
    assert metrics["auroc"] > 0.9, run.history
    assert metrics["auroc_low"] <= metrics["auroc"] <= metrics["auroc_high"] <= 1
    assert 0 <= metrics["sensitivity_at_specificity"] <= 1
    files = [scans / f"{number}.nii.gz" for number in range(6)]
    loaded = zoo.load(tmp_path / "run" / "model") if (tmp_path / "run" / "model").is_dir() else zoo.load(run.dir)
    assert loaded.inputs == model.inputs
    assert np.allclose(loaded.predict_proba(files), model.predict_proba(files), atol=1e-5)
    assert model.embed(files).shape == (6, 512)


def test_three_channels_and_a_window_are_taken_from_one_channel_files(scans: Path, tmp_path: Path) -> None:
    model = zoo.get("monai/resnet10-3d", weights=False, img_size=SIZE, conv1_t_stride=2, in_chans=3).adapt(2)
    model.fit(scans / "scans.csv", epochs=1, recipe="full", batch_size=16, window=(50, 200), out=tmp_path / "run", quiet=True)
    assert model.inputs == zoo.Volume(size=SIZE, mean=(0.0,) * 3, std=(1.0,) * 3, window=(50, 200))
    assert len(model.predict(str(scans / "0.nii.gz"))) == 1


def test_volumes_that_cannot_be_read_are_skipped_with_their_reason(scans: Path, tmp_path: Path) -> None:
    model = zoo.get("monai/resnet10-3d", weights=False, img_size=SIZE, conv1_t_stride=2).adapt(2)
    (tmp_path / "cut.nii.gz").write_bytes((scans / "0.nii.gz").read_bytes()[:200])
    np.save(tmp_path / "holes.npy", np.full((SIZE,) * 3, np.nan, np.float32))
    np.save(tmp_path / "flat.npy", np.zeros((SIZE, SIZE), np.float32))
    paths = [
        scans / "0.nii.gz",
        tmp_path / "cut.nii.gz",
        tmp_path / "holes.npy",
        tmp_path / "flat.npy",
        tmp_path / "no.nii",
        scans / "1.nii.gz",
    ]
    inputs = [*map(str, paths), None]
    labels = model.predict(inputs, on_error="skip", batch_size=2)
    assert [label is None for label in labels] == [False, True, True, True, True, False, True]
    done = model.predict_to_file(inputs, tmp_path / "out.csv", on_error="skip", batch_size=2)
    assert done.skipped == 5
    errors = pd.read_csv(tmp_path / "out.csv")["error"]
    assert errors.notna().tolist() == [label is None for label in labels]
    for row, fact in ((2, "NaN or infinite"), (3, "shape"), (4, "no.nii"), (6, "empty")):
        assert fact in errors[row]
