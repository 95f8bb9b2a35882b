"""Products of centred features with each other and their principal axes, which several scores of the same features share."""

from __future__ import annotations

from functools import cached_property

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]
Labels = npt.NDArray[np.integer]
RELATIVE_RANK = 1e-12  # of the largest variance; a direction with less has none but rounding
LEAST_PIVOT = 1e-3  # share of a feature's deviation that does not follow from those before it; with less the principal axes are taken


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

    def sums(self, weights: Array) -> Array:
        """Return weighted sums of the centred samples, ``(sums, features)``, of ``(samples, sums)``."""
        return np.asarray(weights.T @ self.centred)

    def whitened(self, weights: Array) -> Array:
        """Return weighted sums of the centred samples in some axes along which these have the variance 1, ``(sums, axes)``."""
        if self.wide:  # the principal axes are f^T u / sqrt(variance), and f f^T u is u times the variance
            return np.asarray(weights.T @ self.axes[1])
        sums, scale = self.sums(weights), np.sqrt(np.diag(self.gram))
        kept = scale**2 > RELATIVE_RANK * max(scale.max() ** 2, 1e-300)
        scale = scale[kept]
        try:  # a tenth of the time of the principal axes
            factor = np.linalg.cholesky(self.gram[np.ix_(kept, kept)] / np.outer(scale, scale))
        except np.linalg.LinAlgError:
            factor = np.zeros((1, 1))
        if np.diag(factor).min(initial=1.0) > LEAST_PIVOT:
            return np.asarray(np.linalg.solve(factor, (sums[:, kept] / scale).T).T)
        variances, vectors = self.axes
        return np.asarray((sums @ vectors) / np.sqrt(variances))

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
