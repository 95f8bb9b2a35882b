"""Scores of how far apart the classes lie in the features: H-score, its regularised form, and TransRate."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]
Labels = npt.NDArray[np.integer]
RELATIVE_RANK = 1e-12  # of the largest variance; a direction with less has none but rounding
DISTORTION = 1e-4  # of the coding rate, as in the authors' code


def h_score(features: npt.NDArray[np.floating], labels: Labels) -> float:
    """Return the H-score: variance between the classes relative to that of the features, summed over directions (Bao et al. 2019).

    Args:
        features: ``(samples, features)``, finite.
        labels: ``(samples,)``, whole numbers.

    Returns:
        From 0 to the number of classes less 1; higher is better. With no more samples than features it is always at its upper end and
        says nothing: see ``regularized_h_score``.
    """
    f = _centred(features)
    variances, directions = np.linalg.eigh(f.T @ f)
    kept = variances > RELATIVE_RANK * max(variances[-1], 1e-300)
    means, numbers = _class_means(f, labels)
    along = means[numbers] @ directions[:, kept]
    return float(((along**2).sum(0) / variances[kept]).sum())


def regularized_h_score(features: npt.NDArray[np.floating], labels: Labels) -> float:
    """Return the H-score with the covariance of the features shrunk toward a sphere (Ibrahim et al. 2021; Ledoit & Wolf 2004).

    Args:
        features: ``(samples, features)``, finite.
        labels: ``(samples,)``, whole numbers.

    Returns:
        From 0 to the number of classes less 1; higher is better.
    """
    from sklearn.covariance import ledoit_wolf_shrinkage  # type: ignore[import-untyped]

    f = _centred(features)
    shrinkage = float(ledoit_wolf_shrinkage(f, assume_centered=True))
    covariance = f.T @ f / len(f)
    sphere = np.trace(covariance) / len(covariance)
    if sphere <= 0:
        return 0.0  # all features are constant
    shrunk = (1 - shrinkage) * covariance + (shrinkage * sphere + 1e-12 * sphere) * np.eye(len(covariance))
    means, numbers = _class_means(f, labels)
    weighted = means * np.sqrt(np.bincount(numbers))[:, None]  # a row per class gives the sum over all samples
    between = (np.linalg.solve(shrunk, weighted.T).T * weighted).sum() / (len(f) - 1)
    return float((1 - shrinkage) * between)


def transrate(features: npt.NDArray[np.floating], labels: Labels) -> float:
    """Return the coding rate of all features less the mean coding rate within the classes (Huang et al. 2022).

    Args:
        features: ``(samples, features)``, finite.
        labels: ``(samples,)``, whole numbers.

    Returns:
        A number of nats without bounds that grows with the scale of the features; higher is better.
    """
    f = _centred(features)
    within = [_coding_rate(f[labels == label]) for label in np.unique(labels)]
    return _coding_rate(f) - float(np.mean(within))


def _centred(features: npt.NDArray[np.floating]) -> Array:
    f = np.asarray(features, dtype=np.float64)
    return np.asarray(f - f.mean(0))


def _class_means(f: Array, labels: Labels) -> tuple[Array, Labels]:
    """Return the mean of each class, ``(classes, features)``, and the number of each sample's class."""
    numbers = np.unique(labels, return_inverse=True)[1]
    members = np.eye(int(numbers.max()) + 1)[numbers]
    return np.asarray((members.T @ f) / members.sum(0)[:, None]), numbers


def _coding_rate(f: Array) -> float:
    """Return half the log determinant of ``I + f^T f / (samples * DISTORTION)``, over the smaller side."""
    gram = f @ f.T if f.shape[0] < f.shape[1] else f.T @ f
    return float(np.linalg.slogdet(np.eye(len(gram)) + gram / (len(f) * DISTORTION))[1]) / 2
