"""Metrics of one class per sample, for many rows of sample weights at once; the formulas are scikit-learn's.

A function takes what was predicted and weights ``(draws, n)``, how often each sample counts, and returns ``(draws,)``, NaN where
the data leave the metric undefined.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from zoo.tasks.scores import mean, precision, ranked
from zoo.trust.outcome import Array, Outcome

BINS = 15  # of the calibration error, as in Guo et al. 2017


def micro_f1(outcome: Outcome, w: Array) -> Array:
    """Return the F1 over all samples, which for one class per sample is the accuracy."""
    return np.asarray(w @ outcome.right / w.sum(1))


def weighted_f1(outcome: Outcome, w: Array) -> Array:
    """Return the F1 of each class, averaged by its number of samples."""
    truth, named, right = _marginals(outcome, w)
    with np.errstate(invalid="ignore"):
        f1 = np.nan_to_num(2 * right / (truth + named))
    return np.asarray((f1 * truth).sum(1) / truth.sum(1))


def average_precision(outcome: Outcome, w: Array) -> Array:
    """Return the area under the precision-recall curve, of two classes of the second, else the mean over the classes that occur."""
    assert outcome.probabilities is not None, "classes have probabilities"
    classes = outcome.logits.shape[1]
    if classes == 2:
        return precision(outcome.logits[:, 1] - outcome.logits[:, 0], outcome.targets == 1, w)
    return mean(np.stack([precision(outcome.probabilities[:, k], outcome.targets == k, w) for k in range(classes)], 1))


def kappa(outcome: Outcome, w: Array) -> Array:
    """Return Cohen's kappa."""
    truth, named, right = _marginals(outcome, w)
    total = truth.sum(1)
    chance = (truth * named).sum(1) / total**2
    return np.asarray((right.sum(1) / total - chance) / (1 - chance))


def quadratic_kappa(outcome: Outcome, w: Array) -> Array:
    """Return Cohen's kappa with squared differences of the classes' numbers as weights."""
    truth, named = outcome.targets.astype(np.float64), outcome.decisions.astype(np.float64)
    total = w.sum(1)
    by_chance = w @ truth**2 - 2 * (w @ truth) * (w @ named) / total + w @ named**2
    return np.asarray(1 - w @ (truth - named) ** 2 / by_chance)


def mcc(outcome: Outcome, w: Array) -> Array:
    """Return the Matthews correlation coefficient of any number of classes (Gorodkin 2004); 0 where one class alone is named or true."""
    truth, named, right = _marginals(outcome, w)
    total = truth.sum(1)
    spread = (total**2 - (truth**2).sum(1)) * (total**2 - (named**2).sum(1))
    shared = right.sum(1) * total - (truth * named).sum(1)
    return np.asarray(np.where(spread > 0, shared / np.sqrt(np.where(spread > 0, spread, 1)), 0.0))


def brier(outcome: Outcome, w: Array) -> Array:
    """Return the mean squared error of the probabilities: of two classes that of the second, else the sum over the classes."""
    assert outcome.probabilities is not None, "classes have probabilities"
    errors = (outcome.probabilities - np.eye(outcome.logits.shape[1])[outcome.targets]) ** 2
    return np.asarray(w @ (errors[:, 1] if errors.shape[1] == 2 else errors.sum(1)) / w.sum(1))


def calibration_error(outcome: Outcome, w: Array) -> Array:
    """Return the expected calibration error of the predicted class's probability, in 15 bins of equal width (Guo et al. 2017)."""
    return binned_error(outcome.confidence, outcome.right, w)


def binned_error(shares: Array, happened: Array, w: Array) -> Array:
    """Return the mean distance of probabilities ``(n,)`` from the frequency of what they are of, over bins of equal width."""
    bins = np.clip(np.ceil(shares * BINS).astype(np.int64) - 1, 0, BINS - 1)  # each bin includes its upper end
    return np.asarray(np.abs(w @ (np.eye(BINS)[bins] * (happened - shares)[:, None])).sum(1) / w.sum(1))


def risk_coverage_area(outcome: Outcome, w: Array) -> Array:
    """Return the area under the risk-coverage curve (Geifman and El-Yaniv 2017): the mean error of the most confident share."""
    order = np.argsort(-outcome.confidence, kind="stable")
    ends = np.flatnonzero(np.append(np.diff(outcome.confidence[order]) != 0, True))  # equal confidences are kept together
    kept, wrong = (np.cumsum(part[:, order], 1)[:, ends] for part in (w, w * ~outcome.right))
    with np.errstate(invalid="ignore"):
        risk = np.nan_to_num(wrong / kept)
    return np.asarray((risk * np.diff(kept, axis=1, prepend=0)).sum(1) / kept[:, -1])


def top(number: int) -> Callable[[Outcome, Array], Array]:
    """Return the metric whether the true class is among the ``number`` likeliest ones; of equal ones the first count."""

    def top_accuracy(outcome: Outcome, w: Array) -> Array:
        own = np.take_along_axis(outcome.logits, outcome.targets[:, None], 1)
        earlier = np.arange(outcome.logits.shape[1]) < outcome.targets[:, None]
        before = ((outcome.logits > own) | ((outcome.logits == own) & earlier)).sum(1)
        return np.asarray(w @ (before < number) / w.sum(1))

    return top_accuracy


def specificity_at(sensitivity: float) -> Callable[[Outcome, Array], Array]:
    """Return the metric of the highest specificity of any threshold whose sensitivity is at least the given one, in [0, 1].

    Of two classes the second is the positive one; several classes are averaged, each against the rest.
    """

    def specificity(outcome: Outcome, w: Array) -> Array:
        scores, truth, only = _each_against_the_rest(outcome)
        # With scores and truth turned round, negatives are what is found and positives what is spared.
        return ranked(-scores, ~truth, w, sensitivity, only=only)["sensitivity_at_specificity"]

    return specificity


def sensitivity_at(specificity: float) -> Callable[[Outcome, Array], Array]:
    """Return the metric of the highest sensitivity of any threshold whose specificity is at least the given one; see ``specificity_at``."""

    def sensitivity(outcome: Outcome, w: Array) -> Array:
        scores, truth, only = _each_against_the_rest(outcome)
        return ranked(scores, truth, w, specificity, only=only)["sensitivity_at_specificity"]

    return sensitivity


def _each_against_the_rest(outcome: Outcome) -> tuple[Array, Array, Sequence[int]]:
    """Return scores and truth, ``(samples, classes)``, and the classes to average over: of two the second alone."""
    assert outcome.probabilities is not None, "classes have probabilities"
    classes = outcome.logits.shape[1]
    truth = np.eye(classes, dtype=bool)[outcome.targets]
    if classes == 2:
        return outcome.logits - outcome.logits[:, ::-1], truth, [1]
    return outcome.probabilities, truth, range(classes)


def _marginals(outcome: Outcome, w: Array) -> tuple[Array, Array, Array]:
    """Return how often each class is true, predicted and both: ``(draws, classes)``."""
    eye = np.eye(outcome.logits.shape[1])
    truth, named = eye[outcome.targets], eye[outcome.decisions]
    return w @ truth, w @ named, w @ (truth * named)
