"""Out-of-distribution scores: how unlike the calibration data an input is, by the distance to its nearest neighbours among their features.

Sun et al. 2022 ("Out-of-distribution detection with deep nearest neighbors"): features on the unit sphere, and no assumption
about their distribution. The unit of the distance is that which 95 % of the held-out samples have to the others.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from zoo.errors import OptionError
from zoo.trust.outcome import Array

LEAST = 20  # samples, of which one lies beyond 95 %
MOST = 4096  # samples that are kept
NEIGHBOURS = 5
USUAL_SHARE = 0.95
_ROWS = 1024  # distances in memory at once


@dataclass(frozen=True, eq=False)
class Neighbours:
    """Features of held-out samples.

    Attributes:
        features: ``(n, dim)``, float32, on the unit sphere.
        unit: Distance within which 95 % of them have their neighbours.
    """

    features: Array
    unit: float

    def score(self, features: Array) -> Array:
        """Return for each row ``(n, dim)`` its distance in units, float32 ``(n,)``: above 1 farther than 95 % of the held-out samples."""
        return np.asarray(_distance(_on_sphere(features), self.features, NEIGHBOURS) / self.unit, dtype=np.float32)


def neighbours_of(features: Array) -> Neighbours | None:
    """Return held-out features as a reference, evenly spaced rows of more than ``MOST``; None of fewer than ``LEAST``."""
    good = features[np.isfinite(features).all(1)]
    if len(good) < LEAST:
        return None
    rows = np.unique(np.linspace(0, len(good) - 1, min(len(good), MOST)).astype(np.int64))
    kept = _on_sphere(good[rows]).astype(np.float16).astype(np.float32)  # as they are saved
    others = _distance(kept, kept, NEIGHBOURS + 1)  # the nearest is the sample itself
    return Neighbours(kept, max(float(np.quantile(others, USUAL_SHARE)), 1e-6))


def needs_more(samples: int) -> OptionError:
    """Return the error that there were too few samples for a reference."""
    return OptionError(
        f"scores of outliers need {LEAST} samples that the model was calibrated on, and there were {samples}; calibrate on more"
    )


def _on_sphere(features: Array) -> Array:
    features = np.asarray(features, dtype=np.float32)
    return np.asarray(features / np.maximum(np.linalg.norm(features, axis=1, keepdims=True), 1e-12))


def _distance(rows: Array, reference: Array, place: int) -> Array:
    """Return the distance of each row to its nearest reference of the given place, from 1."""
    parts = []
    for start in range(0, len(rows), _ROWS):
        squares = np.maximum(2 - 2 * rows[start : start + _ROWS] @ reference.T, 0.0)  # of unit vectors
        parts.append(np.sqrt(np.partition(squares, place - 1, axis=1)[:, place - 1]))
    return np.concatenate(parts) if parts else np.zeros(0, dtype=np.float32)
