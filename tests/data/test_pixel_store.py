"""Pixels that several networks read are decoded once, and are the same to the bit."""

from __future__ import annotations

import os
import pickle
import random
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest
import torch

from zoo.data.images.pixel_store import STAMP, PixelStore
from zoo.data.images.transforms import EvalTransform
from zoo.declare import Image
from zoo.errors import CorruptInputError

RNG = random.Random(0)
ONE, OTHER = Image(size=12, crop=0.9), Image(size=12, crop=0.9, mean=(0.1, 0.2, 0.3), std=(0.3, 0.2, 0.1))
GREY = Image(size=12, mean=(0.4,), std=(0.2,))


@pytest.fixture
def files(tmp_path: Path) -> list[Path]:
    drawn = np.random.default_rng(0).integers(0, 256, (4, 20, 26, 3)).astype(np.uint8)
    for number, pixels in enumerate(drawn):
        PIL.Image.fromarray(pixels).save(tmp_path / f"{number}.png")
    return sorted(tmp_path.glob("*.png"))


@pytest.fixture
def decoded(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    names: list[str] = []
    real = EvalTransform.cropped
    monkeypatch.setattr(
        EvalTransform, "cropped", lambda self, source: (names.append(getattr(source, "name", "an array")), real(self, source))[1]
    )
    return names


def store(tmp_path: Path, files: Sequence[Any], *networks: Image, **options: Any) -> PixelStore:
    folder = tmp_path / "pixels"
    folder.mkdir(exist_ok=True)
    return PixelStore(folder, files, networks, **options)


def test_networks_that_differ_in_mean_and_std_share_what_is_decoded(tmp_path: Path, files: list[Path], decoded: list[str]) -> None:
    pixels = store(tmp_path, files, ONE, OTHER, GREY, GREY)
    for inputs in (ONE, OTHER, GREY, GREY):
        transform = pickle.loads(pickle.dumps(pixels.transform(inputs)))  # as a loader process that is spawned gets it
        found = [transform(file, RNG) for file in files]
        before = len(decoded)
        assert all(torch.equal(x, EvalTransform(inputs)(file, RNG)) for x, file in zip(found, files, strict=True))
        del decoded[before:]
    assert len(decoded) == 2 * len(files), "once in colour, once in grey"


def test_a_network_that_squashes_images_has_pixels_of_its_own(tmp_path: Path, files: list[Path]) -> None:
    covering, squashing = Image(size=12), Image(size=12, squash=True)
    pixels = store(tmp_path, files, covering, covering, squashing, squashing)
    for inputs in (covering, squashing):
        assert torch.equal(pixels.transform(inputs)(files[0], RNG), EvalTransform(inputs)(files[0], RNG))


def test_a_file_that_changes_is_decoded_again(tmp_path: Path, files: list[Path], decoded: list[str]) -> None:
    transform = store(tmp_path, files, ONE, OTHER).transform(ONE)
    before = transform(files[0], RNG)
    PIL.Image.open(files[1]).save(files[0])
    os.utime(files[0], ns=(1, 1))
    assert torch.equal(transform(files[0], RNG), EvalTransform(ONE)(files[1], RNG))
    assert not torch.equal(transform(files[0], RNG), before)


def test_what_is_read_once_is_not_a_file_or_does_not_fit_is_not_stored(tmp_path: Path, files: list[Path], decoded: list[str]) -> None:
    assert isinstance(store(tmp_path, files, ONE, GREY).transform(ONE), EvalTransform)
    array = np.zeros((20, 26, 3), dtype=np.uint8)
    assert store(tmp_path, [array], ONE, OTHER).transform(ONE)(array, RNG).shape == (3, 12, 12)
    del decoded[:]
    fits_two = store(tmp_path, files, ONE, OTHER, limit=2 * (STAMP + 12 * 12 * 3) + 1)
    for inputs in (ONE, OTHER):
        for file in files:
            fits_two.transform(inputs)(file, RNG)
    assert sorted(decoded) == ["0.png", "1.png", "2.png", "2.png", "3.png", "3.png"]


def test_an_empty_file_of_time_zero_is_not_taken_for_what_is_stored(tmp_path: Path, files: list[Path]) -> None:
    files[0].write_bytes(b"")
    os.utime(files[0], ns=(0, 0))
    transform = store(tmp_path, files, ONE, OTHER).transform(ONE)
    transform(files[1], RNG)  # behind the row of the empty file, which is zeros now
    with pytest.raises(CorruptInputError, match=r"0\.png"):
        transform(files[0], RNG)


def test_without_its_folder_the_images_are_decoded_again(tmp_path: Path, files: list[Path]) -> None:
    transform = store(tmp_path, files, ONE, OTHER).transform(ONE)
    shutil.rmtree(tmp_path / "pixels")
    assert torch.equal(transform(files[0], RNG), EvalTransform(ONE)(files[0], RNG))
