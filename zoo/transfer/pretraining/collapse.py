"""The collapse meter: how far features differ between samples, and how many directions they use."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

COLLAPSED = 0.02  # of ``feature_std``, below which samples can hardly be told apart


def collapse(features: npt.NDArray[Any]) -> dict[str, float]:
    """Return ``feature_std`` and ``effective_rank`` of the features of some samples.

    ``feature_std`` is the standard deviation of a dimension of features of length one, averaged over the dimensions, times the square
    root of their number (Chen & He 2021): 0 if all samples have the same feature, 1 if they lie evenly on the sphere.
    ``effective_rank`` is the exponential of the entropy of the singular values of the centred features of length one (Roy & Vetterli
    2007; Garrido et al. 2023), from 1 to the smaller of samples and dimensions; 0 if all are the same.

    Args:
        features: ``(samples, dim)``.
    """
    rows = np.asarray(features, dtype=np.float64)
    rows = rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12)
    spread = float(rows.std(0).mean() * np.sqrt(rows.shape[1]))
    singular = np.linalg.svd(rows - rows.mean(0), compute_uv=False)
    total = float(singular.sum())
    if total < 1e-9 * len(rows):
        return {"feature_std": spread, "effective_rank": 0.0}
    shares = singular[singular > 0] / total
    return {"feature_std": spread, "effective_rank": float(np.exp(-(shares * np.log(shares)).sum()))}
