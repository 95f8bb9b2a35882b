"""Small images and datasets on disk, for the tests beside it."""

from __future__ import annotations

import zlib
from pathlib import Path

import numpy as np
import PIL.Image


def image(seed: int = 0, size: tuple[int, int] = (12, 10), channels: int = 3) -> PIL.Image.Image:
    shape = (size[1], size[0], channels) if channels == 3 else (size[1], size[0])
    return PIL.Image.fromarray(np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8))


def photo(size: tuple[int, int]) -> PIL.Image.Image:
    """A smooth picture, which JPEG keeps well."""
    return image(3, (16, 12)).resize(size, PIL.Image.Resampling.BICUBIC)


def write(path: Path, seed: int = 0) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    image(seed).save(path)
    return path


def folder(root: Path, **counts: int) -> Path:
    """Class folders with so many images each."""
    for name, number in counts.items():
        (root / name).mkdir(parents=True, exist_ok=True)
        for index in range(number):
            write(root / name / f"{index}.png", zlib.crc32(f"{root.name}/{name}/{index}".encode()))  # no two are equal
    return root
