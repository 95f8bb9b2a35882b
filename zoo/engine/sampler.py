"""The order of samples: a function of seed and epoch, so that a position is an integer."""

from __future__ import annotations

import math
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

Batch: TypeAlias = "list[int]"


def epoch_order(count: int, seed: int, epoch: int, weights: npt.NDArray[np.float64] | None = None) -> npt.NDArray[np.int64]:
    """Return ``count`` sample indices: a permutation, or draws with replacement by ``weights``."""
    source = np.random.default_rng([seed, epoch])
    if weights is None:
        return source.permutation(count)
    return source.choice(count, size=count, replace=True, p=weights / weights.sum())


def even_batches(order: npt.NDArray[np.int64], batch_size: int) -> list[Batch]:
    """Cut an order into the fewest batches of at most ``batch_size`` whose sizes differ by one at most.

    No sample is dropped, and there is no small last batch: one sample alone has no batch statistics.
    """
    parts = math.ceil(len(order) / batch_size)
    return [part.tolist() for part in np.array_split(order, parts)] if parts else []


def ordered_batches(count: int, batch_size: int) -> list[Batch]:
    """Cut 0 … ``count`` - 1 in order, for evaluation."""
    return [list(range(start, min(start + batch_size, count))) for start in range(0, count, batch_size)]


def balancing_weights(targets: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
    """Return per-sample weights that draw every class equally often; multi-label: by a sample's rarest label."""
    if targets.ndim == 1:
        frequency = np.bincount(targets.astype(np.int64)).astype(np.float64)
        return 1.0 / frequency[targets.astype(np.int64)]
    positive = np.asarray(targets, dtype=np.float64)
    rarity = 1.0 / np.maximum(positive.sum(0), 1.0)
    share_without = 1.0 / max(1.0, float((positive.sum(1) == 0).sum()))
    return np.where(positive.sum(1) > 0, (positive * rarity).max(1), share_without)
