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
    means, numbers = _class_means(f, labels)
    variances, along = _along_axes(f, means)
    return float((np.bincount(numbers) @ along**2 / variances).sum())


def regularized_h_score(features: npt.NDArray[np.floating], labels: Labels) -> float:
    """Return the H-score with the covariance of the features shrunk toward a sphere (Ibrahim et al. 2021; Ledoit & Wolf 2004).

    Args:
        features: ``(samples, features)``, finite.
        labels: ``(samples,)``, whole numbers.

    Returns:
        From 0 to the number of classes less 1; higher is better.
    """
    f = _centred(features)
    shrinkage = _shrinkage(f)
    sphere = (f**2).sum() / f.size
    if sphere <= 0:
        return 0.0  # all features are constant
    scale, ridge = (1 - shrinkage) / len(f), shrinkage * sphere + 1e-12 * sphere
    means, numbers = _class_means(f, labels)
    weighted = means * np.sqrt(np.bincount(numbers))[:, None]  # a row per class gives the sum over all samples
    if len(f) < f.shape[1]:
        variances, along = _along_axes(f, weighted)
        between = (along**2 / (scale * variances + ridge)).sum() / (len(f) - 1)
    else:
        shrunk = scale * (f.T @ f) + ridge * np.eye(f.shape[1])
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


def _along_axes(f: Array, rows: Array) -> tuple[Array, Array]:
    """Return the variances of features along their principal axes, not divided by the samples, and the coordinates of rows in their span.

    With fewer samples than features the axes come from the smaller matrix of products between samples.
    """
    if len(f) < f.shape[1]:
        variances, samples = np.linalg.eigh(f @ f.T)
        kept = variances > RELATIVE_RANK * max(variances[-1], 1e-300)
        return variances[kept], rows @ (f.T @ samples[:, kept]) / np.sqrt(variances[kept])
    variances, axes = np.linalg.eigh(f.T @ f)
    kept = variances > RELATIVE_RANK * max(variances[-1], 1e-300)
    return variances[kept], rows @ axes[:, kept]


def _shrinkage(f: Array) -> float:
    """Return the share of the sphere in the covariance of centred features that Ledoit & Wolf 2004 estimate, in [0, 1]."""
    samples, dim = f.shape
    squares = (f**2).sum(1)
    mean = squares.sum() / f.size
    of_covariance = (_gram(f) ** 2).sum() / samples**2
    noise = ((squares**2).sum() / samples - of_covariance) / samples / dim
    distance = of_covariance / dim - mean**2
    return float(min(max(noise, 0.0), distance) / distance) if distance > 0 else 0.0


def _gram(f: Array) -> Array:
    """Return the products between samples, or those between features if there are fewer."""
    return np.asarray(f @ f.T if f.shape[0] < f.shape[1] else f.T @ f)


def _coding_rate(f: Array) -> float:
    """Return half the log determinant of ``I + f^T f / (samples * DISTORTION)``, over the smaller side."""
    gram = _gram(f)
    return float(np.linalg.slogdet(np.eye(len(gram)) + gram / (len(f) * DISTORTION))[1]) / 2
