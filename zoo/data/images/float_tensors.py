"""Float tensors: images where their values are in [0, 1], else inputs of the network, ready-made.

A tensor in [0, 1], as torchvision's ``ToTensor`` gives it, is decoded to 8 bits, resized, augmented and normalised like the file that
it comes from. Tensors with other values count as preprocessed and are used unchanged. A table is judged as a whole, by samples
spread over it, because a single prepared sample may happen to lie in [0, 1].
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from zoo.data.images.bands import PICTURE_CHANNELS
from zoo.data.images.transforms import check_finite
from zoo.data.table import Array, Table, spread_rows
from zoo.data.table_sample import sample_inputs
from zoo.errors import DataError

MARGIN = 0.1  # by which a bicubic resize may overshoot; prepared tensors reach much farther


def is_float_tensor(item: Any) -> bool:
    """Return whether an input is a tensor of floating-point numbers."""
    return isinstance(item, torch.Tensor) and item.is_floating_point()


def read_floats(table: Table, channels: int) -> Table:
    """Return a table of images whose float tensors are read as images, or that is marked as ready-made.

    Args:
        table: The rows.
        channels: Number of channels of the network.
    """
    if table.reads != "image":
        return table
    if isinstance(table.inputs, list):
        found = [item for item in table.inputs if is_float_tensor(item)]
        floats = [found[row] for row in spread_rows(len(found))]
    else:
        floats = list(filter(is_float_tensor, sample_inputs(table, only_if=is_float_tensor)))
    if not floats:
        return table
    if not all(map(_in_range, floats)):
        return replace(table, ready_made=True)
    return replace(table, inputs=FloatImages(table.inputs, channels))


def has_non_float_inputs(table: Table) -> bool:
    """Return whether a table has inputs that are not float tensors."""
    return isinstance(table.inputs, np.ndarray) or not all(is_float_tensor(item) for item in sample_inputs(table))


class FloatImages(Sequence[Any]):
    """Inputs whose float tensors, ``(height, width)`` or with channels first, become arrays with channels last.

    Values slightly outside [0, 1], which a resize with overshoot leaves, are clipped. Pictures become uint8, as they are decoded.
    """

    def __init__(self, inputs: Sequence[Any], channels: int) -> None:
        self.inputs, self.channels = inputs, channels

    def __len__(self) -> int:
        return len(self.inputs)

    def __getitem__(self, index: Any) -> Any:
        """Return an input; raises DataError for a float tensor of another shape or range."""
        if isinstance(index, slice):
            return [self[row] for row in range(*index.indices(len(self)))]
        item = self.inputs[index]
        return self._pixels(item) if is_float_tensor(item) else item

    def _pixels(self, x: torch.Tensor) -> Array:
        pictures = self.channels in PICTURE_CHANNELS
        known = (1, 3, 4) if pictures else (self.channels,)
        if x.ndim == 3 and x.shape[0] in known:
            x = x.permute(1, 2, 0)
        elif x.ndim != 2 or not pictures:
            wanted = "(height, width) or (1, 3 or 4 channels, height, width)" if pictures else f"({self.channels} channels, height, width)"
            raise DataError(f"a float tensor has shape {tuple(x.shape)}; expected {wanted}")
        x = x.detach().to("cpu", torch.float32)
        check_finite(x)
        if not _in_range(x):
            low, high = float(x.min()), float(x.max())
            raise DataError(
                f"a float tensor has values in [{low:g}, {high:g}] and others of the same data are in [0, 1]; prepare all of them or none"
            )
        x = x.clamp(0, 1)
        return np.asarray((x * 255).round().to(torch.uint8).numpy() if pictures else x.contiguous().numpy())


def _in_range(x: torch.Tensor) -> bool:
    values = x[torch.isfinite(x)]  # the others are a fault of one sample, reported when the sample is used
    return not values.numel() or bool(-MARGIN <= float(values.min()) <= float(values.max()) <= 1 + MARGIN)
