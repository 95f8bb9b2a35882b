"""Log lines about images that are read by the rules and may be meant otherwise."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import PIL.Image
import pytest

from zoo.data.images.first_look import warn_of_pixels
from zoo.data.open import open_data
from zoo.data.table import Table


def photos(folder: Path, pixels: np.ndarray, suffix: str = "png") -> Table:
    for name in ("ants", "bees"):
        (folder / name).mkdir()
        PIL.Image.fromarray(pixels).save(folder / name / f"0.{suffix}")
    return open_data(str(folder))


@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_a_fourth_channel_that_is_laid_on_white_is_logged_with_the_remedy(
    tmp_path: Path, suffix: str, caplog: pytest.LogCaptureFixture
) -> None:
    pixels = np.random.default_rng(0).integers(0, 255, (8, 8, 4), dtype=np.uint8)
    warn_of_pixels(photos(tmp_path, pixels, suffix), 3)
    assert "2 of 2 images looked at have a fourth channel" in caplog.text
    assert "in_chans=4" in caplog.text


def test_an_opaque_image_and_a_model_of_four_bands_are_not(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    table = photos(tmp_path, np.full((8, 8, 4), 255, np.uint8))
    warn_of_pixels(table, 3)
    warn_of_pixels(table, 4)
    assert not caplog.text


def test_values_of_12_bits_in_files_of_16_are_logged_as_nearly_black(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    warn_of_pixels(photos(tmp_path, np.full((8, 8), 3472, np.uint16)), 1)
    assert "no value above 3472, and 65535 is white" in caplog.text
    caplog.clear()
    bright = tmp_path / "bright"
    bright.mkdir()
    warn_of_pixels(photos(bright, np.full((8, 8), 40000, np.uint16)), 1)
    assert not caplog.text


def test_a_damaged_file_is_left_to_its_reader(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    table = photos(tmp_path, np.zeros((8, 8, 4), np.uint8))
    (tmp_path / "ants" / "0.png").write_bytes(b"no image")
    warn_of_pixels(table, 3)
    assert "1 of 2 images" in caplog.text
