"""Products of centred features with each other and their principal axes, which several scores of the same features share."""

from __future__ import annotations

from functools import cached_property

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]
Labels = npt.NDArray[np.integer]
RELATIVE_RANK = 1e-12  # of the largest variance; a direction with less has none but rounding


class Products:
    """Features less their mean, and products over the smaller side: between samples where there are fewer of these, else between features.

    Args:
        features: ``(samples, features)``, finite.

    Attributes:
        centred: The features less their mean, ``(samples, features)`` float64.
        mean: Their mean, ``(features,)``.
        wide: Whether there are fewer samples than features.
        gram: ``(samples, samples)`` where they are wide, else ``(features, features)``.
    """

    def __init__(self, features: npt.NDArray[np.floating]) -> None:
        f = np.asarray(features, dtype=np.float64)
        self.mean: Array = f.mean(0)
        self.centred: Array = f - self.mean
        self.wide = f.shape[0] < f.shape[1]
        self.gram: Array = gram_of(self.centred)

    @cached_property
    def axes(self) -> tuple[Array, Array]:
        """The variances along the principal axes, not divided by the samples, and the eigenvectors of ``gram`` as columns."""
        variances, vectors = np.linalg.eigh(self.gram)
        kept = variances > RELATIVE_RANK * max(variances[-1], 1e-300)
        return variances[kept], vectors[:, kept]

    def sums_along(self, weights: Array) -> Array:
        """Return weighted sums of the centred samples on the principal axes, ``(sums, axes)``, of ``(samples, sums)``."""
        variances, vectors = self.axes
        if self.wide:  # the axes are f^T u / sqrt(variance), and f f^T u is u times the variance
            return np.asarray((weights.T @ vectors) * np.sqrt(variances))
        return np.asarray((weights.T @ self.centred) @ vectors)

    def of_plain(self) -> Array:
        """Return the products, over the same side, of the features as they are; the mean is added, which cancels nothing."""
        if not self.wide:
            return np.asarray(self.gram + len(self.centred) * np.outer(self.mean, self.mean))
        along = self.centred @ self.mean
        return np.asarray(self.gram + along[:, None] + along + self.mean @ self.mean)


def gram_of(f: Array) -> Array:
    """Return the products between samples, or those between features if there are fewer."""
    return np.asarray(f @ f.T if f.shape[0] < f.shape[1] else f.T @ f)


def products_of(features: npt.NDArray[np.floating] | Products) -> Products:
    """Return the products of features, or given ones."""
    return features if isinstance(features, Products) else Products(features)
