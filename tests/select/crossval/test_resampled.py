"""The corrected resampled t of Nadeau and Bengio, against values computed by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest

from zoo.select.crossval.resampled import holm, paired_test, summarize
from zoo.trust.metric_table import ends_of

scipy_stats = pytest.importorskip("scipy.stats")


def test_the_paired_test_is_that_of_nadeau_and_bengio() -> None:
    """Differences 0.02, 0.04, 0.00, 0.03, 0.01: mean 0.02, s² = 0.00025; 5 folds: (1/5 + 1/4) s² = 0.0001125, t = 0.02 / 0.0106066."""
    first, second = [0.92, 0.94, 0.90, 0.93, 0.91], [0.90, 0.90, 0.90, 0.90, 0.90]
    found = paired_test(first, second, 0.25)
    assert found.difference == pytest.approx(0.02)
    assert found.t == pytest.approx(1.885618, abs=1e-6)
    assert found.p == pytest.approx(2 * scipy_stats.t.sf(1.885618083, 4))
    # Four degrees of freedom have a closed form: F(t) = 1/2 + 3/8 t / √(1 + t²/4) (1 - t² / (12 (1 + t²/4))) = 0.933790.
    assert found.p == pytest.approx(2 * (1 - 0.933790), abs=2e-6)
    half = 2.776445105 * math.sqrt(0.0001125)
    assert (found.low, found.high) == (pytest.approx(0.02 - half), pytest.approx(0.02 + half))
    naive = scipy_stats.ttest_rel(first, second)
    assert naive.pvalue < 0.05 < found.p, "the plain test would call this a difference"
    uncorrected = paired_test(first, second, 0.0)
    assert (uncorrected.t, uncorrected.p) == (pytest.approx(naive.statistic), pytest.approx(naive.pvalue))


def test_repeats_count_as_further_folds_and_do_not_shrink_the_interval_to_nothing() -> None:
    scores = np.tile([0.8, 0.9, 0.85, 0.9, 0.8], 2000)
    found = summarize(scores.tolist(), 0.25)
    assert found.mean == pytest.approx(0.85)
    assert found.high - found.mean == pytest.approx(1.96 * math.sqrt(0.25) * scores.std(), rel=1e-2)


def test_undefined_scores_are_left_out_and_single_ones_have_no_interval() -> None:
    found = summarize([0.5, math.nan, 0.7], 0.25)
    assert (found.mean, found.std, found.folds) == (pytest.approx(0.6), pytest.approx(0.2 / math.sqrt(2)), 2)
    assert math.isnan(summarize([0.5], 0.25).low)
    assert math.isnan(summarize([math.nan], 0.25).mean)
    assert paired_test([0.5, math.nan, 0.7], [0.5, 0.6, 0.6], 0.25).folds == 2


def test_two_scores_have_no_interval_as_it_would_reach_past_all_accuracies_and_repeats_give_one() -> None:
    assert scipy_stats.t.ppf(0.975, 1) * math.sqrt(1 / 2 + 1) == pytest.approx(15.56, abs=0.01), "half the width in standard deviations"
    two = summarize([0.8, 0.9], 1.0)
    assert math.isnan(two.low)
    assert math.isnan(two.high)
    five_by_two = summarize([0.8, 0.9, 0.84, 0.86, 0.82, 0.9, 0.85, 0.85, 0.83, 0.87], 1.0)
    assert 0.7 < five_by_two.low < five_by_two.mean < five_by_two.high < 1.0


@pytest.mark.parametrize(
    ("metric", "low", "high"),
    [
        ("accuracy", 0.0, 1.0),
        ("kind/top_5", 0.0, 1.0),
        ("mcc", -1.0, 1.0),
        ("loss", 0.0, math.inf),
        ("r2", -math.inf, 1.0),
        ("mine", -math.inf, math.inf),
    ],
)
def test_an_interval_ends_where_the_metric_does(metric: str, low: float, high: float) -> None:
    ends = ends_of(metric)
    assert ends == (low, high)
    scores = [0.1, 0.9, 0.95]
    free, found = summarize(scores, 0.5), summarize(scores, 0.5, ends=ends)
    assert free.low < -0.2 < 1.2 < free.high
    assert (found.low, found.high) == (max(free.low, low), min(free.high, high))
    scores, others, widest = [1.0, 0.9, 0.1], [0.0, 0.1, 0.2], high - low
    free_pair, pair = paired_test(scores, others, 0.5), paired_test(scores, others, 0.5, ends=ends)
    assert free_pair.high > 1.5
    assert (pair.low, pair.high) == (max(free_pair.low, -widest), min(free_pair.high, widest))


def test_an_own_metric_with_the_name_of_another_task_s_has_no_ends() -> None:
    percent, others = [71.0, 80.0, 84.0], [60.0, 81.0, 70.0]
    assert summarize(percent, 0.5, ends=ends_of("f1")) == summarize(percent, 0.5)
    assert paired_test(percent, others, 0.5, ends=ends_of("f1")) == paired_test(percent, others, 0.5)


def test_equal_scores_have_a_p_of_one_and_a_constant_difference_one_of_zero() -> None:
    assert paired_test([0.5, 0.6], [0.5, 0.6], 0.25).p == 1.0
    assert paired_test([0.75, 0.5], [0.5, 0.25], 0.25).p == 0.0


def test_holm_multiplies_the_smallest_by_all_and_keeps_the_order() -> None:
    assert holm([0.04, 0.01, 0.03]) == pytest.approx([0.06, 0.03, 0.06])
    assert holm([0.6, math.nan, 0.9])[0] == 1.0
