"""Batches of an order together with the function from their inputs to logits."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
from torch import Tensor

from zoo.engine.loading.loader import Loaded
from zoo.engine.loading.order import Batch

Batches = Callable[[Sequence[Batch], int], Iterable[Loaded]]
Forward = Callable[[Any], Tensor]


class BatchSource(Protocol):
    """A loader, or stored activations in its place."""

    @property
    def samples(self) -> Any:
        """The samples that the batches are made of."""

    def batches(self, order: Sequence[Batch], epoch: int = 0) -> Iterable[tuple[Any, Tensor, list[int]]]:
        """Yield ``(inputs, targets, sample indices)`` for each batch of indices, on the device."""


@dataclass(frozen=True)
class Stream:
    """A way to get batches, and a function from their inputs to logits.

    Attributes:
        batches: Gives the batches of an order.
        forward: From inputs to logits.
        lengths: What batches are best grouped by, or None.
    """

    batches: Batches
    forward: Forward
    lengths: npt.NDArray[np.int64] | None = None
