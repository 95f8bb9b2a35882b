"""Split conformal prediction: sets of classes, and intervals of numbers, that hold the truth as often as was asked.

One class per sample has the sets of the least ambiguous classifier (LAC, Sadinle, Lei and Wasserman 2019): all classes above a
probability. Several labels have the same cut-off by conformal risk control (Angelopoulos et al. 2022), with the share of a
sample's labels that are missed as its risk; of one label that is LAC. A regression has intervals of equal width.
"""

from __future__ import annotations

import math

import numpy as np

from zoo.errors import OptionError
from zoo.tasks.task import Task
from zoo.tasks.thresholds import USUAL
from zoo.trust.outcome import Array, Outcome


def least_samples(level: float) -> int:
    """Return how many held-out samples a level needs: n >= 1 / (1 - level) - 1."""
    return math.ceil(round(level / (1 - level), 6))


def check_level(level: float, samples: int) -> float:
    """Return a level of sets that so many held-out samples can give.

    Raises:
        OptionError: If it is outside (0, 1), or needs more samples; with the number.
    """
    if isinstance(level, bool) or not isinstance(level, int | float) or not 0 < level < 1:
        raise OptionError(f"sets is {level!r}; it is how often a set holds the truth, in (0, 1), such as 0.9")
    if samples < (needed := least_samples(level)):
        raise OptionError(
            f"sets of {level:g} need {needed} samples that the model was calibrated on, and there were {samples}; "
            f"calibrate on more, or ask for at most {samples / (samples + 1):.3g}"
        )
    return float(level)


def conformal_scores(outcome: Outcome) -> tuple[Array, Array]:
    """Return how unlikely each true label is, and the share of its sample's labels that it stands for.

    Returns:
        Scores and weights ``(m,)``, one per true label; of a regression absolute errors ``(n, outputs)`` and weights ``(n,)`` of 1.
    """
    if outcome.probabilities is None:
        return np.abs(outcome.logits - outcome.targets), np.ones(len(outcome.logits))
    truth = true_labels(outcome)
    rows, labels = np.nonzero(truth)
    return 1 - outcome.probabilities[rows, labels], 1 / truth.sum(1)[rows]


def true_labels(outcome: Outcome) -> Array:
    """Return which labels or classes each sample has, bool ``(n, outputs)``; a missing one counts as none."""
    if outcome.targets.ndim == 1:
        return np.eye(outcome.logits.shape[1], dtype=bool)[outcome.targets]
    return np.asarray(np.nan_to_num(outcome.targets) > USUAL)


def labelled(weights: Array) -> int:
    """Return the number of samples that have a label, by the weights of ``conformal_scores``; only these tell what is missed."""
    return round(float(weights.sum()))


def cut_off(scores: Array, weights: Array, level: float) -> float:
    """Return the score up to which labels belong to a set of this level.

    The smallest score q for which labels beyond it weigh at most ``(1 - level) * (n + 1) - 1`` of n samples that have a label; for one
    label per sample the ``ceil(level * (n + 1))``-th smallest.

    Args:
        scores: ``(m,)``.
        weights: ``(m,)``.
        level: As ``check_level`` takes it.
    """
    order = np.argsort(scores, kind="stable")
    ordered = scores[order]
    beyond = weights.sum() - np.cumsum(weights[order])
    fits = np.flatnonzero(beyond <= (1 - level) * (labelled(weights) + 1) - 1 + 1e-9)
    return float(ordered[fits[0]]) if len(fits) else float(ordered[-1]) if len(ordered) else 1.0


def half_widths(scores: Array, level: float) -> Array:
    """Return half the width of the interval of each output: ``(outputs,)``."""
    return np.asarray([cut_off(column, np.ones(len(column)), level) for column in scores.T])


def sets_of(task: Task, probabilities: Array, cut: float) -> Array:
    """Return which classes belong to each set, bool ``(n, outputs)``; of one class per sample the likeliest always does."""
    chosen = 1 - probabilities <= cut
    if task.exclusive and len(chosen):
        chosen[np.arange(len(chosen)), probabilities.argmax(1)] = True
    return np.asarray(chosen)


def measured(chosen: Array, outcome: Outcome) -> dict[str, float]:
    """Return the ``coverage`` of sets, the mean share of each sample's true labels inside, and their mean ``set_size``."""
    truth = true_labels(outcome)
    some = truth.any(1)
    found = {"coverage": float(((chosen & truth)[some].sum(1) / truth[some].sum(1)).mean())} if some.any() else {}
    return found | {"set_size": float(chosen.sum(1).mean())}


def measured_intervals(half: Array, outcome: Outcome) -> dict[str, float]:
    """Return the ``coverage`` of intervals and their mean ``interval_width``, over all outputs."""
    inside = np.abs(outcome.logits - outcome.targets) <= half
    return {"coverage": float(inside.mean()), "interval_width": float(2 * half.mean())}
