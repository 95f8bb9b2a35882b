"""Metrics of several labels per sample, for many rows of sample weights at once; a missing label counts in none.

Arguments and results as in ``zoo.trust.class_metrics``.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from zoo.tasks.scores import ranked
from zoo.tasks.thresholds import USUAL
from zoo.trust.class_metrics import binned_error
from zoo.trust.outcome import Array, Outcome


def weighted_f1(outcome: Outcome, w: Array) -> Array:
    """Return the F1 of each label, averaged by its number of positives."""
    known, truth = _known(outcome)
    named = outcome.decisions & known
    support = w @ truth
    with np.errstate(invalid="ignore"):
        f1 = np.nan_to_num(2 * (w @ (truth & named)) / (support + w @ named))
    return np.asarray((f1 * support).sum(1) / support.sum(1))


def exact_match(outcome: Outcome, w: Array) -> Array:
    """Return the share of samples all of whose known labels are right."""
    known, truth = _known(outcome)
    counted = w * known.any(1)
    return np.asarray(counted @ ((outcome.decisions == truth) | ~known).all(1) / counted.sum(1))


def label_accuracy(outcome: Outcome, w: Array) -> Array:
    """Return the share of known labels that are right, which is 1 minus the Hamming loss."""
    known, truth = _known(outcome)
    return np.asarray(w @ ((outcome.decisions == truth) & known).sum(1) / (w @ known.sum(1)))


def brier(outcome: Outcome, w: Array) -> Array:
    """Return the mean squared error of the probabilities of all known labels."""
    assert outcome.probabilities is not None, "labels have probabilities"
    known, truth = _known(outcome)
    return np.asarray(w @ np.where(known, (outcome.probabilities - truth) ** 2, 0.0).sum(1) / (w @ known.sum(1)))


def calibration_error(outcome: Outcome, w: Array) -> Array:
    """Return the expected calibration error of the probabilities of all known labels, in 15 bins of equal width."""
    assert outcome.probabilities is not None, "labels have probabilities"
    known, truth = _known(outcome)
    rows = np.nonzero(known)[0]
    return binned_error(outcome.probabilities[known], truth[known], w[:, rows])


def specificity_at(sensitivity: float) -> Callable[[Outcome, Array], Array]:
    """Return the metric of the highest specificity of any threshold whose sensitivity is at least the given one, a mean over labels."""

    def specificity(outcome: Outcome, w: Array) -> Array:
        known, truth = _known(outcome)
        only = range(truth.shape[1])
        return ranked(-outcome.logits, ~truth, w, sensitivity, only=only, known=known)["sensitivity_at_specificity"]

    return specificity


def sensitivity_at(specificity: float) -> Callable[[Outcome, Array], Array]:
    """Return the metric of the highest sensitivity of any threshold whose specificity is at least the given one, a mean over labels."""

    def sensitivity(outcome: Outcome, w: Array) -> Array:
        known, truth = _known(outcome)
        return ranked(outcome.logits, truth, w, specificity, only=range(truth.shape[1]), known=known)["sensitivity_at_specificity"]

    return sensitivity


def _known(outcome: Outcome) -> tuple[Array, Array]:
    known = ~np.isnan(outcome.targets)
    return known, (np.nan_to_num(outcome.targets) > USUAL) & known
