"""Storage of activations in memory, or in an unnamed temporary file."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from zoo.engine.distributed.ranks import Ranks

IN_MEMORY = 512 * 2**20  # bytes; larger stores go to disk
CHUNK = 64 * 2**20  # bytes per exchange between ranks


class Store:
    """One tensor per sample, written once and read in any order.

    Args:
        rows: Rows of each sample: 1, or its number of tokens where ``ragged``.
        shape: Shape of one row.
        dtype: Type of the values.
        ragged: Whether samples differ in rows; they are then read padded with zeros to the longest.
        channels_last: Whether rows are images in channels_last memory format.
        folder: Folder of the file, if one is needed.

    Raises:
        OSError: If there is no room for the file.
    """

    def __init__(
        self,
        rows: npt.NDArray[np.int64],
        shape: Sequence[int],
        dtype: torch.dtype,
        *,
        ragged: bool,
        folder: Path,
        channels_last: bool = False,
    ) -> None:
        self._rows, self._ragged, self._channels_last = rows, ragged, channels_last
        shape = (*shape[1:], shape[0]) if channels_last else shape
        self._ends = np.cumsum(rows)
        size = (int(self._ends[-1]), *shape)
        large = needed(rows, shape, dtype) > IN_MEMORY
        self._values = _on_disk(size, dtype, folder) if large else torch.zeros(size, dtype=dtype)

    @property
    def nbytes(self) -> int:
        """Bytes of all values."""
        return self._values.nbytes

    def put(self, indices: Sequence[int], values: Tensor) -> None:
        """Store ``values``, ``(batch, …)``, of some samples, from any device and of any type; if ragged, without padding."""
        values = values.permute(0, 2, 3, 1) if self._channels_last else values
        for index, value in zip(indices, values.cpu(), strict=True):
            self._slice(index).copy_(value[: self._rows[index]] if self._ragged else value[None])

    def get(self, indices: Sequence[int]) -> Tensor:
        """Return the values of some samples, ``(batch, …)``; if ragged, padded with zeros to the longest of them."""
        if not self._ragged:
            found = self._values[torch.tensor(indices)]
            return found.permute(0, 3, 1, 2) if self._channels_last else found
        found = torch.zeros((len(indices), int(self._rows[indices].max()), *self._values.shape[1:]), dtype=self._values.dtype)
        for row, index in enumerate(indices):
            found[row, : self._rows[index]] = self._slice(index)
        return found

    def size(self, lengths: npt.NDArray[np.int64]) -> int:
        """Return the bytes that a store of samples with these lengths would take."""
        return needed(lengths if self._ragged else np.ones_like(lengths), self._values.shape[1:], self._values.dtype)

    def share(self, ranks: Ranks) -> None:
        """Exchange values, so that every rank has those of all."""
        content = self._values.view(torch.uint8).reshape(-1)  # zeros for samples of other ranks
        for start in range(0, len(content), CHUNK):
            ranks.fill(content[start : start + CHUNK].numpy())

    def _slice(self, index: int) -> Tensor:
        return self._values[int(self._ends[index] - self._rows[index]) : int(self._ends[index])]


def needed(rows: npt.NDArray[np.int64], shape: Sequence[int], dtype: torch.dtype) -> int:
    """Return the bytes that a store takes."""
    return int(rows.sum()) * int(np.prod(shape, dtype=np.int64)) * dtype.itemsize


def _on_disk(size: tuple[int, ...], dtype: torch.dtype, folder: Path) -> Tensor:
    count = int(np.prod(size, dtype=np.int64))
    with tempfile.TemporaryFile(dir=folder) as file:
        # Reserve the space now: writing to the mapping of a full disk would kill the process.
        if hasattr(os, "posix_fallocate"):
            os.posix_fallocate(file.fileno(), 0, count * dtype.itemsize)
        mapped: Any = np.memmap(file, dtype=np.uint8, mode="r+", shape=(count * dtype.itemsize,))
    return torch.from_numpy(mapped).view(dtype).reshape(size)
