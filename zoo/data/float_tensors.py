"""Float tensors: images where their values are in [0, 1], else inputs of the network, ready-made.

A tensor in [0, 1], as torchvision's ``ToTensor`` gives it, is decoded to 8 bits, resized, augmented and normalised like the file that
it comes from. Other values are those of somebody's own preprocessing, which is not repeated. A table is judged as a whole, by samples
spread over it, because a single prepared sample may happen to lie in [0, 1].
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from zoo.data.bands import PICTURES
from zoo.data.spread import spread
from zoo.data.table import Array, Table
from zoo.data.transforms import check_finite
from zoo.errors import DataError


def is_float_tensor(item: Any) -> bool:
    """Return whether an input is a tensor of floating-point numbers."""
    return isinstance(item, torch.Tensor) and item.is_floating_point()


def read_floats(table: Table, channels: int) -> Table:
    """Return a table of images whose float tensors are read as images, or that is marked as ready-made.

    They are the network's inputs as they are, ready-made, if values are outside [0, 1] or the network takes another number of
    ``channels`` than images have.
    """
    floats = list(filter(is_float_tensor, spread(table, only_if=is_float_tensor))) if table.reads == "image" else []
    if not floats:
        return table
    if any(channels not in PICTURES or not _in_range(item) for item in floats):
        return replace(table, ready_made=True)
    return replace(table, inputs=FloatImages(table.inputs))


def holds_others(table: Table) -> bool:
    """Return whether a table has inputs that are no float tensors."""
    return isinstance(table.inputs, np.ndarray) or not all(is_float_tensor(item) for item in spread(table))


class FloatImages(Sequence[Any]):
    """Inputs whose float tensors, ``(height, width)`` or with channels first, become uint8 arrays with channels last."""

    def __init__(self, inputs: Sequence[Any]) -> None:
        self.inputs = inputs

    def __len__(self) -> int:
        return len(self.inputs)

    def __getitem__(self, index: Any) -> Any:
        """Return an input; raises DataError for a float tensor of another shape or range."""
        if isinstance(index, slice):
            return [self[row] for row in range(*index.indices(len(self)))]
        item = self.inputs[index]
        return _pixels(item) if is_float_tensor(item) else item


def _pixels(x: torch.Tensor) -> Array:
    if x.ndim == 3 and x.shape[0] in (1, 3, 4):
        x = x.permute(1, 2, 0)
    elif x.ndim != 2:
        raise DataError(f"a float tensor has shape {tuple(x.shape)}; expected (height, width) or (1, 3 or 4 channels, height, width)")
    x = x.detach().to("cpu", torch.float32)
    check_finite(x)
    if not _in_range(x):
        low, high = float(x.min()), float(x.max())
        raise DataError(
            f"a float tensor has values in [{low:g}, {high:g}] and others of the same data are in [0, 1]; prepare all of them or none"
        )
    return np.asarray((x * 255).round().to(torch.uint8).numpy())


def _in_range(x: torch.Tensor) -> bool:
    values = x[torch.isfinite(x)]  # the others are a fault of one sample, which is told when it is used
    return not values.numel() or bool(0 <= float(values.min()) <= float(values.max()) <= 1)
