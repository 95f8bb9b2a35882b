"""Pixels of images after decoding, resizing and cropping, for further networks that take the same ones.

Networks of one size, crop and interpolation differ in mean and std alone, so one of them decodes for all. The pixels are in files of a
temporary folder, which loader processes share.
"""

from __future__ import annotations

import os
import random
import shutil
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from zoo.data.images.bands import PICTURE_CHANNELS
from zoo.data.images.transforms import EvalTransform, Transform
from zoo.declare import Image

LIMIT = 4 * 2**30  # bytes of all files together
SHARE = 4  # at most one part in so many of the free space is used
STAMP = 16  # bytes before the pixels of a sample, for the size and the time of modification of its file
Pixels = npt.NDArray[np.uint8]


class PixelStore:
    """Stores the pixels of files that several networks read alike.

    Args:
        folder: An empty folder; it is the caller's to remove.
        files: The inputs of all samples; those that are no paths are not stored.
        networks: The declared images of all networks; pixels that only one of them takes are not stored.
        limit: Bytes of all files together.
    """

    def __init__(self, folder: Path, files: Iterable[Any], networks: Iterable[Image], *, limit: int = LIMIT) -> None:
        paths = (os.fspath(file) for file in files if isinstance(file, str | os.PathLike))
        self._rows = {path: row for row, path in enumerate(dict.fromkeys(paths))}
        readers = Counter(_key(inputs) for inputs in networks if inputs.channels in PICTURE_CHANNELS)
        self._shared = {key for key, number in readers.items() if number > 1} if hasattr(os, "preadv") else set()
        self._folder, self._left = folder, min(limit, shutil.disk_usage(folder).free // SHARE)
        self._files: dict[tuple[Any, ...], _File | None] = {}

    def transform(self, inputs: Image) -> Transform:
        """Return the evaluation transform of a declared image; where its pixels are shared, they are looked up and stored."""
        key, whole = _key(inputs), EvalTransform(inputs)
        if key not in self._shared:
            return whole
        if key not in self._files:
            self._files[key] = self._opened(inputs)
        file = self._files[key]
        return whole if file is None else _Stored(whole, file)

    def _opened(self, inputs: Image) -> _File | None:
        shape = (inputs.height, inputs.width) if inputs.channels == 1 else (inputs.height, inputs.width, inputs.channels)
        size = STAMP + int(np.prod(shape))
        fitting = min(len(self._rows), self._left // size)
        if not fitting:
            return None
        self._left -= fitting * size
        rows = {path: row for path, row in self._rows.items() if row < fitting}
        return _File(self._folder / f"{len(self._files)}.pixels", shape, rows)


class _File:
    """Pixels of one size, a row of bytes per sample: a stamp, zeros where there is none yet, and the pixels."""

    def __init__(self, path: Path, shape: tuple[int, ...], rows: dict[str, int]) -> None:
        self._path, self._shape, self._rows = path, shape, rows
        self._size = STAMP + int(np.prod(shape))
        path.touch()

    def get(self, name: str, stamp: Pixels) -> Pixels | None:
        """Return the pixels of a file with a stamp, or None."""
        if name not in self._rows:
            return None
        row, read = np.empty(self._size, dtype=np.uint8), 0
        with self._or_nothing_more(), _opened(self._path, os.O_RDONLY) as descriptor:
            read = os.preadv(descriptor, [row.data], self._rows[name] * self._size)
        return row[STAMP:].reshape(self._shape) if read == self._size and (row[:STAMP] == stamp).all() else None

    def put(self, name: str, stamp: Pixels, pixels: Pixels) -> None:
        """Store the pixels of a file."""
        if name not in self._rows or pixels.shape != self._shape or pixels.dtype != np.uint8:
            return
        start = self._rows[name] * self._size
        with self._or_nothing_more(), _opened(self._path, os.O_WRONLY) as descriptor:
            if os.pwrite(descriptor, np.ascontiguousarray(pixels).data, start + STAMP) == self._size - STAMP:
                os.pwrite(descriptor, stamp.data, start)  # last: without it the row counts as empty

    @contextmanager
    def _or_nothing_more(self) -> Iterator[None]:
        """After a full disk or a removed folder neither store nor look up anything: images are then decoded again."""
        try:
            yield
        except OSError:
            self._rows = {}


@contextmanager
def _opened(path: Path, flags: int) -> Iterator[int]:
    descriptor = os.open(path, flags)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


@dataclass(frozen=True)
class _Stored:
    """An evaluation transform that decodes what is not stored yet."""

    whole: EvalTransform
    file: _File

    def __call__(self, source: Any, rng: random.Random) -> torch.Tensor:
        """Return what the evaluation transform returns, to the bit."""
        try:
            state = os.stat(source) if isinstance(source, str | os.PathLike) else None  # noqa: PTH116  # ten times faster than Path
        except (OSError, ValueError):
            state = None
        if state is None:
            return self.whole(source, rng)
        # One more than the size, as zeros stand for a row that is not stored: an empty file of time 0 must not be taken for it.
        name, stamp = os.fspath(source), np.array([state.st_size + 1, state.st_mtime_ns], dtype=np.int64).view(np.uint8)
        pixels = self.file.get(name, stamp)
        if pixels is None:
            pixels = np.array(self.whole.cropped(source))
            self.file.put(name, stamp, pixels)
        return self.whole.normalise.pixels(pixels)


def _key(inputs: Image) -> tuple[Any, ...]:
    """Return all that pixels depend on before they are normalised."""
    return inputs.height, inputs.width, inputs.crop, inputs.squash, inputs.interpolation, inputs.channels, inputs.window
