"""Intervals and tests of scores from overlapping training sets (Nadeau and Bengio 2003). No torch here.

The scores of k folds are not independent, as any two training sets share most of their samples. Their variance s² / n is too small;
the corrected one is (1 / n + test / train) s², with n scores from held-out sets of ``test`` and training sets of ``train`` samples.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from zoo.engine.inference.confidence_intervals import LEVEL

Array = npt.NDArray[np.float64]
# Scores below which a mean has no interval: with two, t has one degree of freedom and its quantile is 12.7, so the interval would reach
# 15.6 standard deviations to each side, which says nothing of an accuracy. Repeats are the way out (5 x 2 folds, Dietterich 1998).
LEAST = 3
ANY = (-math.inf, math.inf)


class Summary(NamedTuple):
    """The mean of scores with its interval.

    Attributes:
        mean: Mean of the scores in which the metric is defined; NaN if there are none.
        low: Lower end of the interval of the mean, by the corrected resampled t; NaN with fewer than ``LEAST`` scores.
        high: Upper end.
        std: Standard deviation of the scores; NaN with fewer than two.
        folds: Number of these scores.
    """

    mean: float
    low: float
    high: float
    std: float
    folds: int


class PairedTest(NamedTuple):
    """The corrected resampled t-test of paired scores.

    Attributes:
        difference: Mean of the first scores minus the second.
        low: Lower end of its interval.
        high: Upper end.
        t: The statistic.
        p: Two-sided p-value.
        folds: Number of pairs in which both are defined.
    """

    difference: float
    low: float
    high: float
    t: float
    p: float
    folds: int


def summarize(scores: Sequence[float], ratio: float, *, level: float = LEVEL, ends: tuple[float, float] = ANY) -> Summary:
    """Return the mean of scores with its interval.

    Args:
        scores: One per fold; NaN where a fold leaves the metric undefined.
        ratio: Held-out samples per training sample, such as 1/4 for 5 folds.
        level: Share that the interval covers.
        ends: The least and the largest value that there is, beyond which the interval does not go.
    """
    known = _known(scores)
    if not len(known):
        return Summary(math.nan, math.nan, math.nan, math.nan, 0)
    mean = float(known.mean())
    std = float(known.std(ddof=1)) if len(known) > 1 else math.nan
    if len(known) < LEAST:
        return Summary(mean, math.nan, math.nan, std, len(known))
    half, (least, most) = _quantile(len(known), level) * _error(known, ratio), _within(ends, known)
    return Summary(mean, max(mean - half, least), min(mean + half, most), std, len(known))


def paired_test(
    first: Sequence[float], second: Sequence[float], ratio: float, *, level: float = LEVEL, ends: tuple[float, float] = ANY
) -> PairedTest:
    """Test whether two sets of scores on the same folds differ in their mean.

    Args:
        first: Scores, one per fold.
        second: Scores of the same folds.
        ratio: Held-out samples per training sample.
        level: Share that the interval of the difference covers.
        ends: The least and the largest value of a score; the interval does not go beyond their difference.
    """
    gains = _known(np.asarray(first, dtype=np.float64) - np.asarray(second, dtype=np.float64))
    if len(gains) < 2:
        difference = float(gains.mean()) if len(gains) else math.nan
        return PairedTest(difference, math.nan, math.nan, math.nan, math.nan, len(gains))
    mean, error = float(gains.mean()), _error(gains, ratio)
    half = _quantile(len(gains), level) * error
    if error == 0.0:
        return PairedTest(mean, mean, mean, math.copysign(math.inf, mean) if mean else 0.0, 0.0 if mean else 1.0, len(gains))
    from scipy.special import stdtr  # type: ignore[import-untyped]  # ships no types

    t = mean / error
    least, most = _within(ends, _known([*first, *second]))
    widest = most - least
    return PairedTest(mean, max(mean - half, -widest), min(mean + half, widest), t, 2.0 * float(stdtr(len(gains) - 1, -abs(t))), len(gains))


def _within(ends: tuple[float, float], scores: Array) -> tuple[float, float]:
    """Return the ends of a metric; infinite ones where a score is beyond them, as that is one of the user's own with the same name."""
    return ends if ((scores >= ends[0]) & (scores <= ends[1])).all() else ANY


def holm(values: Sequence[float]) -> list[float]:
    """Return p-values adjusted for their number (Holm 1979); NaN stays."""
    known = sorted((value, place) for place, value in enumerate(values) if not math.isnan(value))
    adjusted, highest = list(values), 0.0
    for rank, (value, place) in enumerate(known):
        highest = max(highest, min(1.0, value * (len(known) - rank)))
        adjusted[place] = highest
    return adjusted


def _known(scores: Sequence[float] | Array) -> Array:
    values = np.asarray(scores, dtype=np.float64)
    return values[np.isfinite(values)]


def _error(values: Array, ratio: float) -> float:
    """Return the corrected standard error of a mean."""
    return math.sqrt((1.0 / len(values) + ratio) * float(values.var(ddof=1)))


def _quantile(count: int, level: float) -> float:
    from scipy.special import stdtrit

    return float(stdtrit(count - 1, (1.0 + level) / 2.0))
