"""Distances between the features of two domains, and losses of predictions without labels, as pure functions of tensors."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

WIDTHS = tuple(2.0**power for power in range(-3, 2))  # of the Gaussian kernels, as multiples of the mean squared distance
JOINT_SIGMA = 0.92  # of the Gaussian kernel on probabilities (Long et al. 2017)
_TINY = 1e-5


def coral(source: Tensor, target: Tensor) -> Tensor:
    """Return the mean squared difference of the means plus that of the covariances (Deep CORAL, Sun & Saenko 2016).

    Args:
        source: Features ``(n, dim)``, n at least 2.
        target: Features ``(m, dim)``, m at least 2.
    """
    means = (source.mean(0) - target.mean(0)).square().mean()
    return means + _covariance_gap(source, target)


def mk_mmd(source: Tensor, target: Tensor, *, linear: bool = False) -> Tensor:
    """Return the maximum mean discrepancy under a sum of five Gaussian kernels, plus ``2 / (n - 1)`` (DAN, Long et al. 2015).

    The widths of the kernels follow the mean squared distance over both batches, through which no gradient flows.

    Args:
        source: Features ``(n, dim)``, n at least 2.
        target: Features ``(m, dim)``; as many as of the source if ``linear``.
        linear: The estimate over n pairs of neighbours instead of that over all pairs.
    """
    return _discrepancy(_widths_kernel(torch.cat([source, target])), len(source), linear=linear)


def jmmd(source: Tensor, target: Tensor, source_probabilities: Tensor, target_probabilities: Tensor) -> Tensor:
    """Return the joint maximum mean discrepancy of features and probabilities, plus ``2 / (n - 1)`` (JAN, Long et al. 2017).

    Args:
        source: Features ``(n, dim)``, n at least 2.
        target: Features ``(m, dim)``, m at least 2.
        source_probabilities: ``(n, classes)``.
        target_probabilities: ``(m, classes)``.
    """
    kernel = _widths_kernel(torch.cat([source, target]))
    joint = _gaussian(_squared_distances(torch.cat([source_probabilities, target_probabilities])), JOINT_SIGMA**2)
    return _discrepancy(kernel * joint, len(source))


def bsp(source: Tensor, target: Tensor) -> Tensor:
    """Return the sum of the squared largest singular values of both batches of features (batch spectral penalty, Chen et al. 2019).

    Args:
        source: Features ``(n, dim)``.
        target: Features ``(m, dim)``.
    """
    largest = [torch.linalg.matrix_norm(features.float(), ord=2) for features in (source, target)]
    total: Tensor = largest[0].square() + largest[1].square()
    return total


def mcc(logits: Tensor, temperature: float = 2.5) -> Tensor:
    """Return the class confusion of predictions, in [0, 1], which a classifier that is sure makes small (MCC, Jin et al. 2020).

    Args:
        logits: Of unlabelled samples, ``(n, classes)``.
        temperature: Divides the logits; above 0.
    """
    probabilities = (logits / temperature).softmax(1)
    certainty = 1 + torch.exp(-entropies(probabilities.detach()))
    certainty = len(logits) * certainty / certainty.sum()
    confusion = (probabilities * certainty[:, None]).T @ probabilities
    confusion = confusion / confusion.sum(1, keepdim=True)
    return (confusion.sum() - confusion.trace()) / logits.shape[1]


def mdd(source: Tensor, source_adversary: Tensor, target: Tensor, target_adversary: Tensor, *, margin: float = 4.0) -> Tensor:
    """Return the margin disparity discrepancy of a classifier and an adversary, which the adversary maximises (Zhang et al. 2019).

    Args:
        source: Logits of the classifier, ``(n, classes)``.
        source_adversary: Logits of the adversary for the same samples.
        target: As ``source``, ``(m, classes)``.
        target_adversary: As ``source_adversary``.
        margin: Weight of the source, the exponential of the margin; above 0.
    """
    agreement = functional.cross_entropy(source_adversary, source.argmax(1))
    others = torch.log((1 - target_adversary.softmax(1) + 1e-6).clamp(max=1.0))
    disagreement: Tensor = others.gather(1, target.argmax(1)[:, None]).mean()
    return disagreement - margin * agreement


def entropies(probabilities: Tensor) -> Tensor:
    """Return the entropy of each row in nats, ``(n,)``."""
    return -(probabilities * torch.log(probabilities + _TINY)).sum(1)


def _covariance_gap(source: Tensor, target: Tensor) -> Tensor:
    """Return the mean squared difference of the unbiased covariances; with fewer rows than columns from products of the rows."""
    dim = source.shape[1]
    if len(source) + len(target) >= dim:
        return (torch.cov(source.T) - torch.cov(target.T)).square().mean()
    one, other = ((rows - rows.mean(0)) / (len(rows) - 1) ** 0.5 for rows in (source, target))
    norms = [(left @ right.T).square().sum() for left, right in ((one, one), (other, other), (one, other))]
    gap: Tensor = (norms[0] + norms[1] - 2 * norms[2]) / dim**2
    return gap


def _squared_distances(rows: Tensor) -> Tensor:
    """Return the squared Euclidean distances of all pairs, ``(n, n)``, by one product of matrices of the centred rows."""
    rows = rows - rows.detach().mean(0)  # smaller numbers round less
    squares = rows.square().sum(1)
    return (squares[:, None] + squares[None] - 2 * rows @ rows.T).clamp(min=0)


def _gaussian(squared: Tensor, variance: Tensor | float) -> Tensor:
    return torch.exp(-squared / (2 * variance))


def _widths_kernel(rows: Tensor) -> Tensor:
    squared = _squared_distances(rows)
    mean = squared.detach().mean().clamp(min=torch.finfo(squared.dtype).tiny * 16)  # rows that are all equal have distance 0
    return torch.stack([_gaussian(squared, width * mean) for width in WIDTHS]).sum(0)


def _discrepancy(kernel: Tensor, count: int, *, linear: bool = False) -> Tensor:
    """Return the estimate of a discrepancy plus ``2 / (n - 1)``, from the kernel over ``count`` rows of the source, then the target's."""
    own, other, across = kernel[:count, :count], kernel[count:, count:], kernel[:count, count:]
    if linear:
        place = torch.arange(count, device=kernel.device)
        following = (place + 1) % count
        crossed = across[place, following] + across[following, place]
        return (own[place, following] + other[place, following] - crossed).mean() + 2 / (count - 1)
    return _off_diagonal_mean(own) + _off_diagonal_mean(other) - 2 * across.mean() + 2 / (count - 1)


def _off_diagonal_mean(kernel: Tensor) -> Tensor:
    count = len(kernel)
    return (kernel.sum() - kernel.trace()) / (count * (count - 1))
