"""Scores of how far apart the classes lie in the features: H-score, its regularised form, and TransRate."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from zoo.select.transferability.products import Array, Labels, Products, gram_of, products_of

Features = npt.NDArray[np.floating] | Products
DISTORTION = 1e-4  # of the coding rate, as in the authors' code


def h_score(features: Features, labels: Labels) -> float:
    """Return the H-score: variance between the classes relative to that of the features, summed over directions (Bao et al. 2019).

    Args:
        features: ``(samples, features)``, finite, or their products.
        labels: ``(samples,)``, whole numbers.

    Returns:
        From 0 to the number of classes less 1; higher is better. With no more samples than features it is always at its upper end and
        says nothing: see ``regularized_h_score``.
    """
    products, members = products_of(features), _members(labels)
    numbers = members.sum(0)
    return float((numbers @ products.whitened(members / numbers) ** 2).sum())


def regularized_h_score(features: Features, labels: Labels) -> float:
    """Return the H-score with the covariance of the features shrunk toward a sphere (Ibrahim et al. 2021; Ledoit & Wolf 2004).

    Args:
        features: ``(samples, features)``, finite, or their products.
        labels: ``(samples,)``, whole numbers.

    Returns:
        From 0 to the number of classes less 1; higher is better.
    """
    products, members = products_of(features), _members(labels)
    f = products.centred
    shrinkage = _shrinkage(products)
    sphere = (f**2).sum() / f.size
    if sphere <= 0:
        return 0.0  # all features are constant
    scale, ridge = (1 - shrinkage) / len(f), shrinkage * sphere + 1e-12 * sphere
    weights = members / np.sqrt(members.sum(0))  # a column per class, which gives the sum over all samples
    if products.wide:
        variances = products.axes[0]
        between = (products.whitened(weights) ** 2 @ (variances / (scale * variances + ridge))).sum() / (len(f) - 1)
    else:
        sums = products.sums(weights)
        shrunk = scale * products.gram + ridge * np.eye(f.shape[1])
        between = (np.linalg.solve(shrunk, sums.T).T * sums).sum() / (len(f) - 1)
    return float((1 - shrinkage) * between)


def transrate(features: Features, labels: Labels) -> float:
    """Return the coding rate of all features less the mean coding rate within the classes (Huang et al. 2022).

    Args:
        features: ``(samples, features)``, finite, or their products.
        labels: ``(samples,)``, whole numbers.

    Returns:
        A number of nats without bounds that grows with the scale of the features; higher is better.
    """
    products = products_of(features)
    within = []
    for label in np.unique(labels):
        rows = np.flatnonzero(labels == label)
        gram = products.gram[np.ix_(rows, rows)] if products.wide else gram_of(products.centred[rows])
        within.append(_coding_rate(gram, len(rows)))
    return _coding_rate(products.gram, len(labels)) - float(np.mean(within))


def _members(labels: Labels) -> Array:
    """Return 1 where a sample is of a class, ``(samples, classes)``."""
    numbers = np.unique(labels, return_inverse=True)[1]
    return np.asarray(np.eye(int(numbers.max()) + 1)[numbers])


def _shrinkage(products: Products) -> float:
    """Return the share of the sphere in the covariance of centred features that Ledoit & Wolf 2004 estimate, in [0, 1]."""
    samples, dim = products.centred.shape
    squares = (products.centred**2).sum(1)
    mean = squares.sum() / (samples * dim)
    of_covariance = (products.gram**2).sum() / samples**2
    noise = ((squares**2).sum() / samples - of_covariance) / samples / dim
    distance = of_covariance / dim - mean**2
    return float(min(max(noise, 0.0), distance) / distance) if distance > 0 else 0.0


def _coding_rate(gram: Array, samples: int) -> float:
    """Return half the log determinant of ``I + f^T f / (samples * DISTORTION)``, over the smaller side."""
    return float(np.linalg.slogdet(np.eye(len(gram)) + gram / (samples * DISTORTION))[1]) / 2
