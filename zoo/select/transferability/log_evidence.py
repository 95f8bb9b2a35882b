"""LogME: the evidence of a linear model of the labels on the features."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from zoo.select.transferability.products import RELATIVE_RANK, Array, Products, products_of

ITERATIONS = 11  # of the fixed point, as in the authors' code
TOLERANCE = 1e-3  # of the ratio of the two precisions, relative
FLOOR = 1e-5  # keeps both precisions finite where the fit is perfect


def logme(features: npt.NDArray[np.floating] | Products, targets: npt.NDArray[np.generic]) -> float:
    """Return the maximised log evidence per sample, averaged over the classes or values (You et al. 2021).

    A class is a column of 0 and 1. The evidence is that of Bayesian linear regression, maximised over the precisions of weights
    and noise by the fixed point of You et al. 2022. Where there are fewer samples than features the evidence counts the directions
    without data too, which the authors' code leaves out.

    Args:
        features: ``(samples, features)``, finite, or their products.
        targets: Classes ``(samples,)`` as whole numbers from 0, or values ``(samples,)`` or ``(samples, values)`` as floats.

    Returns:
        A number without bounds; higher is better.
    """
    products, y = products_of(features), _columns(np.asarray(targets))
    squares, projected = _on_axes(products, y)
    rest = np.maximum((y**2).sum(0) - (projected**2).sum(0), 0.0)  # of the labels, outside the span of the features
    evidences = [_evidence(squares, projected[:, column] ** 2, rest[column], products.centred.shape) for column in range(y.shape[1])]
    return float(np.mean(evidences))


def _columns(targets: npt.NDArray[np.generic]) -> Array:
    if np.issubdtype(targets.dtype, np.integer):
        present, numbers = np.unique(targets, return_inverse=True)
        return np.asarray(np.eye(len(present))[numbers])
    return np.asarray(targets, dtype=np.float64).reshape(len(targets), -1)


def _on_axes(products: Products, y: Array) -> tuple[Array, Array]:
    """Return the squared singular values of the features above rounding, and the labels on their left axes."""
    squares, vectors = np.linalg.eigh(products.of_plain())
    kept = squares > RELATIVE_RANK * max(squares[-1], 1e-300)
    if products.wide:
        return squares[kept], vectors[:, kept].T @ y
    sums = products.centred.T @ y + np.outer(products.mean, y.sum(0))  # of the features as they are
    return squares[kept], (vectors[:, kept].T @ sums) / np.sqrt(squares[kept])[:, None]


def _evidence(squares: Array, label_squares: Array, rest: float, shape: tuple[int, ...]) -> float:
    """Return the log evidence per sample of one column, maximised over alpha (weights) and beta (noise)."""
    samples, dim = shape
    alpha = beta = 1.0
    evidence = 0.0
    for _ in range(ITERATIONS):
        ratio = alpha / beta
        gamma = (squares / (squares + ratio)).sum()
        weights = (squares * label_squares / (ratio + squares) ** 2).sum()
        residual = (label_squares / (1 + squares / ratio) ** 2).sum() + rest
        alpha, beta = gamma / (weights + FLOOR), (samples - gamma) / (residual + FLOOR)
        determinant = np.log(alpha + beta * squares).sum() + (dim - len(squares)) * np.log(alpha)
        evidence = dim * np.log(alpha) + samples * np.log(beta) - determinant - beta * residual - alpha * weights
        evidence = (evidence - samples * np.log(2 * np.pi)) / 2 / samples
        if abs(alpha / beta - ratio) <= TOLERANCE * ratio:
            break
    return float(evidence)
