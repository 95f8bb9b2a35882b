"""Metrics of a regression, for many rows of sample weights at once; means over the outputs where there are several.

Arguments and results as in ``zoo.trust.class_metrics``.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from zoo.trust.outcome import Array, Outcome


def mse(outcome: Outcome, w: Array) -> Array:
    """Return the mean squared error."""
    return np.asarray(w @ ((outcome.logits - outcome.targets) ** 2).mean(1) / w.sum(1))


def mape(outcome: Outcome, w: Array) -> Array:
    """Return the mean absolute error as a share of the target; undefined where a target is 0."""
    if not outcome.targets.all():
        return np.full(len(w), np.nan)
    return np.asarray(w @ np.abs((outcome.logits - outcome.targets) / outcome.targets).mean(1) / w.sum(1))


def max_error(outcome: Outcome, w: Array) -> Array:
    """Return the largest absolute error."""
    largest = np.abs(outcome.logits - outcome.targets).max(1)
    return np.asarray(np.where(w > 0, largest, 0.0).max(1))


def median_error(outcome: Outcome, w: Array) -> Array:
    """Return the median of the absolute errors."""
    return _over_outputs(lambda output, target: _median(np.abs(output - target), w), outcome)


def explained_variance(outcome: Outcome, w: Array) -> Array:
    """Return 1 minus the variance of the errors as a share of that of the targets: r2 without the mean error."""

    def share(output: Array, target: Array) -> Array:
        spread = _variance(target, w)
        return np.asarray(1 - _variance(output - target, w) / np.where(spread > 0, spread, np.nan))

    return _over_outputs(share, outcome)


def pearson(outcome: Outcome, w: Array) -> Array:
    """Return Pearson's correlation of predictions and targets."""
    return _over_outputs(lambda output, target: _correlation(np.tile(output, (len(w), 1)), np.tile(target, (len(w), 1)), w), outcome)


def spearman(outcome: Outcome, w: Array) -> Array:
    """Return Spearman's correlation of predictions and targets: that of their ranks."""
    return _over_outputs(lambda output, target: _correlation(_ranks(output, w), _ranks(target, w), w), outcome)


def _over_outputs(metric: Callable[[Array, Array], Array], outcome: Outcome) -> Array:
    return np.asarray(np.mean([metric(output, target) for output, target in zip(outcome.logits.T, outcome.targets.T, strict=True)], 0))


def _median(values: Array, w: Array) -> Array:
    order = np.argsort(values)
    counts = np.cumsum(w[:, order], 1)
    half = counts[:, -1:] / 2
    return np.asarray((values[order][(counts >= half).argmax(1)] + values[order][(counts > half).argmax(1)]) / 2)


def _variance(values: Array, w: Array) -> Array:
    centred = values - values.mean()  # so that the difference below loses no digits
    return np.asarray(w @ centred**2 / w.sum(1) - (w @ centred / w.sum(1)) ** 2)


def _correlation(one: Array, other: Array, w: Array) -> Array:
    """Return the weighted correlation of two arrays ``(draws, n)``, NaN where one of them is constant."""
    shares = w / w.sum(1, keepdims=True)
    rounding = [1e-12 * np.abs(part).max(1, initial=0) for part in (one, other)]  # of the values as they are, which centring makes small
    one, other = (part - (shares * part).sum(1, keepdims=True) for part in (one, other))
    spreads = [np.sqrt((shares * part**2).sum(1)) for part in (one, other)]
    varies = np.all([spread > least for spread, least in zip(spreads, rounding, strict=True)], 0)
    return np.asarray((shares * one * other).sum(1) / np.where(varies, spreads[0] * spreads[1], np.nan))


def _ranks(values: Array, w: Array) -> Array:
    """Return the rank of each value among samples that count ``w`` times, equal ones their mean rank: ``(draws, n)``."""
    place = np.unique(values, return_inverse=True)[1]
    counts = np.stack([np.bincount(place, row) for row in w])
    return np.asarray((np.cumsum(counts, 1) - counts / 2 + 0.5)[:, place])
