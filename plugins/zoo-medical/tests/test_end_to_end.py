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
