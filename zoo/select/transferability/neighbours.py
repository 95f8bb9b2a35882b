"""Nearest neighbours in the features, as held-out predictions."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

NEIGHBOURS = 5
TEMPERATURE = 0.07  # of the votes: a neighbour counts by exp(cosine / TEMPERATURE) (Wu et al. 2018)
_CELLS = 4_000_000  # similarities in memory at once
Rows = npt.NDArray[np.int64]


def neighbour_votes(
    features: npt.NDArray[np.floating],
    targets: npt.NDArray[np.generic],
    folds: Sequence[tuple[Rows, Rows]],
    outputs: int,
    neighbours: int = NEIGHBOURS,
) -> npt.NDArray[np.float64]:
    """Return what the nearest training samples of each held-out sample say, by cosine similarity.

    Args:
        features: ``(samples, features)``, finite.
        targets: Classes ``(samples,)`` as whole numbers from 0, or values ``(samples,)`` or ``(samples, values)`` as floats.
        folds: Training and held-out rows.
        outputs: Number of classes, or of values.
        neighbours: How many of them vote.

    Returns:
        ``(samples, outputs)``: log shares of the votes for classes, weighted means for values; NaN for a sample that is never held out.
    """
    whole = np.issubdtype(targets.dtype, np.integer)
    y = np.eye(outputs)[targets.astype(np.int64)] if whole else np.asarray(targets, dtype=np.float64).reshape(len(targets), -1)
    unit = np.asarray(features, dtype=np.float32)
    unit = unit / np.maximum(np.linalg.norm(unit, axis=1, keepdims=True), 1e-12)
    found = np.full((len(unit), outputs), np.nan)
    for train, held in folds:
        step = max(1, _CELLS // len(train))
        for start in range(0, len(held), step):
            rows = held[start : start + step]
            found[rows] = _vote(unit[rows] @ unit[train].T, y[train], min(neighbours, len(train)))
    return np.log(np.maximum(found, 1e-6)) if whole else found


def _vote(similar: npt.NDArray[np.float32], y: npt.NDArray[np.float64], neighbours: int) -> npt.NDArray[np.float64]:
    nearest = np.argpartition(-similar, neighbours - 1, axis=1)[:, :neighbours]
    close = np.take_along_axis(similar, nearest, 1).astype(np.float64)
    weights = np.exp((close - close.max(1, keepdims=True)) / TEMPERATURE)
    return np.asarray(((weights / weights.sum(1, keepdims=True))[:, :, None] * y[nearest]).sum(1))
