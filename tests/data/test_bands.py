"""Images of any number of channels."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest
import torch

from tests.engine.tiny import NAMES, model
from zoo.data.images.augment import Augment
from zoo.data.images.bands import read_bands
from zoo.data.images.transforms import eval_transform, train_transform
from zoo.data.open import open_data
from zoo.declare import Image
from zoo.errors import CorruptInputError, DataError, OptionError


def cube(channels: int = 6, kind: Any = np.uint16, seed: int = 0) -> Any:
    high = {np.uint8: 255, np.uint16: 65535}.get(kind, 1)
    values = np.random.default_rng(seed).random((12, 10, channels)) * high
    return values.astype(kind)


def inputs(channels: int, **options: Any) -> Image:
    return Image(size=8, mean=(0.5,) * channels, std=(0.25,) * channels, interpolation="bilinear", **options)


@pytest.mark.parametrize("channels", [2, 4, 5, 13])
@pytest.mark.parametrize(("kind", "white"), [(np.uint8, 255), (np.uint16, 65535), (np.float32, 1), (np.float64, 1)])
def test_values_become_those_between_0_and_1(channels: int, kind: Any, white: float, tmp_path: Path) -> None:
    values = cube(channels, kind)
    np.save(tmp_path / "x.npy", values)
    np.savez(tmp_path / "x.npz", values.transpose(2, 0, 1))
    expected = torch.from_numpy(values.astype(np.float32) / np.float32(white)).permute(2, 0, 1)
    for source in (values, values.transpose(2, 0, 1), tmp_path / "x.npy", str(tmp_path / "x.npz")):
        assert torch.equal(read_bands(source, channels), expected)


def test_a_window_is_for_any_numbers_and_others_are_refused() -> None:
    values = np.array([[[0, 1000, 2000, -500, 5000]]], dtype=np.int32)
    assert read_bands(values, 5, window=(1000, 2000)).flatten().tolist() == [0, 0.5, 1, 0, 1]
    for odd, fact in [
        (values, r"int32 values in \[-500, 5000\].*window=\(2250, 5500\)"),
        (cube(5, np.float32) * 7, "no defined intensity range"),
        (np.full((2, 2, 5), np.nan), "not finite"),
        (np.zeros((2, 2, 5), bool), "bool"),
    ]:
        with pytest.raises(CorruptInputError, match=fact):
            read_bands(odd, 5)


def test_tiff_pages_and_samples_are_channels(tmp_path: Path) -> None:
    values = cube(6)
    pages = [PIL.Image.fromarray(values[:, :, k]) for k in range(6)]
    pages[0].save(tmp_path / "pages.tif", save_all=True, append_images=pages[1:])
    expected = read_bands(values, 6)
    assert torch.equal(read_bands(tmp_path / "pages.tif", 6), expected)
    assert torch.equal(read_bands((tmp_path / "pages.tif").read_bytes(), 6), expected)
    with pytest.raises(DataError, match=r"pages.tif' has shape \(6, 12, 10\), and the model takes 5 channels"):
        read_bands(tmp_path / "pages.tif", 5)
    tifffile = pytest.importorskip("tifffile")
    tifffile.imwrite(tmp_path / "samples.tif", values, photometric="minisblack", planarconfig="contig")
    assert torch.equal(read_bands(tmp_path / "samples.tif", 6), expected)


def test_four_channels_of_a_picture_are_its_bands(tmp_path: Path) -> None:
    values = cube(4, np.uint8)
    PIL.Image.fromarray(values).save(tmp_path / "x.png")
    assert torch.equal(read_bands(tmp_path / "x.png", 4), read_bands(values, 4))
    with pytest.raises(DataError, match="takes 5 channels"):
        read_bands(tmp_path / "x.png", 5)


def test_broken_files_name_their_path(tmp_path: Path) -> None:
    (tmp_path / "x.tif").write_bytes(b"II*\0" + bytes(20))
    (tmp_path / "x.png").write_bytes(b"text")
    for name, fact in [("x.tif", "x.tif"), ("x.png", "no image with 6 channels"), ("gone.tif", "does not exist")]:
        with pytest.raises(CorruptInputError, match=fact):
            read_bands(tmp_path / name, 6)


def test_a_resize_is_that_of_each_channel_alone() -> None:
    values = cube(3, np.float32)
    both = np.concatenate([values, values], axis=2)
    x = eval_transform(inputs(6))(both, random.Random(0))
    assert x.shape == (6, 8, 8)
    assert torch.equal(x[:3], x[3:])
    reference = eval_transform(inputs(3))(np.rint(values * 255).astype(np.uint8), random.Random(0))
    assert float((x[:3] - reference).abs().max()) < 0.05  # 8 bits, and centres of pixels are the same


def test_augmentation_depends_on_its_random_numbers_only() -> None:
    transform = train_transform(inputs(6), Augment(erase=1.0))
    one, again, other = (transform(cube(), random.Random(seed)) for seed in (1, 1, 2))
    assert one.shape == (6, 8, 8)
    assert torch.equal(one, again)
    assert not torch.equal(one, other)
    with pytest.raises(OptionError, match="rand_augment is for pictures"):
        train_transform(inputs(6), Augment(rand_augment=9))


@pytest.mark.parametrize("kind", [np.uint8, np.uint16, np.float32])
@pytest.mark.parametrize("augment", ["none", "light"])
def test_a_model_of_six_channels_trains_and_predicts(kind: Any, augment: str, tmp_path: Path) -> None:
    labels = [NAMES[index % 3] for index in range(24)]
    values = np.random.default_rng(0).random((24, 16, 16, 6)) * 0.3
    for index in range(24):
        values[index, :, :, 3 + index % 3] += 0.6
    pixels = (values * {np.uint8: 255, np.uint16: 65535}.get(kind, 1)).astype(kind)
    net = model(3, in_chans=6)
    net.fit((pixels, labels), (pixels, labels), recipe="full", epochs=6, lr=1e-2, augment=augment, out=tmp_path / "run", quiet=True)
    assert net.evaluate((pixels, labels))["accuracy"] > 0.6
    assert net.predict(pixels[0]) == net.predict([pixels[0]]) == net.predict(pixels)[:1]
    files = []
    for index in range(6):
        np.save(tmp_path / f"{index}.npy", pixels[index])
        files.append(str(tmp_path / f"{index}.npy"))
    assert np.allclose(net.predict_proba(files), net.predict_proba(pixels[:6]), atol=1e-5)


def test_one_image_of_bands_is_predicted_with_its_channels_first_or_last() -> None:
    net, first = model(3, in_chans=6), cube().transpose(2, 0, 1)
    expected = net.predict_proba([first])
    for one in (first, first.transpose(1, 2, 0)):
        assert np.array_equal(net.predict_proba(one), expected)
    with pytest.raises((DataError, CorruptInputError), match=r"in_chans=N"):
        net.predict(np.zeros((5, 32, 32), np.uint8))


def test_wrong_numbers_of_channels_are_one_clear_error(tmp_path: Path) -> None:
    labels = ["a", "b"] * 6
    with pytest.raises(DataError, match=r"\(12, 16, 16, 5\).*in_chans=5"):
        open_data((np.zeros((12, 16, 16, 5), np.uint8), labels))
    with pytest.raises(DataError, match=r"6 channels.*which the model takes"):
        model(2, in_chans=6).fit((np.zeros((12, 16, 16, 5), np.uint8), labels), quiet=True, out=tmp_path / "run")
    with pytest.raises(DataError, match="the model takes 6 channels"):
        model(2, in_chans=6).predict([np.zeros((16, 16, 3), np.uint8)])
    with pytest.raises(CorruptInputError, match=r"in_chans=N"):
        model(2).predict([np.zeros((16, 16, 6), np.uint8)])
