"""Sets hold the truth as often as was asked, and are those of the k-th smallest score and of MAPIE."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from zoo.errors import OptionError
from zoo.tasks.find import BUILTIN
from zoo.tasks.scores import softmax
from zoo.trust.calibrated import calibrated
from zoo.trust.conformal import check_level, conformal_scores, cut_off, half_widths, least_samples, sets_of
from zoo.trust.outcome import outcome_of

SINGLE, MULTI, NUMBERS = (BUILTIN[name] for name in ("single-label", "multi-label", "regression"))


def draw(task: str, n: int, rng: Any) -> tuple[Any, Any]:
    """Outputs of a model that is often wrong, and the truth."""
    if task == "single-label":
        targets = rng.integers(0, 4, n)
        return rng.normal(size=(n, 4)) + 1.2 * np.eye(4)[targets], targets
    if task == "multi-label":
        labels = (rng.random((n, 4)) < 0.3).astype(float)
        return rng.normal(size=(n, 4)) + 2 * labels - 1, labels
    outputs = rng.normal(size=(n, 2))
    return outputs, outputs + rng.normal(size=(n, 2)) * [1, 3]


def test_the_cut_off_of_one_label_is_the_quantile_of_split_conformal_prediction() -> None:
    rng = np.random.default_rng(0)
    for n in (9, 10, 57, 100):
        scores = np.round(rng.random(n), 2)  # some are equal
        for level in (0.5, 0.8, 0.9):
            rank = int(np.ceil(round(level * (n + 1), 9)))
            assert cut_off(scores, np.ones(n), level) == np.sort(scores)[rank - 1]


def test_too_few_samples_are_an_error_that_says_how_many_are_needed() -> None:
    assert [least_samples(level) for level in (0.5, 0.8, 0.9, 0.95, 0.99)] == [1, 4, 9, 19, 99]
    assert check_level(0.9, 9) == 0.9
    with pytest.raises(OptionError, match=r"sets of 0.95 need 19 samples.*there were 18.*at most 0.947"):
        check_level(0.95, 18)
    for odd in (0, 1, 1.5, -0.1, "0.9", True, float("nan")):
        with pytest.raises(OptionError, match="in \\(0, 1\\)"):
            check_level(odd, 1000)  # type: ignore[arg-type]


@pytest.mark.parametrize("task", ["single-label", "multi-label", "regression"])
def test_sets_hold_the_truth_as_often_as_was_asked(task: str) -> None:
    kind, rng, found = BUILTIN[task], np.random.default_rng(0), []
    for _ in range(60):
        logits, targets = draw(task, 99, rng)
        made = calibrated(kind, logits, targets, np.zeros((99, 1)), head="")
        fresh, truth = draw(task, 500, rng)
        found.append(made.measured(kind, outcome_of(kind, made.logits(fresh), truth), 0.8)["coverage"])
    # Over many calibrations the mean is at least the level, and hardly above it.
    assert np.mean(found) == pytest.approx(0.8 + 0.005, abs=0.012)


def test_of_one_label_per_sample_risk_control_is_the_least_ambiguous_classifier() -> None:
    logits, targets = draw("single-label", 80, np.random.default_rng(3))
    one_hot, p = np.eye(4)[targets], softmax(logits)
    as_labels = conformal_scores(outcome_of(MULTI, np.log(p / (1 - p)), one_hot))
    as_class = conformal_scores(outcome_of(SINGLE, logits, targets))
    assert np.allclose(as_labels[0], as_class[0])
    assert np.array_equal(as_labels[1], as_class[1])


def test_a_label_that_is_missing_asks_for_nothing() -> None:
    logits, labels = draw("multi-label", 50, np.random.default_rng(0))
    labels[0] = np.nan
    labels[1] = 0
    scores, weights = conformal_scores(outcome_of(MULTI, logits, labels))
    assert len(scores) == (labels[2:] > 0).sum()
    assert weights.sum() == pytest.approx((labels[2:] > 0).any(1).sum())  # each sample counts once
    made = calibrated(MULTI, logits, labels, np.zeros((50, 1)), head="")
    assert 0.9 <= made.measured(MULTI, outcome_of(MULTI, made.logits(logits), labels), 0.9)["coverage"] <= 1


def test_a_set_of_one_class_per_sample_is_never_empty_and_has_the_likeliest() -> None:
    probabilities = np.array([[0.4, 0.35, 0.25], [0.9, 0.05, 0.05]])
    assert sets_of(SINGLE, probabilities, 0.2).tolist() == [[True, False, False]] * 2
    assert sets_of(MULTI, probabilities, 0.2).tolist() == [[False] * 3, [True, False, False]]
    assert sets_of(SINGLE, probabilities, 0.7).tolist() == [[True, True, False], [True, False, False]]


def test_each_output_of_a_regression_has_a_width_of_its_own() -> None:
    outputs, targets = draw("regression", 200, np.random.default_rng(0))
    scores, _ = conformal_scores(outcome_of(NUMBERS, outputs, targets))
    half = half_widths(scores, 0.9)
    assert (scores <= half).mean(0) == pytest.approx([0.9, 0.9], abs=0.01)
    assert half[1] / half[0] == pytest.approx(3, rel=0.2)


def test_sets_and_intervals_are_those_of_mapie() -> None:
    pytest.importorskip("mapie")
    from mapie.classification import SplitConformalClassifier
    from mapie.regression import SplitConformalRegressor
    from sklearn.base import BaseEstimator, ClassifierMixin, RegressorMixin

    class Given(ClassifierMixin, BaseEstimator):  # type: ignore[misc]
        classes_ = np.arange(4)

        def fit(self, x: Any, y: Any) -> Any:
            return self

        def predict_proba(self, x: Any) -> Any:
            return softmax(x)

        def predict(self, x: Any) -> Any:
            return x.argmax(1)

        def __sklearn_is_fitted__(self) -> bool:
            return True

    class Number(RegressorMixin, BaseEstimator):  # type: ignore[misc]
        fitted_ = True

        def fit(self, x: Any, y: Any) -> Any:
            return self

        def predict(self, x: Any) -> Any:
            return x[:, 0]

        def __sklearn_is_fitted__(self) -> bool:
            return True

    rng = np.random.default_rng(0)
    (logits, targets), (fresh, _) = draw("single-label", 150, rng), draw("single-label", 80, rng)
    theirs = SplitConformalClassifier(Given(), confidence_level=0.8, conformity_score="lac", prefit=True)
    _, members = theirs.conformalize(logits, targets).predict_set(fresh)
    scores, weights = conformal_scores(outcome_of(SINGLE, logits, targets))
    cut = cut_off(scores, weights, 0.8)
    assert np.array_equal(1 - softmax(fresh) <= cut, members[:, :, 0])
    outputs, numbers = draw("regression", 150, rng)
    _, ends = (
        SplitConformalRegressor(Number(), confidence_level=0.8, prefit=True)
        .conformalize(outputs, numbers[:, 0])
        .predict_interval(fresh[:, :2])
    )
    half = half_widths(np.abs(outputs[:, :1] - numbers[:, :1]), 0.8)
    assert np.allclose(ends[:, :, 0], np.stack([fresh[:, 0] - half, fresh[:, 0] + half], 1))
